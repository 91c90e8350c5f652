//! The lake: writable, holding a table for each configured one, and going on where the server's WAL does.

use super::Seen;
use super::finding::{Area, Findings};
use crate::cli::lineage;
use crate::config::Pipeline;
use crate::connect::Settings;
use crate::lake::{self, FindingKind, LakeLocation, LakeTable, Progress};
use crate::pipeline::TableMark;

const AREA: Area = Area::Lake;

/// `seen` is missing when the server cannot be reached.
pub(super) async fn check(findings: &mut Findings, pipeline: &Pipeline, settings: &Settings, seen: Option<&Seen>) {
    let location = match LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options) {
        Ok(location) => location,
        Err(error) => return findings.failed_text(AREA, &error.to_string()),
    };
    if let Err(error) = location.probe().await {
        return findings.failed_text(AREA, &error.to_string());
    }
    findings.ok(AREA, format!("{location} is writable and refuses to overwrite"));
    recorded(findings, pipeline, &location).await;
    let Some(seen) = seen else { return };
    let marks = tables(findings, pipeline, &location, seen).await;
    let Some(slot) = &seen.slot else { return };
    match lineage::refusal(settings, &location, slot, &marks).await {
        Ok(None) => findings.ok(AREA, format!("the lake and slot {} go on from each other", slot.name)),
        Ok(Some(refusal)) => findings.failed_text(AREA, &refusal),
        Err(error) => findings.not_connected(AREA, &format!("{error:#}")),
    }
}

/// What is known to be missing, because somebody decided so.
async fn recorded(findings: &mut Findings, pipeline: &Pipeline, location: &LakeLocation) {
    match lake::findings(location, &pipeline.source.slot).await {
        Err(error) => findings.failed_text(AREA, &error.to_string()),
        Ok(recorded) => {
            // A parked table speaks for itself below, and only as long as it is parked.
            for finding in recorded.iter().filter(|finding| finding.kind != FindingKind::Parked) {
                let (kind, lsn) = (finding.kind.name(), finding.lsn);
                findings.ok(AREA, format!("known to be missing ({kind} at {lsn}): {}", finding.reason));
            }
        }
    }
}

async fn tables(findings: &mut Findings, pipeline: &Pipeline, location: &LakeLocation, seen: &Seen) -> Vec<TableMark> {
    let mut marks = Vec::with_capacity(seen.tables.len());
    for facts in &seen.tables {
        let table = &facts.shape.table;
        let Some(section) = pipeline.tables.iter().find(|section| section.name == *table) else { continue };
        let progress = Progress {
            system_identifier: seen.server.system_identifier.clone(),
            pipeline: pipeline.source.slot.clone(),
            table: table.clone(),
            epoch: 0,
        };
        match LakeTable::open(location, section.lake_path(), &facts.shape, &progress).await {
            Ok(opened) => {
                match opened.parked() {
                    None => findings.ok(AREA, format!("lake table of {table} is recorded up to {}", opened.recorded())),
                    Some(since) => findings.warning(
                        AREA,
                        format!("lake table of {table} is parked: it stands still since {since}"),
                        "lakebed status shows why; its rows since then are only in the source",
                    ),
                }
                let (recorded, parked) = (opened.recorded(), opened.parked().is_some());
                marks.push(TableMark { table: table.to_string(), recorded, parked });
            }
            Err(error) => findings.failed_text(AREA, &error.to_string()),
        }
    }
    marks
}
