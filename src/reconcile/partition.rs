//! One detached partition from the freeze to the drop, or to what is told instead.

use super::candidate::{Candidate, Candidates};
use super::cut::{Cut, Subject};
use super::digest::{self, DigestColumn};
use super::judge::Verdict;
use super::ledger::Ledger;
use super::narrow::{Narrowed, narrow};
use super::span::Span;
use super::{ReconcileError, candidate};
use crate::base::{Classify, RetryClass, TableName};
use crate::lake::{LakeLocation, PartitionReader};
use crate::ops::fail_points;
use crate::source::{self, Receipt, TableFacts};
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;

/// A pipeline's way to balance the detached partitions of one table.
pub struct Reconciler<'a> {
    /// For the transactions that lock, count and drop.
    pub counting: &'a Client,
    /// For everything beside them.
    pub control: &'a Client,
    /// The schema of detached tables.
    pub archive: &'a str,
    /// The slot that `run` follows.
    pub slot: &'a str,
    /// The table.
    pub facts: &'a TableFacts,
    /// Where the lake is, and the table's folder there.
    pub lake: (&'a LakeLocation, &'a str),
    /// [`source::columns_signature`] of the table when its facts were read.
    pub columns_signature: &'a str,
    /// Whether what balances is dropped.
    pub drop: bool,
    /// How long the lake may take to have everything.
    pub patience: Duration,
}

/// What became of a partition.
#[derive(Debug)]
pub enum Outcome {
    /// It balanced, its receipt has this number, and it is dropped.
    Dropped {
        /// In the chain.
        receipt: i64,
    },
    /// It balances, and was not to be dropped.
    Balanced,
    /// It does not balance; one line for each thing that is wrong.
    Differs {
        /// What is wrong.
        reasons: Vec<String>,
        /// In which hours, keys and columns; None where the rows balance and something else is wrong.
        narrowed: Option<Narrowed>,
        /// The receipt by which the table was dropped before.
        came_back: Option<i64>,
    },
    /// Somebody else has dropped it meanwhile, as another reconciler does.
    Gone,
    /// No verdict could be had.
    Failed(ReconcileError),
}

/// One partition's report.
#[derive(Debug)]
pub struct PartitionReport {
    /// The detached table.
    pub table: TableName,
    /// Its days.
    pub span: Span,
    /// Both sides, where they were looked at.
    pub ledger: Option<Ledger>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Reconciler<'_> {
    /// What the archive schema holds of the table.
    ///
    /// # Errors
    /// As any statement.
    pub async fn candidates(&self) -> Result<Candidates, ReconcileError> {
        Ok(candidate::find(self.control, self.archive, self.facts).await?)
    }

    /// Balances one of the candidates, and drops it where it balances and may be dropped.
    pub async fn partition(&self, all: &[Candidate], one: &Candidate) -> PartitionReport {
        let mut ledger = None;
        let outcome = match self.frozen(all, one, &mut ledger).await {
            Ok(outcome) => outcome,
            Err(error) => self.failed(one, error).await,
        };
        if !matches!(outcome, Outcome::Dropped { .. })
            && let Err(error) = source::thaw(self.counting).await
        {
            tracing::debug!(%error, "the session that counts is lost, and its lock with it");
        }
        let table = one.table.clone();
        if let Err(error) = self.keep(one, ledger.as_ref(), &outcome).await {
            tracing::warn!(table = %table, %error, "what was found of a partition could not be kept in the database");
        }
        PartitionReport { table, span: one.span, ledger, outcome }
    }

    async fn failed(&self, one: &Candidate, error: ReconcileError) -> Outcome {
        match source::relation_exists(self.control, one.oid).await {
            Ok(false) => Outcome::Gone,
            Ok(true) | Err(_) => Outcome::Failed(error),
        }
    }

    async fn frozen(
        &self,
        all: &[Candidate],
        one: &Candidate,
        shown: &mut Option<Ledger>,
    ) -> Result<Outcome, ReconcileError> {
        let (location, path) = self.lake;
        let reader = PartitionReader::open(location, path).await?;
        source::freeze(self.counting, self.archive, one.oid, self.facts.oid).await?;
        let frozen_at = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        self.moves().await?;
        self.is_copied(one.span).await?;
        // Columns that came since are in no digest. Behind the lock the table's own cannot change any more.
        if source::columns_signature(self.control, self.facts.oid).await? != self.columns_signature {
            return Err(ReconcileError::Reshaped { table: self.facts.shape.table.clone() });
        }
        let columns: Arc<[DigestColumn]> = digest::columns_of(&self.facts.shape).into();
        let subject = Subject {
            shape: &self.facts.shape,
            root_oid: self.facts.oid,
            columns: Arc::clone(&columns),
            span: one.span,
            detached: Some(one),
            others: all.iter().filter(|other| other.oid != one.oid).collect(),
        };
        let receipts = self.receipts_of(one.span).await?;
        if let Some(receipt) = receipts.iter().find(|receipt| receipt.relation_oid == Some(one.oid)) {
            return Ok(came_back(one, receipt.sequence, Vec::new(), None));
        }
        let Verdict { cut, reasons } = self.judge(&reader, &subject, shown).await?;
        if reasons.is_empty() {
            // Whoever marked the days meanwhile is about to read them here.
            self.is_copied(one.span).await?;
            return self.give_up(one, &cut, &columns, &frozen_at).await;
        }
        let narrowed = Box::pin(narrow(&self.sides(&reader), &subject, &cut)).await;
        Ok(match same_as_dropped(&receipts, &cut.ledger) {
            Some(sequence) => came_back(one, sequence, reasons, narrowed),
            None => Outcome::Differs { reasons, narrowed, came_back: None },
        })
    }

