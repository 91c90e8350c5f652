//! A server with a backlog behind one slot, and lakes that begin where that slot stands.

use lakebed::base::{Lsn, PartitionBy, TableName};
use lakebed::demo::generator::{Generator, GeneratorOptions};
use lakebed::demo::{Cluster, ClusterOptions, load};
use lakebed::lake::{Acknowledgement, Acknowledgements, LakeLocation, LakeTable, Patience, Progress};
use lakebed::source::{self, TableRules};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use url::Url;

pub(crate) const DATABASE: &str = "bench";
/// The slot that every contestant gets a copy of.
const ORIGIN: &str = "origin";
/// Enough days for the backlog to cross midnight, as a real one does.
const HISTORY_DAYS: u32 = 2;

pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) lakebed: PathBuf,
    /// Everything that is to be read commits before here.
    pub(crate) end: Lsn,
    confirmed: Lsn,
    rows: u64,
    folder: TempDir,
    copies: AtomicU32,
}

impl Site {
    /// Starts a server, makes the slot, and writes the rows behind it.
    pub(crate) async fn prepare(rows: u64, transaction_rows: usize) -> Self {
        let settings = [("shared_buffers", "256MB"), ("max_wal_size", "8GB"), ("autovacuum", "off")];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let cluster = Cluster::start(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await.unwrap();
        cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
        cluster.execute(DATABASE, include_str!("tables.sql")).await.unwrap();
        let confirmed =
            value(&cluster, &format!("SELECT lsn FROM pg_create_logical_replication_slot('{ORIGIN}', 'pgoutput')"))
                .await;

        let (mut client, connection) =
            tokio_postgres::connect(&cluster.socket_url(DATABASE), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut generator = Generator::new(GeneratorOptions::compact(1));
        let history = generator.history(HISTORY_DAYS, rows, chrono::Utc::now().naive_utc());
        load::load_history(&mut client, history, transaction_rows, |_| {}).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();

        let bytes = value(&cluster, "SELECT avg(pg_column_size(e.*))::int FROM public.security_event e").await;
        println!("{rows} rows of about {bytes} bytes are behind the slot");
        let end = value(&cluster, "SELECT pg_current_wal_insert_lsn()").await.parse().unwrap();
        cluster.execute(DATABASE, "CREATE TABLE after_the_end (); CHECKPOINT").await.unwrap();
        let lakebed =
            std::env::var_os("LAKEBED_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lakebed")), PathBuf::from);
        let (folder, copies) = (TempDir::new().unwrap(), AtomicU32::new(0));
        Self { cluster, lakebed, end, confirmed: confirmed.parse().unwrap(), rows, folder, copies }
    }

    pub(crate) fn host(&self, socket: &str) -> String {
        if socket == "unix" { self.cluster.socket_directory().display().to_string() } else { "127.0.0.1".to_owned() }
    }

    pub(crate) async fn copy_slot(&self) -> String {
        let name = format!("copy_{}", self.copies.fetch_add(1, Ordering::Relaxed));
        value(&self.cluster, &format!("SELECT lsn FROM pg_copy_logical_replication_slot('{ORIGIN}', '{name}')")).await;
        name
    }

    pub(crate) async fn drop_slot(&self, name: &str) {
        let free = format!("SELECT (NOT active)::text FROM pg_replication_slots WHERE slot_name = '{name}'");
        while value(&self.cluster, &free).await != "true" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.cluster.execute(DATABASE, &format!("SELECT pg_drop_replication_slot('{name}')")).await.unwrap();
    }

    /// A fresh lake that stands where the slot stands, and the pipeline file that fills it.
    pub(crate) async fn lake(&self, slot: &str, host: &str) -> PathBuf {
        let root = self.folder.path().join(slot);
        let url = Url::from_directory_path(&root).unwrap();
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.socket_url(DATABASE), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let table = TableName::new("public", "security_event");
        let rules = TableRules {
            table: table.clone(),
            partition_column: "created_at".to_owned(),
            partition_by: PartitionBy::Day,
            time_zone: "UTC".parse().unwrap(),
            text_columns: Vec::new(),
            lake_columns: Default::default(),
        };
        let shape = source::table(&client, &rules, false).await.unwrap().shape;
        let system_identifier = source::server(&client).await.unwrap().system_identifier;
        drop(client);
        driver.await.unwrap().unwrap();
        let progress =
            Progress { system_identifier: system_identifier.clone(), pipeline: slot.to_owned(), table, epoch: 0 };
        let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
        let table = LakeTable::create(&location, "security_event", &shape, &progress, self.confirmed).await.unwrap();
        table.close().await;
        let (mut records, _) = Acknowledgements::open(&location, slot).await.unwrap();
        let record = Acknowledgement {
            system_identifier,
            timeline: 1,
            acknowledged: self.confirmed,
            tables: BTreeMap::from([("public.security_event".to_owned(), self.confirmed)]),
            recorded_at: chrono::Utc::now(),
        };
        records.write(&record, &Patience::none()).await.unwrap();

        let (password, port) = (self.cluster.password(), self.cluster.port());
        let host = host.replace('/', "%2F");
        let text = format!(
            "[source]\nurl = \"postgresql://postgres:{password}@{host}:{port}/{DATABASE}?sslmode=disable\"\nslot = \"{slot}\"\n\
             publication = \"lakebed\"\n[lake]\nurl = \"{url}\"\n[[table]]\nname = \"public.security_event\"\n\
             partition_column = \"created_at\"\n"
        );
        let pipeline = self.folder.path().join(format!("{slot}.toml"));
        std::fs::write(&pipeline, text).unwrap();
        pipeline
    }

    /// A fast run that lost rows would win every comparison.
    pub(crate) fn assert_all_rows(&self, pipeline: &Path) {
        let sql = "SELECT count(DISTINCT id) AS n FROM security_event";
        let mut command = Command::new(&self.lakebed);
        let output =
            command.args(["query", "--format", "csv", "-c", sql, "--pipeline"]).arg(pipeline).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().nth(1), Some(self.rows.to_string().as_str()), "rows in the lake");
        std::fs::remove_dir_all(pipeline.with_extension("")).unwrap();
    }

    pub(crate) async fn stop(self) {
        self.cluster.stop().await;
    }
}

async fn value(cluster: &Cluster, sql: &str) -> String {
    cluster.query(DATABASE, sql).await.unwrap().remove(0).remove(0).unwrap()
}
