//! `lakebed reconcile`: balance the partitions that partman detached against the lake, and drop those that balance.
//!
//! Needs `lakebed run` beside it: a partition is judged when the lake has everything up to a marker. Exit code 3 when something does not
//! balance, 1 when no verdict could be had. With `--json`, standard output is one object:
//!
//! ```text
//! {"partitions": [{"table": "public.security_event",
//!                  "partition": "archive.security_event_p2026_01_02",
//!                  "days": "2026-01-02",             or "2026-01-01 to 2026-01-31"
//!                  "outcome": "dropped" | "balanced" | "differs" | "gone" | "failed",
//!                  "receipt": n | null,              its number in the chain
//!                  "reasons": [text],                what does not balance, or why there is no verdict
//!                  "ledger": {"receipts": SIDE, "detached": SIDE, "live": SIDE, "lake": SIDE} | null,
//!                                                     SIDE: {"rows": n, "digest": "32 hexadecimal digits"}
//!                  "narrowed": NARROWED | null}],     of rows that differ
//!  "left_alone": [{"table": text, "reason": text}]}   look like partitions, and are not touched
//!
//! NARROWED: {"hours": [{"hour": "2026-01-02T03",      UTC; "2026-01-02" where a date dates the rows; "other days"
//!                       "postgres": SIDE, "lake": SIDE}],
//!            "missing": KEYS,                         keys that the lake lacks
//!            "extra": KEYS,                           that only the lake has
//!            "doubled": KEYS,                         that the lake has more often
//!            "different": KEYS,                       that both have, with other values
//!            "columns": [text],                       in which those differ
//!            "notes": [text]}                         what could not be looked at
//! KEYS: {"total": n, "keys": ["id=…, created_at=…"]}  a few of them; values of no other column
//! ```

use super::Exit;
use crate::base::TableName;
use crate::config::{Pipeline, TableSection};
use crate::connect::{self, Settings};
use crate::lake::LakeLocation;
use crate::pipeline::table_rules;
use crate::reconcile::{LeftAlone, Narrowed, Outcome, PartitionReport, Reconciler};
use crate::source;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// How long the lake may take to have everything, beyond twice `max_age`.
const PATIENCE: Duration = Duration::from_secs(300);

