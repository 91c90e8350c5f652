//! Bytes of the logical replication stream become messages, and a column's bytes become the exact value.
//!
//! The server's pgoutput plugin sends one message a frame (PostgreSQL manual, 55.9 "Logical Replication Message Formats").
//! [`parse()`] reads a frame into a [`Message`] that borrows from it; a row is a [`Tuple`], whose columns come out one by one as
//! [`Datum`]s, still the server's bytes. Whoever knows the column's type hands those to [`value`]. Nothing is copied or
//! allocated on the way of a row.
//!
//! ```text
//! frame ──parse──▶ Message ──▶ Tuple ──columns──▶ Datum ──value──▶ i64, i128, &str, …
//! ```
//!
//! What COPY sends in its binary format becomes the same tuples: [`copy_header`], then [`copy_row`] for each row.
//!
//! Promises owned here:
//! - **D1** Decoding is total over arbitrary bytes: an error, never a panic, never a guess. A frame is checked whole, to its
//!   last byte, before [`parse()`] returns it; unknown tags and flags, negative counts and left-over bytes are errors.
//! - **D2** It is pure: no IO, no clock, no state between two messages.
//! - **D3**, the half of it that concerns a value: it comes out exactly, or as a [`value::ValueError`]; nothing is clamped,
//!   rounded or turned into NULL.

mod copied;
#[cfg(test)]
mod copied_test;
#[cfg(test)]
pub(crate) mod encode;
mod error;
mod message;
#[cfg(test)]
pub(crate) mod mutate;
mod parse;
#[cfg(test)]
mod parse_test;
mod reader;
mod relation;
#[cfg(test)]
pub(crate) mod remedy_test;
mod tuple;
pub mod value;

pub use copied::{CopyRow, copy_header, copy_row};
pub use error::DecodeError;
pub use message::Message;
pub use parse::parse;
pub use relation::{Relation, RelationColumn, ReplicaIdentity};
pub use tuple::{Columns, Datum, OldTuple, Tuple};
