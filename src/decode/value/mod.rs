//! One column's bytes become its exact value (promise D3).
//!
//! A value arrives in one of two forms: the type's output text, or its send form (`binary 'true'`). Both are read here for
//! every [`ColumnType`](crate::base::ColumnType) and give the same result, which the property tests hold them to. The text forms depend on
//! settings that the replication connection pins: DateStyle ISO, TimeZone UTC, extra_float_digits 3, bytea_output hex.
//!
//! What the lake's type cannot hold (±infinity, years before 1 or after 9999, a decimal's NaN) is a [`ValueError`]. Types that
//! become strings give PostgreSQL's own output text. Text is written into the caller's buffer, which is reused from row to row.

mod calendar;
mod calendar_text;
mod error;
mod network;
mod number;
mod numeric;
mod text;

#[cfg(test)]
mod calendar_test;
#[cfg(test)]
mod network_test;
#[cfg(test)]
mod numeric_test;
#[cfg(test)]
mod property_test;

pub use calendar::{date, time, timestamp, timestamptz};
pub use error::ValueError;
pub use network::{cidr, inet, macaddr};
pub use number::{boolean, float4, float8, int2, int4, int8};
pub use numeric::{decimal, numeric};
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
