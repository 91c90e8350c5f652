//! `lakebed audit`: read any days of the lake again and check them against the receipts, years after PostgreSQL dropped them.
//!
//! The receipts are the lake's own copy, so the lake proves itself. Where the server can be reached, its chain of receipts is compared, and
//! days that hold more than their receipts say are balanced against what PostgreSQL still has. Exit code 3 when something is wrong, 1
//! when something could not be looked at. With `--json`, standard output is one object:
//!
//! ```text
//! {"chain": {"receipts": n,                    in the lake
//!            "server": "the same" | "behind" | "ahead" | "other" | null,   its own chain; null: not reachable
//!            "faults": [text]},
//!  "days": [{"table": "public.security_event",
//!            "days": "2026-01-02",             or "2026-01-01 to 2026-01-31"
//!            "outcome": "good" | "differs" | "unknown",   unknown: it could not be told
//!            "receipts": [n],
//!            "expected": SIDE, "lake": SIDE | null,       SIDE: {"rows": n, "digest": text}; null: only looked for
//!            "files": n, "proved_files": n,               of which receipts give the hash
//!            "reasons": [text], "notes": [text]}]}
//! ```

use super::Exit;
use crate::base::{PartitionBy, TableName};
use crate::config::{Pipeline, TableSection};
use crate::lake::{Booked, FileFault, LakeError, PartitionReader, booked_receipts};
use crate::pipeline::Archive;
use crate::reconcile::audit::{Claim, Unit, UnitAudit, audit, units};
use crate::reconcile::{Reconciler, Span, chain};
use crate::source;
use anyhow::Context;
use chrono::{Days, NaiveDate};
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    /// Only this table of the pipeline file
    #[arg(long, value_name = "NAME")]
    table: Option<TableName>,
    /// The first day, 2026-01-02; with it, or with --to, days without receipts are looked at as well
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// The last day
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// So many days alone, chosen at random: a cheap check for every night
    #[arg(long, value_name = "NUMBER")]
    sample: Option<usize>,
    /// Do not read files: ask for existence, size and the store's checksum, as for those that lie in Glacier
    #[arg(long)]
    cold: bool,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// What is told of some days.
struct Told {
    table: TableName,
    audit: UnitAudit,
    outcome: &'static str,
    reasons: Vec<String>,
    notes: Vec<String>,
}

/// What is told of the chain.
#[derive(Default)]
struct Chain {
    receipts: usize,
    server: Option<&'static str>,
    faults: Vec<String>,
    /// Why the server could not be asked.
    unreachable: Option<String>,
}

/// Reads and compares.
pub(super) async fn run(args: &AuditArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let archive = Archive::of(pipeline)?;
    let receipts = booked_receipts(&archive.location).await.map_err(|fault| match fault {
        FileFault::Lake(error) => anyhow::Error::from(error),
        fault => anyhow::anyhow!("{fault}; the receipts are damaged: restore the file from a copy"),
    })?;
    let chain = look_at_chain(&archive, &receipts).await;
    let claims: Vec<Claim> = receipts.receipts.iter().filter_map(Claim::of).collect();
    let (mut wanted, mut told) = (Vec::new(), Vec::new());
    for section in pipeline.tables.iter().filter(|section| args.table.as_ref().is_none_or(|name| *name == section.name))
    {
        let name = section.name.to_string();
        let claims: Vec<Claim> = claims.iter().filter(|claim| claim.table == name).cloned().collect();
        match PartitionReader::open(&archive.location, section.lake_path()).await {
            Ok(reader) => {
                let units = units_of(args, &reader, claims).await?;
                wanted.extend(units.into_iter().map(|unit| (section, unit)));
            }
            Err(error @ LakeError::Missing { .. }) => told.extend(without_table(args, &section.name, claims, &error)),
            Err(error) => return Err(error.into()),
        }
    }
    told.extend(not_configured(args, pipeline, &claims));
    if let Some(number) = args.sample {
        wanted.shuffle(&mut rand::rng());
        wanted.truncate(number);
        wanted.sort_by_key(|(section, unit)| (section.name.clone(), unit.span));
    }
    for (section, unit) in &wanted {
        let reader = PartitionReader::open(&archive.location, section.lake_path()).await?;
        let audited = audit(&reader, unit, args.cold).await?;
        told.push(judged(&archive, section, audited, chain.server).await);
    }
    let text = if args.json { format!("{}\n", to_json(&chain, &told)) } else { to_text(&chain, &told) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let any = |outcome: &str| told.iter().any(|told| told.outcome == outcome);
    Ok(if !chain.faults.is_empty() || any("differs") {
        Exit::Unbalanced
    } else if any("unknown") || matches!(chain.server, Some("ahead" | "behind")) {
        Exit::Failed
    } else {
        Exit::Done
    })
}

impl AuditArgs {
    fn days(&self) -> Span {
        let (first, last) = (self.from.unwrap_or(NaiveDate::MIN), self.to.unwrap_or(NaiveDate::MAX));
        Span { lower: first, upper: last.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX) }
    }
}

