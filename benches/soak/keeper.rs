//! One pipeline of the soak: its process is started, watched, ended on purpose and started again.

use crate::support::lane::{TABLES, journal_of};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::s3::S3;
use crate::support::{DATABASE, Finished, Lane, NAME, PASSWORD, PipelineText, RunningRun, Site, complaints};
use crate::table_log::TableLog;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A stop in order includes the flush of what is buffered, on a busy machine.
const STOPS_WITHIN: Duration = Duration::from_secs(120);
/// A cut comes at the latest after so many further bytes.
const CUT_AFTER_BYTES: u64 = 200_000;

pub(crate) struct Keeper {
    pub(crate) lane: Lane,
    proxy: Proxy,
    run: Option<RunningRun>,
    /// Since its process was started, its connections were to be cut.
    is_cut: bool,
    log: PathBuf,
    /// The WAL position that is waited for, and since when.
    target: Option<(u64, Instant)>,
    pub(crate) longest_catch_up: Duration,
    pub(crate) peak_mib: u64,
    /// Log lines at level WARN, by message.
    pub(crate) warnings: BTreeMap<String, u64>,
    /// Rows of the journal of each table, once it is known.
    pub(crate) old_images: Option<[u64; 2]>,
}

impl Keeper {
    pub(crate) async fn start(site: &Site, slot: &str, s3: Option<&S3>) -> Self {
        let proxy = Proxy::start(site.cluster.port()).await;
        let url = format!("postgresql://{NAME}:{PASSWORD}@127.0.0.1:{}/{DATABASE}?sslmode=disable", proxy.port);
        // Days are proved all along: a false alarm is an ERROR, and those end the soak.
        let adapt =
            |text: &mut PipelineText| (text.url, text.archive) = (url.clone(), "proof_interval = \"2s\"".to_owned());
        let lane = match s3 {
            None => Lane::local(site, slot, adapt),
            Some(s3) => Lane::on_s3(site, slot, s3.port(), adapt),
        };
        lane.init(site).await;
        let log = site.folder().join(format!("{slot}.log"));
        let mut keeper = Self {
            lane,
            proxy,
            run: None,
            is_cut: false,
            log,
            target: None,
            longest_catch_up: Duration::ZERO,
            peak_mib: 0,
            warnings: BTreeMap::new(),
            old_images: None,
        };
        keeper.go_on();
        keeper
    }

    pub(crate) fn go_on(&mut self) {
        // A cut that was still to come was meant for the process before.
        self.proxy.set(Direction::ToClient, Flow::Pass);
        self.run = Some(self.lane.start());
        self.is_cut = false;
    }

    /// Fails when the process has ended by itself.
    pub(crate) async fn look(&mut self) -> Result<(), String> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.has_ended() {
            let finished = self.end().await?;
            let last = finished.stderr.lines().last().unwrap_or_default().to_owned();
            return Err(format!("{} ended by itself with code {:?}: {last}", self.lane.slot, finished.code));
        }
        self.peak_mib = self.peak_mib.max(run.peak_mib());
        Ok(())
    }

    pub(crate) async fn kill(&mut self) -> Result<(), String> {
        self.look().await?;
        self.signal("KILL").await;
        match self.end().await?.signal {
            Some(libc::SIGKILL) => Ok(()),
            other => Err(format!("{} was killed and ended by {other:?}", self.lane.slot)),
        }
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        self.look().await?;
        self.signal("TERM").await;
        let finished = self.end().await?;
        let last = finished.stderr.lines().last().unwrap_or_default();
        // One that was busy with its lake notices the cut only when it is asked to end: it says so, and loses nothing.
        let is_about_the_cut = self.is_cut && finished.code == Some(1) && last.contains("connection");
        if finished.code == Some(0) || is_about_the_cut {
            return Ok(());
        }
        Err(format!("{} was stopped and ended with code {:?}: {last}", self.lane.slot, finished.code))
    }

    pub(crate) async fn pause(&self, pause: Duration) {
        self.signal("STOP").await;
        tokio::time::sleep(pause).await;
        self.signal("CONT").await;
    }

    pub(crate) fn cut(&mut self, bytes: u64) {
        self.is_cut = true;
        self.proxy.set(Direction::ToClient, Flow::CutAfter(bytes % CUT_AFTER_BYTES));
    }

    pub(crate) async fn run_until_caught_up(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let finished = self.lane.run_until_caught_up().await;
        self.longest_catch_up = self.longest_catch_up.max(started.elapsed());
        let (code, last) = (finished.code, finished.stderr.lines().last().unwrap_or_default().to_owned());
        self.keep_log(&finished)?;
        if code == Some(0) {
            Ok(())
        } else {
            Err(format!("{}: the last run ended with {code:?}: {last}", self.lane.slot))
        }
    }

    /// How long the slowest position took from being written to being acknowledged, outages included.
    pub(crate) fn observe(&mut self, written: u64, acknowledged: u64) {
        if let Some((target, since)) = self.target
            && acknowledged >= target
        {
            self.longest_catch_up = self.longest_catch_up.max(since.elapsed());
            self.target = None;
        }
        if self.target.is_none() && acknowledged < written {
            self.target = Some((written, Instant::now()));
        }
    }

    /// Counts what the journals hold, where the lake is a folder of this machine or was copied to one.
    pub(crate) fn count_old_images(&mut self) {
        self.old_images = Some(TABLES.map(|table| {
            let mut journal = TableLog::of(self.lane.table_folder(&journal_of(table)));
            journal.read_on();
            journal.rows_added
        }));
    }

    async fn signal(&self, name: &str) {
        if let Some(run) = &self.run {
            run.signal(name).await;
        }
    }

    async fn end(&mut self) -> Result<Finished, String> {
        let run = self.run.take().ok_or("there is no process")?;
        let finished = run.finished(STOPS_WITHIN).await;
        self.keep_log(&finished)?;
        Ok(finished)
    }

    /// Appends what was logged to the pipeline's log file. A line at level ERROR is a failure.
    fn keep_log(&mut self, finished: &Finished) -> Result<(), String> {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let end = format!("-- ended with code {:?}, signal {:?}\n", finished.code, finished.signal);
        log.write_all(finished.stderr.as_bytes()).unwrap();
        log.write_all(end.as_bytes()).unwrap();
        for line in complaints(&finished.stderr) {
            let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            if parsed["level"] == "ERROR" {
                return Err(format!("{} logged {line}", self.lane.slot));
            }
            *self.warnings.entry(parsed["message"].as_str().unwrap_or(line).to_owned()).or_default() += 1;
        }
        Ok(())
    }
}
