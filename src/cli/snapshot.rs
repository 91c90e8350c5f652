//! `lakebed snapshot`: copy what the tables hold already, and go on with it wherever it was interrupted.
//!
//! Where slot or a lake table is missing, it does what `lakebed init --snapshot` does. Which days are still to be copied stands in the
//! lake's own log, so there is nothing to resume from but the lake. If another process follows the slot, as `lakebed run` does, that one
//! copies, and this one watches until it is done. Exit code 0 when every day is copied, 1 when a signal came first: what was copied
//! stays, and this verb or `lakebed run` goes on.

use super::following::{Followed, follow};
use super::init::{self, InitArgs};
use super::progress::{Progress, Shown, rate};
use super::standstill::{STANDSTILL, Standstill};
use super::{Exit, report};
use crate::base::{DaySet, TableName};
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::lake::{self, Acknowledgements, LakeError, LakeLocation, LakeTable, PartitionReader};
use crate::pipeline::{PipelineError, Until};
use crate::snapshot::Meter;
use crate::source;
use anyhow::Context;
use bytesize::ByteSize;
use std::future::pending;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often what is left is read again while another process copies.
const POLL: Duration = Duration::from_secs(2);
/// How often the bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a slot may have no holder before this process takes it: `run` starts again after a lost connection.
const UNHELD_FOR: Duration = Duration::from_secs(30);

/// Arguments of `snapshot`.
#[derive(Debug, clap::Args)]
pub(super) struct SnapshotArgs {
    /// Connect as owner or administrator for the SQL of init, where that is still to be done [default: the pipeline's own URL]
    #[arg(long, value_name = "URL", env = "LAKEBED_ADMIN_URL", hide_env_values = true)]
    admin_url: Option<String>,
    /// As that of init: the database where pg_cron lives
    #[arg(long, value_name = "URL", env = "LAKEBED_CRON_URL", hide_env_values = true)]
    cron_url: Option<String>,
}

/// Copies what is left.
pub(super) async fn run(args: &SnapshotArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    if is_begun(args, pipeline).await? {
        return copy(pipeline).await;
    }
    let init = InitArgs::for_snapshot(args.admin_url.clone(), args.cron_url.clone());
    Box::pin(init::run(&init, pipeline)).await
}

