//! A seeded generator of the first customer's rows: believable, awkward, and the same for ever.
//!
//! The lake is proved by comparing it with the source, so the rows have to contain what breaks naive copies: `NULL` beside
//! `''`, commas, quotes, newlines, tabs and backslashes (a literal `\N` among them), Japanese and emoji, nested arrays, `{}`
//! and details over 8 KB, addresses of both families, microseconds at both edges of a day, rows that are late by minutes or
//! belong to yesterday. What it makes depends on [`GeneratorOptions`] and the instants it is given, on no clock, locale or
//! version of a random number library.
//!
//! ```text
//! Random ─▶ population (tenant, user, address) ─┐
//!           event_types (the mix, bursts) ──────┼─▶ SecurityEvent ─▶ HookResult      copy_text: lines for COPY
//!           detail (jsonb text) ────────────────┘        ▲                           parameters: for INSERT
//!                                    history, live: created_at
//! ```

mod copy_text;
mod detail;
mod event_types;
mod history;
mod population;
mod random;
mod rows;

#[cfg(test)]
mod tests;

pub use history::History;
pub use rows::{HookResult, Row, SecurityEvent};

use chrono::{NaiveDateTime, TimeDelta};
use event_types::Burst;
use population::Population;
use random::Random;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    /// The same seed makes the same rows.
    pub seed: u64,
    /// Users of each tenant; one tenant for each number.
    pub tenant_users: Vec<u64>,
    /// One row in this many is a hook result of the event before it; 0 for none.
    pub hook_result_every: u64,
    /// Events of about 520 bytes of text in all, the guide's size, instead of the 1.2-1.9 KB of practice.
    pub compact: bool,
}

impl GeneratorOptions {
    /// The customer's ten tenants, one of them large, and a hook result for every ninth event.
    pub fn with_seed(seed: u64) -> Self {
        let mut tenant_users = vec![1_000_000];
        tenant_users.resize(10, 100_000);
        Self { seed, tenant_users, hook_result_every: 10, compact: false }
    }

    /// Events alone, of about 520 bytes: what the drain bench moves.
    pub fn compact(seed: u64) -> Self {
        Self { hook_result_every: 0, compact: true, ..Self::with_seed(seed) }
    }
}

/// Makes rows, one after the other.
#[derive(Debug)]
pub struct Generator {
    options: GeneratorOptions,
    population: Population,
    random: Random,
    rows_made: u64,
    burst: Burst,
    last_event: Option<SecurityEvent>,
}

impl Generator {
    /// A generator at its first row.
    pub fn new(options: GeneratorOptions) -> Self {
        let mut random = Random::new(options.seed);
        let population = Population::new(&mut random, &options.tenant_users);
        Self { options, population, random, rows_made: 0, burst: Burst::default(), last_event: None }
    }

    /// `rows` rows spread evenly from midnight `days` days before `now` until `now` (UTC), in an order of arrival that is nearly
    /// that of created_at. Every day that gets two rows has one at 00:00:00.000000 and, once it is over, one at
    /// 23:59:59.999999.
    pub fn history(&mut self, days: u32, rows: u64, now: NaiveDateTime) -> History<'_> {
        History::new(self, days, rows, now)
    }

    /// The next row of a live stream at `now` (UTC): most are milliseconds old, one in a hundred minutes, one in a thousand is
    /// a retried insert that keeps yesterday's created_at.
    pub fn live(&mut self, now: NaiveDateTime) -> Row {
        let late_micros = match self.random.below(1000) {
            0 => self.random.between(3_600_000_000, 26 * 3_600_000_000),
            1..=10 => self.random.between(1_000_000, 300_000_000),
            _ => self.random.between(0, 50_000),
        };
        self.row_at(now - micros(late_micros))
    }

    fn row_at(&mut self, created_at: NaiveDateTime) -> Row {
        self.rows_made += 1;
        let every = self.options.hook_result_every;
        match &self.last_event {
            Some(event) if every > 0 && self.rows_made.is_multiple_of(every) => {
                Row::Hook(rows::hook_result(&mut self.random, event, created_at))
            }
            _ => {
                let event = self.event_at(created_at);
                if every > 0 && (self.rows_made + 1).is_multiple_of(every) {
                    self.last_event = Some(event.clone());
                }
                Row::Event(event)
            }
        }
    }

    fn event_at(&mut self, created_at: NaiveDateTime) -> SecurityEvent {
        let attack = self.burst.next(&mut self.random, &self.population);
        rows::security_event(&mut self.random, &self.population, attack, created_at, self.options.compact)
    }
}

fn micros(count: u64) -> TimeDelta {
    TimeDelta::microseconds(i64::try_from(count).unwrap_or(i64::MAX))
}
