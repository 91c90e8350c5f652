//! stub
use super::steps::Transaction;
use crate::base::{Lsn, Partition};
use crate::buffer::Operation;
use crate::lake::error::LakeError;
use crate::lake::patience::Patience;
use crate::lake::table::LakeTable;
use crate::lake::writer::WriterOptions;
use deltalake::arrow::array::RecordBatch;
pub(super) struct OldImages {
    pub(super) kept: Vec<(Partition, RecordBatch, Operation, Transaction)>,
}
impl OldImages {
    pub(super) fn of(_t: &LakeTable, _o: WriterOptions, _p: Patience) -> Self {
        Self { kept: Vec::new() }
    }
    pub(super) async fn keep(
        &mut self,
        p: Partition,
        old: &RecordBatch,
        o: Operation,
        t: &Transaction,
    ) -> Result<(), LakeError> {
        self.kept.push((p, old.clone(), o, *t));
        Ok(())
    }
    pub(super) async fn land(&mut self, _a: Lsn, _p: &Patience) -> Result<(), LakeError> {
        Ok(())
    }
    pub(super) async fn forget(self) {}
    pub(super) async fn close(self) {}
}
