//! What the demo shows: lines, and one line that is rewritten while something goes on.

use std::io::Write;
use std::time::{Duration, Instant};

/// How often progress becomes a line of its own where lines cannot be rewritten.
const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Where the demo writes to. A reader who has gone away (`lakebed demo | head`) does not end the demo: what was started still has
/// to be stopped in order.
pub struct Screen {
    out: Box<dyn Write>,
    is_terminal: bool,
    progress_shown: Option<Instant>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}

impl Screen {
    /// A screen that rewrites its progress line only on a terminal.
    pub fn new(out: Box<dyn Write>, is_terminal: bool) -> Self {
        Self { out, is_terminal, progress_shown: None }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        self.line("");
        if self.is_terminal {
            self.line(&format!("\x1b[1m== {text}\x1b[0m"));
        } else {
            self.line(&format!("== {text}"));
        }
    }

    /// One line or several.
    pub fn line(&mut self, text: &str) {
        self.end_progress();
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// Replaces the progress line; off a terminal, a plain line every few seconds.
    pub fn progress(&mut self, text: &str) {
        let now = Instant::now();
        if self.is_terminal {
            let _ = write!(self.out, "\r\x1b[K   {text}");
        } else if self.progress_shown.is_none_or(|shown| now - shown >= PLAIN_PROGRESS_INTERVAL) {
            let _ = writeln!(self.out, "   {text}");
        } else {
            return;
        }
        let _ = self.out.flush();
        self.progress_shown = Some(now);
    }

    fn end_progress(&mut self) {
        if self.progress_shown.take().is_some() && self.is_terminal {
            let _ = writeln!(self.out);
        }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whole units a second; 0 while no time has passed.
pub(super) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    count.saturating_mul(1000).checked_div(millis).unwrap_or(0)
}

/// Bytes in MiB or KiB, one digit after the point.
pub(super) fn mebibytes(bytes: u64) -> String {
    let (unit, name) = if bytes >= 1 << 20 { (1_u64 << 20, "MiB") } else { (1 << 10, "KiB") };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!((grouped(0), grouped(999), grouped(1000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(mebibytes(1536), "1.5 KiB");
        assert_eq!(mebibytes(7 << 20), "7.0 MiB");
        assert_eq!(per_second(10, Duration::ZERO), 0);
        assert_eq!(per_second(10, Duration::from_millis(500)), 20);
    }
}
