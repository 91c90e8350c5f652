//! The real binary as a child process.

use super::PASSWORD;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

const FAIL_POINTS: &str = "LAKEBED_FAIL_POINTS";

/// How one verb ended.
pub struct Finished {
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    shown: String,
    allowed: Vec<String>,
}

impl Finished {
    fn new(shown: &str, status: ExitStatus, stdout: String, stderr: String) -> Self {
        let (code, signal, shown) = (status.code(), status.signal(), shown.to_owned());
        let finished = Self { code, signal, stdout, stderr, shown, allowed: Vec::new() };
        for printed in [&finished.stdout, &finished.stderr] {
            assert!(!printed.contains(PASSWORD), "the password was printed by {}", finished.shown);
            assert!(!printed.contains("panicked"), "{}: {printed}", finished.shown);
        }
        finished
    }

    /// A WARN or ERROR line that contains any of these is expected.
    #[must_use]
    pub fn allowing(mut self, words: &[&str]) -> Self {
        self.allowed.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Code 0, and nothing that an operator would have to look at.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{} failed:\n{}\n{}", self.shown, self.stdout, self.stderr);
        self.assert_quiet()
    }

    /// Refused with this code and exactly one `lakebed: …` line, which holds every one of `words`. Log lines may precede it; a
    /// warning among them has to be allowed.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}:\n{}\n{}", self.shown, self.stdout, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("lakebed: ")).collect();
        assert_eq!(lines.len(), 1, "one line:\n{}", self.stderr);
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
        self.assert_quiet()
    }

    /// Ended by SIGKILL, whoever sent it.
    #[track_caller]
    pub fn killed(self) -> Self {
        assert_eq!(self.signal, Some(libc::SIGKILL), "{}: code {:?}\n{}", self.shown, self.code, self.stderr);
        self.assert_quiet()
    }

    #[track_caller]
    fn assert_quiet(self) -> Self {
        let unexpected: Vec<&str> = complaints(&self.stderr)
            .filter(|line| !self.allowed.iter().any(|word| line.contains(word.as_str())))
            .collect();
        assert!(unexpected.is_empty(), "{} logged what nobody expected:\n{}", self.shown, unexpected.join("\n"));
        self
    }
}

/// The lines of a log at the levels WARN and ERROR; logs are JSON here because nobody looks at a terminal.
pub fn complaints(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| {
        let parsed = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
        matches!(parsed["level"].as_str(), Some("WARN" | "ERROR"))
    })
}

/// The binary that was built with the tests, or the one that `LAKEBED_BIN` names.
fn program() -> std::ffi::OsString {
    std::env::var_os("LAKEBED_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_lakebed").into())
}

fn command(pipeline: &Path, arguments: &[&str]) -> Command {
    adapted(Command::new(program()), pipeline, arguments)
}

/// For root, whom file permissions do not stop, without that privilege.
fn command_under_permissions(pipeline: &Path, arguments: &[&str]) -> Command {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return command(pipeline, arguments);
    }
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set=-dac_override,-dac_read_search", "--"]).arg(program());
    adapted(setpriv, pipeline, arguments)
}

