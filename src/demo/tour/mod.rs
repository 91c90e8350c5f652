//! The demo verb: the whole way from a row to an answer, and on to the day that only the lake has, on one machine.
//!
//! It drives `lakebed init`, `run`, `reconcile`, `audit` and `query` as child processes of the same executable and looks at
//! nothing that a user could not look at. What it started is held in one place (`Started`) and stopped from there, whether
//! the tour ends well, fails or is interrupted: first the pipeline, which flushes and acknowledges, then the server.

mod questions;
mod retention;
mod screen;
mod stages;
mod verbs;
mod workspace;

#[cfg(test)]
mod tests;

pub use screen::Screen;

use super::{Cluster, ClusterOptions, DemoError, customer};
use std::path::PathBuf;
use verbs::{Follower, Verbs};
use workspace::Workspace;

/// What to show.
#[derive(Clone, Debug)]
pub struct TourOptions {
    /// Rows of history, of both tables together.
    pub rows: u64,
    /// Days that the history spans.
    pub history_days: u32,
    /// How long rows are inserted one by one afterwards.
    pub live_seconds: u64,
    /// Seed of the generator.
    pub seed: u64,
    /// Where lake, pipeline file and log go, and stay. None: a temporary folder.
    pub directory: Option<PathBuf>,
    /// Stay up, with the live stream, until interrupted.
    pub keep: bool,
}

/// Freshness asked of the demo's pipeline.
const MAX_AGE_SECONDS: u64 = 3;

/// Everything that has to be stopped.
#[derive(Debug, Default)]
struct Started {
    follower: Option<Follower>,
    cluster: Option<Cluster>,
    workspace: Option<Workspace>,
    /// Set once the demo is complete and only waits to be interrupted.
    complete: bool,
}

/// Runs the demo until its end or until `interrupted` resolves, and stops everything that it started.
///
/// # Errors
/// The first thing that failed, [`DemoError::Unequal`] if the lake does not hold what was written, or
/// [`DemoError::Interrupted`] before the demo was complete.
pub async fn run(
    options: &TourOptions,
    screen: &mut Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<(), DemoError> {
    let mut started = Started::default();
    let mut result = tokio::select! {
        result = Box::pin(show(options, screen, &mut started)) => result,
        () = interrupted => Err(DemoError::Interrupted),
    };
    if started.complete && matches!(result, Err(DemoError::Interrupted)) {
        result = Ok(());
    }
    screen.line("");
    screen.line("Stopping the pipeline and PostgreSQL.");
    if let Some(follower) = started.follower.take() {
        result = result.and(follower.stop().await);
    }
    if let Some(cluster) = started.cluster.take() {
        cluster.stop().await;
    }
    if let Some(workspace) = &mut started.workspace {
        let failed = result.as_ref().is_err_and(|error| !matches!(error, DemoError::Interrupted));
        if failed {
            workspace.keep();
        }
        if !workspace.is_temporary() {
            screen.line(&format!("Pipeline file, log and lake are left in {}", workspace.path().display()));
        }
    }
    result
}

async fn show(options: &TourOptions, screen: &mut Screen, started: &mut Started) -> Result<(), DemoError> {
    let today = chrono::Utc::now().date_naive();
    screen.heading("1. A throw-away PostgreSQL with the first customer's tables");
    let workspace = started.workspace.insert(Workspace::create(options.directory.as_deref())?);
    let cluster = started.cluster.insert(Cluster::start(ClusterOptions::default()).await?);
    screen.line(&format!("   PostgreSQL 15 on 127.0.0.1:{}, wal_level=logical", cluster.port()));
    let customer = customer::CustomerOptions { today, ..customer::CustomerOptions::with_history(options.history_days) };
    customer::create(cluster, &customer).await?;
    screen.line(&format!(
        "   database {}: 5 partitioned tables, row-level security forced, pg_partman (retention 90 days into schema archive),",
        customer::DATABASE
    ));
    screen.line("   pg_cron with the guide's maintenance at 02:00 UTC, which detaches what is older than 90 days. Until step 5 runs it,");
    screen.line(&format!("   the {} days written below are all still attached.", options.history_days));

    screen.heading("2. lakebed init, then lakebed run: before the first row is written");
    workspace.write_pipeline(cluster, MAX_AGE_SECONDS)?;
    let verbs = Verbs::of_this_executable(workspace.pipeline_file())?;
    let (admin_url, cron_url) = (cluster.admin_url(customer::DATABASE), cluster.admin_url("postgres"));
    // Everybody on the machine can read a process's arguments, but not its environment.
    let secrets = [("LAKEBED_ADMIN_URL", admin_url.as_str()), ("LAKEBED_CRON_URL", cron_url.as_str())];
    let installed = verbs.answer_with("init", &[], &secrets).await?;
    for line in installed.lines() {
        screen.line(&format!("   {line}"));
    }
    let follower = started.follower.insert(verbs.follow(&workspace.run_log())?);

    let mut demo = stages::Stages { options, screen, cluster, follower, verbs: &verbs, workspace };
    let outcome = demo.write_and_compare().await?;
    demo.retire_old_days().await?;
    demo.ask().await?;
    demo.summarise(&outcome).await?;
    if options.keep {
        demo.explain_how_to_connect(&outcome);
        started.complete = true;
        stages::stay(started.cluster.as_ref(), started.follower.as_mut(), options.seed).await?;
    }
    Ok(())
}
