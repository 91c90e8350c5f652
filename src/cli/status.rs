//! `lakebed status`: slot, lag, and one line a day.
//!
//! Works with the server down: it says so, still shows the lake, and exits with 1. With `--json`, standard output is one object:
//!
//! ```text
//! {"server": {"reachable": bool,
//!             "error": text | null,               why it is not reachable
//!             "version": "15.18" | null,
//!             "wal_lsn": "0/1A2B3C4" | null},      what the server has flushed
//!  "slot": {"name": text,
//!           "exists": bool | null,                null: the server is not reachable
//!           "active": bool | null,
//!           "holder": text | null,                who uses it
//!           "wal_status": "reserved" | "extended" | "unreserved" | "lost" | null,
//!           "confirmed_lsn": "0/1A2B3C4" | null,   acknowledged, hence durable in the lake
//!           "lag_bytes": n | null,                WAL from confirmed_lsn to wal_lsn
//!           "retained_bytes": n | null,           WAL that the server keeps for the slot
//!           "safe_wal_bytes": n | null,           WAL until the slot may be lost; null: no limit, or any moment
//!           "limit_bytes": n | null,              max_slot_wal_keep_size; null: no limit
//!           "safe_percent": n | null,             safe_wal_bytes of limit_bytes
//!           "headroom": "ample" | "low" | "critical" | null,
//!           "failover": bool | null,              kept by a standby through a failover (server 17+)
//!           "refused": text | null},              why lakebed run would not follow it
//!  "tables": [{"table": "public.security_event",
//!              "path": "security_event",          below the lake's root
//!              "recorded_lsn": "0/1A2B3C4" | null, last position that carried a commit; null: unknown without the server
//!              "parked_since_lsn": "0/1A2B3C4" | null,  it stands still since; null: it does not, or unknown without the server
//!              "error": text | null,              why the lake table cannot be read
//!              "rows": n | null, "files": n, "bytes": n,
//!              "journal": {"path": text,          the table of old images
//!                          "rows": n | null, "files": n, "bytes": n} | null,   null: none, or it cannot be read
//!              "emptied": ["2026-01-02"] | null,  hold rows here, and their partition of the source none; null: unknown
//!              "days_not_copied": ["2026-01-02"] | "all" | null,  what PostgreSQL has of them is still to be copied; null: it cannot be read
//!              "days": [{"day": "2026-01-02",     or a month, "2026-01"
//!                        "rows": n | null,        null: some file's statistics do not say
//!                        "files": n, "bytes": n,
//!                        "complete": bool,            with the four below only if PostgreSQL could be asked: it is over
//!                        "proved_at": text | null,    PostgreSQL had the same rows then, and the files have not changed since
//!                        "differs": bool,             PostgreSQL had others
//!                        "waiting": [text],           its detached tables
//!                        "receipts": [n]}]}],         by which it was dropped; days are oldest first
//!  "findings": [{"kind": "parked" | "skipped" | "refused" | "gap" | "default" | "kept" | "gone",
//!                "table": text | null,            null: it concerns the whole pipeline
//!                "lsn": "0/1A2B3C4",
//!                "reason": text,
//!                "recorded_at": "2026-01-02T03:04:05Z",
//!                "recorded_by": text}] | null,    by position; null: they cannot be read
//!  "archive_findings": [{"kind": "unbalanced" | "early_proof" | "name_taken" | "came_back" | "left_alone" | "not_judged",
//!                        "table": text,
//!                        "partition": text,       a detached table, or days
//!                        "reason": text,
//!                        "found_at": "2026-01-02T03:04:05Z"}] | null}   what is not settled; null: they cannot be read
//! ```

mod archive_side;
mod emptied;
mod not_copied;
mod report;
mod source_side;

