//! How far the copy is, for whoever shows it.

use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// The server waits for transactions that were running before it can give a snapshot.
    WaitingForSnapshot,
    /// Rows are read.
    Copying,
    /// What was read is committed.
    Landing,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Idle, Phase::WaitingForSnapshot, Phase::Copying, Phase::Landing];

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Phase::Idle => "nothing to copy",
            Phase::WaitingForSnapshot => "waiting for a snapshot",
            Phase::Copying => "copying",
            Phase::Landing => "landing",
        }
    }
}

/// Counters that everybody who copies shares; clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    days_total: AtomicU64,
    days_done: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    phase: AtomicU8,
}

/// A [`Meter`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Days (months) that were or are to be copied; a table that is copied as a whole counts as one.
    pub days_total: u64,
    /// Those that are in the lake.
    pub days_done: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Bytes that were read, in COPY's form.
    pub bytes: u64,
    /// What PostgreSQL has of all of them, about: tables and TOAST, which is not what COPY sends.
    pub bytes_total: u64,
    /// What is being done.
    pub phase: Phase,
}

impl Meter {
    /// More days are to be copied, of about so many bytes.
    pub fn expect(&self, days: u64, bytes: u64) {
        self.0.days_total.fetch_add(days, Relaxed);
        self.0.bytes_total.fetch_add(bytes, Relaxed);
    }

    /// Whoever copies begins anew, and is to expect what is left: until then nothing is but what was done.
    pub fn begin_again(&self) {
        self.0.days_total.store(self.0.days_done.load(Relaxed), Relaxed);
        self.0.bytes_total.store(self.0.bytes.load(Relaxed), Relaxed);
    }

    /// So many days are in the lake.
    pub fn landed(&self, days: u64) {
        self.0.days_done.fetch_add(days, Relaxed);
    }

    /// What is being done from here on.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Relaxed);
    }

    /// Rows were read.
    pub(super) fn read(&self, rows: u64, bytes: u64) {
        self.0.rows.fetch_add(rows, Relaxed);
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    /// Rows that were counted are not among those that land, and are read again.
    pub fn unread(&self, rows: u64, bytes: u64) {
        self.0.rows.fetch_sub(rows, Relaxed);
        self.0.bytes.fetch_sub(bytes, Relaxed);
    }

    /// The counters now.
    pub fn figures(&self) -> Figures {
        let phase = usize::from(self.0.phase.load(Relaxed));
        Figures {
            days_total: self.0.days_total.load(Relaxed),
            days_done: self.0.days_done.load(Relaxed),
            rows: self.0.rows.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
            bytes_total: self.0.bytes_total.load(Relaxed),
            phase: Phase::ALL.get(phase).copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_comes_back_as_it_was_entered() {
        let meter = Meter::default();
        for phase in Phase::ALL {
            meter.clone().enter(phase);
            assert_eq!(meter.figures().phase, phase);
        }
        meter.read(5, 500);
        meter.unread(2, 200);
        assert_eq!((meter.figures().rows, meter.figures().bytes), (3, 300));
        meter.expect(9, 1000);
        meter.landed(2);
        meter.begin_again();
        meter.expect(7, 700);
        assert_eq!((meter.figures().days_total, meter.figures().bytes_total), (9, 1000));
    }
}
