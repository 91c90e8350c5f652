//! The changes of a segment in their order, in rounds that fit into memory.

use super::Segment;
use super::data_file::adapt;
use super::keys::KeyTable;
use crate::base::{Lsn, Partition, PartitionBy};
use crate::buffer::change_batch::{self, column};
use crate::buffer::{ChangeBatch, Operation};
use crate::lake::active::Wanted;
use crate::lake::error::LakeError;
use chrono::{Days, NaiveDate};
use deltalake::arrow::array::{Array, ArrayRef, PrimitiveArray, RecordBatch};
use deltalake::arrow::datatypes::{Date32Type, Field, Int64Type, Schema, SchemaRef, UInt8Type, UInt32Type, UInt64Type};
use deltalake::arrow::error::ArrowError;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Columns of a batch of changes before the identity's.
const FIXED_COLUMNS: usize = 6;

/// What a change takes besides its part of a batch: its number, where its key is, its key in a table of keys, and the version that it
/// finds.
const CHANGE_BYTES: usize = 250;

/// A transaction that changed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) commit_lsn: Lsn,
    pub(super) commit_time_micros: i64,
    pub(super) xid: u32,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) ordinal: u32,
    pub(super) operation: Operation,
    /// Index into [`Steps::transactions`].
    pub(super) transaction: usize,
    /// Number in [`Round::keys`].
    pub(super) key: usize,
    /// Index into [`Round::patches`].
    pub(super) patch: Option<usize>,
}

/// The new version of a row, less what was not sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patch {
    /// Index into [`Round::patch_batches`], and the row there.
    pub(super) batch: usize,
    pub(super) row: usize,
    pub(super) partition: Partition,
    /// The number of its own identity in [`Round::keys`], if any change of the round names it.
    pub(super) key: Option<usize>,
}

/// Where the identity's values of a change are, and the partition of the row that they name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// None: unknown.
    pub(super) partition: Option<Partition>,
    /// Index into [`Round::key_batches`], and the row there.
    pub(super) batch: usize,
    pub(super) row: usize,
}

/// Changes that are applied together.
pub(super) struct Round {
    /// The identity's columns.
    pub(super) identity: SchemaRef,
    pub(super) changes: Vec<Change>,
    /// Of each change.
    pub(super) named: Vec<Named>,
    pub(super) key_batches: Vec<RecordBatch>,
    pub(super) keys: KeyTable,
    pub(super) patches: Vec<Patch>,
    pub(super) patch_batches: Vec<RecordBatch>,
    bytes: usize,
}

/// What comes next.
pub(super) enum Step {
    Round(Box<Round>),
    /// Every row of this era and before is gone.
    Truncate {
        ordinal: u32,
        transaction: usize,
    },
}

/// Reads the changes of a segment.
pub(super) struct Steps<'a> {
    segment: &'a Segment,
    /// The table's columns.
    schema: SchemaRef,
    by: PartitionBy,
    next_part: usize,
    /// The part that is being read, and its first change that was not.
    part: Option<(ChangeBatch, usize)>,
    pub(super) transactions: Vec<Transaction>,
    round_bytes: usize,
}

impl<'a> Steps<'a> {
    /// `round_bytes` is what one round's changes take in memory, roughly.
    pub(super) fn new(segment: &'a Segment, schema: SchemaRef, by: PartitionBy, round_bytes: usize) -> Self {
        Self { segment, schema, by, next_part: 0, part: None, transactions: Vec::new(), round_bytes }
    }

    /// The next step; None behind the last change.
    pub(super) async fn next(&mut self) -> Result<Option<Step>, LakeError> {
        let mut round: Option<Round> = None;
        loop {
            if !self.has_part().await? {
                return Ok(round.map(Box::new).map(Step::Round));
            }
            let Some((part, from)) = self.part.take() else { continue };
            let columns = Columns::of(&part).map_err(|error| self.segment.unfit(&error))?;
            if columns.operation(from)? == Operation::Truncate {
                if let Some(round) = round {
                    self.part = Some((part, from));
                    return Ok(Some(Step::Round(Box::new(round))));
                }
                let transaction = self.transaction(&columns, from);
                let ordinal = columns.ordinals.value(from);
                self.part = Some((part, from + 1));
                return Ok(Some(Step::Truncate { ordinal, transaction }));
            }
            let identity = identity_of(&part.keys, &self.schema);
            if let Some(full) = round.take_if(|round| round.bytes >= self.round_bytes || round.identity != identity) {
                self.part = Some((part, from));
                return Ok(Some(Step::Round(Box::new(full))));
            }
            let round = match &mut round {
                Some(round) => round,
                none => none.insert(Round::new(identity).map_err(|error| self.segment.unfit(&error))?),
            };
            let end = self.extend(round, &part, &columns, from)?;
            self.part = Some((part, end));
        }
    }

