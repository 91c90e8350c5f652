//! What was asked for on the command line.

use lakebed::demo::generator::GeneratorOptions;

const USAGE: &str = "usage: scripts/bench balance [--rows N] [--rounds N] [--events guide|practice]";

pub(crate) struct Options {
    /// Of the day.
    pub(crate) rows: u64,
    pub(crate) rounds: usize,
    /// Events of 520 bytes, the guide's size, instead of the 1.2 to 1.9 KB of practice.
    pub(crate) compact: bool,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        let mut options = Self { rows: 1_000_000, rounds: 5, compact: true };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().expect(USAGE);
            match (name.as_str(), value.as_str()) {
                ("--rows", value) => options.rows = value.parse().expect(USAGE),
                ("--rounds", value) => options.rounds = value.parse().expect(USAGE),
                ("--events", "guide") => options.compact = true,
                ("--events", "practice") => options.compact = false,
                _ => panic!("{USAGE}"),
            }
        }
        assert!(options.rows > 0 && options.rounds > 0, "{USAGE}");
        options
    }

    /// Events alone: the day is one table's.
    pub(crate) fn generator(&self) -> GeneratorOptions {
        GeneratorOptions { compact: self.compact, ..GeneratorOptions::compact(1) }
    }
}
