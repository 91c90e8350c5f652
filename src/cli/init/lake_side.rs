//! The lake's tables: what is there, what begins at which position with which days still to be copied, and what goes on behind a gap.

use super::beginning::{Beginning, Existing, Gap, refuse_rows_meanwhile};
use super::dry_run::one_line;
use super::existing_slot::LakeState;
use super::listing::{self, Marks};
use super::slot::{create_exporting_slot, create_slot, enable_failover, removed_again};
use super::{Done, Recorded, Seen, line, names, record};
use crate::base::{DaySet, Lsn, TableShape};
use crate::config::Pipeline;
use crate::connect::Settings;
use crate::lake::{Acknowledgement, LakeError, LakeLocation, LakeTable, Progress};
use crate::pipeline::TableMark;
use crate::source::{self, TableFacts};
use crate::wal::ReplicationConnection;
use anyhow::{Context, ensure};
use chrono::Utc;
use std::collections::BTreeMap;
use std::ops::Range;
use tokio_postgres::Client;

/// The lake's tables before anything is changed.
pub(super) struct LakeSide {
    location: LakeLocation,
    tables: Vec<LakeEntry>,
}

/// Where tables begin.
struct Start {
    at: Lsn,
    done: Done,
    marks: Marks,
}

struct LakeEntry {
    shape: TableShape,
    path: String,
    progress: Progress,
    recorded: Recorded,
    /// Present, and nothing was committed since its creation.
    only_created: bool,
    /// It stands still on purpose, and goes on doing so.
    parked: bool,
}

impl LakeSide {
    /// Opens every table that is there: what its name, schema or record forbids is refused now. `probe` also writes to the lake,
    /// which a dry run may not.
    pub(super) async fn look(
        pipeline: &Pipeline,
        tables: &[TableFacts],
        system_identifier: &str,
        probe: bool,
    ) -> anyhow::Result<Self> {
        let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
        if probe {
            location.probe().await?;
        }
        let mut entries = Vec::with_capacity(tables.len());
        for (section, facts) in pipeline.tables.iter().zip(tables) {
            let progress = Progress {
                system_identifier: system_identifier.to_owned(),
                pipeline: pipeline.source.slot.clone(),
                table: section.name.clone(),
                epoch: 0,
            };
            let path = section.lake_path().to_owned();
            let (recorded, only_created, parked) =
                match LakeTable::open(&location, &path, &facts.shape, &progress).await {
                    Ok(table) => (Some(table.recorded()), table.version() == 0, table.parked().is_some()),
                    Err(LakeError::Missing { .. }) => (None, false, false),
                    Err(error) => return Err(error.into()),
                };
            entries.push(LakeEntry { shape: facts.shape.clone(), path, progress, recorded, only_created, parked });
        }
        Ok(Self { location, tables: entries })
    }

    pub(super) fn location(&self) -> &LakeLocation {
        &self.location
    }

    /// The newest position that any table records.
    pub(super) fn newest(&self) -> Option<Lsn> {
        self.tables.iter().filter_map(|entry| entry.recorded).max()
    }

    pub(super) fn present(&self) -> impl Iterator<Item = &TableShape> {
        self.tables.iter().filter(|entry| entry.recorded.is_some()).map(|entry| &entry.shape)
    }

    pub(super) fn states(&self, record: Option<&Acknowledgement>) -> Vec<LakeState> {
        let expected = |entry: &LakeEntry| Some(expected_of(&entry.shape, record?));
        let state = |entry: &LakeEntry| LakeState {
            table: entry.shape.table.clone(),
            recorded: entry.recorded,
            only_created: entry.only_created,
            expected: expected(entry).filter(|_| !entry.parked),
        };
        self.tables.iter().map(state).collect()
    }

    fn marks(&self) -> Vec<TableMark> {
        let mark = |entry: &LakeEntry| {
            let recorded = entry.recorded?;
            Some(TableMark { table: entry.shape.table.to_string(), recorded, parked: entry.parked })
        };
        self.tables.iter().filter_map(mark).collect()
    }

