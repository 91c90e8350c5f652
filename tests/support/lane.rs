//! One of several pipelines of one site: a slot, a pipeline file and a lake of its own, on a local folder or on S3.

use super::s3::{self, BUCKET, S3};
use super::{DATABASE, Finished, PipelineText, RunningRun, Site, compare, files, lakebed};
use std::path::{Path, PathBuf};

/// The tables that every lane keeps.
pub const TABLES: [&str; 2] = ["security_event", "security_event_hook_results"];

/// The table with the old images of another.
pub fn journal_of(table: &str) -> String {
    format!("{table}__changes")
}

pub struct Lane {
    pub slot: String,
    pub file: PathBuf,
    /// The lake, or where it is copied to for readers of local files.
    pub folder: PathBuf,
    on_s3: bool,
}

impl Lane {
    /// Into a local folder. `adapt` changes the pipeline file's text.
    pub fn local(site: &Site, slot: &str, adapt: impl FnOnce(&mut PipelineText)) -> Self {
        let folder = site.folder().join(slot);
        let text = PipelineText { lake: format!("file://{}", folder.display()), ..site.pipeline_text() };
        Self::new(site, slot, text, adapt, false)
    }

    /// Into the bucket of the S3 server behind `port`, which may be a proxy's.
    pub fn on_s3(site: &Site, slot: &str, port: u16, adapt: impl FnOnce(&mut PipelineText)) -> Self {
        let (lake, options) = (format!("s3://{BUCKET}/{slot}"), s3::options(port));
        Self::new(site, slot, PipelineText { lake, options, ..site.pipeline_text() }, adapt, true)
    }

    fn new(
        site: &Site,
        slot: &str,
        mut text: PipelineText,
        adapt: impl FnOnce(&mut PipelineText),
        on_s3: bool,
    ) -> Self {
        text.slot = slot.to_owned();
        adapt(&mut text);
        let file = site.folder().join(format!("{slot}.toml"));
        std::fs::write(&file, text.render()).unwrap();
        Self { slot: slot.to_owned(), file, folder: site.folder().join(slot), on_s3 }
    }

    pub async fn lakebed(&self, arguments: &[&str]) -> Finished {
        lakebed(&self.file, arguments).await
    }

    pub async fn init(&self, site: &Site) {
        let admin = site.cluster.admin_url(DATABASE);
        self.lakebed(&["init", "--admin-url", &admin]).await.succeeded();
    }

    pub fn start(&self) -> RunningRun {
        RunningRun::start(&self.file)
    }

    pub async fn run_until_caught_up(&self) -> Finished {
        self.lakebed(&["run", "--until-caught-up"]).await
    }

    /// The slot has a consumer.
    pub async fn wait_until_active(&self, site: &Site) {
        let slot = &self.slot;
        site.wait_for(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
    }

    /// Everything written before the call is acknowledged.
    pub async fn wait_until_acknowledged(&self, site: &Site) {
        let lsn = site.value("SELECT pg_current_wal_insert_lsn()").await;
        let slot = &self.slot;
        let sql = "SELECT confirmed_flush_lsn >= ";
        site.wait_for(&format!("{sql}'{lsn}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
    }

    /// Panics unless both tables equal their sources; the rows of each otherwise. `s3` is where the lake is, if it is there.
    pub async fn assert_balanced(&self, site: &Site, s3: Option<&S3>) -> [u64; 2] {
        self.balance(site, s3).await.unwrap_or_else(|difference| panic!("{}: {difference}", self.slot))
    }

    /// As [`Self::assert_balanced`], with the first difference as the error.
    pub async fn balance(&self, site: &Site, s3: Option<&S3>) -> Result<[u64; 2], String> {
        if self.on_s3 {
            let s3 = s3.expect("the server that the lake is on");
            s3.copy_to(&self.slot, &self.folder).await;
        }
        let mut rows = [0; 2];
        for (table, rows) in TABLES.iter().zip(&mut rows) {
            let (name, folder) = (format!("public.{table}"), self.table_folder(table));
            let compared = compare(&site.cluster, site.folder(), &folder, &name, ("created_at", "day")).await;
            *rows = compared.map_err(|difference| format!("{table}: {difference}"))?;
        }
        Ok(rows)
    }

    /// Panics when a table's folder holds a file that nobody will ever read or remove.
    #[track_caller]
    pub fn assert_nothing_left_behind(&self) {
        for table in self.folders() {
            let missing = files::missing(&self.table_folder(&table));
            assert!(missing.is_empty(), "{}: the log of {table} names what is not there: {missing:?}", self.slot);
        }
        assert_eq!(self.left_behind(), Vec::<String>::new(), "{}", self.slot);
    }

    /// Files that nobody will ever read or remove, by path below the lake.
    pub fn left_behind(&self) -> Vec<String> {
        let of = |table: String| {
            let files = files::left_behind(&self.table_folder(&table));
            files.into_iter().map(|file| format!("{table}/{file}")).collect::<Vec<_>>()
        };
        self.folders().into_iter().flat_map(of).collect()
    }

    /// The tables, and the journals of those that have one.
    fn folders(&self) -> Vec<String> {
        let journals = TABLES.map(journal_of).into_iter().filter(|name| self.table_folder(name).exists());
        TABLES.map(str::to_owned).into_iter().chain(journals).collect()
    }

    pub fn table_folder(&self, table: &str) -> PathBuf {
        self.folder.join(table)
    }

    /// Removes slot and local files, so that the server keeps no WAL for them.
    pub async fn remove(self, site: &Site) {
        let slot = &self.slot;
        site.wait_for(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
        site.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}
