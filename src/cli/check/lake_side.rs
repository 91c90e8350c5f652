//! The lake: writable, and holding a table for each configured one.

use super::finding::{Area, Findings};
use crate::config::Pipeline;
use crate::lake::{LakeLocation, LakeTable, Progress};
use crate::source::TableFacts;

/// `tables` are those whose source could be read; `system_identifier` is unknown when the server cannot be reached.
pub(super) async fn check(
    findings: &mut Findings,
    pipeline: &Pipeline,
    tables: &[TableFacts],
    system_identifier: Option<&str>,
) {
    const AREA: Area = Area::Lake;
    let location = match LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options) {
        Ok(location) => location,
        Err(error) => return findings.failed_text(AREA, &error.to_string()),
    };
    if let Err(error) = location.probe().await {
        return findings.failed_text(AREA, &error.to_string());
    }
    findings.ok(AREA, format!("{location} is writable and refuses to overwrite"));
    let Some(system_identifier) = system_identifier else { return };
    for facts in tables {
        let table = &facts.shape.table;
        let Some(section) = pipeline.tables.iter().find(|section| section.name == *table) else { continue };
        let progress = Progress {
            system_identifier: system_identifier.to_owned(),
            pipeline: pipeline.source.slot.clone(),
            table: table.clone(),
            epoch: 0,
        };
        match LakeTable::open(&location, section.lake_path(), &facts.shape, &progress).await {
            Ok(opened) => findings.ok(AREA, format!("lake table of {table} is recorded up to {}", opened.recorded())),
            Err(error) => findings.failed_text(AREA, &error.to_string()),
        }
    }
}
