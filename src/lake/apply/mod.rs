//! Changes of rows, applied to a table copy on write: UPDATE, DELETE and TRUNCATE, with the rows of the same flush, in one Delta commit.
//!
//! ```text
//! Segment (files, changes) ─▶ steps ─▶ walk ─▶ merge ─▶ Plan ─▶ old images to the journal, its commit ─▶ Removes + Adds + txn
//!                               │        │       └ what an UPDATE did not send is the earlier version's
//!                               │        └ each change in its order, on the version that its key names then
//!                               └ rounds that fit into memory
//! ```
//!
//! A change names its row by the table's identity. Which files can hold the row is decided by partition and statistics, then by reading the
//! identity's columns alone. What goes is only noted at first: each file that holds such rows is read whole and written again once, at
//! the end, however many changes hit it and however many rounds there were.
//!
//! Making a plan changes nothing but adds files that no commit names. So it can be made again from the same segment when another program
//! rewrote one of the files meanwhile (L2), and what a process that died had planned is gone like any staged file.
//!
//! Promises owned here:
//! - **D3**, for UPDATE: an unchanged TOASTed value is the earlier version's, or the table stops ([`LakeError::NoEarlierRow`]).
//! - **L2**, for rewrites: a commit that removes files stands on every one of them being active still.
//! - **B2**: a round's changes, one file's encoder and one batch of rows are what is held, whatever a transaction changed.

pub(super) mod data_file;
mod held;
mod keys;
mod land;
mod merge;
mod moves;
mod old_images;
mod plan;
mod spool;
mod stand_ins;
mod steps;
mod versions;
mod view;
mod walk;
mod widen;

#[cfg(test)]
mod apply_model;
#[cfg(test)]
mod apply_test;
#[cfg(test)]
mod replace_test;

pub use land::{Landed, Rewriter};
pub use plan::Figures;
pub use spool::ChangeSpool;
pub(super) use spool::leftover_changes;

use super::error::LakeError;
use super::staged::StagedFile;
use crate::base::{DaySet, Lsn, Runs, TableName, XidSet};
use crate::buffer::ChangeBatch;
use deltalake::arrow::array::BooleanArray;
use deltalake::arrow::compute::filter_record_batch;
use std::fmt::Display;

/// Where and when a transaction committed that was sent while it was in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamedCommit {
    /// LSN of its commit record.
    pub commit_lsn: Lsn,
    /// Microseconds since 1970.
    pub commit_time_micros: i64,
}

/// What one flush takes of one table, when rows changed: those of whole transactions, or one transaction that was sent in progress.
pub struct Segment {
    /// The source table, for messages.
    pub table: TableName,
    /// Its rows, with their eras; those of `aborted` are left out already.
    pub files: Vec<StagedFile>,
    /// Its changes, in order.
    pub changes: ChangeSpool,
    /// Subtransactions whose changes do not count.
    pub aborted: XidSet,
    /// For a transaction that was sent in progress.
    pub commit: Option<StreamedCommit>,
    /// Days of which the segment's files and changes are all there is: what the lake had of them goes, and they are copied then.
    pub replaces: DaySet,
}

impl Segment {
    fn unfit(&self, reason: &dyn Display) -> LakeError {
        let (location, reason) = (self.table.to_string(), reason.to_string());
        LakeError::Batch { location, reason }
    }

    /// A part of the changes without those that were rolled back.
    fn without_aborted(&self, part: ChangeBatch) -> Result<ChangeBatch, LakeError> {
        let Some(xids) = part.xids.as_ref().filter(|xids| xids.touches(&self.aborted)) else { return Ok(part) };
        let each = |(xid, rows): (u32, u64)| (0..rows).map(move |_| xid);
        let kept: BooleanArray = xids.iter().flat_map(each).map(|xid| Some(!self.aborted.contains(xid))).collect();
        let keys = filter_record_batch(&part.keys, &kept).map_err(|error| self.unfit(&error))?;
        let live: Vec<u32> = xids.iter().flat_map(each).filter(|xid| !self.aborted.contains(*xid)).collect();
        let mut xids = Runs::default();
        live.into_iter().for_each(|xid| xids.push(xid, 1));
        // Patches are found by their changes, so those of changes that are gone do no harm.
        Ok(ChangeBatch { keys, patches: part.patches, xids: Some(xids) })
    }
}
