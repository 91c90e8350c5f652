//! Where the pipeline begins: slot and lake tables, which must agree, and every way in which they may not.

use super::{Done, Recorded, line, names};
use crate::base::{Lsn, TableShape};
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::lake::{LakeError, LakeLocation, LakeTable, Progress};
use crate::source::{self, ServerFacts, SlotFacts, TableFacts, quote_literal};
use crate::wal::ReplicationConnection;
use anyhow::{Context, bail, ensure};
use tokio_postgres::Client;

/// The lake's tables before anything is changed.
pub(super) struct LakeSide {
    location: LakeLocation,
    tables: Vec<LakeEntry>,
}

struct LakeEntry {
    shape: TableShape,
    path: String,
    progress: Progress,
    recorded: Recorded,
}

/// What has to be done about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Slot and lake tables are there.
    Complete,
    /// The slot is there; missing lake tables begin at its confirmed position.
    AtSlot(Lsn),
    /// A new slot; every lake table begins, or goes on, at its consistent point.
    NewSlot,
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
            let recorded = match LakeTable::open(&location, &path, &facts.shape, &progress).await {
                Ok(table) => Some(table.recorded()),
                Err(LakeError::Missing { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            entries.push(LakeEntry { shape: facts.shape.clone(), path, progress, recorded });
        }
        Ok(Self { location, tables: entries })
    }

    fn missing(&self) -> impl Iterator<Item = &TableShape> {
        self.tables.iter().filter(|entry| entry.recorded.is_none()).map(|entry| &entry.shape)
    }

    fn present(&self) -> impl Iterator<Item = &TableShape> {
        self.tables.iter().filter(|entry| entry.recorded.is_some()).map(|entry| &entry.shape)
    }

    /// Creates the slot if need be, then the lake tables; one line each. The slot is created through the pipeline's own login. If
    /// the lake cannot be written after all, a slot made here is removed again: nothing was read from it, and left behind it
    /// would pin WAL and look like a gap to the next run.
    pub(super) async fn begin(
        &self,
        beginning: &Beginning,
        login: &Settings,
        pipeline: &Pipeline,
        system_identifier: &str,
    ) -> anyhow::Result<Vec<String>> {
        let slot = &pipeline.source.slot;
        let mut connection = ReplicationConnection::open(login).await?;
        let system = connection.identify_system().await?;
        ensure!(
            system.system_identifier == system_identifier,
            "--admin-url and [source].url lead to two different servers; let both name the same one"
        );
        let (at, done) = match beginning {
            Beginning::Complete => (Lsn::ZERO, Done::Already),
            Beginning::AtSlot(confirmed) => (*confirmed, Done::Already),
            Beginning::NewSlot => (connection.create_slot(slot).await?.consistent_point, Done::Now),
        };
        let mut lines = vec![line(done, &format!("slot {slot}"))];
        match self.create_tables(beginning, at).await {
            Ok(created) => lines.extend(created),
            Err(error) if *beginning == Beginning::NewSlot => {
                let removed = remove_slot(login, slot).await;
                let outcome = match removed {
                    Ok(()) => "the new slot was removed again".to_owned(),
                    Err(_) => format!("remove the new slot: SELECT pg_drop_replication_slot({})", quote_literal(slot)),
                };
                return Err(error.context(format!("the lake tables could not be created ({outcome})")));
            }
            Err(error) => return Err(error),
        }
        Ok(lines)
    }

    async fn create_tables(&self, beginning: &Beginning, at: Lsn) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::with_capacity(self.tables.len());
        for entry in &self.tables {
            let what = format!("lake table {}/{}", self.location, entry.path);
            let done = match (entry.recorded, beginning) {
                (None, _) => {
                    LakeTable::create(&self.location, &entry.path, &entry.shape, &entry.progress, at)
                        .await?
                        .close()
                        .await;
                    line(Done::Now, &format!("{what}, from {at}"))
                }
                (Some(recorded), Beginning::NewSlot) => {
                    let table = LakeTable::open(&self.location, &entry.path, &entry.shape, &entry.progress).await?;
                    go_on(table, at).await?;
                    line(Done::Now, &format!("{what} keeps its rows; gap accepted from {recorded} to {at}"))
                }
                (Some(_), _) => line(Done::Already, &what),
            };
            lines.push(done);
        }
        Ok(lines)
    }

    pub(super) fn dry_run_text(&self) -> String {
        let line = |entry: &LakeEntry| {
            let state = if entry.recorded.is_some() { "already there" } else { "would be created" };
            format!("-- lake table {}/{}: {state}\n", self.location, entry.path)
        };
        self.tables.iter().map(line).collect()
    }
}

