//! A day of believable rows, detached from its table and in the lake, and the two ways of balancing it that are compared.

use crate::measure::{self, Run};
use crate::options::Options;
use crate::support::{DATABASE, PipelineText, RunningRun, Site};
use crate::table_log::TableLog;
use chrono::{Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use lakebed::base::TableName;
use lakebed::config::Pipeline;
use lakebed::demo::ClusterOptions;
use lakebed::demo::generator::Generator;
use lakebed::demo::load::load_history;
use lakebed::pipeline::Archive;
use lakebed::reconcile::digest::{PINS, RowSum, columns_of, digest_query};
use lakebed::source::qualified;
use serde_json::Value;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TABLE: &str = "security_event";
/// Beyond the retention of 90 days.
const DAYS_AGO: u64 = 95;
const TRANSACTION_ROWS: usize = 5_000;
/// `run` proves complete days from its first minute on.
const PROVED_WITHIN: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// No round of `run`'s own takes the day away; the day is proved once, and looked at for changes every ten minutes.
const ARCHIVE: &str = "schedule = \"0 0 1 1 *\"\nproof_interval = \"10m\"";

/// The day, its server, its lake, and the process that follows.
pub(crate) struct Day {
    // Declared first: the process ends before its server goes.
    run: RunningRun,
    site: Site,
    /// Where it waits.
    table: TableName,
    rows: u64,
    /// PostgreSQL's side, as `reconcile` asks for it.
    statement: String,
    /// Of one row in PostgreSQL.
    pub(crate) row_bytes: u64,
    pub(crate) table_bytes: u64,
    /// Of the day, in the lake.
    pub(crate) files: usize,
    pub(crate) lake_bytes: u64,
    /// That the server plans for the statement.
    pub(crate) workers: u64,
}

impl Day {
    /// Fills the day, lets it arrive in the lake, detaches it, and waits until nothing else is at work.
    pub(crate) async fn prepare(options: &Options) -> Self {
        let settings = [("shared_buffers", "256MB"), ("max_wal_size", "8GB"), ("autovacuum", "off")];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
        let today = Utc::now().date_naive();
        let day = today - Days::new(DAYS_AGO);
        site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
        site.sql(&tables(&[day, today])).await;
        let text = PipelineText {
            max_age: "10s",
            tables: vec![(format!("public.{TABLE}"), "created_at".to_owned(), "day")],
            archive: ARCHIVE.to_owned(),
            ..site.pipeline_text()
        };
        site.write_pipeline(&text);
        site.init().await;
        load(&site, day, options).await;
        site.run_until_caught_up().await;
        println!("{} rows of {day} are in the lake; waiting until run has proved them by itself", options.rows);
        let mut run = site.start_run();
        wait_for_early_proof(&site, &mut run, options.rows).await;
        let table = detach(&site, &leaf_of(day)).await;

        let statement = statement(&site, &table).await;
        let number = async |sql: &str| site.value(sql).await.parse::<u64>().unwrap();
        let row_bytes = number(&format!("SELECT avg(pg_column_size(e.*))::int FROM {table} e")).await;
        let table_bytes = number(&format!("SELECT pg_table_size('{table}')")).await;
        let workers = workers(&site, &statement).await;
        let mut log = TableLog::of(site.lake().join(TABLE));
        log.read_on();
        let (files, lake_bytes, rows) = (log.files.len(), log.bytes(), options.rows);
        Self { run, site, table, rows, statement, row_bytes, table_bytes, files, lake_bytes, workers }
    }

    /// PostgreSQL's side alone, from the start of psql to its end.
    pub(crate) fn count_and_digest(&self) -> (Run, RowSum) {
        let answer = self.site.folder().join("psql.txt");
        let mut command = Command::new(self.site.cluster.bin_dir().join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-1", "-v", "ON_ERROR_STOP=1", "-c", PINS, "-c", &self.statement]);
        command.arg(self.site.cluster.admin_url(DATABASE)).stdin(Stdio::null()).stdout(File::create(&answer).unwrap());
        let run = measure::run(command).expect("psql");
        let text = std::fs::read_to_string(&answer).unwrap();
        let cells: Vec<&str> = text.trim().split('|').collect();
        let [rows, first, second] = cells[..] else { panic!("a number of rows and two lanes were expected: {text}") };
        let sum = RowSum::from_signed(rows.parse().unwrap(), [first, second].map(|lane| lane.parse().unwrap()));
        assert_eq!(sum.rows, i64::try_from(self.rows).unwrap(), "rows of the detached table");
        (run, sum)
    }

    /// `lakebed reconcile` of the day, from its start to its end. Both sides must have had just these rows.
    pub(crate) fn reconcile(&self, more: &[&str], outcome: &str, expected: RowSum) -> Run {
        let answer = self.site.folder().join("reconcile.json");
        let program = std::env::var_os("LAKEBED_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_lakebed").into());
        let mut command = Command::new(program);
        command.args(["reconcile", "--json", "--table", &self.table.to_string()]).args(more);
        command.arg("--pipeline").arg(self.site.pipeline_file()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(File::create(&answer).unwrap());
        let run = measure::run(command);
        let text = std::fs::read_to_string(&answer).unwrap();
        let run = run.unwrap_or_else(|error| panic!("lakebed reconcile: {error}: {text}"));
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let partitions = report["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 1, "{text}");
        assert_eq!(partitions[0]["outcome"], outcome, "{text}");
        for side in ["detached", "lake"] {
            let side = &partitions[0]["ledger"][side];
            assert_eq!((&side["rows"], &side["digest"]), (&expected.rows.into(), &expected.digest().into()), "{text}");
        }
        run
    }

    /// The table is gone, and its receipt says what was in it.
    pub(crate) async fn assert_dropped(&self) {
        assert_eq!(self.site.value(&format!("SELECT to_regclass('{}') IS NULL", self.table)).await, "t");
        assert_eq!(
            self.site.value("SELECT string_agg(rows::text, ' ') FROM archive.receipt").await,
            self.rows.to_string()
        );
    }

    pub(crate) async fn stop(self) {
        self.run.signal("TERM").await;
        self.run.ended().await.succeeded();
        self.site.cluster.stop().await;
    }
}

/// As partman 5 names them.
fn leaf_of(day: NaiveDate) -> String {
    format!("{TABLE}_p{}", day.format("%Y%m%d"))
}

/// The table with a leaf for each day and the default one, which partman makes and `reconcile` has to count as well. Few
/// leaves, because `run` proves each day that is over.
fn tables(days: &[NaiveDate]) -> String {
    // Only the first statement there: the leaves behind it are of other days, and `init` makes the publication.
    let (table, _) = include_str!("../drain/tables.sql").split_once(';').unwrap();
    let mut sql = format!(
        "CREATE SCHEMA archive;\n{table};\nCREATE TABLE public.{TABLE}_default PARTITION OF public.{TABLE} DEFAULT;"
    );
    for day in days {
        let (leaf, next) = (leaf_of(*day), *day + Days::new(1));
        sql.push_str(&format!(
            "CREATE TABLE public.{leaf} PARTITION OF public.{TABLE} FOR VALUES FROM ('{day}') TO ('{next}');"
        ));
    }
    sql
}

/// The history of the one day: from its midnight to its last microsecond.
async fn load(site: &Site, day: NaiveDate, options: &Options) {
    let end = day.and_time(NaiveTime::MIN) + TimeDelta::days(1) - TimeDelta::microseconds(1);
    let mut generator = Generator::new(options.generator());
    let history = generator.history(0, options.rows, end);
    let mut connection = site.cluster.connect(DATABASE).await.unwrap();
    load_history(&mut connection, history, TRANSACTION_ROWS, |_| {}).await.unwrap();
    let loaded = site.value(&format!("SELECT count(*) FROM ONLY public.{}", leaf_of(day))).await;
    assert_eq!(loaded, options.rows.to_string(), "rows of the day");
}

/// `run` balances a day once when it is complete, a minute after its start: that must be over before anything is measured.
async fn wait_for_early_proof(site: &Site, run: &mut RunningRun, rows: u64) {
    let begun = Instant::now();
    let proof = format!("SELECT count(*) FROM archive.proof WHERE balanced AND rows = {rows} AND lake_rows = {rows}");
    while site.value(&proof).await != "1" {
        assert!(!run.has_ended(), "lakebed ended");
        assert!(begun.elapsed() < PROVED_WITHIN, "no proof of the day:\n{}", run.log());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What partman 5 does at retention with `retention_keep_index = false`. A day of 90 days ago was vacuumed long before, and
/// has no page that the first reader would have to write.
async fn detach(site: &Site, leaf: &str) -> TableName {
    site.sql(&format!("VACUUM (FREEZE, ANALYZE) public.{leaf}")).await;
    site.sql(&format!(
        "ALTER TABLE public.{TABLE} DETACH PARTITION public.{leaf};
         ALTER TABLE public.{leaf} DROP CONSTRAINT {leaf}_pkey;
         ALTER TABLE public.{leaf} SET SCHEMA archive"
    ))
    .await;
    site.sql("CHECKPOINT").await;
    TableName::new("archive", leaf)
}

/// Count and digest of the detached table, with the columns as `reconcile` takes them from the catalog.
async fn statement(site: &Site, table: &TableName) -> String {
    let pipeline = Pipeline::load(&site.pipeline_file()).unwrap();
    let archive = Archive::of(&pipeline).unwrap();
    let section = &pipeline.tables[0];
    let opened = archive.table(section).await.unwrap();
    let columns = columns_of(&archive.reconciler(&opened, section, false).facts.shape);
    digest_query(&columns, &[format!("ONLY {}", qualified(table))])
}

async fn workers(site: &Site, statement: &str) -> u64 {
    let plan = site.cluster.query(DATABASE, &format!("EXPLAIN {statement}")).await.unwrap();
    let lines = plan.into_iter().flatten().flatten();
    let planned = lines.filter_map(|line| line.trim().strip_prefix("Workers Planned: ")?.parse::<u64>().ok());
    planned.max().unwrap_or(0)
}
