//! What goes on while the copy runs: sessions that insert, update, delete and move rows, of today and of days long ago.

use super::{LATE_DAYS, Old};
use crate::support::dice::Dice;
use crate::support::{DATABASE, until};
use chrono::{Days, NaiveDate};
use lakebed::demo::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between two transactions of a session, so that whoever follows has a share of two cores.
pub(super) const PAUSE: Duration = Duration::from_millis(120);
/// Deadlock, serialization failure, and a row that came into the default partition while partman made a leaf for it: the transaction
/// is rolled back, and nothing else is the matter.
pub(super) const ROLLED_BACK: [&str; 3] = ["40P01", "40001", "23514"];

/// So many events on each of the days; the first and the last microsecond among them.
pub(super) fn events(days: &[NaiveDate], rows: u32) -> String {
    format!(
        "INSERT INTO public.security_event
         SELECT gen_random_uuid(), 'login_success', 'made by a test', gen_random_uuid(), 'tenant, \"quoted\"', 'client', '日本語',
                NULL, CASE WHEN n % 2 = 0 THEN '' END, NULL, '192.0.2.1', E'line\\nbreak',
                jsonb_build_object('n', n, 'text', repeat(md5(random()::text), 6)), {}
         FROM unnest({}) AS day, generate_series(1, {rows}) AS n;\n",
        moment(),
        array(days)
    )
}

/// So many hook results on each of the days, with payloads that are stored out of line.
pub(super) fn hook_results(days: &[NaiveDate], rows: u32) -> String {
    format!(
        "INSERT INTO public.security_event_hook_results
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'login_success', 'webhook',
                {}, CASE WHEN n % 3 = 0 THEN '{{}}'::jsonb END, 'FAILURE', {}, '2026-01-01'
         FROM unnest({}) AS day, generate_series(1, {rows}) AS n;\n",
        payload(),
        moment(),
        array(days)
    )
}

/// A moment of `day`, for the `n`-th row of it.
fn moment() -> &'static str {
    "day + CASE n WHEN 1 THEN interval '0' WHEN 2 THEN interval '1 day' - interval '1 microsecond'
                  ELSE random() * interval '23 hours 59 minutes' END"
}

/// A few kilobytes that cannot be compressed.
fn payload() -> &'static str {
    "jsonb_build_object('p', (SELECT string_agg(encode(sha512((random()::text || n || part)::bytea), 'base64'), '')
                              FROM generate_series(1, 35 + n % 25) AS part))"
}

fn array(days: &[NaiveDate]) -> String {
    let days = days.iter().map(|day| format!("timestamp '{day}'")).collect::<Vec<_>>().join(", ");
    format!("ARRAY[{days}]")
}

/// Sessions that write until they are told to end.
pub(super) struct Load {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    committed: Arc<AtomicU64>,
}

impl Load {
    /// Two sessions, each with one half of the rows.
    pub(super) fn start(old: &Old, seed: u64) -> Self {
        let mut load = Self::none();
        for half in 0..2 {
            let leaves = old.leaves();
            let late = LATE_DAYS.map(|ago| old.day(ago)).collect();
            let mut chooser = Chooser { dice: Dice::new(seed ^ (half + 1) << 32), half, leaves, late };
            load.session(old.site.cluster.socket_url(DATABASE), PAUSE, move || chooser.transaction());
        }
        load
    }

    pub(super) fn none() -> Self {
        Self { tasks: JoinSet::new(), stop: watch::Sender::new(false), committed: Arc::default() }
    }

    /// One more session, which runs what it is given, over and over, with a pause after each.
    pub(super) fn session(
        &mut self,
        url: String,
        pause: Duration,
        mut statements: impl FnMut() -> String + Send + 'static,
    ) {
        let (mut stopped, committed) = (self.stop.subscribe(), Arc::clone(&self.committed));
        self.tasks.spawn(async move {
            let connection = Connection::open(&url).await.unwrap();
            while !*stopped.borrow() {
                write(&connection, &statements()).await;
                committed.fetch_add(1, Ordering::Relaxed);
                let _ = tokio::time::timeout(pause, stopped.changed()).await;
            }
        });
    }

    /// Waits until so many more transactions are over.
    pub(super) async fn goes_on_for(&self, transactions: u64) {
        let until_then = self.committed.load(Ordering::Relaxed) + transactions;
        until("the load goes on", || self.committed.load(Ordering::Relaxed) >= until_then).await;
    }

