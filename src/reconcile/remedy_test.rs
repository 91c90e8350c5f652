//! Every error of this room, with its remedy.

use super::ReconcileError;
use super::chain::ChainFault;
use crate::base::remedies::{assert_remedies, every_variant};
use crate::base::{DaySet, TableName};
use crate::lake::{FileFault, LakeError};
use crate::source::SourceError;

#[test]
fn every_error_says_what_to_do() {
    let table = || TableName::new("public", "event");
    let slot = || "lakebed".to_owned();
    assert_remedies(&every_variant!(ReconcileError {
        Definite ["public.event", "make it permanent"] Source(SourceError::NotLogged { table: table() });
        Definite ["file:///lake/event", "`lakebed init --snapshot` creates it"]
            Lake(LakeError::Missing { location: "file:///lake/event".to_owned() });
        Transient ["replication slot \"lakebed\"", "start lakebed run and try again"] NotFollowed { slot: slot() };
        Transient ["within 300 s", "replication slot \"lakebed\"", "see its lag in lakebed status and try again"]
            Behind { slot: slot(), seconds: 300 };
        Definite ["public.event stands still", "see lakebed status"] StandsStill { table: table() };
        Transient ["public.event is not copied yet (all)", "lakebed snapshot", "see lakebed status"]
            NotCopied { table: table(), days: DaySet::whole() };
        Definite ["receipt 7 of public.event", "balance them by hand"] OtherColumns { table: table(), sequence: 7 };
        Transient ["public.event", "try again when they are quiet"] NotQuiet { table: table() };
        Definite ["row-level security", "public.event", "BYPASSRLS"] RowSecurity { tables: "public.event".to_owned() };
        Transient ["count of public.event gave way", "tried again later"] GaveWay { table: table() };
        Definite ["receipt 7", "set aside by hand"] ChainForked { sequence: 7 };
        Definite ["receipt 7 was changed", "its copy in the lake"] ChainFault { fault: ChainFault::Changed { sequence: 7 } };
        Definite ["part-1.parquet of file:///lake", "restore the file from a copy"] ReceiptsUnreadable {
            fault: Box::new(FileFault::Missing { location: "file:///lake".to_owned(), path: "part-1.parquet".to_owned() })
        };
        Transient ["columns of public.event have changed", "try again"] Reshaped { table: table() };
        Definite ["not at its end: a file is missing", "run lakebed erase again"]
            Erasure { reason: "a file is missing".to_owned() };
        Definite ["public.leaf of public.event", "detach it"]
            ForeignLeaf { table: table(), partition: TableName::new("public", "leaf") };
    }));
}