use self::emptied::emptied;
use self::report::{JournalReport, Report, ServerReport, SlotReport, TableReport};
use self::source_side::{SourceSide, SourceTable};
use super::{Exit, lineage};
use crate::config::{Pipeline, TableSection};
use crate::connect::Settings;
use crate::lake::{self, DaySummary, LakeLocation, LakeTable, Progress, findings, journal_path, table_days};
use crate::pipeline::TableMark;
use anyhow::Context;
use chrono::Utc;
use std::collections::BTreeMap;
use std::io::Write;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Prints the status. Exit code 1 when the server cannot be reached, the slot is missing, lost or refused, or the lake cannot be read.
pub(super) async fn run(args: &StatusArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    let source = SourceSide::look(pipeline, &settings).await;
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for (index, section) in pipeline.tables.iter().enumerate() {
        let table = source.as_ref().ok().and_then(|source| source.table(index));
        let system = source.as_ref().ok().map(|source| source.server.system_identifier.as_str());
        tables.push(table_report(pipeline, section, &location, table.zip(system)).await);
    }
    let marks: Vec<TableMark> = tables.iter().filter_map(|(_, mark)| mark.clone()).collect();
    let tables = tables.into_iter().map(|(report, _)| report).collect();
    let findings = findings(&location, &pipeline.source.slot).await.ok();
    let name = &pipeline.source.slot;
    let (server, slot) = match &source {
        Ok(source) => {
            let refused = refused(&settings, &location, source, &marks).await;
            let slot = SlotReport::of(name, source.slot.as_ref(), source.server.slot_wal_keep_bytes, refused);
            (ServerReport::reachable(&source.server), slot)
        }
        Err(error) => (ServerReport::unreachable(format!("{error:#}")), SlotReport::unknown(name)),
    };
    let archive = source.as_ref().ok().and_then(|source| source.archive_findings.as_ref().ok().cloned());
    let report = Report::new(server, slot, tables, findings).with_archive(archive);
    let text = if args.json { report.to_json()? } else { report.to_text() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let lost = source.is_ok_and(|source| source.slot.is_none_or(|slot| slot.is_lost()));
    Ok(if report.is_whole() && !lost { Exit::Done } else { Exit::Failed })
}

/// Why `run` would not follow, or why that cannot be told; a lost slot says so itself.
async fn refused(
    settings: &Settings,
    location: &LakeLocation,
    source: &SourceSide,
    tables: &[TableMark],
) -> Option<String> {
    let slot = source.slot.as_ref().filter(|slot| !slot.is_lost())?;
    lineage::refusal(settings, location, slot, tables).await.unwrap_or_else(|error| Some(format!("{error:#}")))
}

/// The recorded position needs shape and system identifier, hence the server; the days need the lake alone.
async fn table_report(
    pipeline: &Pipeline,
    section: &TableSection,
    location: &LakeLocation,
    source: Option<(&SourceTable, &str)>,
) -> (TableReport, Option<TableMark>) {
    let path = section.lake_path();
    let days = table_days(location, path).await;
    let mut error = days.as_ref().err().map(ToString::to_string);
    let mut mark = None;
    let mut parked = None;
    let mut states = BTreeMap::new();
    if let Some((SourceTable { shape, archive: Some(archive), .. }, _)) = source {
        // Without them the days are shown as the lake has them.
        states = archive.days((location, path), shape, Utc::now()).await.unwrap_or_default();
    }
    if let Some((SourceTable { shape, .. }, system_identifier)) = source {
        let progress = Progress {
            system_identifier: system_identifier.to_owned(),
            pipeline: pipeline.source.slot.clone(),
            table: section.name.clone(),
            epoch: 0,
        };
        match LakeTable::open(location, path, shape, &progress).await {
            Ok(table) => {
                parked = table.parked();
                let (recorded, parked) = (table.recorded(), parked.is_some());
                mark = Some(TableMark { table: section.name.to_string(), recorded, parked });
            }
            Err(refused) => error = error.or(Some(refused.to_string())),
        }
    }
    let recorded = mark.as_ref().map(|mark| mark.recorded);
    let name = section.name.to_string();
    let days: Vec<DaySummary> = days.unwrap_or_default();
    let emptied = source.and_then(|(table, _)| Some(emptied(&days, table.empty.as_ref().ok()?)));
    let journal = journal_path(path);
    let old_images = table_days(location, &journal).await.ok().map(|days| JournalReport::new(journal, &days));
    let report = TableReport::new(name, path.to_owned(), (recorded, parked), error, days);
    let uncopied = lake::uncopied(location, path, &pipeline.source.slot, &section.name).await.ok();
    (report.with(old_images, emptied).not_copied(uncopied.as_ref()).on_their_way(states), mark)
}
