//! `lakebed erase`: take a subject's rows out of days that PostgreSQL has dropped, from the table and from its journal of old images.
//!
//! Without `--execute` it only says what would go. Days that PostgreSQL still has rows of are left to the database: delete there, and the
//! lake follows. Needs `lakebed run` beside it, because each day is balanced before it is touched. Exit code 3 when days were kept that
//! hold such rows. With `--json`, standard output is one object:
//!
//! ```text
//! {"executed": bool,
//!  "erased_rows": n,
//!  "days": [{"days": "2026-01-02",
//!            "rows": n, "old_images": n,      that the condition names
//!            "kept_because": text | null}],   why they were not, or would not be, erased
//!  "out_of_reach": [text]}                    copies that no program of this kind can find
//! ```

use super::Exit;
use crate::base::TableName;
use crate::config::Pipeline;
use crate::lake::{Eraser, Patience, booked_receipts};
use crate::pipeline::Archive;
use crate::query::RowCondition;
use crate::reconcile::{ErasedUnit, ErasureRequest, Span};
use anyhow::{Context, anyhow, bail};
use chrono::{Days, NaiveDate};
use serde_json::json;
use std::io::Write;
use std::sync::Arc;

/// What no rewriting reaches.
const OUT_OF_REACH: [&str; 4] = [
    "older versions of objects, where the bucket keeps them: expire noncurrent versions by a life-cycle rule",
    "objects under Object Lock or a legal hold: nobody may delete them before it ends, and the erasure fails there",
    "files in Glacier or Deep Archive: restore the days first, else the erasure fails there",
    "copies that others made: backups, replicas, results of queries, files that a VACUUM has still to remove",
];

/// Arguments of `erase`.
#[derive(Debug, clap::Args)]
pub(super) struct EraseArgs {
    /// The table of the pipeline file
    #[arg(long, value_name = "NAME")]
    table: TableName,
    /// Which rows, as behind WHERE: "user_id = '…'"
    #[arg(long = "where", value_name = "CONDITION")]
    condition: String,
    /// Why, for the receipt; it must not name the subject
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The first day, 2026-01-02
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// The last day
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// Erase, and do not only say what would go; there is no way back
    #[arg(long)]
    execute: bool,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Rehearses, and erases if that is asked for.
pub(super) async fn run(args: &EraseArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let archive = Archive::of(pipeline)?;
    let section = pipeline.tables.iter().find(|section| section.name == args.table);
    let Some(section) = section else { bail!("{} is no table of the pipeline file", args.table) };
    if args.reason.trim().is_empty() {
        bail!("--reason must say why: an auditor will ask for it");
    }
    let table = archive.table(section).await?;
    let reconciler = archive.reconciler(&table, section, args.execute);
    reconciler.finish_erasures().await?;
    archive.receipts().await?;
    let receipts =
        booked_receipts(&archive.location).await.map_err(|fault| anyhow!("{fault}; the receipts are damaged"))?;
    let schema = Eraser::open(&archive.location, section.lake_path(), Patience::none()).await?.schema();
    let condition = RowCondition::parse(&args.condition, schema).context("--where")?;
    let last = args.to.and_then(|day| day.checked_add_days(Days::new(1))).unwrap_or(NaiveDate::MAX);
    let request = ErasureRequest {
        condition: Arc::new(move |_, rows| condition.of(rows)),
        days: Span { lower: args.from.unwrap_or(NaiveDate::MIN), upper: last },
        reason: args.reason.clone(),
    };
    let found = reconciler.rehearse_erasure(&request, &receipts.receipts).await?;
    let days: Vec<Span> = found.iter().filter(|unit| unit.kept_because.is_none()).map(|unit| unit.span).collect();
    let mut erased_rows = 0;
    if args.execute && !days.is_empty() {
        erased_rows = reconciler.erase(&request, &days).await?;
        archive.receipts().await?;
    }
    let text = if args.json { to_json(args, &found, erased_rows) } else { to_text(args, &found, erased_rows) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let is_kept = found.iter().any(|unit| unit.kept_because.is_some());
    Ok(if is_kept { Exit::Unbalanced } else { Exit::Done })
}

fn to_text(args: &EraseArgs, found: &[ErasedUnit], erased_rows: u64) -> String {
    let mut text = String::new();
    for unit in found {
        let (span, rows, old_images) = (unit.span, unit.rows, unit.old_images);
        let what = match (&unit.kept_because, args.execute) {
            (Some(reason), _) => format!("kept: {reason}"),
            (None, true) => "erased".to_owned(),
            (None, false) => "would be erased".to_owned(),
        };
        text.push_str(&format!("{} {span}: {rows} rows, {old_images} old images: {what}\n", args.table));
    }
    text.push_str(&match (found.is_empty(), args.execute) {
        (true, _) => "no such row is in days that were dropped\n".to_owned(),
        (false, true) => format!("{erased_rows} rows erased from the table, and what the journal had of them\n"),
        (false, false) => "nothing was changed: --execute erases\n".to_owned(),
    });
    for line in OUT_OF_REACH {
        text.push_str(&format!("out of reach: {line}\n"));
    }
    text
}

fn to_json(args: &EraseArgs, found: &[ErasedUnit], erased_rows: u64) -> String {
    let days = found.iter().map(|unit| {
        json!({
            "days": unit.span.to_string(), "rows": unit.rows, "old_images": unit.old_images,
            "kept_because": unit.kept_because,
        })
    });
    let days: Vec<_> = days.collect();
    let report = json!({
        "executed": args.execute, "erased_rows": erased_rows, "days": days, "out_of_reach": OUT_OF_REACH,
    });
    format!("{report}\n")
}
