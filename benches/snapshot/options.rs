//! What was asked for on the command line.

use lakebed::demo::generator::GeneratorOptions;

const USAGE: &str =
    "usage: scripts/bench snapshot [--rows N] [--days N] [--rounds N] [--connections N] [--events guide|practice]";

pub(crate) struct Options {
    pub(crate) rows: u64,
    /// Whole days before today, each with a leaf.
    pub(crate) days: u32,
    pub(crate) rounds: usize,
    /// `[snapshot].connections`.
    pub(crate) connections: usize,
    /// Events of 520 bytes, the guide's size, instead of the 1.2 to 1.9 KB of practice.
    compact: bool,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        let mut options = Self { rows: 5_000_000, days: 90, rounds: 3, connections: 2, compact: true };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().expect(USAGE);
            match (name.as_str(), value.as_str()) {
                ("--rows", value) => options.rows = value.parse().expect(USAGE),
                ("--days", value) => options.days = value.parse().expect(USAGE),
                ("--rounds", value) => options.rounds = value.parse().expect(USAGE),
                ("--connections", value) => options.connections = value.parse().expect(USAGE),
                ("--events", "guide") => options.compact = true,
                ("--events", "practice") => options.compact = false,
                _ => panic!("{USAGE}"),
            }
        }
        assert!(options.rows > 0 && options.days > 0 && options.rounds > 0, "{USAGE}");
        options
    }

    /// Events alone: they are one table's.
    pub(crate) fn generator(&self) -> GeneratorOptions {
        GeneratorOptions { compact: self.compact, ..GeneratorOptions::compact(1) }
    }
}