    /// Creates the slot if need be, then the lake tables; one line each. The slot is created through the pipeline's own login. If
    /// no lake table can be written after all, a slot made here is removed again: nothing was read from it, and left behind it
    /// would pin WAL and look like a gap to the next run. Once a lake table begins at it, it stays for the next run to go on.
    pub(super) async fn begin(
        &self,
        client: &Client,
        beginning: &Beginning,
        login: &Settings,
        pipeline: &Pipeline,
        seen: &Seen,
    ) -> anyhow::Result<Vec<String>> {
        let slot = &pipeline.source.slot;
        let mut connection = ReplicationConnection::open(login).await?;
        let system = connection.identify_system().await?;
        ensure!(
            system.system_identifier == seen.server.system_identifier,
            "--admin-url and [source].url lead to two different servers; let both name the same one"
        );
        let known = record::newest(&self.location, slot).await?;
        record::refuse_other_lineage(&mut connection, slot, known.as_ref(), &self.marks()).await?;
        let Start { at, done, marks } = self.start(&mut connection, beginning, (login, client), pipeline, seen).await?;
        let mut lines = vec![line(done, &format!("slot {slot}"))];
        if done == Done::Already && pipeline.source.failover {
            lines.extend(enable_failover(client, &mut connection, slot).await?);
        }
        let is_new = matches!(beginning, Beginning::NewSlot { .. });
        if *beginning == (Beginning::NewSlot { existing: Existing::Refuse })
            && let Err(error) = refuse_rows_meanwhile(client, self.begun_here(&seen.tables)).await
        {
            return Err(error.context(removed_again(login, slot).await));
        }
        // Before anything moves: what was held is not known afterwards.
        if *beginning != Beginning::Complete
            && let Some(missing) = self.missing(beginning, at, known.as_ref())
        {
            record::accept_gap(&self.location, slot, at, missing).await?;
        }
        self.note_unpublished(client, (beginning, at, known.as_ref()), pipeline, seen).await?;
        let mut created = Vec::with_capacity(self.tables.len());
        match self.create_tables(beginning, at, (known.as_ref(), &marks), &mut created).await {
            Ok(()) => lines.extend(created),
            Err(error) if is_new && created.is_empty() => {
                let outcome = removed_again(login, slot).await;
                return Err(error.context(format!("the lake tables could not be created ({outcome})")));
            }
            Err(error) => {
                let left =
                    "not every lake table could be created (what was made stays: run init again with the same options)";
                return Err(error.context(left));
            }
        }
        if *beginning != Beginning::Complete {
            let timeline = system.timeline;
            self.leave_record(beginning, at, known.as_ref(), slot, (seen, timeline)).await.context(
                "what the slot has acknowledged could not be recorded (what was made stays: run init again with the same options)",
            )?;
        }
        Ok(lines)
    }

    /// The position at which tables begin, and the days of each that are still to be copied then.
    async fn start(
        &self,
        connection: &mut ReplicationConnection,
        beginning: &Beginning,
        (login, client): (&Settings, &Client),
        pipeline: &Pipeline,
        seen: &Seen,
    ) -> anyhow::Result<Start> {
        let (slot, failover) = (&pipeline.source.slot, pipeline.source.failover);
        let (already, none) = (Done::Already, Marks::default);
        let begun: Vec<&TableFacts> = self.begun_here(&seen.tables).collect();
        match beginning {
            Beginning::Complete => Ok(Start { at: Lsn::ZERO, done: already, marks: none() }),
            Beginning::AtSlot { at, existing: Existing::Copy, .. } => {
                listing::wait_for_older_writers(client).await?;
                let marks = listing::now(login, &pipeline.archive.schema, &begun).await?;
                Ok(Start { at: *at, done: already, marks })
            }
            Beginning::AtSlot { at, .. } => Ok(Start { at: *at, done: already, marks: none() }),
            Beginning::NewSlot { existing: Existing::Copy } => {
                let (at, snapshot) = create_exporting_slot(connection, slot, failover).await?;
                // The connection must be idle until everything is listed.
                match listing::under(login, &pipeline.archive.schema, &snapshot, &begun).await {
                    Ok(marks) => Ok(Start { at, done: Done::Now, marks }),
                    Err(error) => {
                        let outcome = removed_again(login, slot).await;
                        Err(error.context(format!("what the tables hold could not be listed ({outcome})")))
                    }
                }
            }
            Beginning::NewSlot { .. } => {
                let at = create_slot(connection, slot, failover).await?;
                Ok(Start { at, done: Done::Now, marks: none() })
            }
        }
    }

