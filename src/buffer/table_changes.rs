//! UPDATE, DELETE and TRUNCATE on their way into a table's buffer.

use super::changes::Named;
use super::event_date::first_day;
use super::refusal::Refusal;
use super::values::{Updated, Values};
use super::{BufferError, ChangeBatch, Operation, TableBuffer, Transaction};
use crate::base::{Partition, XidSet};
use crate::decode::{Datum, OldTuple, Tuple};

/// What names the row of a change.
enum NamedBy<'a> {
    /// The row as it was, or its identity.
    Old(OldTuple<'a>),
    /// The row as it becomes: nothing of the identity has changed.
    New(Tuple<'a>),
}

impl<'a> NamedBy<'a> {
    fn tuple(&self) -> Tuple<'a> {
        match self {
            NamedBy::Old(old) => old.tuple(),
            NamedBy::New(new) => *new,
        }
    }

    fn is_identity_alone(&self) -> bool {
        matches!(self, NamedBy::Old(OldTuple::Key(_)))
    }
}

impl TableBuffer {
    /// A row was deleted. `subxid` is the (sub)transaction of a change whose transaction is in progress.
    ///
    /// # Errors
    /// [`BufferError`]; a refused change leaves nothing behind.
    pub fn delete(&mut self, old: &OldTuple<'_>, by: &Transaction, subxid: Option<u32>) -> Result<(), BufferError> {
        let taken = self.take_delete(*old, by, subxid);
        taken.map_err(|refusal| refusal.of_old_row(&self.shape, self.binding.as_ref(), &old.tuple()))
    }

    /// A row became another: a change of the old one, and a new one behind it. Where the server left values out, and the old row did
    /// not come along, the new one is part of the change and takes them from the old one in the lake.
    ///
    /// # Errors
    /// [`BufferError`]; a refused change leaves nothing behind.
    pub fn update(
        &mut self,
        old: Option<&OldTuple<'_>>,
        new: &Tuple<'_>,
        by: &Transaction,
        subxid: Option<u32>,
    ) -> Result<(), BufferError> {
        let taken = self.take_update(&Updated { new: *new, old: old.copied() }, by, subxid);
        let is_of_old_row = |refusal: &Refusal| match refusal {
            Refusal::Identity => true,
            Refusal::ColumnCount => new.len() == self.shape.columns.len(),
            _ => false,
        };
        taken.map_err(|refusal| match old {
            Some(old) if is_of_old_row(&refusal) => {
                refusal.of_old_row(&self.shape, self.binding.as_ref(), &old.tuple())
            }
            _ => refusal.of_row(&self.shape, self.binding.as_ref(), new),
        })
    }

    /// Every row was deleted.
    ///
    /// # Errors
    /// [`BufferError::TooManyChanges`], [`BufferError::Arrow`]
    pub fn truncate(&mut self, by: &Transaction, subxid: Option<u32>) -> Result<(), BufferError> {
        let Some(era) = self.changes.next_era() else {
            return Err(BufferError::TooManyChanges { table: self.shape.table.clone() });
        };
        self.changes.add_truncate(&self.shape, self.transaction, *by).map_err(|source| self.arrow_error(source))?;
        self.changes.confirm(era, subxid);
        Ok(())
    }

