//! Which fault strikes next, whom, and when.

use crate::support::dice::Dice;
use std::time::Duration;

/// From the end of one fault to the next, on average. With what the faults themselves take it is one about every 8 s.
const MEAN_INTERVAL: Duration = Duration::from_secs(6);

impl Dice {
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    /// Waits between independent events of the mean interval.
    pub(crate) fn until_next_fault(&mut self) -> Duration {
        let uniform = (self.below(1 << 20) + 1) as f64 / f64::from(1 << 20);
        MEAN_INTERVAL.mul_f64(-uniform.ln())
    }

    pub(crate) fn fault(&mut self, among: &[Fault]) -> Fault {
        let total: u64 = among.iter().map(|fault| fault.weight()).sum();
        let mut left = self.below(total);
        for fault in among {
            if left < fault.weight() {
                return *fault;
            }
            left -= fault.weight();
        }
        Fault::Kill
    }
}

/// What can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL to a lakebed.
    Kill,
    /// SIGTERM to a lakebed, which has to end with code 0.
    Stop,
    /// SIGSTOP to a lakebed, SIGCONT a while later.
    Pause,
    /// A lakebed's connections to PostgreSQL are cut inside a frame.
    Cut,
    /// PostgreSQL ends as in a crash, and comes back.
    PostgreSql,
    /// SIGKILL to the S3 server, which comes back.
    Store,
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] =
        [Fault::Kill, Fault::Stop, Fault::Pause, Fault::Cut, Fault::PostgreSql, Fault::Store];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::PostgreSql => "postgresql",
            Fault::Store => "store",
        }
    }

    fn weight(self) -> u64 {
        match self {
            Fault::Kill => 45,
            Fault::Stop => 10,
            Fault::Pause => 8,
            Fault::Cut => 12,
            Fault::PostgreSql => 12,
            Fault::Store => 13,
        }
    }

    /// Whether it ends a process of lakebed, PostgreSQL or the store without warning.
    pub(crate) fn is_a_kill(self) -> bool {
        matches!(self, Fault::Kill | Fault::PostgreSql | Fault::Store)
    }
}