    /// A publication sends a table's changes from the moment on when it was added, wherever the slot stands: what was committed
    /// before, while the slot was there, is missing.
    async fn note_unpublished(
        &self,
        client: &Client,
        (beginning, at, known): (&Beginning, Lsn, Option<&Acknowledgement>),
        pipeline: &Pipeline,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        let Some(publication) = seen.publication.as_ref().filter(|_| !matches!(beginning, Beginning::NewSlot { .. }))
        else {
            return Ok(());
        };
        let is_copied = |entry: &LakeEntry| beginning.copies() && entry.recorded.is_none();
        let is_added = |entry: &&LakeEntry| publication.find(&entry.shape.table).is_none() && !is_copied(entry);
        let added: Vec<&LakeEntry> = self.tables.iter().filter(is_added).collect();
        if added.is_empty() {
            return Ok(());
        }
        let until = source::server(client).await?.wal_position;
        let tables = names(added.iter().map(|entry| &entry.shape));
        let missing = format!("what was committed to {tables} before {until}, while the publication did not send it");
        record::accept_gap(&self.location, &pipeline.source.slot, until, missing).await?;
        for entry in added {
            self.journal_gap(entry, entry.position(beginning, at, known)..until).await?;
        }
        Ok(())
    }

    /// A table that stands still misses everything since then, which its repair is to bring.
    async fn journal_gap(&self, entry: &LakeEntry, gap: Range<Lsn>) -> anyhow::Result<()> {
        if entry.parked {
            return Ok(());
        }
        record::journal_gap(&self.location, &entry.path, (&entry.shape, &entry.progress), gap).await
    }

    /// The record from which `run` goes on.
    async fn leave_record(
        &self,
        beginning: &Beginning,
        at: Lsn,
        known: Option<&Acknowledgement>,
        slot: &str,
        (seen, timeline): (&Seen, u32),
    ) -> anyhow::Result<()> {
        let recorded = |entry: &LakeEntry| (entry.shape.table.to_string(), entry.position(beginning, at, known));
        let record = Acknowledgement {
            system_identifier: seen.server.system_identifier.clone(),
            timeline,
            // The slot may not have heard of what the record says.
            acknowledged: known.map_or(at, |known| known.acknowledged.max(at)),
            tables: self.tables.iter().map(recorded).collect(),
            recorded_at: Utc::now(),
        };
        record::write(&self.location, slot, &record).await
    }

    /// What the lake will miss, if anything that it had goes on behind a gap.
    fn missing(&self, beginning: &Beginning, at: Lsn, known: Option<&Acknowledgement>) -> Option<String> {
        // A new slot that copies has no table from before.
        if matches!(
            beginning,
            Beginning::AtSlot { gap: Gap::None, .. } | Beginning::NewSlot { existing: Existing::Copy }
        ) {
            return None;
        }
        let newest = self.tables.iter().filter_map(|entry| entry.recorded).max();
        let held = newest.max(known.map(|known| known.acknowledged))?;
        let begun: BTreeMap<String, Lsn> = self
            .tables
            .iter()
            .filter(|entry| entry.recorded.is_none() || entry.goes_on(beginning, known))
            .map(|entry| (entry.shape.table.to_string(), entry.recorded.unwrap_or(Lsn::ZERO)))
            .filter(|(_, recorded)| *recorded < at)
            .collect();
        let tables: Vec<String> = begun.into_iter().map(|(table, from)| format!("{table} from {from}")).collect();
        Some(format!("changes before {at} may be missing ({}; the lake held {held})", tables.join(", ")))
    }

