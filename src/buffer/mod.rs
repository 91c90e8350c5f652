//! Rows become Arrow, split by the day (or month) that they belong to, without a row object in between.
//!
//! A [`TableBuffer`] holds what one table has received and not yet handed on. [`TableBuffer::bind`] matches a RELATION message
//! with the table's shape by column name; [`TableBuffer::append`] looks at the row's partition column first and then decodes
//! every column straight into the Arrow builders of that partition. What is full leaves by [`TableBuffer::take_full`], the
//! rest by [`TableBuffer::cut`], which parts whole transactions from the one that is arriving.
//!
//! An UPDATE or DELETE names a row that is elsewhere; [`TableBuffer::update`] and its sisters write down what it says, and where in
//! the order of the rows it stands: change number t concerns the rows that came before it, whose [era](PartitionBatch::eras) is t or
//! less. Nothing is looked up here; a stream that only grows has no eras.
//!
//! ```text
//! Tuple ──event date──▶ partition's builders ◀──value── Datum …              take_full, cut ──▶ PartitionBatch
//! OldTuple, Tuple ──identity──▶ the changes' builders                       take_full_changes, cut ──▶ ChangeBatch
//! ```
//!
//! Promises owned here:
//! - **D3**, the half of it that concerns a row: every column of every row arrives, or [`BufferError`] names the table, the
//!   column, the rule and the row by its key ([`RowKey`]). A row that was refused leaves nothing behind; no error holds the value
//!   of a column outside the key.
//! - **L3**, the half of it before the files: a [`PartitionBatch`] holds one partition's rows only.
//! - **B2**, the measure: [`TableBuffer::bytes`] tells in constant time what is held, and nothing is allocated ahead of rows.

#[cfg(test)]
mod arbitrary_test;
mod batch;
mod binding;
pub mod change_batch;
mod change_rows;
mod changes;
#[cfg(test)]
mod changes_test;
mod column;
mod error;
mod event_date;
mod partition_rows;
mod refusal;
#[cfg(test)]
pub(crate) mod remedy_test;
mod row_key;
#[cfg(test)]
mod row_key_test;
mod schema;
mod table_buffer;
#[cfg(test)]
mod table_buffer_test;
mod table_changes;
mod values;
#[cfg(test)]
mod values_test;

pub use batch::PartitionBatch;
pub use change_batch::{ChangeBatch, Operation, Transaction};
pub use error::{BufferError, RefusedCell, SchemaChange};
pub use row_key::RowKey;
pub use schema::{arrow_schema, key_schema, patch_schema};
pub use table_buffer::{Cut, TableBuffer};
