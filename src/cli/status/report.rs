//! What `status` prints, as lines for people and as the documented JSON.

use super::archive_side::DayState;
use super::emptied::name;
use super::not_copied::NotCopied;
use crate::base::{DaySet, Lsn, Partition};
use crate::lake::{DaySummary, Finding};
use crate::source::{OpenFinding, ServerFacts, SlotFacts};
use bytesize::ByteSize;
use chrono::SecondsFormat;
use serde::Serialize;
use std::collections::BTreeMap;

/// The whole; its fields are a contract, documented in `status.rs`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) server: ServerReport,
    pub(super) slot: SlotReport,
    pub(super) tables: Vec<TableReport>,
    findings: Option<Vec<FindingReport>>,
    archive_findings: Option<Vec<ArchiveFindingReport>>,
}

/// What is wrong in the archive until it is settled; the lake's own findings stay for ever.
#[derive(Debug, Serialize)]
struct ArchiveFindingReport {
    kind: String,
    table: String,
    partition: String,
    reason: String,
    found_at: String,
}

impl ArchiveFindingReport {
    fn new(finding: OpenFinding) -> Self {
        let OpenFinding { kind, table, partition, reason, found_at } = finding;
        Self { kind, table, partition, reason, found_at }
    }

    fn to_text(&self) -> String {
        let Self { kind, table, partition, reason, found_at } = self;
        format!("archive   {kind}, {table}, {partition}: {reason} (since {found_at})\n")
    }
}

#[derive(Debug, Serialize)]
struct FindingReport {
    kind: &'static str,
    table: Option<String>,
    lsn: String,
    reason: String,
    recorded_at: String,
    recorded_by: String,
}

impl FindingReport {
    fn new(finding: Finding) -> Self {
        Self {
            kind: finding.kind.name(),
            table: finding.table,
            lsn: finding.lsn.to_string(),
            reason: finding.reason,
            recorded_at: finding.recorded_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            recorded_by: finding.recorded_by,
        }
    }