    /// The configured tables whose lake tables are still to be created.
    pub(super) fn begun_here<'a>(&'a self, tables: &'a [TableFacts]) -> impl Iterator<Item = &'a TableFacts> {
        tables.iter().zip(&self.tables).filter(|(_, entry)| entry.recorded.is_none()).map(|(facts, _)| facts)
    }

    /// Adds a line for each table that is done, so that after an error it is known whether any is.
    async fn create_tables(
        &self,
        beginning: &Beginning,
        at: Lsn,
        (known, marks): (Option<&Acknowledgement>, &Marks),
        lines: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let nothing = DaySet::default();
        for entry in &self.tables {
            let what = format!("lake table {}/{}", self.location, entry.path);
            let done = match (entry.recorded, beginning) {
                (None, _) => {
                    let uncopied = marks.get(&entry.shape.table).unwrap_or(&nothing);
                    LakeTable::create_to_copy(&self.location, &entry.path, &entry.shape, &entry.progress, at, uncopied)
                        .await?
                        .close()
                        .await;
                    let copied = match uncopied.is_empty() {
                        true => String::new(),
                        false => format!("; to be copied: {uncopied}"),
                    };
                    line(Done::Now, &format!("{what}, from {at}{copied}"))
                }
                (Some(recorded), _) if entry.goes_on(beginning, known) => {
                    // Before the table moves: where it was is not known afterwards.
                    self.journal_gap(entry, recorded..at).await?;
                    let table = LakeTable::open(&self.location, &entry.path, &entry.shape, &entry.progress).await?;
                    go_on(table, at).await?;
                    line(Done::Now, &format!("{what} keeps its rows; gap accepted from {recorded} to {at}"))
                }
                (Some(_), _) => line(Done::Already, &what),
            };
            lines.push(done);
        }
        Ok(())
    }

    pub(super) fn dry_run_text(&self, beginning: Beginning) -> String {
        let line = |entry: &LakeEntry| {
            let state = match entry.recorded {
                Some(_) => "already there",
                None if beginning.copies() => "would be created, and every day copied that has rows",
                None => "would be created",
            };
            format!("-- lake table {}: {state}\n", one_line(&format!("{}/{}", self.location, entry.path)))
        };
        self.tables.iter().map(line).collect()
    }
}

impl LakeEntry {
    /// Whether a table that is there continues behind an accepted gap. A parked one stands still whatever happens.
    fn goes_on(&self, beginning: &Beginning, known: Option<&Acknowledgement>) -> bool {
        let behind_record = || {
            let expected = known.map(|known| expected_of(&self.shape, known));
            expected.is_some_and(|expected| self.recorded.is_some_and(|recorded| recorded < expected))
        };
        let gap = match beginning {
            Beginning::Complete | Beginning::AtSlot { gap: Gap::None, .. } => false,
            Beginning::AtSlot { gap: Gap::SomeTables, .. } => behind_record(),
            Beginning::AtSlot { gap: Gap::Everywhere, .. } | Beginning::NewSlot { .. } => true,
        };
        gap && !self.parked
    }

    /// What the lake table records when `init` is done.
    fn position(&self, beginning: &Beginning, at: Lsn, known: Option<&Acknowledgement>) -> Lsn {
        match self.recorded {
            None => at,
            Some(recorded) if self.goes_on(beginning, known) => recorded.max(at),
            Some(recorded) => recorded,
        }
    }
}

/// How far a lake table was when the slot was last acknowledged; one that was not followed then has to be as far as the slot.
fn expected_of(shape: &TableShape, known: &Acknowledgement) -> Lsn {
    known.tables.get(&shape.table.to_string()).copied().unwrap_or(known.acknowledged)
}

/// Records that the table goes on at `at`; a run that was interrupted here before finds it recorded.
async fn go_on(mut table: LakeTable, at: Lsn) -> anyhow::Result<()> {
    if table.recorded() < at {
        table.commit(&[], at).await?;
    }
    table.close().await;
    Ok(())
}
