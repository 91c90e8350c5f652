//! The steps of the tour once everything runs: write, catch up, compare, ask, sum up.

use super::super::generator::{Generator, GeneratorOptions, Row};
use super::super::load::{Inserter, Written, load_history};
use super::super::{Cluster, Connection, DemoError, customer};
use super::screen::{Screen, grouped, mebibytes, per_second};
use super::verbs::{Follower, Verbs};
use super::workspace::{Tree, Workspace};
use super::{MAX_AGE_SECONDS, TourOptions, questions};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Rows of one transaction of the history.
const TRANSACTION_ROWS: usize = 2_000;
/// Rows a second of the live stream.
const LIVE_RATE: u32 = 50;
/// How often the lake is asked how far it is; each question is a process of its own.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const FRESHNESS_INTERVAL: Duration = Duration::from_millis(100);
/// A lake that does not move for so long will not arrive.
const STALLED_AFTER: Duration = Duration::from_secs(90);
/// Source tables and the names under which the lake is asked.
pub(super) const TABLES: [&str; 2] = ["security_event", "security_event_hook_results"];

/// What the tour works with.
pub(super) struct Stages<'a> {
    pub(super) options: &'a TourOptions,
    pub(super) screen: &'a mut Screen,
    pub(super) cluster: &'a Cluster,
    pub(super) follower: &'a mut Follower,
    pub(super) verbs: &'a Verbs,
    pub(super) workspace: &'a Workspace,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    history: Duration,
    caught_up: Duration,
    written: Written,
    freshness: Vec<Duration>,
    /// Of both tables in PostgreSQL while it had all rows.
    source_bytes: u64,
}

