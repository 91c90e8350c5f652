//! What one table has received and not yet handed on.

use super::binding::Binding;
use super::changes::Changes;
use super::column::Scratch;
use super::event_date::{EventDate, calendar_date};
use super::partition_rows::PartitionRows;
use super::refusal::Refusal;
use super::schema::row_schema;
use super::values::Values;
use super::{BufferError, ChangeBatch, PartitionBatch};
use crate::base::{Partition, Runs, TableShape, XidSet};
use crate::decode::value::{Encoded, ValueError};
use crate::decode::{Datum, Relation, Tuple};
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Arrow's strings have 32-bit offsets: a partition is closed before a column could pass them.
const PARTITION_BYTES_MAX: usize = 1 << 30;

/// A closed batch that waits to be taken.
struct Sealed {
    batch: PartitionBatch,
    bytes: usize,
    transaction: u64,
    rows_before: usize,
    /// How often the columns had changed.
    generation: u32,
}

/// Everything that a buffer held, cut at the end of the last whole transaction; both parts ordered by partition, and a
/// partition's rows in arrival order. Where the columns changed in between, those with the earlier ones come first.
#[derive(Debug, Default)]
pub struct Cut {
    /// Rows of transactions that have ended.
    pub ended: Vec<PartitionBatch>,
    /// Rows of the transaction that is still arriving.
    pub arriving: Vec<PartitionBatch>,
    /// Changes of transactions that have ended, in order.
    pub ended_changes: Vec<ChangeBatch>,
    /// Changes of the transaction that is still arriving, in order.
    pub arriving_changes: Vec<ChangeBatch>,
}

/// Rows of one table, split by partition, and changes of its rows, in Arrow builders.
pub struct TableBuffer {
    pub(super) shape: Arc<TableShape>,
    schema: SchemaRef,
    event_date: Option<EventDate>,
    pub(super) binding: Option<Binding>,
    open: Vec<PartitionRows>,
    /// Index into `open` of days seen; emptied whenever `open` loses one.
    days: HashMap<i32, usize>,
    /// The last row's day and its index: rows come in runs of one day.
    last: Option<(i32, usize)>,
    sealed: Vec<Sealed>,
    pub(super) changes: Changes,
    rows: u64,
    bytes: usize,
    /// Counts changes of the columns.
    generation: u32,
    /// Counts transaction ends, so that a partition knows which of its rows belong to the one that is arriving.
    pub(super) transaction: u64,
    /// No open partition has more rows or bytes than these.
    rows_max: usize,
    bytes_max: usize,
    pub(super) scratch: Scratch,
}

impl TableBuffer {
    /// An empty buffer; it takes rows after [`Self::bind`].
    pub fn new(shape: Arc<TableShape>) -> Self {
        Self {
            schema: row_schema(&shape),
            event_date: EventDate::of(&shape),
            shape,
            binding: None,
            open: Vec::new(),
            days: HashMap::new(),
            last: None,
            sealed: Vec::new(),
            changes: Changes::default(),
            rows: 0,
            bytes: 0,
            generation: 0,
            transaction: 1,
            rows_max: 0,
            bytes_max: 0,
            scratch: Scratch::default(),
        }
    }

    /// Matches the relation that the following rows refer to with the shape, column by column, by name.
    ///
    /// # Errors
    /// [`BufferError::SchemaChanged`] if name, columns, a type or a type modifier differ; [`BufferError::PartitionColumn`].
    pub fn bind(&mut self, relation: &Relation) -> Result<(), BufferError> {
        self.binding = None;
        if self.event_date.is_none() {
            return Err(BufferError::PartitionColumn { table: self.shape.table.clone() });
        }
        let changed = |change| BufferError::SchemaChanged { table: self.shape.table.clone(), change };
        self.binding = Some(Binding::new(&self.shape, relation).map_err(changed)?);
        Ok(())
    }