    /// The receipt and the drop, in the transaction that has counted.
    async fn give_up(
        &self,
        one: &Candidate,
        cut: &Cut,
        columns: &[DigestColumn],
        frozen_at: &str,
    ) -> Result<Outcome, ReconcileError> {
        if !self.drop {
            return Ok(Outcome::Balanced);
        }
        let receipt = json!({
            "table_name": self.facts.shape.table.to_string(),
            "partition_name": one.table.to_string(),
            "lower_bound": one.span.lower.to_string(),
            "upper_bound": one.span.upper.to_string(),
            "rows": cut.ledger.detached.rows,
            "digest": cut.ledger.detached.digest(),
            "digest_rule": digest::RULE,
            "columns": columns,
            "lake_rows": cut.ledger.lake.rows,
            "lake_digest": cut.ledger.lake.digest(),
            "delta_version": cut.version,
            "lsn": cut.lsn.to_string(),
            "frozen_at": frozen_at,
            "ledger": cut.ledger.to_json(),
            "files": cut.files,
            "lakebed_version": env!("CARGO_PKG_VERSION"),
        });
        let root = self.facts.oid;
        fail_points::reach("reconcile.before_receipt");
        let receipt = source::drop_frozen(self.counting, self.archive, one.oid, root, &receipt).await?;
        fail_points::reach("reconcile.after_receipt");
        source::commit_drop(self.counting).await?;
        fail_points::reach("reconcile.after_drop");
        Ok(Outcome::Dropped { receipt })
    }

    /// A difference becomes a finding, and a balance settles what was found before.
    async fn keep(&self, one: &Candidate, ledger: Option<&Ledger>, outcome: &Outcome) -> Result<(), ReconcileError> {
        let table = &self.facts.shape.table;
        match outcome {
            Outcome::Differs { reasons, narrowed, came_back } => {
                let sides = ledger.map_or(Value::Null, |ledger| ledger.to_json());
                let narrowed = narrowed.as_ref().map(Narrowed::to_json);
                let evidence =
                    json!({ "days": one.span.to_string(), "reasons": reasons, "ledger": sides, "narrowed": narrowed });
                let (name, reason) = (one.table.to_string(), reasons.join("; "));
                let names = (table, name.as_str());
                let kind = if came_back.is_some() { "came_back" } else { "unbalanced" };
                source::note_finding(self.control, self.archive, kind, names, &reason, &evidence).await?;
            }
            Outcome::Dropped { .. } | Outcome::Balanced => {
                for name in [one.table.to_string(), one.span.to_string()] {
                    source::resolve_findings(self.control, self.archive, table, &name).await?;
                }
            }
            // What no other night mends is for a person.
            Outcome::Failed(error) if error.retry_class() == RetryClass::Definite => {
                let (name, evidence) = (one.table.to_string(), json!({ "days": one.span.to_string() }));
                let (names, reason) = ((table, name.as_str()), error.to_string());
                source::note_finding(self.control, self.archive, "not_judged", names, &reason, &evidence).await?;
            }
            Outcome::Gone | Outcome::Failed(_) => {}
        }
        Ok(())
    }
}

/// The receipt whose rows the table has, where that is all that is wrong: it was dropped, and is here again.
fn same_as_dropped(receipts: &[Receipt], ledger: &Ledger) -> Option<i64> {
    let Ledger { detached, live, lake, receipts: dropped } = *ledger;
    let is_all = detached.rows > 0 && lake == dropped + live;
    let same = receipts.iter().find(|receipt| receipt.rows == detached.rows && receipt.digest == detached.digest());
    same.filter(|_| is_all).map(|receipt| receipt.sequence)
}

/// A database that was restored from an older copy has tables that are dropped already. That is for a person to say: nothing here can tell
/// it from somebody's mistake.
fn came_back(one: &Candidate, sequence: i64, mut reasons: Vec<String>, narrowed: Option<Narrowed>) -> Outcome {
    let reason = format!(
        "{} was dropped before, by receipt {sequence}, and is here again, as after a restore of the database; its owner may drop it by hand",
        one.table
    );
    reasons.insert(0, reason);
    Outcome::Differs { reasons, narrowed, came_back: Some(sequence) }
}
