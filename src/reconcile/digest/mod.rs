//! The content digest of a set of rows, computed on both sides by code that shares nothing (R4).
//!
//! **Rule 1.** A row's message is what PostgreSQL's `record_send` makes of its columns, in the order of the column list: a count, then
//! for each column the oid of a form, a length (-1 is NULL) and the bytes. So one hash binds all columns, with lengths and NULL marks.
//! The first 16 bytes of the message's SHA-256 are two lanes of 64 bits; a set's digest is the sum of each lane modulo 2^64. It does not
//! depend on the order, and the digests of two sets add up to that of both, so a ledger can be kept in it ([`RowSum`]).
//!
//! A column's form is fixed by its type alone ([`DigestColumn`]): numbers, dates, uuids and bytes in their send form, everything that
//! the lake keeps as a string in the type's output text, never `x::text`, which differs for inet, bool and char(n). NaN is one value
//! there, whatever its bits are. Forms use oids that are the same on every server for ever, so a receipt of today can be checked by
//! whoever has SHA-256, the column list and this page.
//!
//! [`digest_query`] is PostgreSQL's side, [`LakeDigest`] reads Parquet back. Digests find faults; the hashes of files, which receipts hold as well, find
//! forgers: an additive digest of 128 bits does not withstand somebody who can choose the rows.

mod column;
mod lake;
mod sql;
mod sum;

pub use column::{DigestColumn, Form, columns_of};
pub(super) use lake::RowMessages;
pub use lake::{FormError, LakeDigest};
pub use sql::{PINS, digest_query};
pub(super) use sql::{from_each, grouped_digest_query, hash, hexadecimal, message};
pub use sum::{ParseRowSumError, RowSum};

/// The rule that new receipts are made by.
pub const RULE: u32 = 1;
