//! What exists already: days of a table are copied from PostgreSQL under one snapshot, into files that one commit puts in the place of
//! whatever the lake had.
//!
//! The stream has everything that comes, and nothing that was there before. A day is the unit, because rows of a day move between its leaf, the
//! default partition and the archive, and one snapshot sees each of them in exactly one place. The snapshot is that of a temporary slot, whose
//! consistent point is the day's floor: a transaction is seen by the snapshot, or is in the stream above the floor, and never both. The slot is
//! let go as soon as the snapshot is imported, so a copy keeps no WAL.
//!
//! ```text
//! marked days ─▶ batch ─▶ Exported (slot, floor, snapshot) ─▶ survey ─▶ queue of block ranges
//!                                                                          │ several sessions
//!        Copied ◀── finish without aborted attempts ◀── TableWriter ◀── TableBuffer ◀── COPY, binary
//! ```
//!
//! A session reads one range at a time, in a part of its transaction that is rolled back behind it, which gives the lock back. Whoever waits for
//! a table that is being read gets it within a moment: the COPY is ended, its rows are left out like those of a subtransaction that was rolled
//! back, and the range is read again behind him. COPY's fields are the stream's own two forms, and go through the same code.
//!
//! Promises owned here:
//! - **S1**, the half of it that reads: what a copy hands over is exactly what its snapshot has of its days, each row once, or it hands over
//!   nothing. A table that was rewritten, emptied, altered or dropped meanwhile is an error that passes: an old snapshot does not see through it.
//! - **S2** A copy holds a table's lock no longer than one range takes, and nobody waits for one longer than a moment. It holds its snapshot no
//!   longer than one batch takes, and its slot until the snapshot is imported.
//! - Memory depends on the sessions and the limits, on nothing in the source.
//!
//! Nothing in this room commits, marks or forgets a day; that is the pipeline's.

mod batch;
mod copy;
mod days;
mod error;
mod exported;
mod meter;
mod outlet;
mod pace;
mod places;
#[cfg(test)]
pub(crate) mod remedy_test;
mod rows;
mod seat;
mod work;
mod worker;

pub use batch::{Waiting, next_batch, waiting};
pub use copy::{Copied, Limits, Order, copy};
pub use days::days_with_rows;
pub use error::SnapshotError;
pub use exported::{Exported, temporary_slots_of};
pub use meter::{Figures, Meter, Phase};
pub use places::{Archived, SourceTable};
