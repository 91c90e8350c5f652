//! A server with months of rows, and what exports them without lakebed.

use crate::measure::{self, Run};
use crate::options::Options;
use crate::support::{DATABASE, Site};
use chrono::{Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use lakebed::demo::ClusterOptions;
use lakebed::demo::generator::Generator;
use lakebed::demo::load::load_history;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) const TABLE: &str = "security_event";
const TRANSACTION_ROWS: usize = 5_000;

pub(crate) struct Source {
    pub(crate) site: Site,
    /// Leaves with rows, the oldest first.
    leaves: Vec<String>,
    /// Rows of each day, `2026-01-02`.
    pub(crate) rows_by_day: BTreeMap<String, u64>,
    /// Of one row in PostgreSQL.
    pub(crate) row_bytes: u64,
    pub(crate) table_bytes: u64,
}

impl Source {
    /// Fills the table, and leaves it as one that nobody writes to any more: vacuumed, and in the page cache as far as it fits.
    pub(crate) async fn prepare(options: &Options) -> Self {
        let settings = [("shared_buffers", "256MB"), ("max_wal_size", "8GB"), ("autovacuum", "off")];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
        site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
        let today = Utc::now().date_naive();
        let days: Vec<NaiveDate> = (1..=options.days).rev().map(|ago| today - Days::new(ago.into())).collect();
        site.sql(&tables(&days, today)).await;
        load(&site, today, options).await;
        site.sql(&format!("VACUUM (FREEZE, ANALYZE) public.{TABLE}")).await;
        site.sql("CHECKPOINT").await;

        let counts = format!("SELECT created_at::date, count(*) FROM public.{TABLE} GROUP BY 1 ORDER BY 1");
        let counts = site.cluster.query(DATABASE, &counts).await.unwrap();
        let cell = |cell: &Option<String>| cell.clone().unwrap();
        let rows_by_day: BTreeMap<String, u64> =
            counts.iter().map(|row| (cell(&row[0]), cell(&row[1]).parse().unwrap())).collect();
        assert_eq!(rows_by_day.len(), days.len(), "days with rows");
        assert_eq!(rows_by_day.values().sum::<u64>(), options.rows, "rows");
        let number = async |sql: &str| site.value(sql).await.parse::<u64>().unwrap();
        let row_bytes = number(&format!("SELECT avg(pg_column_size(e.*))::int FROM public.{TABLE} e")).await;
        let size = format!("SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('public.{TABLE}') WHERE isleaf");
        let table_bytes = number(&size).await;
        println!("{} rows of about {row_bytes} bytes are in {} leaves", options.rows, days.len());
        let leaves = days.into_iter().map(leaf_of).collect();
        Self { site, leaves, rows_by_day, row_bytes, table_bytes }
    }

    /// Every leaf by the statement of the guide's export function, in one session; the files' bytes.
    pub(crate) fn export(&self) -> (Run, u64) {
        let folder = self.site.cluster.directory().join("export");
        std::fs::create_dir(&folder).unwrap();
        // The server's own user writes there, and nobody else comes so far.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        let copy = |leaf: &String| {
            let file = folder.join(format!("{leaf}.csv"));
            format!("COPY (SELECT * FROM public.{leaf}) TO '{}' WITH (FORMAT CSV, HEADER);\n", file.display())
        };
        let script = self.site.folder().join("export.sql");
        std::fs::write(&script, self.leaves.iter().map(copy).collect::<String>()).unwrap();
        let mut command = Command::new(self.site.cluster.bin_dir().join("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&script).arg("-d");
        command.arg(self.site.cluster.socket_url(DATABASE)).env_remove("PGOPTIONS").stdin(Stdio::null());
        let run = measure::run(command).expect("the export");
        let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), self.leaves.len(), "files of the export");
        let bytes = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        std::fs::remove_dir_all(&folder).unwrap();
        (run, bytes)
    }

    pub(crate) async fn stop(self) {
        self.site.cluster.stop().await;
    }
}

/// As partman 5 names them.
fn leaf_of(day: NaiveDate) -> String {
    format!("{TABLE}_p{}", day.format("%Y%m%d"))
}

/// The customer's table without its secondary indexes, which no reader looks at, with a leaf a day, today's, and the default one.
fn tables(days: &[NaiveDate], today: NaiveDate) -> String {
    // Only the first statement there: the leaves behind it are of other days, and `init` makes the publication.
    let (table, _) = include_str!("../drain/tables.sql").split_once(';').unwrap();
    let mut sql = format!(
        "CREATE SCHEMA archive;\n{table};\nCREATE TABLE public.{TABLE}_default PARTITION OF public.{TABLE} DEFAULT;"
    );
    for day in days.iter().copied().chain([today]) {
        let (leaf, next) = (leaf_of(day), day + Days::new(1));
        sql.push_str(&format!(
            "CREATE TABLE public.{leaf} PARTITION OF public.{TABLE} FOR VALUES FROM ('{day}') TO ('{next}');"
        ));
    }
    sql
}

/// From the first midnight to the last microsecond of yesterday.
async fn load(site: &Site, today: NaiveDate, options: &Options) {
    let end = today.and_time(NaiveTime::MIN) - TimeDelta::microseconds(1);
    let mut generator = Generator::new(options.generator());
    let history = generator.history(options.days - 1, options.rows, end);
    let mut connection = site.cluster.connect(DATABASE).await.unwrap();
    load_history(&mut connection, history, TRANSACTION_ROWS, |_| {}).await.unwrap();
}
