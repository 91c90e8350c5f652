//! One slot and one empty lake, into which everything is copied.

use crate::measure::{self, Run};
use crate::options::Options;
use crate::source::{Source, TABLE};
use crate::support::{DATABASE, PipelineText};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Takeover<'a> {
    source: &'a Source,
    slot: String,
    lake: PathBuf,
    pipeline: PathBuf,
}

impl<'a> Takeover<'a> {
    pub(crate) fn new(source: &'a Source, options: &Options, round: usize) -> Self {
        let (site, slot) = (&source.site, format!("round_{round}"));
        let (lake, pipeline) = (site.folder().join(&slot), site.folder().join(format!("{slot}.toml")));
        let text = PipelineText {
            slot: slot.clone(),
            lake: format!("file://{}", lake.display()),
            tables: vec![(format!("public.{TABLE}"), "created_at".to_owned(), "day")],
            snapshot: format!("connections = {}", options.connections),
            ..site.pipeline_text()
        };
        std::fs::write(&pipeline, text.render()).unwrap();
        Self { source, slot, lake, pipeline }
    }

    /// From the start of the process to its end: roles and publication, the slot, the list of days, every row, and the commits.
    pub(crate) fn init_snapshot(&self) -> Run {
        let told = self.pipeline.with_extension("txt");
        let mut command = self.lakebed(&["init", "--snapshot"]);
        command.args(["--admin-url", &self.source.site.cluster.admin_url(DATABASE)]);
        let (stdout, stderr) = (File::create(&told).unwrap(), File::create(told.with_extension("log")).unwrap());
        command.stdout(stdout).stderr(stderr);
        measure::run(command).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(told.with_extension("log")).unwrap();
            panic!("lakebed init --snapshot: {error}: {log}")
        })
    }

    /// Of everything in the lake's folder.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_below(&self.lake)
    }

    /// A fast run that lost rows would win every comparison.
    pub(crate) fn assert_every_day(&self) {
        let sql =
            format!("SELECT year || '-' || month || '-' || day AS d, count(*) AS n FROM {TABLE} GROUP BY 1 ORDER BY 1");
        let text = output_of(self.lakebed(&["query", "--format", "csv", "-c", &sql]));
        let rows = text.lines().skip(1).map(|line| {
            let (day, rows) =
                line.split_once(',').unwrap_or_else(|| panic!("a day and a number were expected: {line}"));
            (day.to_owned(), rows.parse().unwrap())
        });
        let found: BTreeMap<String, u64> = rows.collect();
        assert_eq!(found, self.source.rows_by_day, "rows of each day in the lake");
    }

    /// Both sides have the same digest of every day.
    pub(crate) fn assert_balanced(&self, days: u32) {
        let text = output_of(self.lakebed(&["repair", "--json"]));
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let table = &report["tables"][0];
        let balance = table["balance"].as_u64().unwrap_or_default();
        assert!(balance >= u64::from(days) && table["differ"] == 0 && table["not_judged"] == 0, "{text}");
    }

    pub(crate) async fn remove(self) {
        let (site, slot) = (&self.source.site, &self.slot);
        site.wait_for(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
        site.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        std::fs::remove_dir_all(&self.lake).unwrap();
    }

    fn lakebed(&self, arguments: &[&str]) -> Command {
        let program = std::env::var_os("LAKEBED_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_lakebed").into());
        let mut command = Command::new(program);
        command.args(arguments).arg("--pipeline").arg(&self.pipeline).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }
}

/// What a verb prints that ends well.
fn output_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let (text, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{}: {text}{log}", output.status);
    text
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_below(&path) } else { path.metadata().unwrap().len() }).sum()
}
