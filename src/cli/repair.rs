//! `lakebed repair`: balance days of the lake against PostgreSQL, live or waiting in the archive, and copy again those that differ.
//!
//! Without `--execute` it only says what differs. A day that a receipt says was dropped is never touched, and neither is one of which
//! PostgreSQL has no partition any more. With `--execute` the days that differ are marked in the lake, whoever follows the slot copies
//! them, each batch of days replaced in one commit while the stream goes on, and then they are balanced again. Where nobody
//! follows, this process does until it is done. Exit code 3 when something does not balance, 1 when something could not be told. With
//! `--json`, standard output is one object:
//!
//! ```text
//! {"executed": bool,
//!  "tables": [{"table": "public.security_event",
//!              "error": text | null,                why it could not be looked at, or not be copied again
//!              "balance": n, "differ": n, "not_judged": n, "left_alone": n,    days, before anything was copied
//!              "copied": ["2026-01-02"] | null,     marked to be copied again, ["all"] for the whole table; null: nothing was
//!              "days": [{"day": "2026-01-02",       or a month, "2026-01"
//!                        "outcome": "balances" | "balances_so_far" | "differs" | "not_judged" | "dropped" | "no_partition" | "not_copied",
//!                        "reasons": [text],          what differs, or why it is left alone or cannot be told
//!                        "after": "balances" | "balances_so_far" | "differs" | "not_judged" | null,   behind the copy
//!                        "reasons_after": [text]}]}]}
//! ```
//!
//! `balances_so_far`: rows of the day come in all the time, and every hour that is over has the same rows on both sides.

mod report;

use self::report::{RepairReport, TableRepair};
use super::following::{Followed, follow};
use super::progress::{Progress, Shown};
use super::snapshot::{Left, holder};
use super::standstill::{STANDSTILL, Standstill};
use super::{Exit, report as tell};
use crate::base::TableName;
use crate::config::{Pipeline, TableSection};
use crate::pipeline::{Archive, CopyAgain, PipelineError, Until};
use crate::reconcile::Span;
use crate::snapshot::Meter;
use anyhow::{Context, bail, ensure};
use chrono::{Days, NaiveDate};
use std::future::pending;
use std::io::Write;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How often what is left is read again.
const POLL: Duration = Duration::from_secs(2);

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    /// Only this table of the pipeline file
    #[arg(long, value_name = "NAME")]
    table: Option<TableName>,
    /// The first day, 2026-01-02
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// The last day
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// Copy the days that differ again, and do not only say which do
    #[arg(long)]
    execute: bool,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

impl RepairArgs {
    fn asked(&self) -> Span {
        let (first, last) = (self.from.unwrap_or(NaiveDate::MIN), self.to.unwrap_or(NaiveDate::MAX));
        Span { lower: first, upper: last.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX) }
    }
}

/// Rehearses, and repairs if that is asked for. Both need somebody who follows: the lake is compared when it has everything up to a
/// marker.
pub(super) async fn run(args: &RepairArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let archive = Archive::of(pipeline)?;
    let is_asked = |section: &&TableSection| args.table.as_ref().is_none_or(|table| *table == section.name);
    let sections: Vec<&TableSection> = pipeline.tables.iter().filter(is_asked).collect();
    if let (Some(table), true) = (&args.table, sections.is_empty()) {
        bail!("{table} is no table of the pipeline file");
    }
    ensure!(args.asked().lower < args.asked().upper, "--from must not be behind --to");
    let mut repair = Repair { args, archive: &archive, sections, progress: Mutex::new(Progress::begin()) };
    let done = match holder(&archive.settings, &pipeline.source.slot).await? {
        Some(_) => Box::pin(repair.work(None)).await,
        None => Box::pin(followed(pipeline, &mut repair)).await,
    };
    repair.with_progress(Progress::end);
    let report = done?;
    let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(report.exit())
}

/// Follows beside the work, until that is done.
async fn followed(pipeline: &Pipeline, repair: &mut Repair<'_>) -> anyhow::Result<RepairReport> {
    let meter = Arc::new(Meter::default());
    let (stop, _) = watch::channel(false);
    let nothing = (Duration::from_secs(60), || {});
    let mut following = pin!(follow(pipeline, Until::Signalled, (&stop, &meter), nothing, pending()));
    let mut work = Box::pin(repair.work(Some(&meter)));
    tokio::select! {
        ended = &mut following => {
            if is_followed_by_another(&ended) {
                return work.await;
            }
            ended?;
            bail!("stopped before it was done; days that are marked stay so, and lakebed run or lakebed snapshot copies them")
        }
        done = &mut work => {
            stop.send_replace(true);
            let ended = following.await;
            if !is_followed_by_another(&ended) {
                ended?;
            }
            done
        }
    }
}

