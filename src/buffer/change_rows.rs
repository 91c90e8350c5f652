//! The changes of one table while they arrive: a builder for each column of `keys` and of `patches`.

use super::column::{ColumnBuilder, Scratch};
use super::refusal::Refusal;
use super::schema::{key_schema, patch_schema, takes_null};
use super::values::Values;
use super::{ChangeBatch, Operation, Transaction};
use crate::base::{Runs, TableShape};
use crate::decode::Datum;
use crate::decode::value::Encoded;
use deltalake::arrow::array::{
    Array, ArrayRef, BinaryBuilder, Date32Builder, Int64Builder, UInt8Builder, UInt32Builder, UInt64Builder,
};
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// Of the columns of `keys` before the identity: ordinal, operation, commit, its time, transaction, day.
const HEADING_BYTES: usize = 4 + 1 + 8 + 8 + 4 + 4;
/// Of the columns of `patches` before the table's: ordinal, day, and the offset of what was not sent.
const PATCH_HEADING_BYTES: usize = 4 + 4 + 4;

/// A change without its row's identity and values.
#[derive(Clone, Copy)]
pub(super) struct Heading {
    pub(super) ordinal: u32,
    pub(super) operation: Operation,
    pub(super) by: Transaction,
    /// First day of the partition that the row was in, where that is known.
    pub(super) old_day: Option<i32>,
}

/// The builders, and what they hold.
pub(super) struct ChangeRows {
    shape: Arc<TableShape>,
    ordinals: UInt32Builder,
    operations: UInt8Builder,
    commit_lsns: UInt64Builder,
    commit_times: Int64Builder,
    transactions: UInt32Builder,
    old_days: Date32Builder,
    identity: Vec<ColumnBuilder>,
    /// For each column of the shape, its place in the identity.
    places: Vec<Option<usize>>,
    patches: Option<Patches>,
    len: usize,
    bytes: usize,
    bytes_per_change: usize,
    /// The last transaction that added a change, and what was there before it.
    transaction: u64,
    before: Marks,
    /// Of changes that belong to a transaction in progress.
    xids: Option<Runs>,
}

/// A place among the changes: so many, and so many patches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) keys: usize,
    pub(super) patches: usize,
}

impl ChangeRows {
    pub(super) fn new(shape: &Arc<TableShape>) -> Self {
        let mut places = vec![None; shape.columns.len()];
        let mut identity = Vec::with_capacity(shape.identity.len());
        for index in &shape.identity {
            if let (Some(column), Some(place)) = (shape.columns.get(*index), places.get_mut(*index)) {
                *place = Some(identity.len());
                identity.push(ColumnBuilder::new(column.column_type));
            }
        }
        let of_identity = identity.iter().map(ColumnBuilder::bytes_per_row).sum::<usize>();
        Self {
            ordinals: UInt32Builder::new(),
            operations: UInt8Builder::new(),
            commit_lsns: UInt64Builder::new(),
            commit_times: Int64Builder::new(),
            transactions: UInt32Builder::new(),
            old_days: Date32Builder::new(),
            places,
            patches: None,
            len: 0,
            bytes: size_of::<Self>() + identity.len() * size_of::<ColumnBuilder>(),
            bytes_per_change: HEADING_BYTES + of_identity + (1 + identity.len()).div_ceil(8),
            identity,
            transaction: 0,
            before: Marks::default(),
            xids: None,
            shape: Arc::clone(shape),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn marks(&self) -> Marks {
        Marks { keys: self.len, patches: self.patches.as_ref().map_or(0, |patches| patches.len) }
    }

    /// The last transaction that was noted, and what those before it brought.
    pub(super) fn last_transaction(&self) -> (u64, Marks) {
        (self.transaction, self.before)
    }

    /// Notes that the next change belongs to this transaction.
    pub(super) fn enter(&mut self, transaction: u64) {
        if self.transaction != transaction {
            self.before = self.marks();
            self.transaction = transaction;
        }
    }

    /// Notes which (sub)transaction the change belongs to that was just added.
    pub(super) fn belongs_to(&mut self, xid: u32) {
        self.xids.get_or_insert_default().push(xid, 1);
    }

    /// Adds a change; `named_by` has the identity among its values, and `order` gives each value's column. Returns the bytes that it
    /// added.
    ///
    /// After a refusal some columns are one value longer; [`Self::finish`] cuts them, and nothing may be added before that.
    pub(super) fn append<'a>(
        &mut self,
        heading: Heading,
        named_by: &impl Values<'a>,
        order: &[usize],
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let of_identity = self.append_identity(named_by, order, scratch)?;
        Ok(self.append_heading(heading, of_identity))
    }

    /// The same for a change that names no row.
    pub(super) fn append_nameless(&mut self, heading: Heading) {
        self.identity.iter_mut().for_each(ColumnBuilder::append_null);
        self.append_heading(heading, 0);
    }

    fn append_heading(&mut self, heading: Heading, of_identity: usize) -> usize {
        let added = self.bytes_per_change + of_identity;
        self.ordinals.append_value(heading.ordinal);
        self.operations.append_value(heading.operation as u8);
        self.commit_lsns.append_value(heading.by.commit_lsn.0);
        self.commit_times.append_value(heading.by.commit_time_micros);
        self.transactions.append_value(heading.by.xid);
        self.old_days.append_option(heading.old_day);
        self.len += 1;
        self.bytes += added;
        added
    }

    /// [`Self::append`] with the new values, some of which were not sent.
    pub(super) fn append_patch<'a>(
        &mut self,
        heading: Heading,
        new_day: i32,
        named_by: &impl Values<'a>,
        new: &impl Values<'a>,
        order: &[usize],
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let patches = match &mut self.patches {
            Some(patches) => patches,
            none => {
                let patches = Patches::new(&self.shape);
                self.bytes += patches.columns.len() * size_of::<ColumnBuilder>();
                none.insert(patches)
            }
        };
        let of_patch = patches.append(&self.shape, heading.ordinal, new_day, new, order, scratch)?;
        let added = self.append(heading, named_by, order, scratch)?;
        if let Some(patches) = &mut self.patches {
            patches.len += 1;
        }
        self.bytes += of_patch;
        Ok(added + of_patch)
    }

