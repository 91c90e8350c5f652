//! The landing stage: encode, upload, commit, acknowledge. Owns every table's lake side.

use super::aside::CopiedTable;
use super::landing::Landing;
use super::{PipelineError, Totals};
use crate::base::{DaySet, Lsn, TableShape, XidSet};
use crate::buffer::{ChangeBatch, PartitionBatch, Transaction};
use crate::lake::{Acknowledgement, Acknowledgements, LakeLocation, Patience, SourceRelation, TableWriter};
use crate::ops::fail_points;
use crate::wal::Feedback;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

/// How often the tables' logs are looked at for what other processes ask for there.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What `follow` asks for, in the order of the WAL.
pub(super) enum LandCommand {
    /// Rows of a table. They belong to the next commit, or to a transaction in progress.
    Rows {
        /// Index of the table.
        table: usize,
        /// The transaction in progress.
        xid: Option<u32>,
        /// The rows.
        batch: PartitionBatch,
    },
    /// Changes of rows of a table. They belong to the next commit, or to a transaction in progress.
    Changes {
        /// Index of the table.
        table: usize,
        /// The transaction in progress.
        xid: Option<u32>,
        /// The changes.
        batch: ChangeBatch,
    },
    /// A transaction in progress committed: its rows and changes belong to the next commit, without those of `aborted`. If it brought
    /// changes, that commit takes nothing else.
    Join {
        /// The transaction, with what its commit tells.
        by: Transaction,
        /// Its subtransactions that were rolled back.
        aborted: XidSet,
        /// For each table, whether it takes no part: its lake holds the transaction already, or it stands still.
        excluded: Vec<bool>,
    },
    /// A table has other columns from here on.
    Evolve {
        /// Index of the table.
        table: usize,
        /// The transaction in progress that says so, and which of its subtransactions, or itself.
        by: Option<[u32; 2]>,
        /// The columns.
        shape: Arc<TableShape>,
        /// The lake's names of added columns that have a default in rows which were there before.
        defaults: Vec<String>,
        /// Where the stream says so.
        at: Lsn,
    },
    /// Which table of the server feeds a table from here on.
    NoteSource {
        /// Index of the table.
        table: usize,
        /// The server's.
        relation: SourceRelation,
    },
    /// A transaction in progress was rolled back.
    Forget {
        /// The transaction.
        xid: u32,
    },
    /// A table stands still from a transaction on; what it was given since the last commit is dropped.
    Park {
        /// Index of the table.
        table: usize,
        /// Where the transaction commits that it could not take.
        since: Lsn,
        /// Why.
        reason: String,
    },
    /// A table is about to be copied with these columns.
    Prepare {
        /// Index of the table.
        table: usize,
        /// The columns.
        shape: Arc<TableShape>,
        /// Told a writer for the copy's files, none where the table has other columns; dropped where it takes no rows.
        writer: oneshot::Sender<Option<TableWriter>>,
    },
    /// The copied days of a table join the next commit, which takes nothing else of it, with what was kept aside meanwhile.
    Copied {
        /// The days and their files.
        copied: CopiedTable,
        /// What was kept aside and is in the copy already.
        below: XidSet,
    },
    /// Nothing will come of a copy that was finished: its files are removed.
    Abandon {
        /// By table.
        copied: Vec<CopiedTable>,
    },
    /// The commits that a copy went into are made.
    CopyLanded {
        /// Who waits for it.
        landed: oneshot::Sender<()>,
    },
    /// Days of a table are to be copied, whatever the lake has of them.
    Mark {
        /// Index of the table.
        table: usize,
        /// The days.
        days: DaySet,
    },
    /// Days of a table are not to be copied any more: they stay as they are.
    Keep {
        /// Index of the table.
        table: usize,
        /// The days.
        days: DaySet,
        /// Behind this their changes are taken again.
        at: Lsn,
    },
    /// A transaction's end: make everything so far durable, then acknowledge it.
    Commit {
        /// End LSN of the last transaction that the rows belong to.
        at: Lsn,
    },
    /// Nothing was written to any table up to here: acknowledge it.
    Idle {
        /// The position.
        at: Lsn,
    },
}