/// Records that the table goes on at `at`; a run that was interrupted here before finds it recorded.
async fn go_on(mut table: LakeTable, at: Lsn) -> anyhow::Result<()> {
    if table.recorded() < at {
        table.commit(Vec::new(), at).await?;
    }
    table.close().await;
    Ok(())
}

async fn remove_slot(login: &Settings, slot: &str) -> anyhow::Result<()> {
    let control = connect::control(login).await?;
    control.client().execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.context("removing the slot")?;
    Ok(())
}

impl Beginning {
    /// Compares slot and lake, and refuses what would be a silent gap.
    pub(super) async fn decide(
        client: &Client,
        pipeline: &Pipeline,
        server: &ServerFacts,
        tables: &[TableFacts],
        lake: &LakeSide,
        from_now: bool,
    ) -> anyhow::Result<Self> {
        let slot = source::slot(client, &pipeline.source.slot).await?;
        if let Some(problem) = slot.as_ref().and_then(|slot| slot.unusable(&server.database)) {
            bail!(problem);
        }
        let missing: Vec<&TableShape> = lake.missing().collect();
        match slot {
            Some(_) if missing.is_empty() => Ok(Self::Complete),
            Some(slot) => Self::at_slot(&slot, lake, from_now),
            None => {
                ensure!(
                    server.replication_slots_used < server.replication_slots_max,
                    "all {} replication slots are in use: drop one, or raise max_replication_slots and restart the server",
                    server.replication_slots_max
                );
                refuse_gap(pipeline, server, lake, from_now)?;
                let new = tables.iter().filter(|facts| missing.contains(&&facts.shape));
                if !from_now {
                    refuse_rows(client, new).await?;
                }
                Ok(Self::NewSlot)
            }
        }
    }

    fn at_slot(slot: &SlotFacts, lake: &LakeSide, from_now: bool) -> anyhow::Result<Self> {
        let Some(confirmed) = slot.confirmed else {
            bail!("slot {} is still being created by another session; try again when that has ended", slot.name);
        };
        ensure!(
            from_now,
            "slot {} exists but there is no lake table for {}: what was committed before {confirmed} would be missing from it; \
             restore the lake table, or accept the gap with --from-now",
            slot.name,
            names(lake.missing())
        );
        Ok(Self::AtSlot(confirmed))
    }

    pub(super) fn dry_run_text(self, slot: &str) -> String {
        match self {
            Self::Complete | Self::AtSlot(_) => format!("\n-- already there: slot {slot}\n"),
            Self::NewSlot => format!(
                "\n-- As the pipeline's login, after everything above:\nSELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput');\n",
                quote_literal(slot)
            ),
        }
    }
}

/// A lake table that goes on with a new slot misses what was committed in between.
fn refuse_gap(pipeline: &Pipeline, server: &ServerFacts, lake: &LakeSide, from_now: bool) -> anyhow::Result<()> {
    let slot = &pipeline.source.slot;
    let Some(newest) = lake.tables.iter().filter_map(|entry| entry.recorded).max() else { return Ok(()) };
    ensure!(
        from_now,
        "slot {slot} is gone but the lake has {}, complete up to {newest}: changes between that and a new slot would be missing; \
         find out who dropped the slot, then accept the gap with --from-now",
        names(lake.present())
    );
    ensure!(
        newest <= server.wal_position,
        "the lake is complete up to {newest}, but the server's WAL ends at {}: the server was restored or replaced; choose another \
         [lake].url for it",
        server.wal_position
    );
    Ok(())
}

async fn refuse_rows(client: &Client, tables: impl Iterator<Item = &TableFacts>) -> anyhow::Result<()> {
    for facts in tables {
        let table = &facts.shape.table;
        let leaves = source::leaves(client, facts.oid).await?;
        ensure!(
            !source::holds_rows(client, table, &leaves).await?,
            "table {table} already holds rows, and init copies none: with --from-now the lake begins with what is committed from \
             now on"
        );
    }
    Ok(())
}
