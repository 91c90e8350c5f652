//! The changes of one table that were not yet handed on, and the number that orders them among the table's rows.

use super::change_rows::{ChangeRows, Heading, Marks};
use super::column::Scratch;
use super::refusal::Refusal;
use super::values::Values;
use super::{ChangeBatch, Operation, Transaction};
use crate::base::TableShape;
use deltalake::arrow::error::ArrowError;
use std::collections::VecDeque;
use std::sync::Arc;

/// Arrow's strings have 32-bit offsets: a batch is closed before a column could pass them.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// A closed batch that waits to be taken.
struct Sealed {
    batch: ChangeBatch,
    bytes: usize,
    transaction: u64,
    before: Marks,
}

/// A change that is being added: what it does, and the row that it names.
pub(super) struct Named<'n, V> {
    pub(super) operation: Operation,
    pub(super) by: Transaction,
    pub(super) old_day: Option<i32>,
    pub(super) values: &'n V,
    /// Each value's column.
    pub(super) order: &'n [usize],
}

/// Changes in their order, cut into batches.
#[derive(Default)]
pub(super) struct Changes {
    open: Option<Box<ChangeRows>>,
    sealed: VecDeque<Sealed>,
    /// The next change's ordinal, and the era of a row that comes now.
    next: u32,
    /// The transaction that is arriving has brought a change.
    arriving: bool,
    sealed_bytes: usize,
}

impl Changes {
    /// The era of a row that comes now: how many changes came before it.
    #[inline]
    pub(super) fn era(&self) -> u32 {
        self.next
    }

    /// The era of a row that comes behind the next change; none when there are no more numbers.
    pub(super) fn next_era(&self) -> Option<u32> {
        self.next.checked_add(1)
    }

    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.as_ref().map_or(0, |rows| rows.bytes())
    }

    /// The transaction that was arriving has ended.
    #[inline]
    pub(super) fn end_transaction(&mut self) {
        if self.arriving {
            self.arriving = false;
            self.next = self.next.saturating_add(1);
        }
    }

    /// The numbers begin anew: no row and no change is left that they order.
    pub(super) fn renumber(&mut self) {
        self.next = 0;
    }

    /// Adds a change; it counts once it is [confirmed](Self::confirm), and until then it can be [taken back](Self::retract).
    pub(super) fn add<'a, V: Values<'a>>(
        &mut self,
        shape: &Arc<TableShape>,
        transaction: u64,
        named: &Named<'_, V>,
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let heading = self.heading(named.operation, named.by, named.old_day);
        let rows = self.room(shape, transaction, named.values.len_bytes())?;
        let added = rows.append(heading, named.values, named.order, scratch);
        self.added(added)
    }

    /// The same, for one whose new row has gaps.
    pub(super) fn add_patch<'a, V: Values<'a>>(
        &mut self,
        shape: &Arc<TableShape>,
        transaction: u64,
        named: &Named<'_, V>,
        (new, new_day): (&impl Values<'a>, i32),
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let heading = self.heading(named.operation, named.by, named.old_day);
        let bytes = named.values.len_bytes().saturating_add(new.len_bytes());
        let rows = self.room(shape, transaction, bytes)?;
        let added = rows.append_patch(heading, new_day, named.values, new, named.order, scratch);
        self.added(added)
    }

    /// The same, for one that names no row.
    pub(super) fn add_truncate(
        &mut self,
        shape: &Arc<TableShape>,
        transaction: u64,
        by: Transaction,
    ) -> Result<(), ArrowError> {
        let heading = self.heading(Operation::Truncate, by, None);
        self.open(shape, transaction, 0)?.append_nameless(heading);
        Ok(())
    }

    /// The change that was just added stands; a row that comes now has `era`.
    pub(super) fn confirm(&mut self, era: u32, subxid: Option<u32>) {
        (self.next, self.arriving) = (era, true);
        if let (Some(rows), Some(xid)) = (&mut self.open, subxid) {
            rows.belongs_to(xid);
        }
    }

    /// Takes the change back that was just added.
    pub(super) fn retract(&mut self, added: usize) -> Result<(), ArrowError> {
        if let Some(rows) = &mut self.open {
            rows.retract(added);
        }
        self.seal()
    }

    fn heading(&self, operation: Operation, by: Transaction, old_day: Option<i32>) -> Heading {
        Heading { ordinal: self.next, operation, by, old_day }
    }

    fn added(&mut self, added: Result<usize, Refusal>) -> Result<usize, Refusal> {
        if added.is_err() {
            // Some columns are one value ahead now; closing the batch cuts them.
            self.seal().map_err(Refusal::Arrow)?;
        }
        added
    }

    fn room(&mut self, shape: &Arc<TableShape>, transaction: u64, bytes: usize) -> Result<&mut ChangeRows, Refusal> {
        if bytes > BATCH_BYTES_MAX {
            return Err(Refusal::RowTooLarge { bytes });
        }
        self.open(shape, transaction, bytes).map_err(Refusal::Arrow)
    }

    /// The builders, with room for a change of so many bytes.
    fn open(&mut self, shape: &Arc<TableShape>, transaction: u64, bytes: usize) -> Result<&mut ChangeRows, ArrowError> {
        let held = self.open.as_ref().map_or(0, |rows| rows.bytes());
        if held.saturating_add(bytes) > BATCH_BYTES_MAX {
            self.seal()?;
        }
        let rows = self.open.get_or_insert_with(|| Box::new(ChangeRows::new(shape)));
        rows.enter(transaction);
        Ok(rows)
    }

    /// Closes the open batch, which waits in `sealed` then.
    pub(super) fn seal(&mut self) -> Result<(), ArrowError> {
        let Some(rows) = self.open.take() else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let (bytes, (transaction, before)) = (rows.bytes(), rows.last_transaction());
        self.sealed_bytes += bytes;
        self.sealed.push_back(Sealed { batch: rows.finish()?, bytes, transaction, before });
        Ok(())
    }

    /// The first batch, if it was closed or has reached `bytes`.
    pub(super) fn take_full(&mut self, bytes: usize) -> Result<Option<ChangeBatch>, ArrowError> {
        if self.sealed.is_empty() && self.open.as_ref().is_some_and(|rows| rows.bytes() >= bytes) {
            self.seal()?;
        }
        let Some(Sealed { batch, bytes, .. }) = self.sealed.pop_front() else { return Ok(None) };
        self.sealed_bytes = self.sealed_bytes.saturating_sub(bytes);
        Ok(Some(batch))
    }

    /// Everything: the changes of transactions before this one, and its own.
    pub(super) fn cut(&mut self, transaction: u64) -> Result<(Vec<ChangeBatch>, Vec<ChangeBatch>), ArrowError> {
        self.seal()?;
        self.sealed_bytes = 0;
        let (mut ended, mut arriving) = (Vec::new(), Vec::new());
        for Sealed { batch, transaction: last, before, .. } in self.sealed.drain(..) {
            if last != transaction {
                ended.push(batch);
                continue;
            }
            let (first, rest) = batch.split_at(before.keys, before.patches);
            ended.extend(Some(first).filter(|first| !first.is_empty()));
            arriving.extend(Some(rest).filter(|rest| !rest.is_empty()));
        }
        Ok((ended, arriving))
    }
}