    /// Whether there is a change left; the part that holds it is read.
    async fn has_part(&mut self) -> Result<bool, LakeError> {
        loop {
            if self.part.as_ref().is_some_and(|(part, from)| *from < part.len()) {
                return Ok(true);
            }
            if self.next_part == self.segment.changes.parts() {
                return Ok(false);
            }
            let part = self.segment.changes.part(self.next_part).await?;
            self.next_part += 1;
            let part = self.segment.without_aborted(part)?;
            self.part = Some((part, 0));
        }
    }

    /// Adds the changes from `from` on, up to a TRUNCATE; returns where it stopped.
    fn extend(
        &mut self,
        round: &mut Round,
        part: &ChangeBatch,
        columns: &Columns<'_>,
        from: usize,
    ) -> Result<usize, LakeError> {
        let mut end = from;
        while end < part.len() && columns.operation(end)? != Operation::Truncate {
            end += 1;
        }
        let unfit = |error: ArrowError| self.segment.unfit(&error);
        let keys = adapt(&part.keys.slice(from, end - from), &round.identity).map_err(unfit)?;
        let numbers = round.keys.note(keys.columns()).map_err(unfit)?;
        let first_patch = round.patches.len();
        if part.patches.num_rows() > 0 {
            round.add_patches(&part.patches, self.by).map_err(unfit)?;
        }
        for (row, key) in (from..end).zip(numbers) {
            let (ordinal, operation) = (columns.ordinals.value(row), columns.operation(row)?);
            let transaction = self.transaction(columns, row);
            let patch = match operation {
                Operation::Patch => Some(first_patch + patch_of(&part.patches, ordinal, self.segment)?),
                _ => None,
            };
            round.changes.push(Change { ordinal, operation, transaction, key, patch });
            let day = (!columns.old_days.is_null(row)).then(|| columns.old_days.value(row));
            let partition = day.and_then(date_of).map(|date| self.by.partition_of(date));
            round.named.push(Named { partition, batch: round.key_batches.len(), row: row - from });
        }
        round.key_batches.push(keys);
        round.bytes += part.memory_bytes() + (end - from) * CHANGE_BYTES;
        Ok(end)
    }

    /// The number of a change's transaction, which is noted if it is another than the last.
    fn transaction(&mut self, columns: &Columns<'_>, row: usize) -> usize {
        if self.transactions.last().is_some_and(|last| self.is_of(columns, row, last)) {
            return self.transactions.len() - 1;
        }
        let (commit_lsn, commit_time_micros) = match self.segment.commit {
            Some(commit) => (commit.commit_lsn, commit.commit_time_micros),
            None => (Lsn(columns.commit_lsns.value(row)), columns.commit_times.value(row)),
        };
        let xid = columns.xids.value(row);
        self.transactions.push(Transaction { commit_lsn, commit_time_micros, xid });
        self.transactions.len() - 1
    }

    fn is_of(&self, columns: &Columns<'_>, row: usize, transaction: &Transaction) -> bool {
        // A transaction in progress is alone in its segment.
        self.segment.commit.is_some()
            || (columns.commit_lsns.value(row) == transaction.commit_lsn.0
                && columns.xids.value(row) == transaction.xid)
    }
}

impl Round {
    fn new(identity: SchemaRef) -> Result<Self, ArrowError> {
        let fields: Vec<&Field> = identity.fields().iter().map(AsRef::as_ref).collect();
        let keys = KeyTable::new(&fields)?;
        Ok(Self {
            identity,
            changes: Vec::new(),
            named: Vec::new(),
            key_batches: Vec::new(),
            keys,
            patches: Vec::new(),
            patch_batches: Vec::new(),
            bytes: 0,
        })
    }

