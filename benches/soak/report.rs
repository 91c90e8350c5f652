//! What a soak did, for the person who started it.

use crate::chaos::Fault;
use crate::keeper::Keeper;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The figures of a soak so far.
pub(crate) struct Figures {
    pub(crate) elapsed: Duration,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) transactions: u64,
    /// Those among them that changed rows of earlier ones.
    pub(crate) changes: u64,
    pub(crate) lost: u64,
    /// Rows of each table that were compared with every lake; none before the end.
    pub(crate) rows: Option<[u64; 2]>,
    pub(crate) wal_bytes: u64,
}

impl Figures {
    pub(crate) fn kills(&self) -> u64 {
        self.faults.iter().filter(|(fault, _)| fault.is_a_kill()).map(|(_, count)| count).sum()
    }

    /// One line, now and then.
    pub(crate) fn status(&self, rows_about: u64, keepers: &[Keeper]) -> String {
        let peaks: Vec<String> = keepers.iter().map(|keeper| format!("{} MiB", keeper.peak_mib)).collect();
        format!(
            "soak: {:5.1} min, {} kills, {} other faults, {} transactions, about {rows_about} rows, {} MB of WAL, peaks {}",
            self.elapsed.as_secs_f64() / 60.0,
            self.kills(),
            self.faults.values().sum::<u64>() - self.kills(),
            self.transactions,
            self.wal_bytes / 1_000_000,
            peaks.join(" and ")
        )
    }

    pub(crate) fn closing(&self, keepers: &[Keeper]) -> String {
        let mut text = String::from("\n| what | figure |\n|---|---|\n");
        let mut line = |what: &str, figure: String| {
            let _ = writeln!(text, "| {what} | {figure} |");
        };
        line("minutes", format!("{:.1}", self.elapsed.as_secs_f64() / 60.0));
        line("kills", self.kills().to_string());
        for (fault, count) in &self.faults {
            line(&format!("– {}", fault.name()), count.to_string());
        }
        line("transactions", format!("{} and {} lost with their server", self.transactions, self.lost));
        line("– that changed rows of earlier ones", self.changes.to_string());
        if let Some([events, hooks]) = self.rows {
            line("rows compared with each lake", format!("{events} and {hooks}"));
        }
        line("MB of WAL", (self.wal_bytes / 1_000_000).to_string());
        for keeper in keepers {
            let slot = &keeper.lane.slot;
            line(&format!("{slot}: most resident memory"), format!("{} MiB", keeper.peak_mib));
            line(&format!("{slot}: longest catch-up"), format!("{:.1} s", keeper.longest_catch_up.as_secs_f64()));
            if let Some([events, hooks]) = keeper.old_images {
                line(&format!("{slot}: old images in the journals"), format!("{events} and {hooks}"));
            }
            for (message, count) in &keeper.warnings {
                line(&format!("{slot}: WARN {message}"), count.to_string());
            }
        }
        text
    }
}
