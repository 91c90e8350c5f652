//! The lake: Delta tables of zstd Parquet files on a local folder or an object store, written once and read by everybody.
//!
//! ```text
//! PartitionBatch ─▶ writer ─▶ encoder ─▶ StagedFile ─┐            (uploaded, invisible)
//!                              └ statistics          ├─▶ LakeTable::commit ─▶ _delta_log/N.json ─▶ Durable(lsn)
//!                                     txn(at) ───────┘            (one put-if-absent makes both visible)
//! ```
//!
//! [`TableWriter`] turns rows into one file per partition at least and uploads them; nothing refers to them yet. A transaction in
//! progress has a writer of its own, whose files remember which subtransaction each row belongs to: those with rows that were
//! rolled back are written again before the commit. What a process that died had uploaded is found by its intent and removed
//! ([`remove_orphans`]).
//! [`LakeTable::commit`] writes one log entry that names the files and the WAL position they reach. The log is written and
//! followed here, without the table library's commit path: a pure append needs no list of the active files, so memory and
//! time stay flat however many files the table has. Readers ([`open_for_query`], [`table_days`]) use the library.
//!
//! Promises owned here:
//! - **L1** Files and progress land in the same Delta commit, `txn(app_id, version = LSN)`. The application id names system
//!   identifier, pipeline, table and epoch ([`Progress`]); a position at or below the recorded one is refused. No other
//!   store holds progress.
//! - **L2** After any commit error the log is read again before anything is tried again: an entry that carries this commit's
//!   own identifier counts as success, whatever the store answered. [`LakeTable::land`] goes on so until the store works. A
//!   position between the known one and the one to be committed, from a process that is gone, is [`LakeError::Overtaken`]: the
//!   rows held may be in the lake already, and the stream starts again.
//! - **L3** One file holds one partition. One rewrite or maintenance operation a table at a time, across processes
//!   ([`TableLock`]).
//! - **L4** Tables stay in the profile that every reader reads: protocol (1,2), classic checkpoints, no table features.
//!
//! Only this room can make a [`Durable`], which is what a replication slot may be acknowledged with (W1). On a local folder
//! durable means synced: file, name and folders.
//!
//! Beside the tables, under `_lakebed/`, stand small objects that no reader of the lake needs: what a slot was acknowledged
//! with ([`Acknowledgements`]), so that a slot ahead of the lake is recognised, and what somebody must know later ([`Finding`]),
//! and the receipts of the archive, as a table ([`ReceiptBook`]).
//! A table that stands still says so in its own log ([`LakeTable::park`]).
//!
//! A table's columns follow its source's ([`LakeTable::evolve`]): it has every column that the source ever had, files have those
//! of their rows, and a wider type rewrites them.
//!
//! Rows of one subject go by [`Eraser`], which works beside whoever feeds the table: files are written again without them, exactly the
//! files so replaced are deleted, and the log entries that may tell their values expire.
//!
//! Deliberately absent: log cleanup by age (a maintenance task, never part of a commit). Whoever follows a log must bear it all the
//! same ([`LakeError::Expired`]). Uploads wait out a store's transient errors for as long as their owner has [`Patience`].

mod acknowledgement;
mod actions;
mod active;
mod apply;
mod bounds;
mod checkpoint;
mod checkpoint_reader;
mod chunks;
mod commit;
mod days;
mod encoder;
mod erase;
mod erasure_note;
mod error;
mod evolution;
mod evolve;
mod expiry;
mod finding;
mod gap;
mod intent;
mod journal;
mod journal_rows;
mod land;
mod leftovers;
mod local_files;
mod local_store;
mod location;
mod lock;
mod lock_entries;
mod log;
mod open_file;
mod orphans;
mod partition_reader;
mod patience;
mod progress;
mod receipt_book;
mod rewrite;
mod rules;
mod schema;
mod staged;
mod staging;
mod statistics;
mod store_fault;
mod table;
mod target;
mod uncopied;
mod writer;

#[cfg(test)]
mod acknowledgement_test;
#[cfg(test)]
mod commit_test;
#[cfg(test)]
mod erase_test;
#[cfg(test)]
mod evolve_test;
#[cfg(test)]
mod failing_store;
#[cfg(test)]
mod finding_test;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod foreign_test;
#[cfg(test)]
mod journal_test;
#[cfg(test)]
mod land_test;
#[cfg(test)]
mod lock_test;
#[cfg(test)]
mod orphans_test;
#[cfg(test)]
mod park_test;
#[cfg(test)]
pub(crate) mod remedy_test;
#[cfg(test)]
mod rewrite_test;
#[cfg(test)]
mod scripted_store;
#[cfg(test)]
mod table_test;
#[cfg(test)]
mod upload_test;
#[cfg(test)]
mod writer_test;

pub use acknowledgement::{Acknowledgement, Acknowledgements};
pub use apply::{ChangeSpool, Figures, Landed, Rewriter, Segment, StreamedCommit};
pub use days::{DaySummary, open_for_query, table_days};
pub use erase::{Condition, EraseOrder, ErasePlan, Erased, Eraser, Erasure};
pub use erasure_note::{ErasedDays, ErasureNote, forget_erasure, note_erasure, noted_erasures};
pub use error::LakeError;
pub use evolve::SourceRelation;
pub use finding::{Finding, FindingKind, finding_positions, findings, record_finding};
pub use gap::record_gap;
pub use journal::{Journal, journal_of, journal_path};
pub use journal_rows::JournalEntry;
pub use location::LakeLocation;
pub use lock::TableLock;
pub use orphans::{OrphanReport, remove_orphans};
pub use partition_reader::{FetchedFile, FileFault, PartitionReader, StoredFile};
pub use patience::Patience;
pub use progress::{Durable, Progress};
pub use receipt_book::{Booked, BookedReceipt, RECEIPTS_PATH, ReceiptBook, booked_receipts};
pub use staged::StagedFile;
pub use store_fault::StoreFault;
pub use table::LakeTable;
pub use uncopied::{mark_uncopied, uncopied};
pub use writer::{TableWriter, WriterOptions};