    /// The first of the changes, if there are enough for a batch of so many bytes; constant time while there are not.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn take_full_changes(&mut self, bytes: usize) -> Result<Option<ChangeBatch>, BufferError> {
        self.changes.take_full(bytes).map_err(|source| self.arrow_error(source))
    }

    /// A batch of this table's changes without those of (sub)transactions that were rolled back.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn live_changes(&self, batch: ChangeBatch, aborted: &XidSet) -> Result<ChangeBatch, BufferError> {
        batch.without(aborted).map_err(|source| self.arrow_error(source))
    }

    /// The partition of a new row.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn day_of(&self, tuple: &Tuple<'_>) -> Result<Partition, BufferError> {
        let day = self.event_day(tuple).and_then(|day| self.partition_of(day));
        day.map_err(|refusal| refusal.of_row(&self.shape, self.binding.as_ref(), tuple))
    }

    /// The partition that a deleted row was in, where what names it tells.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn day_of_old(&self, old: &OldTuple<'_>) -> Result<Option<Partition>, BufferError> {
        let day = self.old_day(&NamedBy::Old(*old)).and_then(|day| day.map(|day| self.partition_of(day)).transpose());
        day.map_err(|refusal| refusal.of_old_row(&self.shape, self.binding.as_ref(), &old.tuple()))
    }

    /// The partitions of an updated row: that it was in, where what names it tells, and that it is in now.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn days_of_update(
        &self,
        old: Option<&OldTuple<'_>>,
        new: &Tuple<'_>,
    ) -> Result<(Option<Partition>, Partition), BufferError> {
        let day = self.event_day(&Updated { new: *new, old: old.copied() }).and_then(|day| self.partition_of(day));
        let new_day = day.map_err(|refusal| refusal.of_row(&self.shape, self.binding.as_ref(), new))?;
        let old_day = match old {
            Some(old) => self.day_of_old(old)?,
            // Nothing of the identity has changed.
            None => self.shape.changes_name_their_day().then_some(new_day),
        };
        Ok((old_day, new_day))
    }

    /// Adds the new row of an UPDATE whose old row is no concern of this buffer. False, and nothing is added, if the server left values out
    /// that did not come along with the old row either.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_updated(
        &mut self,
        old: Option<&OldTuple<'_>>,
        new: &Tuple<'_>,
        xid: Option<u32>,
    ) -> Result<bool, BufferError> {
        let row = Updated { new: *new, old: old.copied() };
        if !row.is_complete() {
            return Ok(false);
        }
        let taken = self.take(&row, xid, self.changes.era());
        taken.map_err(|refusal| refusal.of_row(&self.shape, self.binding.as_ref(), new))?;
        Ok(true)
    }

    fn take_delete(&mut self, old: OldTuple<'_>, by: &Transaction, subxid: Option<u32>) -> Result<(), Refusal> {
        let named_by = NamedBy::Old(old);
        let old_day = self.old_day(&named_by)?;
        let era = self.changes.next_era().ok_or(Refusal::TooManyChanges)?;
        let Some(binding) = &self.binding else { return Err(Refusal::NotBound) };
        let (values, order) = (&named_by.tuple(), binding.columns());
        let named = Named { operation: Operation::Delete, by: *by, old_day, values, order };
        self.changes.add(&self.shape, self.transaction, &named, &mut self.scratch)?;
        self.changes.confirm(era, subxid);
        Ok(())
    }

    fn take_update(&mut self, row: &Updated<'_>, by: &Transaction, subxid: Option<u32>) -> Result<(), Refusal> {
        let named_by = match row.old {
            Some(old) => NamedBy::Old(old),
            None if self.shape.identity_is_ambiguous => return Err(Refusal::AmbiguousIdentity),
            None => NamedBy::New(row.new),
        };
        let (old_day, new_day) = (self.old_day(&named_by)?, self.partition_day(row)?);
        let era = self.changes.next_era().ok_or(Refusal::TooManyChanges)?;
        let Some(binding) = &self.binding else { return Err(Refusal::NotBound) };
        let (values, order) = (&named_by.tuple(), binding.columns());
        let (shape, transaction, scratch) = (&self.shape, self.transaction, &mut self.scratch);
        if !row.is_complete() {
            let named = Named { operation: Operation::Patch, by: *by, old_day, values, order };
            self.changes.add_patch(shape, transaction, &named, (row, new_day), scratch)?;
        } else {
            let named = Named { operation: Operation::Update, by: *by, old_day, values, order };
            let added = self.changes.add(shape, transaction, &named, scratch)?;
            // Both or neither.
            if let Err(refusal) = self.take(row, subxid, era) {
                self.changes.retract(added).map_err(Refusal::Arrow)?;
                return Err(refusal);
            }
        }
        self.changes.confirm(era, subxid);
        Ok(())
    }

    /// First day of the partition that the row was in, where what names it tells; what names it is checked first.
    fn old_day(&self, named_by: &NamedBy<'_>) -> Result<Option<i32>, Refusal> {
        let dates = self.check_identity(named_by)?;
        let tells = match named_by {
            NamedBy::Old(_) => dates,
            NamedBy::New(_) => self.shape.identity.contains(&self.shape.partition_column),
        };
        if tells { self.partition_day(&named_by.tuple()).map(Some) } else { Ok(None) }
    }

    fn partition_day<'a>(&self, row: &impl Values<'a>) -> Result<i32, Refusal> {
        first_day(self.event_day(row)?, self.shape.partition_by).map_err(|source| self.undated(source))
    }

    /// Checks that every column of the identity is there; whether the partition column is. More than the identity may come under the
    /// letter of an identity, and less than the row under that of a row: the letter is the root's, what the tuple holds its partition's.
    fn check_identity(&self, named_by: &NamedBy<'_>) -> Result<bool, Refusal> {
        let Some(binding) = &self.binding else { return Err(Refusal::NotBound) };
        let tuple = named_by.tuple();
        if tuple.len() != binding.columns().len() {
            return Err(Refusal::ColumnCount);
        }
        let mut dates = false;
        for (datum, &index) in tuple.columns().zip(binding.columns()) {
            if datum.map_err(Refusal::Decode)? != Datum::Null {
                dates |= index == self.shape.partition_column;
            } else if self.shape.identity.contains(&index) {
                let alone = named_by.is_identity_alone();
                return Err(if alone { Refusal::Identity } else { Refusal::Null { column: index } });
            }
        }
        Ok(dates)
    }
}