/// What the lake is told before a position is acknowledged.
pub(super) struct Witness {
    pub(super) records: Acknowledgements,
    pub(super) system_identifier: String,
    pub(super) timeline: u32,
}

/// How far each table is.
pub(super) fn stands(tables: &[Landing]) -> BTreeMap<String, Lsn> {
    tables.iter().map(|landing| (landing.name(), landing.recorded())).collect()
}

impl Witness {
    /// Notes in the lake that everything before `at` may be acknowledged, and how far each table is.
    pub(super) async fn note(
        &mut self,
        at: Lsn,
        tables: BTreeMap<String, Lsn>,
        patience: &Patience,
    ) -> Result<(), PipelineError> {
        let record = Acknowledgement {
            system_identifier: self.system_identifier.clone(),
            timeline: self.timeline,
            acknowledged: at,
            tables,
            recorded_at: chrono::Utc::now(),
        };
        Ok(self.records.write(&record, patience).await?)
    }
}

/// The stage and its connections.
pub(super) struct Land {
    pub(super) location: LakeLocation,
    pub(super) slot: String,
    pub(super) tables: Vec<Landing>,
    pub(super) commands: mpsc::Receiver<LandCommand>,
    pub(super) feedback: Feedback,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) totals: watch::Sender<Totals>,
    /// The days of each table that are still to be copied.
    pub(super) marked: watch::Sender<Vec<DaySet>>,
    pub(super) witness: Witness,
    pub(super) patience: Patience,
    /// For the open files of all tables together.
    pub(super) memory_limit_bytes: usize,
}

