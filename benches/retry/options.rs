//! What was asked for on the command line.

const USAGE: &str = "usage: scripts/bench retry [--days N] [--rows-per-day N] [--files-per-day N] [--singles N] [--updates N] \
                     [--max-age TIME]";

pub(crate) struct Options {
    /// Rows of today and of so many days before, less one.
    pub(crate) days: u32,
    pub(crate) rows_per_day: u32,
    pub(crate) files_per_day: u32,
    /// Single retries of the oldest day, whose median counts.
    pub(crate) singles: u32,
    /// Retries at once, spread over all days.
    pub(crate) updates: u32,
    /// `buffer.max_age`.
    pub(crate) max_age: &'static str,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        let mut options =
            Self { days: 61, rows_per_day: 1_000, files_per_day: 4, singles: 7, updates: 5_000, max_age: "10s" };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().expect(USAGE);
            let number = || value.parse::<u32>().ok().filter(|number| *number > 0).expect(USAGE);
            match name.as_str() {
                "--days" => options.days = number(),
                "--rows-per-day" => options.rows_per_day = number(),
                "--files-per-day" => options.files_per_day = number(),
                "--singles" => options.singles = number(),
                "--updates" => options.updates = number(),
                "--max-age" => options.max_age = value.leak(),
                _ => panic!("{USAGE}"),
            }
        }
        options
    }

    /// Numbers of the rows of a day, from and to, that are in its n-th file.
    pub(crate) fn part(&self, n: u32) -> (u32, u32) {
        (self.rows_per_day * n / self.files_per_day + 1, self.rows_per_day * (n + 1) / self.files_per_day)
    }
}
