//! One child process, measured as the operating system accounts for it, and the figures of many.

use std::io;
use std::process::{Child, Command};
use std::time::Instant;

/// What one run of a contestant took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) wall_seconds: f64,
    pub(crate) user_seconds: f64,
    pub(crate) kernel_seconds: f64,
    pub(crate) peak_mib: f64,
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> io::Result<Run> {
    let started = Instant::now();
    let child = command.spawn()?;
    let usage = wait(&child)?;
    let wall_seconds = started.elapsed().as_secs_f64();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Run {
        wall_seconds,
        user_seconds: seconds(usage.ru_utime),
        kernel_seconds: seconds(usage.ru_stime),
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
    })
}

/// `wait4`, because the standard library's wait does not return the child's resource usage.
#[allow(unsafe_code)]
fn wait(child: &Child) -> io::Result<libc::rusage> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right type, and the pid is a child of ours that nobody else waits for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    match (waited == pid, libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0) {
        (false, _) => Err(io::Error::last_os_error()),
        (true, false) => Err(io::Error::other(format!("a contestant failed with wait status {status}"))),
        (true, true) => Ok(usage),
    }
}

/// The middle one of an odd number of values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
