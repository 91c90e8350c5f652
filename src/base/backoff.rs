//! How long to wait before a transient failure is tried again.

use std::time::Duration;

/// Waiting times that double up to a limit. Jitter is the caller's (`jitter` is a number from 0 to 1), so that this stays free of
/// randomness: many processes that lost the same server must not return at the same instant.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins at `first` and never exceeds `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The next wait: between half of the current step and all of it.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.max);
        step.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Something worked: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let waits: Vec<u128> = (0..4).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500]);
        assert_eq!(backoff.next(0.0).as_millis(), 250, "jitter takes up to half away");
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 100);
    }
}