/// Receipts of a table that the lake does not have at all.
fn without_table(args: &AuditArgs, table: &TableName, claims: Vec<Claim>, error: &LakeError) -> Vec<Told> {
    let units = units(claims, PartitionBy::Day).into_iter().filter(|unit| unit.span.overlaps(args.days()));
    let told = |unit: Unit| Told {
        table: table.clone(),
        audit: UnitAudit::of_nothing(&unit),
        outcome: if unit.claims.iter().all(Claim::is_of_no_row) { "good" } else { "differs" },
        reasons: vec![error.to_string()],
        notes: Vec::new(),
    };
    units.map(told).collect()
}

/// Receipts of tables that nobody asked about, because the pipeline file does not have them any more.
fn not_configured(args: &AuditArgs, pipeline: &Pipeline, claims: &[Claim]) -> Vec<Told> {
    let known: BTreeSet<String> = pipeline.tables.iter().map(|section| section.name.to_string()).collect();
    let mut others: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| args.table.is_none() && !known.contains(&claim.table)) {
        others.entry(claim.table.clone()).or_default().push(claim.clone());
    }
    let units = others.into_iter().flat_map(|(table, claims)| {
        let name = table.parse::<TableName>().unwrap_or_else(|_| TableName::new("", table.clone()));
        units(claims, PartitionBy::Day).into_iter().map(move |unit| (name.clone(), unit))
    });
    let told = |(table, unit): (TableName, Unit)| Told {
        table,
        audit: UnitAudit::of_nothing(&unit),
        outcome: "unknown",
        reasons: vec![
            "it has receipts and is not in the pipeline file, so nobody knows where its lake table is".to_owned(),
        ],
        notes: Vec::new(),
    };
    units.filter(|(_, unit)| unit.span.overlaps(args.days())).map(told).collect()
}

/// The days of a table that are asked for.
async fn units_of(args: &AuditArgs, reader: &PartitionReader, claims: Vec<Claim>) -> anyhow::Result<Vec<Unit>> {
    let mut units = units(claims, reader.partition_by());
    let asked = args.days();
    if args.from.is_some() || args.to.is_some() {
        let claimed: BTreeSet<_> = units.iter().flat_map(|unit| unit.partitions.iter().copied()).collect();
        let others = reader.partitions().await?.into_keys().filter(|partition| !claimed.contains(partition));
        units.extend(others.filter_map(Unit::without_claims));
        units.sort_by_key(|unit| unit.span);
    }
    units.retain(|unit| unit.span.overlaps(asked));
    Ok(units)
}

/// The lake's chain by itself, and against the server's.
async fn look_at_chain(archive: &Archive<'_>, booked: &Booked) -> Chain {
    let receipts = &booked.receipts;
    let mut chain = Chain { receipts: receipts.len(), ..Chain::default() };
    chain.faults = chain::faults_of_booked(booked).iter().map(|fault| format!("in the lake: {fault}")).collect();
    let (server, faults) = match servers_chain(archive).await {
        Ok(server) => server,
        Err(error) => {
            chain.unreachable = Some(format!("{error:#}"));
            return chain;
        }
    };
    chain.faults.extend(faults);
    let in_lake: Vec<(i64, &str)> = receipts.iter().map(|receipt| (receipt.sequence, receipt.hash.as_str())).collect();
    let differs = server.iter().zip(&in_lake).find(|((sequence, hash), other)| (*sequence, hash.as_str()) != **other);
    chain.server = Some(match differs {
        Some(((sequence, _), _)) => {
            chain.faults.push(format!("receipt {sequence} is another one in the lake than in PostgreSQL"));
            "other"
        }
        None if server.len() < in_lake.len() => "behind",
        None if server.len() > in_lake.len() => "ahead",
        None => "the same",
    });
    chain
}

/// Place and hash of every receipt of the server, and what is wrong with its chain.
async fn servers_chain(archive: &Archive<'_>) -> anyhow::Result<(Vec<(i64, String)>, Vec<String>)> {
    let control = crate::connect::control(&archive.settings).await?;
    source::prepare_session(control.client()).await?;
    let texts = source::receipt_texts(control.client(), &archive.pipeline.archive.schema, 0, i64::MAX).await?;
    let links = texts.iter().map(|text| (text.sequence, text.content.as_str(), text.hash.as_str()));
    let faults = chain::faults_of(links).iter().map(|fault| format!("in PostgreSQL: {fault}")).collect();
    Ok((texts.into_iter().map(|text| (text.sequence, text.hash)).collect(), faults))
}