impl Stages<'_> {
    /// History, live stream and the comparison of both sides.
    pub(super) async fn write_and_compare(&mut self) -> Result<Outcome, DemoError> {
        let (rows, days) = (grouped(self.options.rows), self.options.history_days);
        self.screen.heading(&format!("3. {rows} rows of history over {days} days, by COPY; the lake follows"));
        let mut generator = Generator::new(GeneratorOptions::with_seed(self.options.seed));
        let begun = Instant::now();
        let mut written = self.write_history(&mut generator).await?;
        let history = begun.elapsed();
        self.catch_up(written, begun).await?;
        let caught_up = begun.elapsed();

        self.screen.heading(&format!("4. A live stream: {LIVE_RATE} inserts a second, as the application writes them"));
        let (live, freshness) = self.stream(&mut generator).await?;
        written.events += live.events;
        written.hook_results += live.hook_results;
        self.catch_up(written, Instant::now()).await?;
        // Not with what is in the tables by now: at 02:00 UTC pg_cron's job detaches the oldest days.
        for (table, source_rows) in TABLES.into_iter().zip([written.events, written.hook_results]) {
            let lake = self.verbs.count_rows(table, "true").await?;
            if lake != source_rows {
                return Err(DemoError::Unequal { table, source_rows, lake });
            }
        }
        let source_bytes = self.source_bytes().await?;
        Ok(Outcome { history, caught_up, written, freshness, source_bytes })
    }

    async fn source_bytes(&self) -> Result<u64, DemoError> {
        let sizes = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('public.security_event')
                     UNION ALL SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('public.security_event_hook_results')";
        let sizes = self.cluster.query(customer::DATABASE, sizes).await?;
        Ok(sizes.into_iter().flatten().flatten().filter_map(|size| size.parse::<u64>().ok()).sum())
    }

    async fn write_history(&mut self, generator: &mut Generator) -> Result<Written, DemoError> {
        let mut admin = self.cluster.connect(customer::DATABASE).await?;
        let (begun, total) = (Instant::now(), self.options.rows);
        let history = generator.history(self.options.history_days, total, chrono::Utc::now().naive_utc());
        let (screen, follower) = (&mut *self.screen, &mut *self.follower);
        let written = load_history(&mut admin, history, TRANSACTION_ROWS, |written| {
            let rate = grouped(per_second(written.total(), begun.elapsed()));
            screen.progress(&format!("{} of {} rows written, {rate} rows/s", grouped(written.total()), grouped(total)));
        })
        .await?;
        follower.check()?;
        let rate = grouped(per_second(written.total(), begun.elapsed()));
        screen.line(&format!(
            "   {} rows written into PostgreSQL and its 13 indexes a leaf, {rate} rows/s",
            grouped(total)
        ));
        Ok(written)
    }

    /// Waits until the lake holds as many rows as were written.
    async fn catch_up(&mut self, written: Written, begun: Instant) -> Result<(), DemoError> {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            self.follower.check()?;
            let mut lake = 0;
            for table in TABLES {
                lake += self.verbs.count_rows(table, "true").await?;
            }
            if lake >= written.total() {
                let elapsed = begun.elapsed();
                let rate = grouped(per_second(lake, elapsed));
                self.screen.line(&format!(
                    "   {} rows in the lake, {:.1} s ({rate} rows/s)",
                    grouped(lake),
                    elapsed.as_secs_f64()
                ));
                return Ok(());
            }
            self.screen.progress(&format!("{} of {} rows in the lake", grouped(lake), grouped(written.total())));
            if lake > seen {
                (seen, moved) = (lake, Instant::now());
            } else if moved.elapsed() > STALLED_AFTER {
                return Err(DemoError::Behind {
                    source_rows: written.total(),
                    lake,
                    waited_seconds: STALLED_AFTER.as_secs(),
                    log: self.workspace.run_log(),
                });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Inserts rows one by one and measures, beside it, how long a marked row takes into the lake.
    async fn stream(&mut self, generator: &mut Generator) -> Result<(Written, Vec<Duration>), DemoError> {
        let url = self.cluster.socket_url_of("idp_app_user", customer::DATABASE);
        let mut marked = Generator::new(GeneratorOptions {
            hook_result_every: 0,
            ..GeneratorOptions::with_seed(!self.options.seed)
        });
        let deadline = Instant::now() + Duration::from_secs(self.options.live_seconds);
        let (stop, inserted) = (Cell::new(false), Cell::new(Written::default()));
        let inserting = insert_until(&url, generator, &stop, &inserted);
        let measuring = async {
            let mut freshness = Vec::new();
            while freshness.is_empty() || Instant::now() < deadline {
                freshness.push(self.measure_freshness(&url, &mut marked).await?);
                let last = freshness.last().map_or(0.0, Duration::as_secs_f64);
                let rows = grouped(inserted.get().total());
                self.screen
                    .progress(&format!("{rows} rows inserted; the last marked row was in the lake after {last:.1} s"));
            }
            stop.set(true);
            Ok(freshness)
        };
        let ((), freshness) = tokio::try_join!(inserting, measuring)?;
        let mut written = inserted.get();
        written.events += freshness.len() as u64;
        self.screen.line(&format!("   {} rows inserted, {} of them marked", grouped(written.total()), freshness.len()));
        Ok((written, freshness))
    }

    /// From the commit in PostgreSQL until `lakebed query` sees the row.
    async fn measure_freshness(&mut self, url: &str, marked: &mut Generator) -> Result<Duration, DemoError> {
        let mut client = Connection::open(url).await?;
        let row = marked.live(chrono::Utc::now().naive_utc());
        Inserter::prepare(&client).await?.insert_live(&mut client, &row).await?;
        let committed = Instant::now();
        let (Row::Event(super::super::generator::SecurityEvent { id, .. })
        | Row::Hook(super::super::generator::HookResult { id, .. })) = &row;
        loop {
            self.follower.check()?;
            if self.verbs.count_rows(TABLES[0], &format!("id = '{id}'")).await? > 0 {
                return Ok(committed.elapsed());
            }
            if committed.elapsed() > STALLED_AFTER {
                let log = self.workspace.run_log();
                let waited_seconds = STALLED_AFTER.as_secs();
                return Err(DemoError::Behind { source_rows: 1, lake: 0, waited_seconds, log });
            }
            tokio::time::sleep(FRESHNESS_INTERVAL).await;
        }
    }

    /// The guide's questions and the demo's.
    pub(super) async fn ask(&mut self) -> Result<(), DemoError> {
        self.screen.heading("6. The guide's three Athena queries, word for word");
        for question in questions::of_the_guide() {
            self.ask_one(&question).await?;
        }
        self.screen.line("   They ask for 2024, for the type login_failure and for 'your-tenant-id'. The rows are of the last days, the");
        self.screen.line(
            "   application's type is password_failure, and tenants are UUIDs: an empty answer is the right one.",
        );
        self.screen.heading("7. The same questions, asked of this data");
        let tenant = "SELECT tenant_id FROM public.security_event WHERE type = 'password_failure'
                      GROUP BY tenant_id ORDER BY count(*) DESC, tenant_id LIMIT 1";
        let tenant = self.cluster.query(customer::DATABASE, tenant).await?;
        let tenant = tenant.into_iter().flatten().flatten().next().unwrap_or_default();
        let today = chrono::Utc::now().date_naive();
        for question in questions::of_the_demo(&tenant, today, self.options.history_days) {
            self.ask_one(&question).await?;
        }
        Ok(())
    }

    async fn ask_one(&mut self, question: &str) -> Result<(), DemoError> {
        for line in question.lines() {
            self.screen.line(&format!("   > {line}"));
        }
        let begun = Instant::now();
        // With `=`, because the guide's statements begin with a comment, which would look like an option.
        let answer = self.verbs.answer("query", &[&format!("--command={question}")]).await?;
        for line in answer.lines() {
            self.screen.line(&format!("   {line}"));
        }
        self.screen.line(&format!("   ({:.2} s, a cold process)\n", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Figures, tree and what to try next.
    pub(super) async fn summarise(&mut self, outcome: &Outcome) -> Result<(), DemoError> {
        let tree = Tree::read(&self.workspace.lake())?;
        let rows = outcome.written.total();
        let mut freshness = outcome.freshness.clone();
        freshness.sort();
        let seconds = |duration: Option<&Duration>| duration.map_or(0.0, Duration::as_secs_f64);
        let (median, worst) = (seconds(freshness.get(freshness.len() / 2)), seconds(freshness.last()));
        self.screen.heading("Summary");
        let lines = [
            format!(
                "rows written       {} ({} events, {} hook results)",
                grouped(rows),
                grouped(outcome.written.events),
                grouped(outcome.written.hook_results)
            ),
            format!("rows in the lake   {}: equal, table by table", grouped(rows)),
            format!(
                "history            {:.1} s to write, {:.1} s until all of it was in the lake",
                outcome.history.as_secs_f64(),
                outcome.caught_up.as_secs_f64()
            ),
            format!(
                "freshness          {median:.1} s median, {worst:.1} s at most of {}; max_age is {MAX_AGE_SECONDS} s, and asking takes part of it",
                freshness.len()
            ),
            format!(
                "size               {} in PostgreSQL with indexes, before its oldest days were dropped, {} in the lake",
                mebibytes(outcome.source_bytes),
                mebibytes(tree.bytes())
            ),
        ];
        for line in lines {
            self.screen.line(&format!("   {line}"));
        }
        self.screen.heading(&format!("The lake: {}", self.workspace.lake().display()));
        for line in tree.lines() {
            self.screen.line(&format!("   {line}"));
        }
        if !self.options.keep {
            self.screen.heading("What to try next");
            self.screen
                .line("   scripts/demo --keep                 the same, and it stays up for psql and lakebed query");
            self.screen
                .line("   scripts/demo --directory ./demo-lake   the lake stays, for DuckDB, Spark or lakebed query");
            self.screen
                .line("   pipelines/security_event.toml       the file to start from for a database of your own");
        }
        Ok(())
    }

    /// For `--keep`.
    pub(super) fn explain_how_to_connect(&mut self, outcome: &Outcome) {
        let executable = self.verbs.executable.display();
        let pipeline = self.verbs.pipeline_file.display();
        let lines = [
            format!("psql '{}'", self.cluster.admin_url(customer::DATABASE)),
            format!("export LAKEBED_PIPELINE={pipeline}"),
            format!("{executable} status"),
            format!(
                "{executable} query -c 'SELECT count(*) FROM security_event'   -- {} and growing",
                grouped(outcome.written.events)
            ),
            format!("tail -f {}", self.workspace.run_log().display()),
        ];
        self.screen.heading("It stays up, with the live stream running");
        for line in lines {
            self.screen.line(&format!("   {line}"));
        }
        self.screen.line("");
        self.screen.line(&format!("To stop everything: Ctrl-C here, or kill {}", std::process::id()));
    }
}

/// The live stream of `--keep`: until the caller drops it, or the pipeline ends.
pub(super) async fn stay(
    cluster: Option<&Cluster>,
    follower: Option<&mut Follower>,
    seed: u64,
) -> Result<(), DemoError> {
    let (Some(cluster), Some(follower)) = (cluster, follower) else { return Ok(()) };
    let url = cluster.socket_url_of("idp_app_user", customer::DATABASE);
    // Another seed: the rows of the history exist already.
    let mut generator =
        Generator::new(GeneratorOptions::with_seed(seed.rotate_left(32) ^ u64::from(std::process::id())));
    let (stop, inserted) = (Cell::new(false), Cell::new(Written::default()));
    tokio::try_join!(insert_until(&url, &mut generator, &stop, &inserted), watch(follower))?;
    Ok(())
}

/// Returns only when the pipeline has ended.
async fn watch(follower: &mut Follower) -> Result<(), DemoError> {
    loop {
        follower.check()?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Inserts at [`LIVE_RATE`] until told to stop.
async fn insert_until(
    url: &str,
    generator: &mut Generator,
    stop: &Cell<bool>,
    inserted: &Cell<Written>,
) -> Result<(), DemoError> {
    let mut client = Connection::open(url).await?;
    let inserter = Inserter::prepare(&client).await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / LIVE_RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.get() {
        pace.tick().await;
        let row = generator.live(chrono::Utc::now().naive_utc());
        if inserter.insert_live(&mut client, &row).await? {
            let mut written = inserted.get();
            written.count(&row);
            inserted.set(written);
        }
    }
    Ok(())
}
