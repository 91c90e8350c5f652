//! What was asked for on the command line.

use std::fmt;
use std::time::Duration;

const USAGE: &str = "usage: scripts/soak MINUTES [--seed N] [--lake local|s3|both] [--rows-max N] [--faults KIND,…]\n\
                     kinds of faults: kill, stop, pause, cut, postgresql, store";

pub(crate) struct Options {
    pub(crate) minutes: f64,
    pub(crate) seed: u64,
    pub(crate) local: bool,
    pub(crate) s3: bool,
    /// About so many rows are committed in all; the tables stay whole, because they are compared.
    pub(crate) rows_max: u64,
    /// Names of the kinds that may strike; all of them when empty.
    pub(crate) faults: Vec<String>,
}

impl Options {
    pub(crate) fn from_arguments() -> Result<Self, String> {
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).ok_or(USAGE)?;
        let mut options = Self {
            minutes,
            seed: rand::random::<u32>().into(),
            local: true,
            s3: true,
            rows_max: 600_000 + (minutes * 50_000.0).max(0.0).round() as u64,
            faults: Vec::new(),
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--seed" => options.seed = value.parse().map_err(|_| USAGE)?,
                "--rows-max" => options.rows_max = value.parse().map_err(|_| USAGE)?,
                "--faults" => options.faults = value.split(',').map(str::to_owned).collect(),
                "--lake" => {
                    (options.local, options.s3) = match value.as_str() {
                        "local" => (true, false),
                        "s3" => (false, true),
                        "both" => (true, true),
                        _ => return Err(USAGE.to_owned()),
                    };
                }
                _ => return Err(USAGE.to_owned()),
            }
        }
        let known = |name: &String| super::chaos::Fault::ALL.iter().any(|fault| fault.name() == name);
        if minutes > 0.0 && options.faults.iter().all(known) { Ok(options) } else { Err(USAGE.to_owned()) }
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lake = match (self.local, self.s3) {
            (true, true) => "both",
            (true, false) => "local",
            _ => "s3",
        };
        write!(f, "{} minutes --seed {} --lake {lake} --rows-max {}", self.minutes, self.seed, self.rows_max)?;
        if self.faults.is_empty() { Ok(()) } else { write!(f, " --faults {}", self.faults.join(",")) }
    }
}