/// What an audit means. Days that hold other rows than their receipts say may hold late ones, which PostgreSQL has: so it is asked.
async fn judged(archive: &Archive<'_>, section: &TableSection, audit: UnitAudit, chain: Option<&'static str>) -> Told {
    let (mut reasons, mut notes) = (audit.faults.clone(), audit.limits.clone());
    let mut outcome = if reasons.is_empty() { "good" } else { "differs" };
    if audit.receipts.is_empty() {
        notes.push("no receipt yet: it is balanced against PostgreSQL alone".to_owned());
    }
    if !audit.same_files && outcome == "good" {
        outcome = "unknown";
        reasons.push("its files are not those of its newest receipt, so only reading them can tell".to_owned());
    }
    let differs = audit.lake.is_some() && (audit.receipts.is_empty() || !audit.sums_agree());
    // Only what is there in excess can be PostgreSQL's, and only a server that knows of all receipts can tell.
    let may_be_live = audit.receipts.is_empty() || audit.has_more();
    if differs && may_be_live && outcome == "good" && chain == Some("behind") {
        outcome = "unknown";
        reasons.push(
            "PostgreSQL has lost receipts, so it cannot tell what is its own; run lakebed reconcile first".to_owned(),
        );
    } else if differs && may_be_live && outcome == "good" {
        match against_server(archive, section, audit.span).await {
            Ok(found) if found.is_empty() && !audit.receipts.is_empty() => {
                notes.push("it holds further rows, and PostgreSQL has them".to_owned());
            }
            Ok(found) => reasons.extend(found),
            Err(error) => {
                outcome = "unknown";
                reasons.push(format!("the receipts say {}, and the rest cannot be told: {error:#}", audit.expected));
            }
        }
        if outcome == "good" && !reasons.is_empty() {
            outcome = "differs";
        }
    } else if differs {
        let lake = audit.lake.unwrap_or_default();
        outcome = "differs";
        reasons.push(format!("the receipts say {}, the lake has {lake}", audit.expected));
    }
    Told { table: section.name.clone(), audit, outcome, reasons, notes }
}

async fn against_server(archive: &Archive<'_>, section: &TableSection, span: Span) -> anyhow::Result<Vec<String>> {
    let table = archive.table(section).await?;
    let reconciler: Reconciler<'_> = archive.reconciler(&table, section, false);
    let waiting = reconciler.candidates().await?.candidates;
    Ok(reconciler.compare(span, &waiting).await?.reasons)
}

fn to_text(chain: &Chain, told: &[Told]) -> String {
    let server = match (chain.server, &chain.unreachable) {
        (Some("the same"), _) => "PostgreSQL has the same".to_owned(),
        (Some("behind"), _) => {
            "PostgreSQL has fewer: it was restored, and the next reconcile gives them back".to_owned()
        }
        (Some("ahead"), _) => "PostgreSQL has more: the next reconcile writes them to the lake".to_owned(),
        (Some(_), _) => "PostgreSQL has others".to_owned(),
        (None, why) => format!("PostgreSQL was not asked: {}", why.as_deref().unwrap_or("no reason")),
    };
    let mut text = format!("{} receipts in the lake; {server}\n", chain.receipts);
    for fault in &chain.faults {
        text.push_str(&format!("chain: {fault}\n"));
    }
    for Told { table, audit, outcome, reasons, notes } in told {
        let rows = audit.lake.map_or_else(|| "not read".to_owned(), |lake| format!("{} rows", lake.rows));
        let files = format!("{} files, {} of them by their receipt", audit.files, audit.proved_files);
        text.push_str(&format!("{table} {}: {outcome}, {rows}, {files}\n", audit.span));
        for line in reasons.iter().chain(notes) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn to_json(chain: &Chain, told: &[Told]) -> Value {
    let day = |Told { table, audit, outcome, reasons, notes }: &Told| {
        let side = |sum: crate::reconcile::digest::RowSum| json!({ "rows": sum.rows, "digest": sum.digest() });
        json!({
            "table": table.to_string(), "days": audit.span.to_string(), "outcome": outcome, "receipts": audit.receipts,
            "expected": side(audit.expected), "lake": audit.lake.map(side), "files": audit.files,
            "proved_files": audit.proved_files, "reasons": reasons, "notes": notes,
        })
    };
    json!({
        "chain": { "receipts": chain.receipts, "server": chain.server, "faults": chain.faults },
        "days": told.iter().map(day).collect::<Vec<_>>(),
    })
}