impl Land {
    /// Runs until `follow` closes the queue. Rows without a commit at that point belong to transactions that were cut off:
    /// their files are removed, and the server sends them again.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        let outcome = self.follow_commands().await;
        // `follow` need not wait for the tidying up.
        self.commands.close();
        for landing in self.tables {
            landing.close().await;
        }
        outcome
    }

    async fn follow_commands(&mut self) -> Result<(), PipelineError> {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                _ = looks.tick() => {
                    self.look_for_marks().await;
                    continue;
                }
            };
            let Some(command) = command else { return Ok(()) };
            match command {
                LandCommand::Rows { table, xid, batch } => {
                    self.landing(table)?.write(xid, batch).await?;
                    self.keep_within_memory().await?;
                }
                LandCommand::Changes { table, xid, batch } => {
                    self.landing(table)?.write_changes(xid, batch).await?;
                    self.keep_within_memory().await?;
                }
                LandCommand::Join { by, aborted, excluded } => {
                    fail_points::reach("land.join");
                    for (landing, excluded) in self.tables.iter_mut().zip(excluded) {
                        landing.join(by, &aborted, excluded).await?;
                    }
                }
                LandCommand::Evolve { table, by, shape, defaults, at } => {
                    let (location, slot) = (self.location.clone(), self.slot.clone());
                    let landing = self.landing(table)?;
                    let added = landing.evolve(by, &shape).await?;
                    let defaults: Vec<String> = defaults.into_iter().filter(|name| added.contains(name)).collect();
                    landing.note_defaults(&defaults, at, &location, &slot).await?;
                }
                LandCommand::NoteSource { table, relation } => self.landing(table)?.note_source(relation).await?,
                LandCommand::Forget { xid } => {
                    for landing in &mut self.tables {
                        landing.forget(xid).await;
                    }
                }
                LandCommand::Park { table, since, reason } => {
                    let (location, slot, patience) = (self.location.clone(), self.slot.clone(), self.patience.clone());
                    self.landing(table)?.park(since, reason, &location, &slot, &patience).await?;
                }
                LandCommand::Prepare { table, shape, writer } => {
                    // Whoever asked has gone, or asks again.
                    if let Some(prepared) = self.landing(table)?.prepare_copy(&shape).await? {
                        let _ = writer.send(prepared);
                    }
                }
                LandCommand::Copied { copied, below } => {
                    fail_points::reach("copy.before_landing");
                    let (location, slot) = (self.location.clone(), self.slot.clone());
                    self.landing(copied.table)?.copied(copied, &below, (&location, &slot)).await?;
                }
                LandCommand::Abandon { copied } => {
                    for copied in copied {
                        copied.abandon().await;
                    }
                }
                LandCommand::CopyLanded { landed } => {
                    fail_points::reach("copy.after_landing");
                    self.tell_marks();
                    let _ = landed.send(());
                }
                LandCommand::Mark { table, days } => {
                    self.landing(table)?.mark(&days).await?;
                    self.tell_marks();
                }
                LandCommand::Keep { table, days, at } => {
                    let (location, slot) = (self.location.clone(), self.slot.clone());
                    self.landing(table)?.keep_days(&days, at, (&location, &slot)).await?;
                    self.tell_marks();
                }
                LandCommand::Commit { at } => self.commit(at).await?,
                LandCommand::Idle { at } => self.acknowledge(at).await?,
            }
        }
    }

    /// What other processes ask to be copied. An attempt: what stands against it is met again by the next commit.
    async fn look_for_marks(&mut self) {
        for landing in &mut self.tables {
            landing.look_for_marks().await;
        }
        self.tell_marks();
    }

    fn tell_marks(&self) {
        let marked: Vec<DaySet> = self.tables.iter().map(Landing::marked).collect();
        self.marked.send_if_modified(|known| {
            let news = *known != marked;
            *known = marked;
            news
        });
    }

    fn landing(&mut self, table: usize) -> Result<&mut Landing, PipelineError> {
        self.tables.get_mut(table).ok_or(PipelineError::StageGone { stage: "land" })
    }

    /// One budget for all tables and transactions: a quiet one's share is the busy one's.
    async fn keep_within_memory(&mut self) -> Result<(), PipelineError> {
        let total = |tables: &[Landing]| tables.iter().map(Landing::memory_bytes).sum::<usize>();
        while total(&self.tables) > self.memory_limit_bytes {
            let largest = self.tables.iter_mut().max_by_key(|landing| landing.largest_inflow_bytes());
            let Some(landing) = largest else { break };
            if !landing.relieve_largest().await? {
                break;
            }
        }
        Ok(())
    }

    /// One Delta commit for each touched table; the acknowledgement follows the last of them (W1, L1).
    async fn commit(&mut self, at: Lsn) -> Result<(), PipelineError> {
        let started = Instant::now();
        let (location, slot) = (&self.location, self.slot.as_str());
        let dirty = self.tables.iter_mut().filter(|landing| landing.is_dirty());
        // All of them to their end, also when one fails: a commit is never dropped half-way.
        let landings = dirty.map(|landing| landing.land(at, location, slot));
        let landed = futures::future::join_all(landings).await;
        let mut rows = 0;
        for landed in landed {
            rows += landed?;
        }
        self.acknowledge(at).await?;
        self.totals.send_modify(|totals| {
            totals.rows += rows;
            totals.flushes += 1;
        });
        tracing::info!(rows, lsn = %at, commit_seconds = started.elapsed().as_secs_f64(), "durable in the lake");
        for landing in &mut self.tables {
            landing.tidy().await;
        }
        Ok(())
    }

    /// Everything that commits before `at` is in the lake: the lake notes it, then the server may forget it (W1, W2).
    async fn acknowledge(&mut self, at: Lsn) -> Result<(), PipelineError> {
        self.witness.note(at, stands(&self.tables), &self.patience).await?;
        fail_points::reach("land.before_acknowledgement");
        self.feedback.acknowledge(at);
        self.durable.send_replace(at);
        fail_points::reach("land.after_acknowledgement");
        Ok(())
    }
}