    /// Takes the last change back, which was no patch and belongs to nothing yet; nothing may be added before [`Self::finish`].
    pub(super) fn retract(&mut self, added: usize) {
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(added);
    }

    fn append_identity<'a>(
        &mut self,
        values: &impl Values<'a>,
        order: &[usize],
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let (mut added, mut found) = (0, 0);
        for (datum, &index) in values.columns().zip(order) {
            let place = self.places.get(index).copied().flatten();
            let Some(column) = place.and_then(|place| self.identity.get_mut(place)) else { continue };
            let encoded = match datum.map_err(Refusal::Decode)? {
                Datum::Text(bytes) => Encoded::Text(bytes),
                Datum::Binary(bytes) => Encoded::Binary(bytes),
                Datum::Null => return Err(Refusal::Null { column: index }),
                Datum::Unchanged => return Err(Refusal::Unchanged { column: index }),
            };
            added += column.append(encoded, scratch).map_err(|source| Refusal::Value { column: index, source })?;
            found += 1;
        }
        if found == self.identity.len() { Ok(added) } else { Err(Refusal::ColumnCount) }
    }

    /// The complete changes as Arrow.
    pub(super) fn finish(mut self) -> Result<ChangeBatch, ArrowError> {
        let mut keys: Vec<ArrayRef> = vec![
            Arc::new(self.ordinals.finish()),
            Arc::new(self.operations.finish()),
            Arc::new(self.commit_lsns.finish()),
            Arc::new(self.commit_times.finish()),
            Arc::new(self.transactions.finish()),
            Arc::new(self.old_days.finish()),
        ];
        keys.extend(self.identity.iter_mut().map(ColumnBuilder::finish));
        let keys = batch(&key_schema(&self.shape), keys, self.len)?;
        let patch_schema = patch_schema(&self.shape);
        let patches = match self.patches {
            Some(patches) => patches.finish(&patch_schema)?,
            None => RecordBatch::new_empty(patch_schema),
        };
        Ok(ChangeBatch { keys, patches, xids: self.xids })
    }
}

/// New rows with gaps.
struct Patches {
    ordinals: UInt32Builder,
    new_days: Date32Builder,
    unchanged: BinaryBuilder,
    columns: Vec<ColumnBuilder>,
    len: usize,
    bytes_per_patch: usize,
}

impl Patches {
    fn new(shape: &TableShape) -> Self {
        let columns: Vec<ColumnBuilder> =
            shape.columns.iter().map(|column| ColumnBuilder::new(column.column_type)).collect();
        let of_columns = columns.iter().map(ColumnBuilder::bytes_per_row).sum::<usize>();
        // A bit of validity and a bit of `unchanged` for each value, both rounded up.
        let bits = 2 * columns.len().div_ceil(8);
        Self {
            ordinals: UInt32Builder::new(),
            new_days: Date32Builder::new(),
            unchanged: BinaryBuilder::new(),
            bytes_per_patch: PATCH_HEADING_BYTES + of_columns + bits,
            columns,
            len: 0,
        }
    }

    /// Everything but the count, which follows when the change has its identity, too.
    fn append<'a>(
        &mut self,
        shape: &TableShape,
        ordinal: u32,
        new_day: i32,
        new: &impl Values<'a>,
        order: &[usize],
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let mut added = self.bytes_per_patch;
        let mut unchanged = vec![0_u8; self.columns.len().div_ceil(8)];
        for (datum, &index) in new.columns().zip(order) {
            let column = self.columns.get_mut(index).ok_or(Refusal::ColumnCount)?;
            let encoded = match datum.map_err(Refusal::Decode)? {
                Datum::Text(bytes) => Encoded::Text(bytes),
                Datum::Binary(bytes) => Encoded::Binary(bytes),
                Datum::Null if !takes_null(shape, index) => {
                    return Err(Refusal::Null { column: index });
                }
                Datum::Null => {
                    column.append_null();
                    continue;
                }
                Datum::Unchanged => {
                    column.append_null();
                    if let Some(byte) = unchanged.get_mut(index / 8) {
                        *byte |= 1 << (index % 8);
                    }
                    continue;
                }
            };
            added += column.append(encoded, scratch).map_err(|source| Refusal::Value { column: index, source })?;
        }
        self.ordinals.append_value(ordinal);
        self.new_days.append_value(new_day);
        self.unchanged.append_value(&unchanged);
        Ok(added)
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> =
            vec![Arc::new(self.ordinals.finish()), Arc::new(self.new_days.finish()), Arc::new(self.unchanged.finish())];
        arrays.extend(self.columns.iter_mut().map(ColumnBuilder::finish));
        batch(schema, arrays, self.len)
    }
}

/// The first `len` values of each array: a refused change may have left some one longer.
fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, len: usize) -> Result<RecordBatch, ArrowError> {
    let cut = |array: ArrayRef| if array.len() > len { array.slice(0, len) } else { array };
    RecordBatch::try_new(SchemaRef::clone(schema), arrays.into_iter().map(cut).collect())
}
