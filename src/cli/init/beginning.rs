//! Where the pipeline begins: what has to be done about the slot, and every way in which slot and lake may not agree.

use super::dry_run::one_line;
use super::existing_slot::{self, SlotSide};
use super::lake_side::LakeSide;
use super::{Seen, names, record};
use crate::base::Lsn;
use crate::config::Pipeline;
use crate::source::{self, ServerFacts, TableFacts, quote_literal};
use crate::wal::FAILOVER_VERSION_MIN;
use anyhow::{bail, ensure};
use tokio_postgres::Client;

/// What has to be done about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Slot and lake tables are there.
    Complete,
    /// The slot is there; what is missing in the lake, tables or record, begins at its confirmed position.
    AtSlot {
        /// That position.
        at: Lsn,
        /// What the lake misses before it, and that was accepted.
        gap: Gap,
        /// What becomes of rows of the tables that begin here.
        existing: Existing,
    },
    /// A new slot; every lake table begins, or goes on, at its consistent point.
    NewSlot {
        /// What becomes of rows of the tables that begin here.
        existing: Existing,
    },
}

/// What becomes of rows that exist already in a table that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// There must be none.
    Refuse,
    /// They are not copied, and that was accepted (`--from-now`).
    LeaveOut,
    /// They are copied (`--snapshot`).
    Copy,
}

/// What goes on behind a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing: no change was ever passed over.
    None,
    /// Tables that are not there, or were restored from an older copy; the others have everything.
    SomeTables,
    /// Every table: the slot has forgotten what the lake does not know of.
    Everywhere,
}

impl Beginning {
    /// Compares slot and lake, and refuses what would be a silent gap.
    pub(super) async fn decide(
        client: &Client,
        pipeline: &Pipeline,
        seen: &Seen,
        lake: &LakeSide,
        existing: Existing,
    ) -> anyhow::Result<Self> {
        let server = &seen.server;
        let slot = source::slot(client, &pipeline.source.slot).await?;
        if let Some(problem) = slot.as_ref().and_then(|slot| slot.unusable(&server.database)) {
            bail!(problem);
        }
        match slot {
            Some(slot) => {
                let publication = (pipeline.source.publication.as_str(), seen.publication.as_ref());
                // After the slot: a pipeline that runs records first what it acknowledges then.
                let record = record::newest(lake.location(), &pipeline.source.slot).await?;
                let side = SlotSide { slot: &slot, acknowledged: record.as_ref().map(|record| record.acknowledged) };
                let beginning = existing_slot::judge(side, publication, &lake.states(record.as_ref()), existing)?;
                if let Self::AtSlot { existing: Existing::Refuse, .. } = beginning {
                    refuse_rows_of_another_init(client, lake.begun_here(&seen.tables)).await?;
                }
                Ok(beginning)
            }
            None => {
                ensure!(
                    server.replication_slots_used < server.replication_slots_max,
                    "all {} replication slots are in use: drop one, or raise max_replication_slots and restart the server",
                    server.replication_slots_max
                );
                refuse_gap(pipeline, server, lake, existing)?;
                if existing == Existing::Refuse {
                    refuse_rows(client, lake.begun_here(&seen.tables)).await?;
                }
                Ok(Self::NewSlot { existing })
            }
        }
    }

    /// Whether what begins is copied.
    pub(super) fn copies(self) -> bool {
        matches!(self, Self::AtSlot { existing: Existing::Copy, .. } | Self::NewSlot { existing: Existing::Copy })
    }

    pub(super) fn dry_run_text(self, pipeline: &Pipeline, server: &ServerFacts) -> String {
        let slot = &pipeline.source.slot;
        let failover = pipeline.source.failover && server.version >= FAILOVER_VERSION_MIN;
        match self {
            Self::Complete | Self::AtSlot { .. } => format!("\n-- already there: slot {}\n", one_line(slot)),
            Self::NewSlot { existing: Existing::Copy } => format!(
                "\n-- slot {}: would be created as the pipeline's login, with a snapshot of what the tables hold just then\n",
                one_line(slot)
            ),
            Self::NewSlot { .. } => format!(
                "\n-- As the pipeline's login, after everything above:\nSELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput'{});\n",
                quote_literal(slot),
                if failover { ", failover => true" } else { "" }
            ),
        }
    }
}

/// A lake table that goes on with a new slot misses what was committed in between.
fn refuse_gap(pipeline: &Pipeline, server: &ServerFacts, lake: &LakeSide, existing: Existing) -> anyhow::Result<()> {
    let slot = &pipeline.source.slot;
    let Some(newest) = lake.newest() else { return Ok(()) };
    ensure!(
        existing == Existing::LeaveOut,
        "slot {slot} is gone but the lake has {}, recorded up to {newest}: changes between that and a new slot would be missing; \
         find out who dropped the slot, then accept the gap with --from-now, and let lakebed repair --execute copy the days that \
         miss something",
        names(lake.present())
    );
    ensure!(
        newest <= server.wal_position,
        "the lake is recorded up to {newest}, but the server's WAL ends at {}: the server was restored or replaced; choose another \
         [lake].url for it",
        server.wal_position
    );
    Ok(())
}

async fn refuse_rows(client: &Client, tables: impl Iterator<Item = &TableFacts>) -> anyhow::Result<()> {
    for facts in tables {
        let table = &facts.shape.table;
        ensure!(
            !holds_rows(client, facts).await?,
            "table {table} already holds rows: init --snapshot copies them; with --from-now they are left out, and the lake begins \
             with what is committed from now on"
        );
    }
    Ok(())
}

/// An earlier `init` may have been one that copies, and has ended before this table was begun; or its rows have come since.
async fn refuse_rows_of_another_init(client: &Client, tables: impl Iterator<Item = &TableFacts>) -> anyhow::Result<()> {
    for facts in tables {
        let table = &facts.shape.table;
        ensure!(
            !holds_rows(client, facts).await?,
            "table {table} holds rows, and whether the slot sends them all cannot be told: init --snapshot copies them; with \
             --from-now those from before the slot are left out"
        );
    }
    Ok(())
}

/// Rows committed between the first look and the slot's consistent point are in neither. Each look takes a new snapshot, so this one
/// sees them; that it also sees rows committed after the consistent point, which the slot does send, cannot be told apart here.
pub(super) async fn refuse_rows_meanwhile(
    client: &Client,
    tables: impl Iterator<Item = &TableFacts>,
) -> anyhow::Result<()> {
    for facts in tables {
        ensure!(
            !holds_rows(client, facts).await?,
            "rows were written to table {} while the slot was created, and whether the slot sends them all cannot be told: init \
             --snapshot copies them, and --from-now leaves them out",
            facts.shape.table
        );
    }
    Ok(())
}

async fn holds_rows(client: &Client, facts: &TableFacts) -> anyhow::Result<bool> {
    let leaves = source::leaves(client, facts.oid, &facts.shape).await?;
    Ok(source::holds_rows(client, &facts.shape.table, &leaves).await?)
}
