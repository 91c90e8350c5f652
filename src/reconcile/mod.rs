//! The archive: a detached partition is balanced against the lake, gets a receipt, and only then is dropped.
//!
//! ```text
//! archive schema ─▶ candidate ─▶ freeze ─▶ cut (marker · SQL digest · lake digest · marker) ─▶ verdict ─┬─▶ receipt + DROP
//!                    └ left alone, with the reason                                                      └─▶ finding
//! ```
//!
//! Promises owned here:
//! - **R1** [`Ledger`]: rows and digest of the lake's partition are those of its receipts, of the detached tables and of what the parent
//!   still holds for these days. A cut counts only if the lake's files of these days were the same after a marker behind the SQL
//!   statement was durable as before it; a difference becomes a finding on the second such cut, which [`Narrowed`] explains by hours,
//!   keys and names of columns, never by other values.
//! - **R2, R3** One transaction from freeze to drop, whose lock and DROP are functions of the schema's owner (`sql/11`). It counts after
//!   the lock, and waits until the slot has acknowledged a marker that was written after the lock.
//! - **R4** [`digest`]: SQL on one side, Parquet on the other, no code in common with the writer.
//! - **R5** [`Candidate`]: the columns, partman's interval and the name agree, or the table is left alone and listed.
//!
//! [`DayVerdict`] answers the same question for a repair: which days of the lake are not what PostgreSQL has, live or waiting, so that those
//! are copied again. Days that are still to be copied are neither proved nor dropped.

pub mod audit;
mod candidate;
pub mod chain;
mod cut;
pub mod digest;
mod erase;
mod error;
mod judge;
mod ledger;
mod narrow;
mod partition;
mod proof;
#[cfg(test)]
mod remedy_test;
mod repair;
mod span;
mod waiting;

pub use candidate::{Candidate, Candidates, LeftAlone, find};
pub use erase::{ErasedUnit, ErasureRequest};
pub use error::ReconcileError;
pub use ledger::{Balance, Ledger};
pub use narrow::{HourDifference, Keys, Narrowed};
pub use partition::{Outcome, PartitionReport, Reconciler};
pub use proof::{Due, ProofReport, days_of, fingerprint_of, is_complete, partitions_of, widened};
pub use repair::{DayToBalance, DayVerdict, Standing, dropped_of, has_place};
pub use span::Span;
pub use waiting::NameTaken;