    fn to_text(&self) -> String {
        let Self { kind, table, lsn, reason, recorded_at, recorded_by } = self;
        let of = table.as_ref().map(|table| format!(", {table}")).unwrap_or_default();
        format!("finding   {kind} at {lsn}{of}: {reason} ({recorded_by}, {recorded_at})\n")
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ServerReport {
    reachable: bool,
    error: Option<String>,
    version: Option<String>,
    wal_lsn: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct SlotReport {
    name: String,
    exists: Option<bool>,
    active: Option<bool>,
    holder: Option<String>,
    wal_status: Option<String>,
    confirmed_lsn: Option<String>,
    lag_bytes: Option<u64>,
    retained_bytes: Option<u64>,
    safe_wal_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    safe_percent: Option<u64>,
    headroom: Option<&'static str>,
    failover: Option<bool>,
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TableReport {
    table: String,
    path: String,
    recorded_lsn: Option<String>,
    parked_since_lsn: Option<String>,
    error: Option<String>,
    rows: Option<u64>,
    files: u64,
    bytes: u64,
    journal: Option<JournalReport>,
    emptied: Option<Vec<String>>,
    days_not_copied: Option<NotCopied>,
    days: Vec<DayReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct JournalReport {
    path: String,
    rows: Option<u64>,
    files: u64,
    bytes: u64,
}

impl JournalReport {
    pub(super) fn new(path: String, days: &[DaySummary]) -> Self {
        Self {
            path,
            rows: days.iter().map(|day| day.rows).sum(),
            files: days.iter().map(|day| day.files).sum(),
            bytes: days.iter().map(|day| day.bytes).sum(),
        }
    }

    fn to_text(&self) -> String {
        let rows = self.rows.map_or("an unknown number of".to_owned(), |rows| rows.to_string());
        format!("          {}: {rows} old images in {} files, {}\n", self.path, self.files, ByteSize(self.bytes))
    }
}

#[derive(Debug, Serialize)]
struct DayReport {
    day: String,
    rows: Option<u64>,
    files: u64,
    bytes: u64,
    #[serde(flatten)]
    state: Option<DayState>,
}

impl ServerReport {
    pub(super) fn reachable(server: &ServerFacts) -> Self {
        let wal_lsn = Some(server.wal_position.to_string());
        Self { reachable: true, error: None, version: Some(server.version_text()), wal_lsn }
    }

    pub(super) fn unreachable(error: String) -> Self {
        Self { reachable: false, error: Some(error), version: None, wal_lsn: None }
    }
}

impl SlotReport {
    pub(super) fn unknown(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn of(name: &str, slot: Option<&SlotFacts>, limit_bytes: Option<u64>, refused: Option<String>) -> Self {
        let Some(slot) = slot else { return Self { exists: Some(false), ..Self::unknown(name) } };
        let headroom = slot.headroom(limit_bytes);
        Self {
            name: name.to_owned(),
            exists: Some(true),
            active: Some(slot.active),
            holder: slot.holder.as_ref().map(ToString::to_string),
            wal_status: slot.wal_status.clone(),
            confirmed_lsn: slot.confirmed.map(|lsn| lsn.to_string()),
            lag_bytes: slot.lag_bytes,
            retained_bytes: slot.retained_bytes,
            safe_wal_bytes: slot.safe_wal_bytes,
            limit_bytes,
            safe_percent: headroom.safe_percent(),
            headroom: Some(headroom.pressure().name()),
            failover: Some(slot.failover),
            refused,
        }
    }

    /// "4.0 GiB of 10.0 GiB left until it may be lost (40 %, ample)"
    fn headroom_text(&self) -> String {
        let Some(limit) = self.limit_bytes else { return "no limit".to_owned() };
        format!(
            "{} of {} left until it may be lost ({} %, {})",
            ByteSize(self.safe_wal_bytes.unwrap_or(0)),
            ByteSize(limit),
            self.safe_percent.unwrap_or(0),
            self.headroom.unwrap_or("unknown")
        )
    }

    fn to_text(&self) -> String {
        let name = &self.name;
        match self.exists {
            None => format!("slot      {name}: unknown\n"),
            Some(false) => format!(
                "slot      {name} does not exist: lakebed init creates it, and lakebed init --snapshot copies what the tables hold already\n"
            ),
            Some(true) => {
                let used = self.holder.as_ref().map_or("not in use".to_owned(), |holder| format!("in use by {holder}"));
                let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
                let failover = if self.failover == Some(true) { ", kept through a failover" } else { "" };
                let refused = self.refused.as_ref().map(|why| format!("          not to be followed: {why}\n"));
                format!(
                    "slot      {name}, {used}\n          confirmed {}, {} behind; retains {} of WAL ({}), {}{failover}\n{}",
                    text(&self.confirmed_lsn),
                    size(self.lag_bytes),
                    size(self.retained_bytes),
                    text(&self.wal_status),
                    self.headroom_text(),
                    refused.unwrap_or_default(),
                )
            }
        }
    }
}

impl TableReport {
    pub(super) fn new(
        table: String,
        path: String,
        (recorded, parked): (Option<Lsn>, Option<Lsn>),
        error: Option<String>,
        days: Vec<DaySummary>,
    ) -> Self {
        let day = |summary: DaySummary| DayReport {
            day: name(&summary),
            rows: summary.rows,
            files: summary.files,
            bytes: summary.bytes,
            state: None,
        };
        let days: Vec<DayReport> = days.into_iter().map(day).collect();
        Self {
            table,
            path,
            recorded_lsn: recorded.map(|lsn| lsn.to_string()),
            parked_since_lsn: parked.map(|lsn| lsn.to_string()),
            rows: if error.is_some() { None } else { days.iter().map(|day| day.rows).sum() },
            error,
            files: days.iter().map(|day| day.files).sum(),
            bytes: days.iter().map(|day| day.bytes).sum(),
            journal: None,
            emptied: None,
            days_not_copied: None,
            days,
        }
    }

    /// The same with what is beside the table, and the days that hold rows in the lake alone.
    pub(super) fn with(self, journal: Option<JournalReport>, emptied: Option<Vec<String>>) -> Self {
        Self { journal, emptied, ..self }
    }

    /// The same with the days that are still to be copied from the source; None where that cannot be read.
    pub(super) fn not_copied(self, days: Option<&DaySet>) -> Self {
        Self { days_not_copied: days.map(NotCopied::of), ..self }
    }

    /// The same with where each day is on its way. Days without files appear, too: an empty day is dropped like any other.
    pub(super) fn on_their_way(mut self, states: BTreeMap<Partition, DayState>) -> Self {
        let mut states: BTreeMap<String, DayState> =
            states.into_iter().map(|(partition, state)| (partition.to_string(), state)).collect();
        for day in &mut self.days {
            day.state = states.remove(&day.day);
        }
        let empty = states.into_iter().map(|(day, state)| {
            let state = Some(state);
            DayReport { day, rows: Some(0), files: 0, bytes: 0, state }
        });
        self.days.extend(empty);
        self.days.sort_by(|one, other| one.day.cmp(&other.day));
        self
    }

    fn to_text(&self) -> String {
        let mut text = match (&self.error, &self.recorded_lsn) {
            (Some(error), _) => format!("table     {}: {error}\n", self.table),
            (None, Some(recorded)) => {
                let parked = self.parked_since_lsn.as_ref().map(|since| format!(", parked since {since}"));
                format!("table     {}, recorded {recorded}{}\n", self.table, parked.unwrap_or_default())
            }
            (None, None) => format!("table     {}\n", self.table),
        };
        text.push_str(&format!("          {:<10} {:>14} {:>8} {:>12}\n", "day", "rows", "files", "size"));
        for day in &self.days {
            let state = day.state.as_ref().map(DayState::words).unwrap_or_default();
            text.push_str(&day_line(&day.day, day.rows, (day.files, day.bytes), &state));
        }
        text.push_str(&day_line("all", self.rows, (self.files, self.bytes), ""));
        text.extend(self.days_not_copied.as_ref().map(NotCopied::to_text));
        text.extend(self.journal.as_ref().map(JournalReport::to_text));
        for day in self.emptied.iter().flatten() {
            text.push_str(&format!(
                "          {day} holds rows here, and its partition in PostgreSQL none: it was emptied alone, which the stream does not tell, or its deletes are on their way\n"
            ));
        }
        text
    }
}

fn day_line(day: &str, rows: Option<u64>, (files, bytes): (u64, u64), state: &str) -> String {
    let rows = rows.map_or("unknown".to_owned(), |rows| rows.to_string());
    let line = format!("          {day:<10} {rows:>14} {files:>8} {:>12}  {state}", ByteSize(bytes).to_string());
    line.trim_end().to_owned() + "\n"
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_owned(), |bytes| ByteSize(bytes).to_string())
}

impl Report {
    pub(super) fn new(
        server: ServerReport,
        slot: SlotReport,
        tables: Vec<TableReport>,
        findings: Option<Vec<Finding>>,
    ) -> Self {
        let findings = findings.map(|findings| findings.into_iter().map(FindingReport::new).collect());
        Self { server, slot, tables, findings, archive_findings: None }
    }

    /// The same with what is wrong in the archive.
    pub(super) fn with_archive(self, findings: Option<Vec<OpenFinding>>) -> Self {
        let findings = findings.map(|findings| findings.into_iter().map(ArchiveFindingReport::new).collect());
        Self { archive_findings: findings, ..self }
    }

    /// Whether the server answered, the slot is there and may be followed, and all of the lake could be read.
    pub(super) fn is_whole(&self) -> bool {
        let lake_read = self.tables.iter().all(|table| table.error.is_none()) && self.findings.is_some();
        self.server.reachable && self.slot.exists == Some(true) && self.slot.refused.is_none() && lake_read
    }

    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    pub(super) fn to_text(&self) -> String {
        let ServerReport { error, version, wal_lsn, .. } = &self.server;
        let server = match error {
            Some(error) => format!("server    {error}\n"),
            None => format!(
                "server    PostgreSQL {}, WAL at {}\n",
                version.as_deref().unwrap_or("unknown"),
                wal_lsn.as_deref().unwrap_or("unknown")
            ),
        };
        let tables: String = self.tables.iter().map(|table| format!("\n{}", table.to_text())).collect();
        let findings = match &self.findings {
            None => "\nfinding   cannot be read\n".to_owned(),
            Some(findings) if findings.is_empty() => String::new(),
            Some(findings) => format!("\n{}", findings.iter().map(FindingReport::to_text).collect::<String>()),
        };
        let archive = self.archive_findings.iter().flatten().map(ArchiveFindingReport::to_text);
        let archive: String = archive.collect();
        let archive = if archive.is_empty() { archive } else { format!("\n{archive}") };
        format!("{server}{}{tables}{findings}{archive}", self.slot.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::FindingKind;

    fn day(day: &str, rows: Option<u64>) -> DaySummary {
        let names = ["year", "month", "day"];
        let partition =
            names.iter().zip(["2026", "01", day]).map(|(name, value)| ((*name).to_owned(), value.to_owned()));
        DaySummary { partition: partition.collect(), rows, files: 2, bytes: 2048 }
    }

    fn table(days: Vec<DaySummary>) -> TableReport {
        TableReport::new("public.a".into(), "a".into(), (Some(Lsn(0x16_0000_0001)), Some(Lsn(3))), None, days)
    }

    #[test]
    fn the_json_is_the_documented_contract_with_the_server_down() {
        let finding = Finding {
            kind: FindingKind::Skipped,
            table: None,
            lsn: Lsn(5),
            reason: "it broke".into(),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            recorded_by: "ann".into(),
        };
        let days = vec![day("01", Some(3)), day("02", Some(4))];
        let journal = JournalReport::new("a__changes".into(), &days[..1]);
        let tables = vec![table(days).with(Some(journal), Some(vec!["2026-01-02".into()]))];
        let server = ServerReport::unreachable("cannot reach it".into());
        let report = Report::new(server, SlotReport::unknown("lakebed"), tables, Some(vec![finding]));
        assert!(!report.is_whole());
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        let expected = serde_json::json!({
            "server": {"reachable": false, "error": "cannot reach it", "version": null, "wal_lsn": null},
            "slot": {"name": "lakebed", "exists": null, "active": null, "holder": null, "wal_status": null,
                     "confirmed_lsn": null, "lag_bytes": null, "retained_bytes": null, "safe_wal_bytes": null, "limit_bytes": null,
                     "safe_percent": null, "headroom": null, "failover": null, "refused": null},
            "tables": [{"table": "public.a", "path": "a", "recorded_lsn": "16/1", "parked_since_lsn": "0/3", "error": null,
                        "rows": 7, "files": 4, "bytes": 4096,
                        "journal": {"path": "a__changes", "rows": 3, "files": 2, "bytes": 2048},
                        "emptied": ["2026-01-02"], "days_not_copied": null, "days": [
                {"day": "2026-01-01", "rows": 3, "files": 2, "bytes": 2048},
                {"day": "2026-01-02", "rows": 4, "files": 2, "bytes": 2048}]}],
            "findings": [{"kind": "skipped", "table": null, "lsn": "0/5", "reason": "it broke",
                          "recorded_at": "1970-01-01T00:00:00Z", "recorded_by": "ann"}],
            "archive_findings": null});
        assert_eq!(json, expected);
        let text = report.to_text();
        assert!(
            text.contains("2026-01-02              4        2") && text.contains("slot      lakebed: unknown"),
            "{text}"
        );
        assert!(text.contains("          a__changes: 3 old images in 2 files, 2.0 KiB\n"), "{text}");
        assert!(text.contains("          2026-01-02 holds rows here, and its partition in PostgreSQL none"), "{text}");
        assert!(text.contains(", recorded 16/1, parked since 0/3\n"), "{text}");
        assert!(text.ends_with("finding   skipped at 0/5: it broke (ann, 1970-01-01T00:00:00Z)\n"), "{text}");
    }

    #[test]
    fn each_day_says_where_it_is_on_its_way() {
        let partition = |day: u32| {
            crate::base::PartitionBy::Day.partition_of(chrono::NaiveDate::from_ymd_opt(2026, 1, day).unwrap())
        };
        let proved = DayState { complete: true, proved_at: Some("2026-01-02T01:00:00Z".into()), ..DayState::default() };
        let empty = DayState { complete: true, receipts: vec![7], ..DayState::default() };
        let states = BTreeMap::from([(partition(1), proved), (partition(3), empty)]);
        let table = table(vec![day("01", Some(3)), day("02", Some(4))]).on_their_way(states);
        let text = table.to_text();
        assert!(text.contains("2026-01-01              3        2      2.0 KiB  complete proved\n"), "{text}");
        assert!(text.contains("2026-01-02              4        2      2.0 KiB\n"), "{text}");
        assert!(text.contains("2026-01-03              0        0          0 B  complete dropped\n"), "{text}");
        let json = serde_json::to_value(&table).unwrap();
        assert_eq!(json["days"][2]["receipts"], serde_json::json!([7]));
        assert_eq!(json["days"][1].get("complete"), None);
    }

    #[test]
    fn an_unknown_count_makes_the_sum_unknown() {
        assert_eq!(table(vec![day("01", Some(3)), day("02", None)]).rows, None);
    }
}
