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
//!  "left_alone": [{"table": text, "reason": text}],   look like partitions, and are not touched
//!  "names_taken": [{"table": text,                    its name is attached again: late rows came for its days
//!                   "renamed": text | null,           what it is called now
//!                   "reason": text}],
//!  "failures": [{"what": text, "reason": text}],      a table, or the receipts, could not be looked at
//!  "receipts_restored": n}                            this database had lost them; the lake had them
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
use crate::config::Pipeline;
use crate::pipeline::{Archive, PipelineError, Round};
use crate::reconcile::{LeftAlone, NameTaken, Narrowed, Outcome, PartitionReport};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::Write;

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

/// Balances what waits.
pub(super) async fn run(args: &ReconcileArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let archive = Archive::of(pipeline)?;
    let asked = args.table.as_ref();
    let wanted =
        |root: &TableName, partition: &TableName| asked.is_none_or(|wanted| wanted == root || wanted == partition);
    let round = archive.round(&wanted, pipeline.archive.drop && !args.dry_run).await;
    let is_known = |table: &TableName| {
        pipeline.tables.iter().any(|section| section.name == *table)
            || !round.partitions.is_empty()
            || !round.left_alone.is_empty()
            || !round.failures.is_empty()
    };
    if let Some(table) = asked.filter(|table| !is_known(table)) {
        bail!(
            "{table} is no table of the pipeline file and no detached partition of one; see lakebed reconcile --dry-run for what there is"
        );
    }
    let report = Report(round);
    let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(report.exit())
}

/// Everything that is to be told.
struct Report(Round);

impl Report {
    fn exit(&self) -> Exit {
        let any = |which: fn(&Outcome) -> bool| self.0.partitions.iter().any(|(_, report)| which(&report.outcome));
        let is_left = self.0.left_alone.iter().any(|left| left.is_partition);
        if is_left || any(|outcome| matches!(outcome, Outcome::Differs { .. })) {
            Exit::Unbalanced
        } else if any(|outcome| matches!(outcome, Outcome::Failed(_))) || !self.0.failures.is_empty() {
            Exit::Failed
        } else {
            Exit::Done
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for taken in &self.0.names_taken {
            text.push_str(&format!("{}: {}\n", taken.table, taken.reason));
        }
        for (_, report) in &self.0.partitions {
            let name = format!("{} ({})", report.table, report.span);
            let rows = report.ledger.map_or(0, |ledger| ledger.detached.rows);
            match &report.outcome {
                Outcome::Dropped { receipt } => {
                    text.push_str(&format!("{name}: {rows} rows balanced and dropped, receipt {receipt}\n"));
                }
                Outcome::Balanced => text.push_str(&format!("{name}: {rows} rows balance\n")),
                Outcome::Differs { reasons, narrowed, .. } => {
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
        for left in &self.0.left_alone {
            text.push_str(&format!("{}: left alone: {}\n", left.table, left.reason));
        }
        for (what, error) in &self.0.failures {
            text.push_str(&format!("{what}: not looked at: {error}\n"));
        }
        if self.0.receipts.restored > 0 {
            let restored = self.0.receipts.restored;
            text.push_str(&format!("receipts: this database had lost {restored}, as one that was restored has; they are back, from the lake\n"));
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
        let taken = |taken: &NameTaken| {
            let renamed = taken.renamed.as_ref().map(ToString::to_string);
            json!({ "table": taken.table.to_string(), "renamed": renamed, "reason": taken.reason })
        };
        let failure = |(what, error): &(String, PipelineError)| json!({ "what": what, "reason": error.to_string() });
        let left = |left: &LeftAlone| json!({ "table": left.table.to_string(), "reason": left.reason });
        json!({
            "partitions": self.0.partitions.iter().map(partition).collect::<Vec<_>>(),
            "left_alone": self.0.left_alone.iter().map(left).collect::<Vec<_>>(),
            "names_taken": self.0.names_taken.iter().map(taken).collect::<Vec<_>>(),
            "failures": self.0.failures.iter().map(failure).collect::<Vec<_>>(),
            "receipts_restored": self.0.receipts.restored,
        })
    }
}
