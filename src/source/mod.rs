//! The control plane: what the source server is, has and allows, read from its catalogs, and what `init` installs there.
//!
//! The stream says what changed; this room says whether the stream can be trusted: the tables' shapes, their leaves and bounds, the
//! publication, the slot, the login's rights, partman and cron. Every function takes a plain `tokio_postgres::Client`, asks one
//! question and returns facts; judging them is left to the verbs. Data goes one way:
//!
//! ```text
//! catalogs ─▶ facts (server, table, leaves, publication, slot, role, partman, cron) ─▶ check, init, status, run
//! sql/*.sql ─▶ template ─▶ install: the plan of what is missing ─▶ one transaction, as owner or administrator
//! ```
//!
//! Promises owned here: the reading half of **W2** (a slot is looked at, never created or moved, by this room), and **R5**'s first
//! half: a detached table belongs to a configured one by its columns, not by its name alone. Nothing in this room drops
//! or alters anything that it did not find missing. A name from a pipeline file or a catalog reaches SQL only through [`quote_identifier`],
//! [`quote_literal`] or a bound parameter.

mod archive;
mod archive_objects;
mod archive_records;
mod bounds;
mod copying;
mod cron;
mod dated;
mod described;
mod error;
mod headroom;
mod identity;
mod install;
mod keyed_rows;
mod leaves;
mod message;
mod moment;
mod partman;
mod publication;
mod quote;
mod read;
#[cfg(test)]
pub(crate) mod remedy_test;
mod role;
mod rows;
mod server;
mod slot;
mod subtransactions;
mod suggest;
mod table;
mod template;

pub use archive::{
    backend, begin_counting, cancel, columns_signature, commit_drop, drop_frozen, end_counting, freeze,
    hidden_by_policies, is_waited_for, labelled_sums, relation_exists, rename_waiting, thaw,
};
pub use archive_objects::{foreign_guide_functions, undroppable_owners};
pub use archive_records::{
    OpenFinding, Proof, Receipt, ReceiptText, adjust, keep_proof, listen_for_requests, note_finding, open_findings,
    proofs, queued, receipt_texts, receipts, resolve_findings, restore_receipt, served, settle_gone, still_there,
};
pub use bounds::{BoundAlignment, LeafBound, Reach};
pub use copying::{
    Brief, Extent, begin_range, copy_failed, copy_out, days_in, end_temporary_slots, extents, import_snapshot,
    is_copying, leave_range, prepare_copying, signatures, slot_waits_for, still_named, waited_for,
};
pub use cron::{CronJob, cron_jobs, runs_maintenance, sees_own_jobs_only};
pub use dated::{dated_between, first_instant};
pub use described::{DescribedColumn, DescribedTable, columns_with_default};
pub use error::{ColumnRole, SourceError};
pub use headroom::{Headroom, Pressure, headroom};
pub use install::{Installation, Step, apply, apply_cron, plan, plan_archive_cron, plan_cron, scram_verifier};
pub use keyed_rows::{KeyDetail, key_details, keyed_hashes};
pub use leaves::{DetachedTable, Leaf, detached_tables, leaves};
pub use message::emit_message;
pub use moment::{begin_now, begin_under, end_reading, next_transaction, oldest_transaction};
pub use partman::{PartmanConfig, PartmanFacts, partman, rival_root};
pub use publication::{Problem, PublicationFacts, PublishedTable, publication};
pub use quote::{qualified, quote_identifier, quote_literal};
pub use read::prepare_session;
pub use role::{RoleFacts, refused_in_schema, role, unreadable_tables};
pub use rows::{empty_leaves, holds_rows};
pub use server::{ServerFacts, server};
pub use slot::{SlotFacts, SlotHolder, slot};
pub use subtransactions::rolled_back;
pub use table::{Partitioning, ReplicaIdentity, TableFacts, TableRules, table};
