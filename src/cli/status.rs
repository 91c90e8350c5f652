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
//!              "days": [{"day": "2026-01-02",     or a month, "2026-01"
//!                        "rows": n | null,        null: some file's statistics do not say
//!                        "files": n, "bytes": n}]}],   oldest first
//!  "findings": [{"kind": "parked" | "skipped" | "gap",
//!                "table": text | null,            null: it concerns the whole pipeline
//!                "lsn": "0/1A2B3C4",
//!                "reason": text,
//!                "recorded_at": "2026-01-02T03:04:05Z",
//!                "recorded_by": text}] | null}    by position; null: they cannot be read
//! ```

mod report;

use self::report::{Report, ServerReport, SlotReport, TableReport};
use super::{Exit, lineage};
use crate::base::TableShape;
use crate::config::{Pipeline, TableSection};
use crate::connect::{self, Settings};
use crate::lake::{LakeLocation, LakeTable, Progress, findings, table_days};
use crate::pipeline::{TableMark, table_rules};
use crate::source::{self, ServerFacts, SlotFacts};
use anyhow::Context;
use std::io::Write;
use tokio_postgres::Client;

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
    let source = source_side(pipeline, &settings).await;
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for (index, section) in pipeline.tables.iter().enumerate() {
        let shape = source.as_ref().ok().and_then(|source| source.shapes.get(index)?.as_ref());
        let system = source.as_ref().ok().map(|source| source.server.system_identifier.as_str());
        tables.push(table_report(pipeline, section, &location, shape.zip(system)).await);
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
    let report = Report::new(server, slot, tables, findings);
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

/// What the server tells.
struct SourceSide {
    server: ServerFacts,
    slot: Option<SlotFacts>,
    /// In the order of `[[table]]`; `None` where the table cannot be followed, which `check` explains.
    shapes: Vec<Option<TableShape>>,
}

async fn source_side(pipeline: &Pipeline, settings: &Settings) -> anyhow::Result<SourceSide> {
    let connection = connect::control(settings).await?;
    let client = connection.client();
    source::prepare_session(client).await?;
    let server = source::server(client).await?;
    let slot = source::slot(client, &pipeline.source.slot).await?;
    Ok(SourceSide { server, slot, shapes: shapes(client, pipeline).await? })
}

async fn shapes(client: &Client, pipeline: &Pipeline) -> anyhow::Result<Vec<Option<TableShape>>> {
    let publication = source::publication(client, &pipeline.source.publication).await?;
    let generated_published = publication.is_some_and(|publication| publication.generated_stored);
    let mut shapes = Vec::with_capacity(pipeline.tables.len());
    for section in &pipeline.tables {
        let facts = source::table(client, &table_rules(section), generated_published).await;
        shapes.push(facts.ok().map(|facts| facts.shape));
    }
    Ok(shapes)
}

/// The recorded position needs shape and system identifier, hence the server; the days need the lake alone.
async fn table_report(
    pipeline: &Pipeline,
    section: &TableSection,
    location: &LakeLocation,
    source: Option<(&TableShape, &str)>,
) -> (TableReport, Option<TableMark>) {
    let path = section.lake_path();
    let days = table_days(location, path).await;
    let mut error = days.as_ref().err().map(ToString::to_string);
    let mut mark = None;
    let mut parked = None;
    if let Some((shape, system_identifier)) = source {
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
    let report = TableReport::new(name, path.to_owned(), (recorded, parked), error, days.unwrap_or_default());
    (report, mark)
}