/// Arguments of `reconcile`.
#[derive(Debug, clap::Args)]
pub(super) struct ReconcileArgs {
    /// Balance and report, drop nothing
    #[arg(long)]
    dry_run: bool,
    /// Only this table of the pipeline file, or this detached partition: public.security_event, archive.security_event_p20260102
    #[arg(long, value_name = "NAME")]
    table: Option<TableName>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Everything that is to be told.
#[derive(Default)]
struct Report {
    partitions: Vec<(TableName, PartitionReport)>,
    left_alone: Vec<LeftAlone>,
}

/// Balances what waits.
pub(super) async fn run(args: &ReconcileArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    let mut report = Report::default();
    let mut known = false;
    for section in &pipeline.tables {
        let wanted = |partition: &TableName| {
            args.table.as_ref().is_none_or(|wanted| *wanted == section.name || wanted == partition)
        };
        let seen = table(args, pipeline, section, (&settings, &location), &wanted, &mut report).await?;
        known |= seen || args.table.as_ref() == Some(&section.name);
    }
    if let (Some(table), false) = (&args.table, known) {
        bail!(
            "{table} is no table of the pipeline file and no detached partition of one; see lakebed reconcile --dry-run for what there is"
        );
    }
    let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(report.exit())
}

/// Whether a partition was looked at.
async fn table(
    args: &ReconcileArgs,
    pipeline: &Pipeline,
    section: &TableSection,
    (settings, location): (&Settings, &LakeLocation),
    wanted: &(dyn Fn(&TableName) -> bool + Sync),
    report: &mut Report,
) -> anyhow::Result<bool> {
    let counting = connect::control(settings).await?;
    let control = connect::control(settings).await?;
    source::prepare_session(counting.client()).await?;
    source::prepare_session(control.client()).await?;
    let publication = source::publication(control.client(), &pipeline.source.publication).await?;
    let generated_published = publication.is_some_and(|publication| publication.generated_stored);
    let facts = source::table(control.client(), &table_rules(section), generated_published).await?;
    let reconciler = Reconciler {
        counting: counting.client(),
        control: control.client(),
        archive: &pipeline.archive.schema,
        slot: &pipeline.source.slot,
        facts: &facts,
        lake: (location, section.lake_path()),
        drop: pipeline.archive.drop && !args.dry_run,
        patience: PATIENCE + 2 * pipeline.buffer.max_age,
    };
    let found = reconciler.candidates().await?;
    let mut remaining = found.candidates.clone();
    let mut seen = false;
    for one in found.candidates.iter().filter(|one| wanted(&one.table)) {
        let judged = reconciler.partition(&remaining, one).await;
        if matches!(judged.outcome, Outcome::Dropped { .. }) {
            remaining.retain(|other| other.oid != one.oid);
        }
        report.partitions.push((section.name.clone(), judged));
        seen = true;
    }
    report.left_alone.extend(found.left_alone.into_iter().filter(|left| wanted(&left.table)));
    Ok(seen)
}

impl Report {
    fn exit(&self) -> Exit {
        let any = |which: fn(&Outcome) -> bool| self.partitions.iter().any(|(_, report)| which(&report.outcome));
        if any(|outcome| matches!(outcome, Outcome::Differs { .. })) {
            Exit::Unbalanced
        } else if any(|outcome| matches!(outcome, Outcome::Failed(_))) {
            Exit::Failed
        } else {
            Exit::Done
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (_, report) in &self.partitions {
            let name = format!("{} ({})", report.table, report.span);
            let rows = report.ledger.map_or(0, |ledger| ledger.detached.rows);
            match &report.outcome {
                Outcome::Dropped { receipt } => {
                    text.push_str(&format!("{name}: {rows} rows balanced and dropped, receipt {receipt}\n"));
                }
                Outcome::Balanced => text.push_str(&format!("{name}: {rows} rows balance\n")),
                Outcome::Differs { reasons, narrowed } => {
                    for reason in reasons {
                        text.push_str(&format!("{name}: does not balance: {reason}\n"));
                    }
                    for line in narrowed.iter().flat_map(Narrowed::lines) {
                        text.push_str(&format!("{name}: {line}\n"));
                    }
                }
                Outcome::Gone => text.push_str(&format!("{name}: dropped by somebody else meanwhile\n")),
                Outcome::Failed(error) => text.push_str(&format!("{name}: not judged: {error}\n")),
            }
        }
        for left in &self.left_alone {
            text.push_str(&format!("{}: left alone: {}\n", left.table, left.reason));
        }
        if text.is_empty() {
            text.push_str("no detached partition waits\n");
        }
        text
    }

    fn to_json(&self) -> Value {
        let partition = |(table, report): &(TableName, PartitionReport)| {
            let narrowed = match &report.outcome {
                Outcome::Differs { narrowed, .. } => narrowed.as_ref().map(Narrowed::to_json),
                _ => None,
            };
            let (outcome, receipt, reasons) = match &report.outcome {
                Outcome::Dropped { receipt } => ("dropped", Some(*receipt), Vec::new()),
                Outcome::Balanced => ("balanced", None, Vec::new()),
                Outcome::Differs { reasons, .. } => ("differs", None, reasons.clone()),
                Outcome::Gone => ("gone", None, Vec::new()),
                Outcome::Failed(error) => ("failed", None, vec![error.to_string()]),
            };
            json!({
                "table": table.to_string(),
                "partition": report.table.to_string(),
                "days": report.span.to_string(),
                "outcome": outcome,
                "receipt": receipt,
                "reasons": reasons,
                "ledger": report.ledger.map(crate::reconcile::Ledger::to_json),
                "narrowed": narrowed,
            })
        };
        let left = |left: &LeftAlone| json!({ "table": left.table.to_string(), "reason": left.reason });
        json!({
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "left_alone": self.left_alone.iter().map(left).collect::<Vec<_>>(),
        })
    }
}
