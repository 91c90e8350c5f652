//! PostgreSQL's side: statements of the session that counts, behind the lock where there is one, over the same relations and with the same hashes as the cut's.

use super::compare::{Hash, KeyedRow};
use super::details::{Detail, Details, Extremes};
use super::hours::{OTHER_DAYS, Sums};
use super::{HOURS_SEARCHED, Plan, ROWS_SEARCHED, hexadecimal};
use crate::reconcile::ReconcileError;
use crate::reconcile::cut::{Sides, Subject};
use crate::reconcile::digest::{self, RowSum};
use crate::source::{self, SourceError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Of a statement, so that a ROLLBACK behind one that is given up does not wait for ever.
const STATEMENT_TIMEOUT: &str = "300s";
const DOING: &str = "looking for the rows that do not balance";

pub(super) struct SourceSide<'a> {
    /// Who asks, and about what.
    pub(super) sides: &'a Sides<'a>,
    pub(super) subject: &'a Subject<'a>,
    /// What stands behind FROM.
    pub(super) relations: Vec<String>,
    pub(super) plan: Arc<Plan>,
}

impl SourceSide<'_> {
    async fn ask<T>(&self, asked: impl Future<Output = Result<T, SourceError>>) -> Result<T, ReconcileError> {
        let pins = format!("{}; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'", digest::PINS);
        self.sides.ask(self.subject, &pins, asked).await
    }

    pub(super) async fn hours(&self) -> Result<Sums, ReconcileError> {
        let sql = digest::grouped_digest_query(&self.plan.columns, &self.relations, &self.plan.hours.sql());
        let asked = source::labelled_sums(self.sides.counting, DOING, &sql);
        let sums = self.ask(asked).await?.into_iter();
        let sum = |(hour, rows, lanes): (String, i64, [i128; 2])| {
            (hour.parse().unwrap_or(OTHER_DAYS), RowSum::from_signed(rows, lanes))
        };
        Ok(sums.map(sum).collect())
    }

    /// Those of these hours.
    pub(super) async fn rows(&self, hours: &BTreeSet<i64>) -> Result<Vec<KeyedRow>, ReconcileError> {
        let selected = format!("{} AS key, {} AS hash", self.key_hash(), short(&digest::hash(&self.plan.columns)));
        let rows = digest::from_each(&self.chosen(&self.of_hours(hours)), &selected);
        // As many as were counted; rows may have come since.
        let most = i64::try_from(HOURS_SEARCHED).unwrap_or(1).saturating_mul(ROWS_SEARCHED);
        let sql = format!("SELECT key, hash FROM ({rows}) AS part LIMIT {most}");
        let asked = source::keyed_hashes(self.sides.counting, DOING, &sql);
        let rows = self.ask(asked).await?;
        Ok(rows.into_iter().map(|[key, row]| KeyedRow { key, row }).collect())
    }

    /// Those of these keys in these hours.
    pub(super) async fn details(
        &self,
        hours: &BTreeSet<i64>,
        keys: &BTreeSet<Hash>,
    ) -> Result<Details, ReconcileError> {
        if keys.is_empty() {
            return Ok(Details::new());
        }
        let columns = self.plan.columns.iter().enumerate();
        let hashes = columns.map(|(place, column)| {
            let hash = digest::hexadecimal(&digest::hash(std::slice::from_ref(column)));
            (
                format!("{hash} AS hash{place}"),
                format!("min(hash{place} COLLATE \"C\"), max(hash{place} COLLATE \"C\")"),
            )
        });
        let (hashes, extremes): (Vec<String>, Vec<String>) = hashes.unzip();
        let message = digest::message(self.plan.identity());
        let selected = format!("{} AS key, {message} AS message, {}", self.key_hash(), hashes.join(", "));
        let keys: Vec<String> = keys.iter().map(|key| format!("decode('{}', 'hex')", hexadecimal(key))).collect();
        let condition = format!("{} AND {} IN ({})", self.of_hours(hours), self.key_hash(), keys.join(", "));
        let rows = digest::from_each(&self.chosen(&condition), &selected);
        let sql = format!(
            "SELECT key, (array_agg(message))[1] AS message, ARRAY[{}]::pg_catalog.text[] AS columns FROM ({rows}) AS part GROUP BY key",
            extremes.join(", ")
        );
        let asked = source::key_details(self.sides.counting, DOING, &sql);
        let details = self.ask(asked).await?;
        Ok(details.into_iter().filter_map(detail).collect())
    }

    fn key_hash(&self) -> String {
        short(&digest::hash(self.plan.identity()))
    }

    fn of_hours(&self, hours: &BTreeSet<i64>) -> String {
        let hours: Vec<String> = hours.iter().map(ToString::to_string).collect();
        format!("{} IN ({})", self.plan.hours.sql(), hours.join(", "))
    }

    fn chosen(&self, condition: &str) -> Vec<String> {
        let chosen = |relation: &String| format!("(SELECT * FROM {relation} WHERE {condition}) AS chosen");
        self.relations.iter().map(chosen).collect()
    }
}

/// As many bytes of a hash as [`tyalias@Hash`] has.
fn short(hash: &str) -> String {
    format!("substr({hash}, 1, {})", size_of::<Hash>())
}

fn detail(detail: source::KeyDetail) -> Option<(Hash, Detail)> {
    let pairs = detail.columns.chunks_exact(2);
    let columns = pairs.filter_map(|pair| match pair {
        [least, greatest] => Some(Extremes { least: least.clone(), greatest: greatest.clone() }),
        _ => None,
    });
    let key = Hash::try_from(detail.key.as_slice()).ok()?;
    Some((key, Detail { columns: columns.collect(), message: detail.message }))
}