    /// The table's columns are others from here on. What is held keeps those that it came with, and the numbers of changes go on; a
    /// relation has to be bound again.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn reshape(&mut self, shape: Arc<TableShape>) -> Result<(), BufferError> {
        while !self.open.is_empty() {
            self.seal(self.open.len() - 1).map_err(|source| self.arrow_error(source))?;
        }
        self.changes.seal().map_err(|source| self.arrow_error(source))?;
        self.generation += 1;
        self.binding = None;
        (self.schema, self.event_date) = (row_schema(&shape), EventDate::of(&shape));
        self.shape = shape;
        Ok(())
    }

    /// The columns that rows are read by now.
    pub fn shape(&self) -> &Arc<TableShape> {
        &self.shape
    }

    /// Adds a new row, in the order of the bound relation's columns. `xid` is the (sub)transaction of a row whose transaction is
    /// in progress; a buffer takes rows with it or rows without.
    ///
    /// # Errors
    /// [`BufferError`]; the refused row leaves nothing behind, and the rows before it stay.
    #[inline]
    pub fn append(&mut self, tuple: &Tuple<'_>, xid: Option<u32>) -> Result<(), BufferError> {
        self.take(tuple, xid, self.changes.era())
            .map_err(|refusal| refusal.of_row(&self.shape, self.binding.as_ref(), tuple))
    }

    #[inline]
    pub(super) fn take<'a>(&mut self, row: &impl Values<'a>, xid: Option<u32>, era: u32) -> Result<(), Refusal> {
        let day = self.event_day(row)?;
        let index = match self.last {
            Some((last_day, index)) if last_day == day => index,
            _ => self.partition_index(day)?,
        };
        let index = self.make_room(day, index, row.len_bytes())?;
        let (Some(binding), Some(rows)) = (&self.binding, self.open.get_mut(index)) else {
            return Err(Refusal::NotBound);
        };
        rows.enter(self.transaction);
        match rows.append(row, binding.columns(), &mut self.scratch) {
            Ok(added) => {
                if let Some(xid) = xid {
                    rows.belongs_to(xid);
                }
                if era > 0 {
                    rows.came_in(era);
                }
                self.rows += 1;
                self.bytes += added;
                self.rows_max = self.rows_max.max(rows.rows());
                self.bytes_max = self.bytes_max.max(rows.bytes());
                Ok(())
            }
            Err(refusal) => {
                // Some columns of the partition are one value ahead now; closing it cuts them.
                self.seal(index).map_err(Refusal::Arrow)?;
                Err(refusal)
            }
        }
    }

    /// The transaction that was arriving has ended; rows from here on belong to the next.
    #[inline]
    pub fn end_transaction(&mut self) {
        self.transaction += 1;
        self.changes.end_transaction();
    }

    /// Whether [`Self::take_full`] has something; constant time.
    #[inline]
    pub(super) fn is_full(&self, rows: usize, bytes: usize) -> bool {
        !self.sealed.is_empty() || self.rows_max >= rows || self.bytes_max >= bytes
    }

    /// Rows held now.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes held now: values, offsets and builders. Arrow's buffers grow by doubling and may hold up to twice that.
    pub fn bytes(&self) -> usize {
        self.bytes + self.changes.bytes()
    }

    /// A partition that reached `rows` or `bytes`, if there is one; constant time while there is none.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn take_full(&mut self, rows: usize, bytes: usize) -> Result<Option<PartitionBatch>, BufferError> {
        if !self.is_full(rows, bytes) {
            return Ok(None);
        }
        if self.sealed.is_empty() {
            let full = |open: &PartitionRows| open.rows() > 0 && (open.rows() >= rows || open.bytes() >= bytes);
            let Some(index) = self.open.iter().position(full) else { return Ok(None) };
            self.seal(index).map_err(|source| self.arrow_error(source))?;
        }
        let Sealed { batch, bytes, .. } = self.sealed.remove(0);
        self.release(&batch, bytes);
        Ok(Some(batch))
    }

    /// A batch of this table without the rows of (sub)transactions that were rolled back.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn live(&self, batch: PartitionBatch, aborted: &XidSet) -> Result<PartitionBatch, BufferError> {
        batch.without(aborted).map_err(|source| BufferError::Arrow { table: self.shape.table.clone(), source })
    }

    /// Everything that is held, cut where the transaction began that is still arriving (B1); the buffer is empty then. The cut
    /// copies nothing: both sides are slices of the same arrays.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn cut(&mut self) -> Result<Cut, BufferError> {
        while !self.open.is_empty() {
            self.seal(self.open.len() - 1).map_err(|source| self.arrow_error(source))?;
        }
        let mut cut = Cut::default();
        self.sealed.sort_by_key(|sealed| (sealed.generation, sealed.batch.partition));
        for Sealed { batch, transaction, rows_before, .. } in self.sealed.drain(..) {
            let (partition, rows) = (batch.partition, batch.rows.num_rows());
            let ended = if transaction == self.transaction { rows_before.min(rows) } else { rows };
            if ended > 0 {
                let (xids, eras) = (part_of(&batch.xids, 0..ended), part_of(&batch.eras, 0..ended));
                cut.ended.push(PartitionBatch { partition, rows: batch.rows.slice(0, ended), xids, eras });
            }
            if ended < rows {
                let (xids, eras) = (part_of(&batch.xids, ended..rows), part_of(&batch.eras, ended..rows));
                let rows = batch.rows.slice(ended, rows - ended);
                cut.arriving.push(PartitionBatch { partition, rows, xids, eras });
            }
        }
        (self.rows, self.bytes) = (0, 0);
        let (ended_changes, arriving_changes) =
            self.changes.cut(self.transaction).map_err(|source| self.arrow_error(source))?;
        (cut.ended_changes, cut.arriving_changes) = (ended_changes, arriving_changes);
        Ok(cut)
    }

    /// [`Self::cut`] for a commit that takes everything that has ended: what orders rows and changes begins anew, unless the
    /// transaction that is still arriving has brought some already.
    ///
    /// # Errors
    /// [`BufferError::Arrow`]
    pub fn cut_for_a_commit(&mut self) -> Result<Cut, BufferError> {
        let cut = self.cut()?;
        if cut.arriving.is_empty() && cut.arriving_changes.is_empty() {
            self.changes.renumber();
        }
        Ok(cut)
    }

    /// Days since 1970 of the row's partition column.
    #[inline]
    pub(super) fn event_day<'a>(&self, row: &impl Values<'a>) -> Result<i32, Refusal> {
        let (Some(binding), Some(event_date)) = (&self.binding, self.event_date) else { return Err(Refusal::NotBound) };
        if row.len() != binding.columns().len() {
            return Err(Refusal::ColumnCount);
        }
        let encoded = match row.columns().nth(binding.partition_position()) {
            Some(Ok(Datum::Text(bytes))) => Encoded::Text(bytes),
            Some(Ok(Datum::Binary(bytes))) => Encoded::Binary(bytes),
            Some(Ok(Datum::Null)) => return Err(Refusal::NoPartition),
            Some(Ok(Datum::Unchanged)) => return Err(Refusal::Unchanged { column: self.shape.partition_column }),
            Some(Err(source)) => return Err(Refusal::Decode(source)),
            None => return Err(Refusal::ColumnCount),
        };
        event_date.day(encoded).map_err(|source| self.undated(source))
    }

    pub(super) fn undated(&self, source: ValueError) -> Refusal {
        Refusal::Value { column: self.shape.partition_column, source }
    }

    /// The open partition of `day`, opened if need be; remembered for the rows that follow.
    fn partition_index(&mut self, day: i32) -> Result<usize, Refusal> {
        let index = match self.days.get(&day) {
            Some(index) => *index,
            None => self.find_or_open(day)?,
        };
        self.days.insert(day, index);
        self.last = Some((day, index));
        Ok(index)
    }

    fn find_or_open(&mut self, day: i32) -> Result<usize, Refusal> {
        let partition = self.partition_of(day)?;
        if let Some(index) = self.open.iter().position(|open| open.partition() == partition) {
            return Ok(index);
        }
        let rows = PartitionRows::new(partition, &self.shape);
        self.bytes += rows.bytes();
        self.open.push(rows);
        Ok(self.open.len() - 1)
    }

    /// The partition of a day.
    pub(super) fn partition_of(&self, day: i32) -> Result<Partition, Refusal> {
        let date = calendar_date(day).map_err(|source| self.undated(source))?;
        Ok(self.shape.partition_by.partition_of(date))
    }

    /// Closes the partition first if the row would take a column towards the limit of its offsets.
    #[inline]
    fn make_room(&mut self, day: i32, index: usize, row_bytes: usize) -> Result<usize, Refusal> {
        let held = self.open.get(index).map_or(0, PartitionRows::bytes);
        if held.saturating_add(row_bytes) <= PARTITION_BYTES_MAX {
            return Ok(index);
        }
        if row_bytes > PARTITION_BYTES_MAX {
            return Err(Refusal::RowTooLarge { bytes: row_bytes });
        }
        self.seal(index).map_err(Refusal::Arrow)?;
        self.partition_index(day)
    }

    /// Closes an open partition; its rows wait in `sealed`.
    fn seal(&mut self, index: usize) -> Result<(), ArrowError> {
        if index >= self.open.len() {
            return Ok(());
        }
        let rows = self.open.swap_remove(index);
        self.forget_indexes();
        let bytes = rows.bytes();
        if rows.rows() == 0 {
            self.bytes = self.bytes.saturating_sub(bytes);
            return Ok(());
        }
        let (transaction, rows_before) = (self.transaction, rows.rows_before(self.transaction));
        let batch = rows.finish(&self.schema)?;
        self.sealed.push(Sealed { batch, bytes, transaction, rows_before, generation: self.generation });
        Ok(())
    }

    fn forget_indexes(&mut self) {
        self.days.clear();
        self.last = None;
        self.rows_max = self.open.iter().map(PartitionRows::rows).max().unwrap_or(0);
        self.bytes_max = self.open.iter().map(PartitionRows::bytes).max().unwrap_or(0);
    }

    fn release(&mut self, batch: &PartitionBatch, bytes: usize) {
        let rows = u64::try_from(batch.rows.num_rows()).unwrap_or(u64::MAX);
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn arrow_error(&self, source: ArrowError) -> BufferError {
        BufferError::Arrow { table: self.shape.table.clone(), source }
    }
}

/// The numbers of a part of a batch's rows.
fn part_of(runs: &Option<Runs>, rows: Range<usize>) -> Option<Runs> {
    runs.as_ref().map(|runs| runs.of_rows(std::slice::from_ref(&(rows.start as u64..rows.end as u64))))
}
