//! The command line: one file a verb, and the rules that all verbs share.
//!
//! Exit codes are a contract: 0 done, 1 failed, 2 wrong usage or configuration, 3 something does not balance. Data goes to
//! standard output, logs and errors to standard error; an error is one line that says what happened, to what, and what to
//! do. Nothing below this room prints.

mod audit;
mod check;
mod demo;
mod erase;
mod following;
mod init;
mod lineage;
mod progress;
mod query;
mod reconcile;
#[cfg(test)]
mod remedy_test;
mod repair;
mod run;
mod skip;
mod snapshot;
mod standstill;
mod status;

use crate::config::{ConfigError, Pipeline};
use crate::connect::SettingsError;
use crate::lake::LakeError;
use crate::pipeline::PipelineError;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, for the reason on standard error.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Something does not balance.
    Unbalanced = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Follows PostgreSQL's write-ahead log into a Delta lake, and answers SQL over it.
#[derive(Debug, Parser)]
#[command(name = "lakebed", version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// The pipeline file.
    #[arg(long, global = true, env = "LAKEBED_PIPELINE", value_name = "FILE", default_value = "lakebed.toml")]
    pipeline: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look at source, slot, publication, partman and lake; every finding with its remedy
    Check(check::CheckArgs),
    /// Install roles, grants, publication, slot and lake tables; repeatable
    Init(init::InitArgs),
    /// Follow the WAL into the lake until stopped
    Run(run::RunArgs),
    /// Copy what the tables hold already, and go on wherever that was interrupted
    Snapshot(snapshot::SnapshotArgs),
    /// Balance days of the lake against PostgreSQL, and copy again those that differ
    Repair(repair::RepairArgs),
    /// Balance the detached partitions against the lake, and drop those that balance
    Reconcile(reconcile::ReconcileArgs),
    /// Read days of the lake again and check them against their receipts
    Audit(audit::AuditArgs),
    /// Take a subject's rows out of days that were dropped, with a receipt
    Erase(erase::EraseArgs),
    /// Step over one transaction that cannot be kept, and leave a finding about it
    Skip(skip::SkipArgs),
    /// Slot, lag, and one line a day
    Status(status::StatusArgs),
    /// Answer SQL over the lake
    Query(query::QueryArgs),
    /// Start a throw-away PostgreSQL, fill it, and show the whole way into the lake
    Demo(demo::DemoArgs),
}

/// Runs one command line to its end.
pub fn main() -> ExitCode {
    crate::ops::allocator::keep_heaps_few();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let thread = std::thread::Builder::new().name("lakebed".to_owned()).stack_size(STACK_BYTES);
    match thread.spawn(move || work(arguments)).map(std::thread::JoinHandle::join) {
        Ok(Ok(exit)) => exit,
        Ok(Err(_)) => Exit::Failed.into(),
        Err(error) => failed(&anyhow::anyhow!("cannot start a thread: {error}")),
    }
}

/// Stack of every thread, reserved and not used: the query engine walks a statement's tree recursively, and a chain of a
/// few thousand ORs or UNIONs is a deep one.
const STACK_BYTES: usize = 512 << 20;

fn work(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::anyhow!("cannot start the async runtime: {error}")),
    };
    let ended = runtime.block_on(dispatch(arguments));
    // A thread that is blocked on a full pipe must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => failed(&error),
    }
}

async fn dispatch(arguments: Arguments) -> anyhow::Result<Exit> {
    if let Verb::Demo(args) = &arguments.verb {
        crate::ops::logging::start(None);
        return Box::pin(demo::run(args)).await;
    }
    let pipeline = Pipeline::load(&arguments.pipeline)?;
    match &arguments.verb {
        Verb::Run(args) => {
            crate::ops::logging::start(None);
            Box::pin(run::run(args, &pipeline)).await
        }
        other => {
            crate::ops::logging::start(Some(QUIET_LEVELS));
            match other {
                Verb::Check(args) => Box::pin(check::run(args, &pipeline)).await,
                Verb::Init(args) => Box::pin(init::run(args, &pipeline)).await,
                Verb::Snapshot(args) => Box::pin(snapshot::run(args, &pipeline)).await,
                Verb::Repair(args) => Box::pin(repair::run(args, &pipeline)).await,
                Verb::Reconcile(args) => Box::pin(reconcile::run(args, &pipeline)).await,
                Verb::Audit(args) => Box::pin(audit::run(args, &pipeline)).await,
                Verb::Erase(args) => Box::pin(erase::run(args, &pipeline)).await,
                Verb::Skip(args) => Box::pin(skip::run(args, &pipeline)).await,
                Verb::Status(args) => Box::pin(status::run(args, &pipeline)).await,
                Verb::Query(args) => Box::pin(query::run(args, &pipeline)).await,
                Verb::Run(_) | Verb::Demo(_) => Ok(Exit::Usage),
            }
        }
    }
}

/// Verbs that print a report keep standard error for what went wrong.
const QUIET_LEVELS: &str = "error,lakebed=warn,buoyant_kernel=off";

/// Help and version go to standard output with code 0; a wrong command line to standard error with code 2.
fn usage(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    if error.print().is_err() {
        return Exit::Failed.into();
    }
    exit.into()
}

fn failed(error: &anyhow::Error) -> ExitCode {
    report(&one_line(error));
    exit_of(error).into()
}

/// The one line that a person sees. The chain of causes is joined, so that nothing is lost and nothing is repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(&text);
        }
    }
    format!("lakebed: {}", line.replace(['\n', '\r'], " "))
}

/// Whatever is wrong in the pipeline file or the connection's settings is configuration, however deep among the causes it is.
fn exit_of(error: &anyhow::Error) -> Exit {
    let is_lake_url = |cause: &LakeError| matches!(cause, LakeError::Location { .. });
    let configuration = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<SettingsError>()
            || cause.downcast_ref().is_some_and(is_lake_url)
            // A transparent error passes its cause over and shows what is behind it.
            || matches!(cause.downcast_ref(), Some(PipelineError::Lake(error)) if is_lake_url(error))
    });
    if configuration { Exit::Usage } else { Exit::Failed }
}

/// Writes a line to standard error; a closed one is not worth another error.
#[allow(clippy::print_stderr)]
fn report(line: &str) {
    eprintln!("{line}");
}