fn adapted(mut command: Command, pipeline: &Path, arguments: &[&str]) -> Command {
    command.args(arguments).arg("--pipeline").arg(pipeline);
    // Nothing of the machine's own libpq or cloud set-up may reach a test.
    let ours = |name: &str| ["PG", "LAKEBED_", "AWS_"].iter().any(|prefix| name.starts_with(prefix));
    for (variable, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(variable);
    }
    command.env_remove("RUST_LOG");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs one verb to its end.
pub async fn lakebed(pipeline: &Path, arguments: &[&str]) -> Finished {
    RunningRun::spawn(command(pipeline, arguments), arguments.first().copied().unwrap_or_default())
        .finished(Duration::from_secs(300))
        .await
}

/// As [`lakebed`], by somebody to whom file permissions apply.
pub async fn lakebed_under_permissions(pipeline: &Path, arguments: &[&str]) -> Finished {
    let shown = arguments.first().copied().unwrap_or_default();
    RunningRun::spawn(command_under_permissions(pipeline, arguments), shown).finished(Duration::from_secs(300)).await
}

/// A `lakebed run` that goes on. Killed when dropped.
pub struct RunningRun {
    child: Child,
    shown: String,
    stdout: File,
    stderr: Log,
    allowed: Vec<String>,
}

impl RunningRun {
    pub fn start(pipeline: &Path) -> Self {
        Self::spawn(command(pipeline, &["run"]), "run")
    }

    /// Starts it so that it kills itself at a fail point.
    pub fn start_dying_at(pipeline: &Path, fail_point: &str) -> Self {
        Self::start_with_fail_points(pipeline, fail_point)
    }

    /// Starts it so that it stands still at a fail point until it is told to go on.
    pub fn start_stopping_at(pipeline: &Path, fail_point: &str) -> Self {
        Self::start_with_fail_points(pipeline, &format!("{fail_point}=1:stop"))
    }

    /// Starts it so that something happens at each of several fail points, as `ops::fail_points` has it.
    pub fn start_with_fail_points(pipeline: &Path, fail_points: &str) -> Self {
        Self::spawn_with_fail_points(pipeline, &["run"], fail_points)
    }

    /// As [`Self::start_dying_at`], over what is behind the slot already: what one flush takes then does not depend on anybody's pace.
    pub fn start_catching_up_dying_at(pipeline: &Path, fail_point: &str) -> Self {
        Self::spawn_with_fail_points(pipeline, &["run", "--until-caught-up"], fail_point)
    }

    /// Starts any verb, which goes on.
    pub fn start_verb(pipeline: &Path, arguments: &[&str]) -> Self {
        Self::spawn(command(pipeline, arguments), arguments.first().copied().unwrap_or_default())
    }

    /// Starts any verb so that it stands still at a fail point until it is told to go on.
    pub fn start_verb_stopping_at(pipeline: &Path, arguments: &[&str], fail_point: &str) -> Self {
        Self::spawn_with_fail_points(pipeline, arguments, &format!("{fail_point}:stop"))
    }

    /// Starts any verb so that it kills itself at a fail point.
    pub fn start_verb_dying_at(pipeline: &Path, arguments: &[&str], fail_point: &str) -> Self {
        Self::spawn_with_fail_points(pipeline, arguments, fail_point)
    }

    fn spawn_with_fail_points(pipeline: &Path, arguments: &[&str], fail_points: &str) -> Self {
        let mut command = command(pipeline, arguments);
        command.env(FAIL_POINTS, fail_points);
        let verb = arguments.first().copied().unwrap_or_default();
        Self::spawn(command, &format!("{verb} until {fail_points}"))
    }

    /// Waits until it stands still.
    pub async fn wait_until_stopped(&self) {
        let path = format!("/proc/{}/stat", self.pid());
        let stands_still = || std::fs::read_to_string(&path).unwrap().rsplit(')').next().unwrap().starts_with(" T");
        super::until("the process stands still", stands_still).await;
    }

    /// What it prints goes to files without a name: a pipe that nobody reads would stop it.
    fn spawn(mut command: Command, shown: &str) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        Self {
            child: command.spawn().unwrap(),
            shown: shown.to_owned(),
            stdout,
            stderr: Log(stderr),
            allowed: Vec::new(),
        }
    }

    /// A WARN or ERROR line that contains any of these is expected.
    #[must_use]
    pub fn allowing(mut self, words: &[&str]) -> Self {
        self.allowed.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        text_of(&self.stderr.0)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by name (`TERM`, `INT`, `KILL`, `STOP`, `CONT`).
    pub async fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().await.unwrap();
        assert!(sent.success());
    }

    /// The most memory that it has had resident, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Waits for its end. Unless it failed, nothing may have been logged that was not allowed.
    pub async fn ended(self) -> Finished {
        let finished = self.finished(Duration::from_secs(60)).await;
        if finished.code.is_none_or(|code| code == 0) { finished.assert_quiet() } else { finished }
    }

    /// Waits for its end, whatever was logged.
    pub async fn finished(mut self, patience: Duration) -> Finished {
        let status = tokio::time::timeout(patience, self.child.wait()).await;
        let (stdout, stderr) = (text_of(&self.stdout), text_of(&self.stderr.0));
        let status = status.unwrap_or_else(|_| panic!("{} did not end:\n{stderr}", self.shown)).unwrap();
        Finished { allowed: self.allowed, ..Finished::new(&self.shown, status, stdout, stderr) }
    }
}

/// What a process logs; printed when a test fails while it runs, because the reason may stand there.
struct Log(File);

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = text_of(&self.0);
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the end of its log:");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Read at positions of its own: the child writes where the shared offset stands.
fn text_of(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}