    fn add_patches(&mut self, patches: &RecordBatch, by: PartitionBy) -> Result<(), ArrowError> {
        let new_days = column::<Date32Type>(patches, change_batch::NEW_DAY)?;
        let batch = self.patch_batches.len();
        for row in 0..patches.num_rows() {
            let date = date_of(new_days.value(row))
                .ok_or_else(|| ArrowError::InvalidArgumentError("a day outside the calendar".to_owned()))?;
            self.patches.push(Patch { batch, row, partition: by.partition_of(date), key: None });
        }
        self.patch_batches.push(patches.clone());
        Ok(())
    }

    /// Notes which of the patches' own identities other changes of the round name.
    pub(super) fn find_patched(&mut self) -> Result<(), ArrowError> {
        let mut patches = self.patches.iter_mut();
        for batch in &self.patch_batches {
            let columns = adapt(batch, &self.identity)?;
            let keys = self.keys.find(columns.columns())?;
            // In this order: the shorter side must be asked first, or a patch of the next batch is swallowed.
            for (key, patch) in keys.into_iter().zip(patches.by_ref()) {
                patch.key = key;
            }
        }
        Ok(())
    }

    /// The identity's values that a change has.
    pub(super) fn key_columns(&self, named: &Named) -> &[ArrayRef] {
        self.key_batches.get(named.batch).map_or(&[], RecordBatch::columns)
    }

    /// The partitions that hold the rows as they were.
    pub(super) fn wanted(&self) -> Wanted {
        let partitions: Option<BTreeSet<Partition>> = self.named.iter().map(|named| named.partition).collect();
        partitions.map_or(Wanted::All, Wanted::Of)
    }
}

/// The columns that every batch of changes has.
struct Columns<'a> {
    ordinals: &'a PrimitiveArray<UInt32Type>,
    operations: &'a PrimitiveArray<UInt8Type>,
    commit_lsns: &'a PrimitiveArray<UInt64Type>,
    commit_times: &'a PrimitiveArray<Int64Type>,
    xids: &'a PrimitiveArray<UInt32Type>,
    old_days: &'a PrimitiveArray<Date32Type>,
}

impl<'a> Columns<'a> {
    fn of(part: &'a ChangeBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            ordinals: column(&part.keys, change_batch::ORDINAL)?,
            operations: column(&part.keys, change_batch::OPERATION)?,
            commit_lsns: column(&part.keys, change_batch::COMMIT_LSN)?,
            commit_times: column(&part.keys, change_batch::COMMIT_TIME)?,
            xids: column(&part.keys, change_batch::XID)?,
            old_days: column(&part.keys, change_batch::OLD_DAY)?,
        })
    }

    fn operation(&self, row: usize) -> Result<Operation, LakeError> {
        let number = self.operations.value(row);
        Operation::from_number(number).ok_or_else(|| LakeError::Batch {
            location: String::new(),
            reason: format!("a change has the operation {number}"),
        })
    }
}

/// The identity's columns of a batch, in the table's types.
fn identity_of(keys: &RecordBatch, schema: &SchemaRef) -> SchemaRef {
    let keys = keys.schema();
    let fields = keys.fields().iter().skip(FIXED_COLUMNS);
    let fields = fields.map(|field| match schema.field_with_name(field.name()) {
        Ok(known) => Arc::new(known.clone().with_nullable(true)),
        Err(_) => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn patch_of(patches: &RecordBatch, ordinal: u32, segment: &Segment) -> Result<usize, LakeError> {
    let ordinals = column::<UInt32Type>(patches, change_batch::ORDINAL).map_err(|error| segment.unfit(&error))?;
    let found = ordinals.values().binary_search(&ordinal);
    found.map_err(|_| segment.unfit(&"an UPDATE without its new values"))
}

fn date_of(day: i32) -> Option<NaiveDate> {
    let (epoch, distance) = (NaiveDate::default(), Days::new(u64::from(day.unsigned_abs())));
    if day < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) }
}
