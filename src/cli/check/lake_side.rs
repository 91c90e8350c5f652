//! The lake: writable, holding a table for each configured one, and going on where the server's WAL does.

use super::Seen;
use super::finding::{Area, Findings};
use crate::base::DaySet;
use crate::cli::lineage;
use crate::config::Pipeline;
use crate::connect::Settings;
use crate::lake::{self, FindingKind, LakeLocation, LakeTable, Progress};
use crate::pipeline::TableMark;
use crate::source::ServerFacts;

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
    let (marks, uncopied) = tables(findings, pipeline, &location, seen).await;
    if uncopied.iter().any(|days| !days.is_empty()) {
        room_for_a_copy(findings, &seen.server, seen.slot.as_ref().is_some_and(|slot| slot.active));
    }
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

/// A batch of days is copied under the snapshot of a temporary slot, whose connection is a WAL sender as that of the stream is.
fn room_for_a_copy(findings: &mut Findings, server: &ServerFacts, is_followed: bool) {
    let senders = if is_followed { 1 } else { 2 };
    let needs = [
        ("replication slot", "max_replication_slots", server.replication_slots_used + 1, server.replication_slots_max),
        ("WAL sender", "max_wal_senders", server.wal_senders_used + senders, server.wal_senders_max),
    ];
    for (what, setting, needed, most) in needs.into_iter().filter(|(_, _, needed, most)| needed > most) {
        findings.warning(
            AREA,
            format!(
                "days are still to be copied, and no {what} is free for it: {needed} are needed, {setting} is {most}"
            ),
            format!(
                "drop one that nobody needs, or ALTER SYSTEM SET {setting} = {}, then restart the server",
                needed + 5
            ),
        );
    }
}

/// What is said of each table that can be opened, and its days that are not copied yet.
async fn tables(
    findings: &mut Findings,
    pipeline: &Pipeline,
    location: &LakeLocation,
    seen: &Seen,
) -> (Vec<TableMark>, Vec<DaySet>) {
    let mut marks = Vec::with_capacity(seen.tables.len());
    let mut uncopied = Vec::with_capacity(seen.tables.len());
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
                if !opened.uncopied().is_empty() {
                    findings.warning(
                        AREA,
                        format!("days of {table} are not copied yet: {}", opened.uncopied()),
                        "lakebed run copies them meanwhile, lakebed snapshot does and ends then; lakebed status shows what is left",
                    );
                }
                uncopied.push(opened.uncopied().clone());
                let (recorded, parked) = (opened.recorded(), opened.parked().is_some());
                marks.push(TableMark { table: table.to_string(), recorded, parked });
            }
            Err(error) => findings.failed_text(AREA, &error.to_string()),
        }
    }
    (marks, uncopied)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::base::Lsn;

    #[test]
    fn a_copy_needs_a_free_slot_and_a_wal_sender() {
        let server = |slots_used, senders_used| ServerFacts {
            version: 150_018,
            wal_level: "logical".into(),
            replication_slots_max: 2,
            replication_slots_used: slots_used,
            wal_senders_max: 3,
            wal_senders_used: senders_used,
            slot_wal_keep_bytes: None,
            in_recovery: false,
            system_identifier: "7".into(),
            wal_position: Lsn(1),
            database: "d".into(),
            user: "u".into(),
        };
        for (slots, senders, followed, warnings) in
            [(1, 1, false, 0), (1, 2, true, 0), (2, 1, false, 1), (1, 2, false, 1), (2, 3, true, 2)]
        {
            let mut findings = Findings::default();
            room_for_a_copy(&mut findings, &server(slots, senders), followed);
            assert_eq!(findings.all().len(), warnings, "{slots} {senders} {followed}");
            assert!(findings.all().iter().all(|finding| finding.severity == Severity::Warning));
        }
    }
}
