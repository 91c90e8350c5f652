//! A site: a real PostgreSQL of its own with the customer's tables, a lake folder, a pipeline file, and the real binary.

pub mod dice;
pub mod files;
pub mod lane;
pub mod load;
mod process;
pub mod proxy;
mod reader;
pub mod s3;
pub mod versions;

pub use lane::Lane;
#[allow(unused_imports, reason = "the soak reads logs itself")]
pub use process::complaints;
#[allow(unused_imports, reason = "the soak changes no permissions")]
pub use process::lakebed_under_permissions;
pub use process::{Finished, RunningRun, lakebed};
#[allow(unused_imports, reason = "the soak compares whole tables only")]
pub use reader::{
    Value, assert_changed_lake_equals_source, assert_lake_equals_source, assert_text_columns_equal_source, compare,
    compare_with_archive, compare_without, delta_rows, lake_rows,
};

use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::generator::{Generator, GeneratorOptions};
use lakebed::demo::load::{Written, load_history};
use lakebed::demo::{Cluster, ClusterOptions, ServerKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The customer's database.
pub const DATABASE: &str = "idpserver";
/// The pipeline's login, slot and publication.
pub const NAME: &str = "lakebed";
/// Its password: a canary that must never be printed.
pub const PASSWORD: &str = "canary-7f3a";

/// Awaits a condition that has no event of its own.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), holds).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Everything one test needs; gone when it is dropped.
pub struct Site {
    pub cluster: Cluster,
    folder: TempDir,
}

/// What the pipeline file of a site says.
#[derive(Clone, Debug)]
pub struct PipelineText {
    pub url: String,
    pub slot: String,
    pub lake: String,
    /// Of the lake's store.
    pub options: Vec<(String, String)>,
    pub max_age: &'static str,
    /// None: the default.
    pub memory_limit: Option<&'static str>,
    pub tables: Vec<(String, String, &'static str)>,
    /// What stands in `[snapshot]`.
    pub snapshot: String,
    /// What stands in `[archive]`. Days are not proved unasked, unless a test is about that.
    pub archive: String,
}

impl PipelineText {
    pub fn render(&self) -> String {
        let Self { url, slot, lake, max_age, .. } = self;
        let mut text = format!(
            "[source]\nurl = \"{url}\"\nslot = \"{slot}\"\npublication = \"{NAME}\"\n\n[lake]\nurl = \"{lake}\"\n\n"
        );
        if !self.options.is_empty() {
            text.push_str("[lake.options]\n");
        }
        for (name, value) in &self.options {
            text.push_str(&format!("{name} = \"{value}\"\n"));
        }
        text.push_str(&format!("[buffer]\nmax_age = \"{max_age}\"\n"));
        if let Some(limit) = self.memory_limit {
            text.push_str(&format!("memory_limit = \"{limit}\"\n"));
        }
        text.push_str(&format!("\n[archive]\n{}\n", self.archive));
        if !self.snapshot.is_empty() {
            text.push_str(&format!("\n[snapshot]\n{}\n", self.snapshot));
        }
        text.push_str("\n[query]\ndatabase = \"idp_archive\"\n");
        for (name, column, by) in &self.tables {
            text.push_str(&format!(
                "\n[[table]]\nname = \"{name}\"\npartition_column = \"{column}\"\npartition_by = \"{by}\"\n"
            ));
        }
        text
    }
}

impl Site {
    /// A server of the kind with the customer's tables, leaves for `history_days` back, and a pipeline file for both tables.
    pub async fn with_history(server: ServerKind, history_days: u32) -> Self {
        let site = Self::bare(server).await;
        let options = CustomerOptions { premake_days: 4, ..CustomerOptions::with_history(history_days) };
        customer::create(&site.cluster, &options).await.unwrap();
        site.write_pipeline(&site.pipeline_text());
        site
    }

    /// A few leaves only.
    pub async fn small() -> Self {
        Self::with_history(ServerKind::Debian15, 2).await
    }

    /// A server without any table of ours.
    pub async fn bare(server: ServerKind) -> Self {
        Self::with_options(ClusterOptions { server, ..ClusterOptions::default() }).await
    }

    pub async fn with_options(options: ClusterOptions) -> Self {
        Self::in_folder(options, TempDir::new().unwrap()).await
    }

    /// With pipeline files and lakes in a folder of the caller's making.
    pub async fn in_folder(options: ClusterOptions, folder: TempDir) -> Self {
        Self { cluster: Cluster::start(options).await.unwrap(), folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    pub fn pipeline_file(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    pub fn url(&self) -> String {
        format!("postgresql://{NAME}:{PASSWORD}@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.cluster.port())
    }

    pub fn pipeline_text(&self) -> PipelineText {
        let daily = |name: &str| (format!("public.{name}"), "created_at".to_owned(), "day");
        PipelineText {
            url: self.url(),
            slot: NAME.to_owned(),
            lake: format!("file://{}", self.lake().display()),
            options: Vec::new(),
            max_age: "300ms",
            memory_limit: None,
            tables: vec![daily("security_event"), daily("security_event_hook_results")],
            snapshot: String::new(),
            archive: "proof_interval = \"24h\"".to_owned(),
        }
    }

    pub fn write_pipeline(&self, text: &PipelineText) {
        std::fs::write(self.pipeline_file(), text.render()).unwrap();
    }

    /// `lakebed init` as the administrator; panics unless it succeeds.
    pub async fn init(&self) {
        self.init_with(&[]).await.succeeded();
    }

    pub async fn init_with(&self, more: &[&str]) -> Finished {
        let admin = self.cluster.admin_url(DATABASE);
        let mut arguments = vec!["init", "--admin-url", &admin];
        arguments.extend(more);
        self.lakebed(&arguments).await
    }

    /// Runs one verb to its end with this site's pipeline file.
    pub async fn lakebed(&self, arguments: &[&str]) -> Finished {
        lakebed(&self.pipeline_file(), arguments).await
    }

    pub async fn run_until_caught_up(&self) {
        self.lakebed(&["run", "--until-caught-up"]).await.succeeded();
    }

    /// Starts `lakebed run` and returns while it runs.
    pub fn start_run(&self) -> RunningRun {
        RunningRun::start(&self.pipeline_file())
    }

    pub async fn sql(&self, sql: &str) {
        self.cluster.execute(DATABASE, sql).await.unwrap();
    }

    /// The one value of a query.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self.cluster.query(DATABASE, sql).await.unwrap();
        rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default()
    }

    /// Awaits a condition that the server answers with `t`.
    pub async fn wait_for(&self, sql: &str) {
        let condition = async {
            while self.value(sql).await != "t" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), condition)
            .await
            .unwrap_or_else(|_| panic!("never: {sql}"));
    }

    /// Believable rows of both tables, from a seed that is printed when the test fails.
    pub async fn load_history(&self, seed: u64, days: u32, rows: u64, transaction_rows: usize) -> Written {
        eprintln!("generator seed {seed}");
        let mut connection = self.cluster.connect(DATABASE).await.unwrap();
        let mut generator = Generator::new(GeneratorOptions::with_seed(seed));
        let history = generator.history(days, rows, chrono::Utc::now().naive_utc());
        load_history(&mut connection, history, transaction_rows, |_| {}).await.unwrap()
    }

    /// A few simple events, `count` of them on `days` days, the newest now.
    pub async fn insert_events(&self, count: u32, days: u32) {
        self.sql(&format!(
            "INSERT INTO public.security_event
             SELECT gen_random_uuid(), 'login_success', 'made by a test', gen_random_uuid(), 'tenant, \"quoted\"', 'client', '日本語',
                    NULL, CASE WHEN n % 2 = 0 THEN '' END, NULL, '192.0.2.1', E'line\\nbreak', '{{\"a\": [1, null]}}',
                    timezone('UTC', now()) - (n % {days}) * interval '1 day'
             FROM generate_series(1, {count}) AS n"
        ))
        .await;
    }
}
