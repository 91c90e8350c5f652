//! The other verbs, as child processes of this very executable: the demo uses lakebed exactly as a person does.

use super::super::{DemoError, signal};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Child;

/// How long `lakebed run` may flush after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How the verbs are called.
#[derive(Clone, Debug)]
pub(super) struct Verbs {
    pub(super) executable: PathBuf,
    pub(super) pipeline_file: PathBuf,
}

impl Verbs {
    pub(super) fn of_this_executable(pipeline_file: PathBuf) -> Result<Self, DemoError> {
        let executable = std::env::current_exe().map_err(DemoError::file("find", Path::new("lakebed")))?;
        Ok(Self { executable, pipeline_file })
    }

    /// The child is in a process group of its own, because Ctrl-C must reach the demo alone, and ends with us even if we are killed.
    fn command(&self, verb: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(signal::dependent_command(&self.executable, "TERM"));
        command.arg(verb).arg("--pipeline").arg(&self.pipeline_file);
        command.env_remove("LAKEBED_PIPELINE").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a verb to its end and returns its standard output.
    pub(super) async fn answer(&self, verb: &'static str, arguments: &[&str]) -> Result<String, DemoError> {
        self.answer_with(verb, arguments, &[]).await
    }

    /// As [`Self::answer`], with environment variables.
    pub(super) async fn answer_with(
        &self,
        verb: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String, DemoError> {
        let output = self.output(verb, arguments, environment).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = last_line(&String::from_utf8_lossy(&output.stderr));
        Err(DemoError::Verb { verb, outcome: format!("ended with {}", output.status), message })
    }

    /// The lines of a verb's report, each of which has to be `good`: such a verb says on standard output why it does not end
    /// with code 0.
    pub(super) async fn report(&self, verb: &'static str, good: fn(&str) -> bool) -> Result<Vec<String>, DemoError> {
        let output = self.output(verb, &[], &[]).await?;
        let report = String::from_utf8_lossy(&output.stdout);
        let bad = report.lines().find(|line| !good(line)).map(str::to_owned);
        if bad.is_none() && output.status.success() {
            return Ok(report.lines().map(str::to_owned).collect());
        }
        let message = bad.unwrap_or_else(|| last_line(&String::from_utf8_lossy(&output.stderr)));
        Err(DemoError::Verb { verb, outcome: format!("ended with {}", output.status), message })
    }

    async fn output(
        &self,
        verb: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Output, DemoError> {
        let output = self.command(verb).args(arguments).envs(environment.iter().copied()).output().await;
        output.map_err(|error| DemoError::Verb {
            verb,
            outcome: "could not be started".to_owned(),
            message: error.to_string(),
        })
    }

    /// Rows of each table that are visible in the lake.
    pub(super) async fn count_rows(&self, table: &str, condition: &str) -> Result<u64, DemoError> {
        let sql = format!("SELECT count(*) AS row_count FROM {table} WHERE {condition}");
        let csv = self.answer("query", &["-c", &sql, "--format", "csv"]).await?;
        let number = csv.lines().last().and_then(|line| line.trim().parse().ok());
        number.ok_or(DemoError::Answer { verb: "query", message: "a count was expected in the last line" })
    }

    /// Starts `lakebed run` with its log in a file.
    pub(super) fn follow(&self, log: &Path) -> Result<Follower, DemoError> {
        let open =
            || std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(DemoError::file("write", log));
        let child = self.command("run").stdout(open()?).stderr(open()?).spawn();
        let child = child.map_err(|error| DemoError::Verb {
            verb: "run",
            outcome: "could not be started".to_owned(),
            message: error.to_string(),
        })?;
        Ok(Follower { child, log: log.to_owned() })
    }
}

/// A running `lakebed run`.
#[derive(Debug)]
pub(super) struct Follower {
    child: Child,
    log: PathBuf,
}

impl Follower {
    /// An error if it is not running any more.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(format!("ended with {status}"))),
            Err(error) => Err(self.ended(error.to_string())),
        }
    }

    fn ended(&self, outcome: String) -> DemoError {
        let log = std::fs::read(&self.log).unwrap_or_default();
        DemoError::Verb { verb: "run", outcome, message: last_line(&String::from_utf8_lossy(&log)) }
    }

    /// Asks it to flush and end, and waits for that.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        if let Some(id) = self.child.id() {
            signal::send(id, libc::SIGTERM);
        }
        match tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(format!("ended with {status}"))),
            Ok(Err(error)) => Err(self.ended(error.to_string())),
            // It is killed when the child is dropped.
            Err(_) => Err(self.ended(format!("did not end within {} s of SIGTERM", STOP_WITHIN.as_secs()))),
        }
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing").trim_start_matches("lakebed: ").trim().to_owned()
}
