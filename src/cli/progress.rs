//! How a copy goes, for whoever watches: a bar on a terminal, plain lines anywhere else. Standard output is left to the result.

use super::report;
use crate::snapshot::Figures;
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines, unless a day was done.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A rate over less than this says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// What is known of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) days_done: u64,
    pub(super) days_total: u64,
    pub(super) rows: u64,
    /// As COPY sends them.
    pub(super) bytes: u64,
    /// An estimate; 0 where there is none.
    pub(super) bytes_total: u64,
    /// What is going on, in a few words.
    pub(super) phase: String,
}

impl Shown {
    pub(super) fn of(figures: &Figures) -> Self {
        Self {
            days_done: figures.days_done,
            days_total: figures.days_total,
            rows: figures.rows,
            bytes: figures.bytes,
            bytes_total: figures.bytes_total,
            phase: figures.phase.text().to_owned(),
        }
    }

    /// `12 of 90 days, 1200000 rows, 1.2 GiB of about 10.0 GiB, 45.0 MiB/s, about 3m 20s left: copying`.
    pub(super) fn line(&self, elapsed: Duration) -> String {
        let mut parts = Vec::new();
        if self.days_total > 0 {
            parts.push(format!("{} of {} days", self.days_done, self.days_total));
        }
        if self.rows > 0 || self.bytes > 0 {
            let about = match self.bytes_total {
                0 => String::new(),
                total => format!(" of about {}", ByteSize(total.max(self.bytes))),
            };
            parts.push(format!("{} rows", self.rows));
            parts.push(format!("{}{about}", ByteSize(self.bytes)));
        }
        if let Some(rate) = rate(self.bytes, elapsed) {
            parts.push(format!("{}/s", ByteSize(rate)));
            let left = self.bytes_total.saturating_sub(self.bytes);
            if left > 0 && self.days_done < self.days_total {
                parts.push(format!(
                    "about {} left",
                    humantime::format_duration(Duration::from_secs(left / rate.max(1)))
                ));
            }
        }
        match (parts.is_empty(), self.phase.is_empty()) {
            (true, _) => self.phase.clone(),
            (false, true) => parts.join(", "),
            (false, false) => format!("{}: {}", parts.join(", "), self.phase),
        }
    }

    /// How far it is, and of how much: bytes, or days where bytes are not known.
    fn position(&self) -> (u64, u64) {
        match self.bytes_total {
            0 => (self.days_done, self.days_total),
            total => (self.bytes, total.max(self.bytes)),
        }
    }
}

/// In a second; none before there is anything to tell it by.
pub(super) fn rate(bytes: u64, elapsed: Duration) -> Option<u64> {
    let milliseconds = u64::try_from(elapsed.as_millis()).ok()?;
    (bytes > 0 && elapsed >= RATE_AFTER).then(|| bytes.saturating_mul(1000) / milliseconds.max(1))
}

/// A display that is shown anew whenever it is told something.
pub(super) struct Progress {
    begun: Instant,
    /// When the first byte came: a server may wait long for its snapshot.
    moving_since: Option<Instant>,
    bar: Option<ProgressBar>,
    told: Option<(Instant, u64)>,
}

impl Progress {
    /// On standard error.
    pub(super) fn begin() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} [{bar:30}] {percent:>3} % {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { begun: Instant::now(), moving_since: None, bar, told: None }
    }

    /// Shows it: the bar at once, a line when it is time for one.
    pub(super) fn show(&mut self, shown: &Shown) {
        let now = Instant::now();
        if shown.bytes > 0 {
            self.moving_since.get_or_insert(now);
        }
        let line = shown.line(self.moving());
        if let Some(bar) = &self.bar {
            let (position, length) = shown.position();
            bar.set_length(length);
            bar.set_position(position);
            bar.set_message(line);
        } else if is_due(self.told, (now, shown.days_done)) && !line.is_empty() {
            self.told = Some((now, shown.days_done));
            report(&format!("lakebed: {line}"));
        }
    }

    /// A remark above the bar.
    pub(super) fn say(&self, text: &str) {
        let say = || report(&format!("lakebed: {text}"));
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// Since the first byte came.
    pub(super) fn moving(&self) -> Duration {
        self.moving_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Since it began.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A line every 10 s, and at each day.
fn is_due(told: Option<(Instant, u64)>, (now, days_done): (Instant, u64)) -> bool {
    told.is_none_or(|(at, done)| done != days_done || now.duration_since(at) >= LINE_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        Shown {
            days_done: 12,
            days_total: 90,
            rows: 1_200_000,
            bytes: 1 << 30,
            bytes_total: 3 << 30,
            phase: "copying".to_owned(),
        }
    }

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        let line = shown().line(Duration::from_secs(16));
        assert_eq!(line, "12 of 90 days, 1200000 rows, 1.0 GiB of about 3.0 GiB, 64.0 MiB/s, about 32s left: copying");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let begins = Shown { phase: "waiting for a snapshot".to_owned(), ..Shown::default() };
        assert_eq!(begins.line(Duration::from_secs(5)), "waiting for a snapshot");
        let watched = Shown { days_done: 1, days_total: 2, ..Shown::default() };
        assert_eq!(watched.line(Duration::ZERO), "1 of 2 days");
        let more_than_estimated = Shown { bytes: 4 << 30, ..shown() }.line(Duration::from_secs(16));
        assert!(more_than_estimated.contains("4.0 GiB of about 4.0 GiB, 256.0 MiB/s: "), "{more_than_estimated}");
        assert_eq!(rate(5, Duration::from_millis(999)), None);
    }

    #[tokio::test]
    async fn a_line_comes_at_each_day_and_every_ten_seconds() {
        let now = Instant::now();
        assert!(is_due(None, (now, 0)));
        assert!(!is_due(Some((now, 3)), (now + Duration::from_secs(9), 3)));
        assert!(is_due(Some((now, 3)), (now + Duration::from_secs(10), 3)));
        assert!(is_due(Some((now, 3)), (now, 4)));
    }
}
