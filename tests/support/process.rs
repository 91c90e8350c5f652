//! The real binary as a child process.

use super::PASSWORD;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How one verb ended.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

impl Finished {
    fn new(arguments: &[&str], output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let finished = Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            shown: arguments.first().copied().unwrap_or_default().to_owned(),
        };
        for printed in [&finished.stdout, &finished.stderr] {
            assert!(!printed.contains(PASSWORD), "the password was printed by {}", finished.shown);
        }
        finished
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{} failed:\n{}\n{}", self.shown, self.stdout, self.stderr);
        self
    }

    /// Refused with this code and exactly one `lakebed: …` line, which holds every one of `words`. Log lines may precede it.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}:\n{}\n{}", self.shown, self.stdout, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("lakebed: ")).collect();
        assert_eq!(lines.len(), 1, "one line:\n{}", self.stderr);
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

fn command(pipeline: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakebed"));
    command.args(arguments).arg("--pipeline").arg(pipeline);
    // Nothing of the machine's own libpq set-up may reach a test.
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name.starts_with("LAKEBED_")) {
        command.env_remove(variable);
    }
    command.env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs one verb to its end.
pub async fn lakebed(pipeline: &Path, arguments: &[&str]) -> Finished {
    let output = tokio::time::timeout(Duration::from_secs(300), command(pipeline, arguments).output()).await;
    Finished::new(arguments, output.unwrap_or_else(|_| panic!("{arguments:?} did not end")).unwrap())
}

/// A `lakebed run` that goes on. Killed when dropped.
pub struct RunningRun {
    child: Child,
}

impl RunningRun {
    pub fn start(pipeline: &Path) -> Self {
        Self { child: command(pipeline, &["run"]).spawn().unwrap() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends a signal by name (`TERM`, `INT`, `KILL`, `STOP`, `CONT`).
    pub async fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub async fn ended(self) -> Finished {
        let output = tokio::time::timeout(Duration::from_secs(60), self.child.wait_with_output()).await;
        Finished::new(&["run"], output.expect("run did not end").unwrap())
    }
}
