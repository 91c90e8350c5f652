//! One column's bytes become its exact value (promise D3).
//!
//! A value arrives in one of two forms: the type's output text, or its send form (`binary 'true'`). Both are read here for
//! every [`ColumnType`](crate::base::ColumnType) and give the same result, which the property tests hold them to. The text forms depend on
//! settings that the replication connection pins: DateStyle ISO, TimeZone UTC, extra_float_digits 3, bytea_output hex.
//!
//! # Values that do not fit
//!
//! One rule, for the stream and for COPY, whose fields are the same two forms:
//!
//! - **A lake string holds PostgreSQL's own output text, whatever it is**: `24:00:00`, the NaN, infinities and display scale of an
//!   unconstrained `numeric`, BC and infinity inside an array or a range, a `\u0000` in json. Nothing is normalised.
//! - **A typed lake column holds what every reader of its Delta type reads the same**: dates and timestamps of the years 1 to
//!   9999, finite decimals of the declared digits. Integers, floats (NaN, infinities and -0 included), booleans and bytes always
//!   fit. Anything else is refused, as a [`ValueError`] with its rule and its remedy: never clamped, rounded or made NULL. What is
//!   refused is ±infinity, BC and years after 9999 in `date`, `timestamp` and `timestamptz`, and NaN and ±infinity in `numeric(p,s)`.
//! - **A lake string is UTF-8.** A database of encoding SQL_ASCII may hold other bytes, and those are refused as well, in `json`
//!   and its like as much as in `text`.
//! - **The lossless way out** is `text_columns` of a table: such a column is a lake string with the server's text
//!   ([`ColumnType::as_text`](crate::base::ColumnType::as_text)), to which the first rule applies.
//!
//! Text is written into the caller's buffer, which is reused from row to row. [`print()`] gives any value as the server prints it, for
//! messages that name a row by its key.

mod calendar;
mod calendar_text;
mod error;
mod network;
mod number;
mod numeric;
mod print;
mod text;

#[cfg(test)]
mod calendar_test;
#[cfg(test)]
mod network_test;
#[cfg(test)]
mod numeric_test;
#[cfg(test)]
mod print_test;
#[cfg(test)]
mod property_test;
#[cfg(test)]
pub(crate) mod remedy_test;

pub use calendar::{date, time, timestamp, timestamptz};
pub use error::ValueError;
pub use network::{cidr, inet, macaddr};
pub use number::{boolean, float4, float8, int2, int4, int8};
pub use numeric::{decimal, numeric};
pub use print::print;
pub use text::{UUID_TEXT_BYTES, bytea, jsonb, server_text, text, uuid};

/// A value that is not NULL, in the form that the server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// The type's output text.
    Text(&'a [u8]),
    /// The type's send form.
    Binary(&'a [u8]),
}

/// The send form of a type of fixed size.
#[inline]
fn exactly<const N: usize>(bytes: &[u8], kind: &'static str) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| ValueError::Malformed { kind })
}
