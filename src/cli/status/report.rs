//! What `status` prints, as lines for people and as the documented JSON.

use crate::base::Lsn;
use crate::lake::DaySummary;
use crate::source::{ServerFacts, SlotFacts};
use bytesize::ByteSize;
use serde::Serialize;

/// The whole; its fields are a contract, documented in `status.rs`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) server: ServerReport,
    pub(super) slot: SlotReport,
    pub(super) tables: Vec<TableReport>,
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
}

#[derive(Debug, Serialize)]
pub(super) struct TableReport {
    table: String,
    path: String,
    recorded_lsn: Option<String>,
    error: Option<String>,
    rows: Option<u64>,
    files: u64,
    bytes: u64,
    days: Vec<DayReport>,
}

#[derive(Debug, Serialize)]
struct DayReport {
    day: String,
    rows: Option<u64>,
    files: u64,
    bytes: u64,
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

    pub(super) fn of(name: &str, slot: Option<&SlotFacts>) -> Self {
        let Some(slot) = slot else { return Self { exists: Some(false), ..Self::unknown(name) } };
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
        }
    }

    fn to_text(&self) -> String {
        let name = &self.name;
        match self.exists {
            None => format!("slot      {name}: unknown\n"),
            Some(false) => format!("slot      {name} does not exist: lakebed init creates it\n"),
            Some(true) => {
                let used = self.holder.as_ref().map_or("not in use".to_owned(), |holder| format!("in use by {holder}"));
                let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
                let safe = self
                    .safe_wal_bytes
                    .map_or("no limit".to_owned(), |bytes| size(Some(bytes)) + " until it may be lost");
                format!(
                    "slot      {name}, {used}\n          confirmed {}, {} behind; retains {} of WAL ({}), {safe}\n",
                    text(&self.confirmed_lsn),
                    size(self.lag_bytes),
                    size(self.retained_bytes),
                    text(&self.wal_status),
                )
            }
        }
    }
}

impl TableReport {
    pub(super) fn new(
        table: String,
        path: String,
        recorded: Option<Lsn>,
        error: Option<String>,
        days: Vec<DaySummary>,
    ) -> Self {
        let day = |summary: DaySummary| DayReport {
            day: summary.partition.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("-"),
            rows: summary.rows,
            files: summary.files,
            bytes: summary.bytes,
        };
        let days: Vec<DayReport> = days.into_iter().map(day).collect();
        Self {
            table,
            path,
            recorded_lsn: recorded.map(|lsn| lsn.to_string()),
            rows: if error.is_some() { None } else { days.iter().map(|day| day.rows).sum() },
            error,
            files: days.iter().map(|day| day.files).sum(),
            bytes: days.iter().map(|day| day.bytes).sum(),
            days,
        }
    }

    fn to_text(&self) -> String {
        let mut text = match (&self.error, &self.recorded_lsn) {
            (Some(error), _) => format!("table     {}: {error}\n", self.table),
            (None, Some(recorded)) => format!("table     {}, recorded {recorded}\n", self.table),
            (None, None) => format!("table     {}\n", self.table),
        };
        text.push_str(&format!("          {:<10} {:>14} {:>8} {:>12}\n", "day", "rows", "files", "size"));
        for day in &self.days {
            text.push_str(&day_line(&day.day, day.rows, day.files, day.bytes));
        }
        text.push_str(&day_line("all", self.rows, self.files, self.bytes));
        text
    }
}

fn day_line(day: &str, rows: Option<u64>, files: u64, bytes: u64) -> String {
    let rows = rows.map_or("unknown".to_owned(), |rows| rows.to_string());
    format!("          {day:<10} {rows:>14} {files:>8} {:>12}\n", ByteSize(bytes).to_string())
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_owned(), |bytes| ByteSize(bytes).to_string())
}

impl Report {
    /// Whether the server answered, the slot is there, and every lake table could be read.
    pub(super) fn is_whole(&self) -> bool {
        let tables_read = self.tables.iter().all(|table| table.error.is_none());
        self.server.reachable && self.slot.exists == Some(true) && tables_read
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
        format!("{server}{}{tables}", self.slot.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: &str, rows: Option<u64>) -> DaySummary {
        let names = ["year", "month", "day"];
        let partition =
            names.iter().zip(["2026", "01", day]).map(|(name, value)| ((*name).to_owned(), value.to_owned()));
        DaySummary { partition: partition.collect(), rows, files: 2, bytes: 2048 }
    }

    fn table(days: Vec<DaySummary>) -> TableReport {
        TableReport::new("public.a".into(), "a".into(), Some(Lsn(0x16_0000_0001)), None, days)
    }

    #[test]
    fn the_json_is_the_documented_contract_with_the_server_down() {
        let report = Report {
            server: ServerReport::unreachable("cannot reach it".into()),
            slot: SlotReport::unknown("lakebed"),
            tables: vec![table(vec![day("01", Some(3)), day("02", Some(4))])],
        };
        assert!(!report.is_whole());
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        let expected = serde_json::json!({
            "server": {"reachable": false, "error": "cannot reach it", "version": null, "wal_lsn": null},
            "slot": {"name": "lakebed", "exists": null, "active": null, "holder": null, "wal_status": null,
                     "confirmed_lsn": null, "lag_bytes": null, "retained_bytes": null, "safe_wal_bytes": null},
            "tables": [{"table": "public.a", "path": "a", "recorded_lsn": "16/1", "error": null, "rows": 7, "files": 4,
                        "bytes": 4096, "days": [
                {"day": "2026-01-01", "rows": 3, "files": 2, "bytes": 2048},
                {"day": "2026-01-02", "rows": 4, "files": 2, "bytes": 2048}]}]});
        assert_eq!(json, expected);
        let text = report.to_text();
        assert!(
            text.contains("2026-01-02              4        2") && text.contains("slot      lakebed: unknown"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_count_makes_the_sum_unknown() {
        assert_eq!(table(vec![day("01", Some(3)), day("02", None)]).rows, None);
    }
}