    /// Lets every session end its transaction.
    pub(super) async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

async fn write(connection: &Connection, statements: &str) {
    let Err(error) = connection.batch_execute(statements).await else { return };
    let code = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
    assert!(ROLLED_BACK.contains(&code.as_str()), "{error:?}:\n{statements}");
    connection.execute("ROLLBACK").await.unwrap();
}

/// Chooses what a session does next.
struct Chooser {
    dice: Dice,
    half: u64,
    /// Days that have had leaves.
    leaves: Vec<NaiveDate>,
    /// Days of the default partition.
    late: Vec<NaiveDate>,
}

impl Chooser {
    /// One transaction. Events come before hook results, so that two sessions do not wait for each other in a circle.
    fn transaction(&mut self) -> String {
        let statements = match self.dice.below(16) {
            0..3 => self.inserted(),
            3..6 => self.relabelled(),
            6 | 7 => self.retried(),
            8 => self.rewritten(),
            9 => self.deleted("security_event"),
            10 => self.deleted("security_event_hook_results"),
            11 | 12 => self.on_another_day(),
            13 => self.with_another_key() + &self.taken_out_and_put_back(),
            14 if self.dice.percent(30) => self.large(),
            14 => self.relabelled(),
            _ => {
                let (inserted, deleted) = (self.inserted(), self.deleted("security_event"));
                format!("{inserted}SAVEPOINT dead;\n{deleted}ROLLBACK TO dead;\n{}", self.relabelled())
            }
        };
        let end = if self.dice.percent(6) { "ROLLBACK" } else { "COMMIT" };
        format!("BEGIN;\n{statements}{end};\n")
    }

    /// Any day, those of the default partition among them.
    fn day(&mut self) -> NaiveDate {
        let days = if self.dice.percent(15) { &self.late } else { &self.leaves };
        days[self.dice.index(days.len())]
    }

    /// Some rows of a day, of this session's half: one in `part`.
    fn some(&mut self, part: u64) -> String {
        let day = self.day();
        format!(
            "created_at >= '{day}' AND created_at < '{}' AND get_byte(uuid_send(id), 15) % 2 = {}
             AND get_byte(uuid_send(id), 14) % {part} = {}",
            day + Days::new(1),
            self.half,
            self.dice.below(part)
        )
    }

    fn inserted(&mut self) -> String {
        let (day, other, rows) = (self.day(), self.day(), 1 + self.dice.below(12));
        events(&[day], u32::try_from(rows).unwrap()) + &hook_results(&[other], 1)
    }

    fn relabelled(&mut self) -> String {
        format!("UPDATE public.security_event SET description = md5(random()::text) WHERE {};\n", self.some(16))
    }

    /// The payloads are not sent, because they do not change.
    fn retried(&mut self) -> String {
        let some = self.some(4);
        let again = hook_results(&self.leaves[..1], 1);
        format!("UPDATE public.security_event_hook_results SET status = md5(random()::text) WHERE {some};\n{again}")
    }

    fn rewritten(&mut self) -> String {
        format!(
            "UPDATE public.security_event_hook_results SET security_event_payload = jsonb_build_object('again', md5(random()::text)),
                 status = md5(random()::text) WHERE {};\n",
            self.some(8)
        )
    }

    fn deleted(&mut self, table: &str) -> String {
        format!("DELETE FROM public.{table} WHERE {};\n", self.some(32))
    }

    /// Each half of such a row belongs to another day, which may be copied already, or not yet.
    fn on_another_day(&mut self) -> String {
        let (events, hooks, to) = (self.some(32), self.some(16), self.day());
        let moved = |table: &str, some: &str| {
            format!("UPDATE public.{table} SET created_at = timestamp '{to}' + created_at::time WHERE {some};\n")
        };
        moved("security_event", &events) + &moved("security_event_hook_results", &hooks)
    }

    fn with_another_key(&mut self) -> String {
        format!("UPDATE public.security_event SET id = gen_random_uuid() WHERE {};\n", self.some(32))
    }

    fn taken_out_and_put_back(&mut self) -> String {
        let table = "public.security_event_hook_results";
        let some = self.some(16);
        format!(
            "WITH taken AS (DELETE FROM {table} WHERE {some} RETURNING *) INSERT INTO {table} SELECT * FROM taken;\n"
        )
    }

    /// More than is decoded in memory: rows come to every day, and a quarter of one day's rows change.
    fn large(&mut self) -> String {
        let some = self.some(4);
        let changed = format!("UPDATE public.security_event SET user_name = md5(random()::text) WHERE {some};\n");
        events(&self.leaves, 30) + &changed + &hook_results(&self.late, 4)
    }
}