/// Somebody was faster, as `run` may be that is just starting: he follows, and copies.
fn is_followed_by_another(ended: &anyhow::Result<Followed>) -> bool {
    let error = ended.as_ref().err().and_then(|error| error.downcast_ref::<PipelineError>());
    error.is_some_and(PipelineError::is_another_consumer)
}

struct Repair<'a> {
    args: &'a RepairArgs,
    archive: &'a Archive<'a>,
    sections: Vec<&'a TableSection>,
    progress: Mutex<Progress>,
}

impl Repair<'_> {
    fn with_progress(&self, show: impl FnOnce(&mut Progress)) {
        show(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// `meter` is that of the pipeline in this process, if it follows itself.
    async fn work(&mut self, meter: Option<&Arc<Meter>>) -> anyhow::Result<RepairReport> {
        let mut report = RepairReport { executed: self.args.execute, tables: Vec::new() };
        for section in &self.sections {
            let told = &mut |done: usize, all: usize| self.show(section, "balancing", (done, all));
            let table = match self.archive.rehearse(section, self.args.asked(), told).await {
                Ok(rehearsal) => TableRepair::of(rehearsal),
                Err(error) => TableRepair::failed(section.name.clone(), &error),
            };
            report.tables.push(table);
        }
        if !self.args.execute {
            return Ok(report);
        }
        for (section, table) in self.sections.iter().zip(&report.tables) {
            match &table.copy {
                CopyAgain::Days(days) if !days.is_empty() => {
                    self.archive
                        .mark(section, days)
                        .await
                        .with_context(|| format!("marking days of {}", table.table))?;
                }
                CopyAgain::Days(_) | CopyAgain::Refused { .. } => {}
            }
        }
        // Days that were marked by an earlier repair, or never copied, are waited for as well.
        if report.tables.iter().any(|table| !table.marked().is_empty()) {
            self.wait_until_copied(meter).await?;
        }
        for (section, table) in self.sections.iter().zip(&mut report.tables) {
            let days = table.marked();
            if days.is_empty() {
                continue;
            }
            let told = &mut |done: usize, all: usize| self.show(section, "balancing again", (done, all));
            match self.archive.balance_again(section, &days, told).await {
                Ok(balanced) => table.after(balanced),
                Err(error) => table.error = Some(error.to_string()),
            }
        }
        Ok(report)
    }

    fn show(&self, section: &TableSection, doing: &str, (done, all): (usize, usize)) {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (days_done, days_total, phase) = (number(done), number(all), format!("{doing} {}", section.name));
        self.with_progress(|progress| progress.show(&Shown { days_done, days_total, phase, ..Shown::default() }));
    }

    /// Whoever follows notices the marks by itself.
    async fn wait_until_copied(&self, meter: Option<&Arc<Meter>>) -> anyhow::Result<()> {
        let pipeline = self.archive.pipeline;
        let (mut most, mut standstill) = (0, Standstill::new());
        loop {
            let left = Left::look(pipeline, &self.archive.location).await?;
            let left = left.of(|table| self.sections.iter().any(|section| section.name == *table));
            if left.is_empty() {
                return Ok(());
            }
            if standstill.is_seen(&self.archive.settings, &pipeline.source.slot, &left.text()).await {
                tell(&format!("lakebed: note: {STANDSTILL}: {}", left.text()));
                return Ok(());
            }
            most = left.days().max(most);
            let shown = match meter.map(|meter| Shown::of(&meter.figures())) {
                Some(shown) if shown.days_total > 0 => shown,
                _ => {
                    let (days_done, phase) = (most - left.days(), "copying again".to_owned());
                    Shown { days_done, days_total: most, phase, ..Shown::default() }
                }
            };
            self.with_progress(|progress| progress.show(&shown));
            if meter.is_none()
                && holder(&self.archive.settings, &pipeline.source.slot).await.is_ok_and(|of| of.is_none())
            {
                tell(
                    "lakebed: note: nobody follows the slot just now, so nothing is copied; start lakebed run or lakebed snapshot",
                );
                sleep(NOBODY_FOLLOWS).await;
            }
            sleep(POLL).await;
        }
    }
}

/// Between two remarks that nobody follows.
const NOBODY_FOLLOWS: Duration = Duration::from_secs(28);
