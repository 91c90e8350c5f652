//! Which tables of the archive schema may be looked at at all (R5).

use super::span::{Interval, Span};
use crate::base::TableName;
use crate::source::{self, DetachedTable, PartmanFacts, SourceError, TableFacts};
use tokio_postgres::Client;

/// A detached partition of a configured table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// Its days.
    pub span: Span,
}

/// A table of the schema that is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its name.
    pub table: TableName,
    /// Why, for a report.
    pub reason: String,
    /// Its name says a day (month) all the same: it waits for somebody to act.
    pub is_partition: bool,
    /// Those days, as far as its name says any.
    pub span: Option<Span>,
}

/// What the archive schema holds of one configured table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Oldest first.
    pub candidates: Vec<Candidate>,
    /// Tables that look like its partitions, and are not taken for it.
    pub left_alone: Vec<LeftAlone>,
}

/// Looks for the detached partitions of a configured table: the very same columns, and a name that says a day (month), as partman's
/// configuration has it. A name alone decides nothing.
///
/// # Errors
/// As any statement.
pub async fn find(client: &Client, archive: &str, facts: &TableFacts) -> Result<Candidates, SourceError> {
    let interval = interval(client, facts).await?;
    let mut found = Candidates::default();
    let rival = source::rival_root(client, &facts.shape.table, archive).await?;
    for DetachedTable { oid, table, same_columns } in source::detached_tables(client, facts.oid, archive).await? {
        if let Some(rival) = &rival {
            let reason = format!("it may be of {rival} as well, whose partitions are moved here under the same names");
            let span = interval.as_ref().ok().and_then(|interval| Span::of_name(&table.name, *interval));
            found.left_alone.push(LeftAlone { table, reason, is_partition: true, span });
            continue;
        }
        match &interval {
            Err(reason) => {
                let reason = reason.clone();
                found.left_alone.push(LeftAlone { table, reason, is_partition: false, span: None });
            }
            Ok(interval) => match Span::of_name(&table.name, *interval) {
                Some(span) if same_columns => found.candidates.push(Candidate { oid, table, span }),
                Some(span) => {
                    let reason = format!(
                        "its columns are not those of {} any more, so it cannot be balanced; give it the same by hand",
                        facts.shape.table
                    );
                    found.left_alone.push(LeftAlone { table, reason, is_partition: true, span: Some(span) });
                }
                None => {
                    let reason = format!("its name says no {} of {}", word(*interval), facts.shape.table);
                    found.left_alone.push(LeftAlone { table, reason, is_partition: false, span: None });
                }
            },
        }
    }
    found.candidates.sort_by(|one, other| (one.span, &one.table.name).cmp(&(other.span, &other.table.name)));
    Ok(found)
}

fn word(interval: Interval) -> &'static str {
    match interval {
        Interval::Day => "day",
        Interval::Month => "month",
    }
}

/// How long the table's partitions are, by partman's word; where it does not manage the table, by the leaves that are attached.
async fn interval(client: &Client, facts: &TableFacts) -> Result<Result<Interval, String>, SourceError> {
    let table = &facts.shape.table;
    let config = source::partman(client, table).await?.and_then(|PartmanFacts { config, .. }| config);
    if let Some(config) = config {
        let refused = || {
            format!("partman makes partitions of {} for {table}, and only days and months are known", config.interval)
        };
        return Ok(Interval::of_partman(&config.interval).ok_or_else(refused));
    }
    let shape = &facts.shape;
    let Some(column) = shape.columns.get(shape.partition_column) else {
        return Ok(Err(format!("{table} has no column that dates its rows")));
    };
    let leaves = source::leaves(client, facts.oid, shape).await?;
    let days = leaves.iter().filter_map(|leaf| leaf.bound.days(column.column_type, shape.time_zone));
    let lengths: Vec<i64> = days.map(|days| (days.end - days.start).num_days()).collect();
    Ok(match lengths.as_slice() {
        [] => Err(format!("partman does not manage {table}, and it has no partition left to tell their length by")),
        days if days.iter().all(|days| *days == 1) => Ok(Interval::Day),
        days if days.iter().all(|days| (28..=31).contains(days)) => Ok(Interval::Month),
        _ => Err(format!("the partitions of {table} are neither days nor months")),
    })
}