/// Whether slot, lake tables and record are there.
async fn is_begun(args: &SnapshotArgs, pipeline: &Pipeline) -> anyhow::Result<bool> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let control = match connect::control(&settings).await {
        Ok(control) => control,
        // The login may still have to be created.
        Err(_) if args.admin_url.is_some() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    source::prepare_session(control.client()).await?;
    if source::slot(control.client(), &pipeline.source.slot).await?.is_none() {
        return Ok(false);
    }
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    for section in &pipeline.tables {
        match PartitionReader::open(&location, section.lake_path()).await {
            Ok(_) => {}
            Err(LakeError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Acknowledgements::open(&location, &pipeline.source.slot).await?.1.is_some())
}

/// The days of every table that are not copied.
#[derive(Debug, Default)]
pub(super) struct Left {
    tables: Vec<(TableName, DaySet)>,
    /// Tables that stand still, so that nobody copies theirs.
    parked: Vec<(TableName, DaySet)>,
}

impl Left {
    pub(super) async fn look(pipeline: &Pipeline, location: &LakeLocation) -> anyhow::Result<Self> {
        let (mut left, slot) = (Self::default(), &pipeline.source.slot);
        for section in &pipeline.tables {
            let (path, name) = (section.lake_path(), &section.name);
            let days = lake::uncopied(location, path, slot, name).await?;
            if days.is_empty() {
                continue;
            }
            let of = match LakeTable::stands_still(location, path, slot, name).await? {
                true => &mut left.parked,
                false => &mut left.tables,
            };
            of.push((name.clone(), days));
        }
        Ok(left)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// A table that is copied whole counts as one.
    pub(super) fn days(&self) -> u64 {
        self.tables.iter().map(|(_, days)| days.count()).sum()
    }

    /// Those of some tables alone.
    pub(super) fn of(mut self, is_meant: impl Fn(&TableName) -> bool) -> Self {
        self.tables.retain(|(table, _)| is_meant(table));
        self
    }

    /// `public.a 2026-01-02 to 2026-01-05 (4); public.b all`.
    pub(super) fn text(&self) -> String {
        let tables = self.tables.iter().map(|(table, days)| format!("{table} {days}"));
        tables.collect::<Vec<_>>().join("; ")
    }

    fn tell_parked(&self) {
        for (table, days) in &self.parked {
            report(&format!(
                "lakebed: note: {table} stands still in the lake, so nobody copies its days ({days}); see lakebed status, and set it up anew"
            ));
        }
    }
}

/// Copies what is left, or watches who does.
pub(super) async fn copy(pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    let left = Left::look(pipeline, &location).await?;
    left.tell_parked();
    if left.is_empty() {
        print("nothing is left to copy\n")?;
        return Ok(if left.parked.is_empty() { Exit::Done } else { Exit::Failed });
    }
    let mut progress = Progress::begin();
    progress.say(&format!("to be copied: {}", left.text()));
    let ended = copied(pipeline, (&settings, &location), left.days(), &mut progress).await;
    progress.end();
    let totals = match ended? {
        End::Copied(totals) => totals,
        End::Signalled => {
            let left = Left::look(pipeline, &location).await?;
            let text = "stopped before everything was copied; what was copied stays, and lakebed snapshot or lakebed run goes on";
            print(&format!("{text} with {}\n", left.text()))?;
            return Ok(Exit::Failed);
        }
        End::StandsStill => {
            let left = Left::look(pipeline, &location).await?;
            print(&format!("{STANDSTILL}: {}\n", left.text()))?;
            return Ok(Exit::Failed);
        }
    };
    let left = Left::look(pipeline, &location).await?;
    left.tell_parked();
    print(&format!("{totals}\n"))?;
    Ok(if left.is_empty() && left.parked.is_empty() { Exit::Done } else { Exit::Failed })
}

enum End {
    /// What is to be told.
    Copied(String),
    Signalled,
    /// Whoever copies does not go on.
    StandsStill,
}

async fn copied(
    pipeline: &Pipeline,
    (settings, location): (&Settings, &LakeLocation),
    days: u64,
    progress: &mut Progress,
) -> anyhow::Result<End> {
    loop {
        if let Some(holder) = holder(settings, &pipeline.source.slot).await? {
            progress.say(&format!("{holder} follows slot {} and copies; watching", pipeline.source.slot));
            match watch(pipeline, (settings, location), (days, progress)).await? {
                Watched::Copied => {
                    let took = seconds(progress.elapsed());
                    return Ok(End::Copied(format!("copied {days} days in {took}, by {holder}")));
                }
                Watched::StandsStill => return Ok(End::StandsStill),
                Watched::LetGo => {}
            }
        }
        let meter = Arc::new(Meter::default());
        let (stop, _) = watch::channel(false);
        let look = (LOOK_EVERY, || progress.show(&Shown::of(&meter.figures())));
        match follow(pipeline, Until::Copied, (&stop, &meter), look, pending()).await {
            Ok(Followed { signalled: true, .. }) => return Ok(End::Signalled),
            Ok(_) => return Ok(End::Copied(totals(&Shown::of(&meter.figures()), progress))),
            // Somebody was faster.
            Err(error) if error.downcast_ref().is_some_and(PipelineError::is_another_consumer) => {}
            Err(error) => return Err(error),
        }
    }
}

/// How another process went on.
enum Watched {
    /// It copied everything.
    Copied,
    /// It copies nothing.
    StandsStill,
    /// Nobody has followed for a while.
    LetGo,
}

/// Until another process has copied everything, or does not go on.
async fn watch(
    pipeline: &Pipeline,
    (settings, location): (&Settings, &LakeLocation),
    (days, progress): (u64, &mut Progress),
) -> anyhow::Result<Watched> {
    let (mut held_at, mut standstill) = (Instant::now(), Standstill::new());
    loop {
        let left = Left::look(pipeline, location).await?;
        let done = days.saturating_sub(left.days());
        let phase = if left.is_empty() { String::new() } else { format!("left: {}", left.text()) };
        progress.show(&Shown { days_done: done, days_total: days, phase, ..Shown::default() });
        if left.is_empty() {
            return Ok(Watched::Copied);
        }
        if standstill.is_seen(settings, &pipeline.source.slot, &left.text()).await {
            return Ok(Watched::StandsStill);
        }
        // Whoever cannot be asked is asked again.
        if matches!(holder(settings, &pipeline.source.slot).await, Ok(Some(_))) {
            held_at = Instant::now();
        } else if held_at.elapsed() > UNHELD_FOR {
            return Ok(Watched::LetGo);
        }
        sleep(POLL).await;
    }
}

/// Who uses the slot.
pub(super) async fn holder(settings: &Settings, slot: &str) -> anyhow::Result<Option<String>> {
    let control = connect::control(settings).await?;
    source::prepare_session(control.client()).await?;
    let facts = source::slot(control.client(), slot).await?.filter(|facts| facts.active);
    let name = |holder: source::SlotHolder| holder.to_string();
    Ok(facts.map(|facts| facts.holder.map_or_else(|| "another session".to_owned(), name)))
}

fn totals(shown: &Shown, progress: &Progress) -> String {
    let rate = rate(shown.bytes, progress.moving()).map(|rate| format!(", {}/s", ByteSize(rate)));
    format!(
        "copied {} days, {} rows, {} in {}{}",
        shown.days_done,
        shown.rows,
        ByteSize(shown.bytes),
        seconds(progress.elapsed()),
        rate.unwrap_or_default()
    )
}

/// `1m 3s`; fractions of a second only below one.
fn seconds(elapsed: Duration) -> String {
    let whole = Duration::from_secs(elapsed.as_secs());
    let shown = if whole.is_zero() { Duration::from_millis(elapsed.subsec_millis().into()) } else { whole };
    humantime::format_duration(shown).to_string()
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionBy;

    #[test]
    fn what_is_left_is_counted_and_named() {
        let day = |text: &str| PartitionBy::Day.partition_of(text.parse().unwrap());
        let name = |name: &str| TableName::new("public", name);
        let some = DaySet::from_iter([day("2026-01-02"), day("2026-01-05")]);
        let tables = vec![(name("a"), some), (name("b"), DaySet::whole())];
        let left = Left { tables, parked: Vec::new() };
        assert_eq!(left.days(), 3);
        assert_eq!(left.text(), "public.a 2026-01-02 to 2026-01-05 (2); public.b all");
    }

    #[test]
    fn the_time_is_told_in_whole_seconds() {
        assert_eq!(seconds(Duration::from_millis(63_400)), "1m 3s");
        assert_eq!(seconds(Duration::from_millis(400)), "400ms");
    }
}
