//! Sessions that write: each has its own mixture, pace and dice, and connects again when the server was killed.

use crate::changes::Change;
use crate::support::dice::Dice;
use crate::support::load::Kind;
use lakebed::demo::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Committed rows that may be ahead of an even pace.
const ROWS_AHEAD: u64 = 450_000;

/// What all sessions did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) transactions: AtomicU64,
    /// Those among them that changed rows of earlier ones.
    pub(crate) changes: AtomicU64,
    /// About how many rows were committed.
    pub(crate) rows: AtomicU64,
    /// Transactions that ended with their server.
    pub(crate) lost: AtomicU64,
    /// Transactions that the server refused: a mistake of the soak's own.
    pub(crate) refused: AtomicU64,
}

/// What a transaction does to the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Grow(Kind),
    Change(Change),
}

/// One session: what to choose from, the pause after each in milliseconds, and one pause in so many is a long one.
struct Session {
    works: &'static [Work],
    pause_millis: (u64, u64),
    long_pause_one_in: u64,
}

impl Session {
    /// Whether the tables would be too large in the end without a pace.
    fn grows_fast(&self) -> bool {
        self.works.iter().any(|work| matches!(work, Work::Grow(kind) if *kind != Kind::Single))
    }
}

const SINGLE: Work = Work::Grow(Kind::Single);

/// The sessions that change rows make about one transaction in six: a rewrite costs a file and not a row, so more of them would be a test
/// of nothing else.
const SESSIONS: [Session; 7] = [
    Session { works: &[SINGLE], pause_millis: (2, 60), long_pause_one_in: 400 },
    Session { works: &[SINGLE, SINGLE, Work::Grow(Kind::Thousands)], pause_millis: (100, 900), long_pause_one_in: 30 },
    Session {
        works: &[Work::Grow(Kind::RolledBack), Work::Grow(Kind::Savepoints)],
        pause_millis: (500, 3_000),
        long_pause_one_in: 15,
    },
    Session {
        works: &[Work::Grow(Kind::ManySavepoints), Work::Grow(Kind::Savepoints)],
        pause_millis: (4_000, 12_000),
        long_pause_one_in: 10,
    },
    Session { works: &[Work::Grow(Kind::Huge)], pause_millis: (20_000, 90_000), long_pause_one_in: 10 },
    Session { works: &A_FEW_ROWS, pause_millis: (30, 300), long_pause_one_in: 60 },
    Session { works: &[Work::Change(Change::Thousands)], pause_millis: (3_000, 15_000), long_pause_one_in: 10 },
];

const A_FEW_ROWS: [Work; 14] = [
    Work::Change(Change::Failures),
    Work::Change(Change::Failures),
    Work::Change(Change::Retry),
    Work::Change(Change::Retry),
    Work::Change(Change::Retry),
    Work::Change(Change::Relabel),
    Work::Change(Change::Rewrite),
    Work::Change(Change::Delete),
    Work::Change(Change::AnotherKey),
    Work::Change(Change::AnotherDay),
    Work::Change(Change::Moved),
    Work::Change(Change::Fleeting),
    Work::Change(Change::Mixed),
    Work::Change(Change::RolledBack),
];

pub(crate) struct Writers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    pub(crate) done: Arc<Done>,
}

impl Writers {
    /// Writes to the database at `url` for `duration`, about `rows_max` rows.
    pub(crate) fn start(url: &str, seed: u64, duration: Duration, rows_max: u64) -> Self {
        let (stop, done) = (watch::Sender::new(false), Arc::new(Done::default()));
        let mut tasks = JoinSet::new();
        for (index, session) in SESSIONS.iter().enumerate() {
            let pace = Pace { started: Instant::now(), duration, rows_max };
            let writer = Writer {
                session,
                url: url.to_owned(),
                dice: Dice::new(seed ^ (index as u64 + 1) << 32),
                pace,
                done: Arc::clone(&done),
            };
            let mut stopped = stop.subscribe();
            tasks.spawn(async move {
                tokio::select! {
                    () = writer.write() => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            });
        }
        Self { tasks, stop, done }
    }

    /// Ends the sessions where they are. The server may go on with what they sent last.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Pace {
    started: Instant,
    duration: Duration,
    rows_max: u64,
}

impl Pace {
    /// Whether the rows so far are as many as an even pace allows.
    fn is_ahead(&self, rows: u64) -> bool {
        let part = self.started.elapsed().as_secs_f64() / self.duration.as_secs_f64();
        let even = (self.rows_max.saturating_sub(ROWS_AHEAD) as f64 * part.min(1.0)) as u64;
        rows > even + ROWS_AHEAD
    }
}

struct Writer {
    session: &'static Session,
    url: String,
    dice: Dice,
    pace: Pace,
    done: Arc<Done>,
}

impl Writer {
    async fn write(mut self) {
        let mut connection: Option<Connection> = None;
        loop {
            let (from, to) = self.session.pause_millis;
            let long = self.dice.below(self.session.long_pause_one_in) == 0;
            let pause = if long { self.dice.millis(3_000, 10_000) } else { self.dice.millis(from, to) };
            tokio::time::sleep(pause).await;
            if self.session.grows_fast() && self.pace.is_ahead(self.done.rows.load(Ordering::Relaxed)) {
                continue;
            }
            let open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(&self.url).await {
                    Ok(open) => open,
                    Err(_) => continue,
                },
            };
            let work = self.session.works[self.dice.index(self.session.works.len())];
            let (statements, rows) = work.statements(&mut self.dice);
            if open.execute(&statements).await.is_ok() {
                self.done.transactions.fetch_add(1, Ordering::Relaxed);
                self.done.rows.fetch_add(rows, Ordering::Relaxed);
                if matches!(work, Work::Change(_)) {
                    self.done.changes.fetch_add(1, Ordering::Relaxed);
                }
                connection = Some(open);
            } else {
                // A server that was killed ends the session, too; one that refuses a statement of ours does not.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let counter = if open.is_closed() { &self.done.lost } else { &self.done.refused };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Work {
    /// The statements of one transaction, and about how many rows there are more after it.
    fn statements(self, dice: &mut Dice) -> (String, u64) {
        match self {
            Self::Grow(kind) => {
                let size = dice.below(100) as u32;
                (kind.statements(size), rows_about(kind, size))
            }
            Self::Change(change) => (change.statements(dice), change.rows_about()),
        }
    }
}

/// About how many rows such a transaction commits.
fn rows_about(kind: Kind, size: u32) -> u64 {
    let size = u64::from(size);
    match kind {
        Kind::Single => 1,
        Kind::Thousands => (1_000 + size * 40) * 5 / 4,
        Kind::RolledBack => 0,
        Kind::Savepoints => (3 + size % 7).div_ceil(2) * (200 + size * 20),
        Kind::ManySavepoints => (1_000 + size * 40) * 2 / 3,
        Kind::Huge => 200_000 + size * 400,
    }
}
