//! Where PostgreSQL has rows of a table: leaves, the default partition, detached tables, or the one plain table.

use super::SnapshotError;
use crate::base::{DaySet, Partition, PartitionBy, TableShape};
use crate::source::{self, Brief, Extent, LeafBound, Reach, SourceError, TableFacts};
use chrono::{Days, Months, NaiveDate};
use std::collections::BTreeMap;
use std::ops::Range;
use tokio_postgres::Client;

/// Somebody who locks a table is waited for this often, two seconds each.
pub(super) const LOCK_ATTEMPTS: u32 = 60;
/// How long that is.
pub(super) const LOCK_SECONDS: u64 = 120;

/// A table that was detached, and its days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Inclusive.
    pub lower: NaiveDate,
    /// Exclusive.
    pub upper: NaiveDate,
}

/// A configured table with everything that PostgreSQL has of it.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// The table as it is published.
    pub facts: TableFacts,
    /// What was detached from it and is still there. To be listed **after** the snapshot was taken that they are read in: a table that is
    /// detached between the two would be missed otherwise. One that the snapshot does not know, or knows as a leaf, does no harm.
    pub archived: Vec<Archived>,
}

impl SourceTable {
    pub(super) fn shape(&self) -> &TableShape {
        &self.facts.shape
    }
}

/// What holds of a place's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A leaf: the server lets in no other days.
    Bounded,
    /// Rows of any day, few of them.
    Default,
    /// Rows of any day.
    Plain,
    /// Rows of its days, but nothing keeps others out.
    Detached,
}

/// One relation.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) extent: Extent,
    pub(super) kind: Kind,
    pub(super) reach: Reach,
}

impl Place {
    /// The one partition of the lake that all its rows count for, where it is one.
    pub(super) fn only_partition(&self, by: PartitionBy) -> Option<Partition> {
        self.reach.only_partition(by)
    }

    /// Whether it has nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.extent.blocks == 0
    }

    /// The SQL condition that picks the rows of these days; None where all are of them.
    pub(super) fn filter(&self, shape: &TableShape, days: &DaySet) -> Option<String> {
        if days.is_whole() || self.kind == Kind::Bounded && self.is_within(shape.partition_by, days) {
            return None;
        }
        let met = days.days().filter(|day| self.reach.meets(day.first_day(), last_day(*day)));
        let parts: Vec<String> = runs(met).into_iter().map(|run| source::dated_between(shape, run)).collect();
        match parts.as_slice() {
            [] => Some("false".to_owned()),
            parts => Some(format!("({})", parts.join(" OR "))),
        }
    }

    /// Whether every day that it can have is among them.
    fn is_within(&self, by: PartitionBy, days: &DaySet) -> bool {
        let (Some(first), Some(last)) = (self.reach.first, self.reach.last) else { return false };
        let mut partition = by.partition_of(first);
        while days.contains(partition) {
            match next(partition) {
                Some(following) if following.first_day() <= last => partition = following,
                _ => return true,
            }
        }
        false
    }

    /// Whether rows of one of these days can be in it.
    #[cfg(test)]
    pub(super) fn meets(&self, days: &DaySet) -> bool {
        meets(&self.reach, days)
    }
}

/// Whether rows of one of these days can be where this reaches.
fn meets(reach: &Reach, days: &DaySet) -> bool {
    days.is_whole() || days.days().any(|day| reach.meets(day.first_day(), last_day(day)))
}

/// Consecutive partitions as ranges of days.
fn runs(partitions: impl Iterator<Item = Partition>) -> Vec<Range<NaiveDate>> {
    let mut runs: Vec<Range<NaiveDate>> = Vec::new();
    for partition in partitions {
        let first = partition.first_day();
        let behind = last_day(partition).succ_opt().unwrap_or(NaiveDate::MAX);
        match runs.last_mut() {
            Some(run) if run.end == first => run.end = behind,
            _ => runs.push(first..behind),
        }
    }
    runs
}

/// The partition behind this one.
fn next(partition: Partition) -> Option<Partition> {
    let first = match partition.by() {
        PartitionBy::Day => partition.first_day().checked_add_days(Days::new(1)),
        PartitionBy::Month => partition.first_day().checked_add_months(Months::new(1)),
    };
    first.map(|first| partition.by().partition_of(first))
}

/// The last day of a partition.
pub(super) fn last_day(partition: Partition) -> NaiveDate {
    next(partition).and_then(|next| next.first_day().pred_opt()).unwrap_or(partition.first_day())
}

/// How well a size has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// By whoever reads the rows.
    Exact,
    /// By whoever only plans: that of a table which is locked against everybody is guessed, and not waited for.
    Rough,
}

/// Everything that can have rows of these days of the table, as the session's snapshot knows it, with its size of today. No lock outlives
/// this.
pub(super) async fn places(
    client: &Client,
    table: &SourceTable,
    days: &DaySet,
    sizes: Sizes,
) -> Result<Vec<Place>, SnapshotError> {
    for _ in 0..LOCK_ATTEMPTS {
        let brief = Brief::begin(client).await?;
        let looked = look(client, table, days, sizes).await;
        match looked {
            Ok(places) => {
                brief.end(client).await?;
                return Ok(places);
            }
            // The server has waited already.
            Err(SnapshotError::Source(error)) if error.is_lock_conflict() => brief.end(client).await?,
            Err(error) => {
                brief.end(client).await.unwrap_or_else(|error| tracing::debug!(%error, "after another error"));
                return Err(error);
            }
        }
    }
    Err(SnapshotError::Locked { table: table.shape().table.clone(), seconds: LOCK_SECONDS })
}

async fn look(client: &Client, table: &SourceTable, days: &DaySet, sizes: Sizes) -> Result<Vec<Place>, SnapshotError> {
    let mut known = leaves(client, table).await?;
    for archived in &table.archived {
        known.entry(archived.oid).or_insert((Kind::Detached, Reach::between(archived.lower, archived.upper)));
    }
    known.retain(|_, (_, reach)| meets(reach, days));
    let oids: Vec<u32> = known.keys().copied().collect();
    let extents = source::extents(client, &oids, sizes == Sizes::Rough).await?;
    let present: Vec<u32> = extents.iter().map(|extent| extent.oid).collect();
    let hidden = source::hidden_by_policies(client, &present).await?;
    if !hidden.is_empty() {
        return Err(SnapshotError::RowSecurity { tables: hidden.join(", ") });
    }
    let place = |extent: Extent| {
        let (kind, reach) = known.get(&extent.oid).copied()?;
        Some(Place { extent, kind, reach })
    };
    Ok(extents.into_iter().filter_map(place).collect())
}

async fn leaves(client: &Client, table: &SourceTable) -> Result<BTreeMap<u32, (Kind, Reach)>, SnapshotError> {
    let (facts, shape) = (&table.facts, table.shape());
    if facts.partitioning.is_none() {
        return Ok(BTreeMap::from([(facts.oid, (Kind::Plain, Reach::default()))]));
    }
    let column = shape.columns.get(shape.partition_column).map(|column| column.column_type);
    let mut found = BTreeMap::new();
    for leaf in source::leaves(client, facts.oid, shape).await? {
        if leaf.foreign {
            return Err(SnapshotError::ForeignLeaf { table: shape.table.clone(), partition: leaf.table });
        }
        let reach = column.map_or_else(Reach::default, |column| leaf.bound.reach(column, shape.time_zone));
        let kind = match leaf.bound {
            LeafBound::Default => Kind::Default,
            LeafBound::Range { .. } => Kind::Bounded,
            LeafBound::Other => Kind::Plain,
        };
        found.insert(leaf.oid, (kind, reach));
    }
    Ok(found)
}

/// Whether all these relations are as they were: not rewritten, emptied, altered or dropped. `session` must not be in the snapshot.
pub(super) async fn are_untouched(session: &Client, places: &[&Place]) -> Result<bool, SourceError> {
    let oids: Vec<u32> = places.iter().map(|place| place.extent.oid).collect();
    let now: BTreeMap<u32, String> = source::signatures(session, &oids).await?.into_iter().collect();
    Ok(places.iter().all(|place| now.get(&place.extent.oid) == Some(&place.extent.signature)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::{ColumnType, SourceColumn, TableName};

    pub(in crate::snapshot) fn shape(partition_by: PartitionBy) -> TableShape {
        let column = |name: &str, type_oid, column_type| SourceColumn {
            name: name.to_owned(),
            lake_name: name.to_owned(),
            type_oid,
            type_modifier: -1,
            column_type,
            nullable: false,
        };
        TableShape {
            table: TableName::new("public", "event"),
            columns: vec![column("id", 20, ColumnType::Int8), column("at", 1114, ColumnType::Timestamp)],
            partition_column: 1,
            partition_by,
            time_zone: chrono_tz::UTC,
            key: vec![0, 1],
            identity: vec![0, 1],
            identity_is_ambiguous: false,
        }
    }

    pub(in crate::snapshot) fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    pub(in crate::snapshot) fn days(texts: &[&str]) -> DaySet {
        texts.iter().map(|text| text.parse::<Partition>().unwrap()).collect()
    }

    pub(in crate::snapshot) fn place(kind: Kind, reach: Option<(&str, &str)>, blocks: u32) -> Place {
        let reach = reach.map_or_else(Reach::default, |(lower, upper)| Reach::between(date(lower), date(upper)));
        let bytes = u64::from(blocks) * 8192;
        Place { extent: Extent { oid: 1, blocks, bytes, signature: String::new() }, kind, reach }
    }

    #[test]
    fn rows_are_picked_only_where_others_can_be() {
        let shape = shape(PartitionBy::Day);
        let wanted = days(&["2026-01-02", "2026-01-03", "2026-01-05"]);
        let day = |kind| place(kind, Some(("2026-01-02", "2026-01-03")), 1);
        assert_eq!(day(Kind::Bounded).filter(&shape, &wanted), None);
        let one = "(\"at\" >= '2026-01-02'::timestamp AND \"at\" < '2026-01-03'::timestamp)";
        assert_eq!(day(Kind::Detached).filter(&shape, &wanted).as_deref(), Some(one));
        assert_eq!(day(Kind::Detached).filter(&shape, &DaySet::whole()), None);
        let all = place(Kind::Default, None, 1).filter(&shape, &wanted).unwrap();
        assert_eq!(
            all,
            "(\"at\" >= '2026-01-02'::timestamp AND \"at\" < '2026-01-04'::timestamp OR \"at\" >= '2026-01-05'::timestamp AND \"at\" < '2026-01-06'::timestamp)"
        );
        let month = place(Kind::Bounded, Some(("2026-01-01", "2026-02-01")), 1);
        assert!(month.filter(&shape, &wanted).is_some() && month.meets(&wanted));
        assert!(!place(Kind::Bounded, Some(("2026-01-04", "2026-01-05")), 1).meets(&wanted));
    }

    #[test]
    fn a_month_of_days_is_wanted_whole_or_in_parts() {
        let shape = shape(PartitionBy::Month);
        let day = place(Kind::Bounded, Some(("2026-01-31", "2026-02-01")), 1);
        assert_eq!(day.filter(&shape, &days(&["2026-01"])), None);
        let both = place(Kind::Bounded, Some(("2026-01-15", "2026-02-15")), 1);
        assert_eq!(both.filter(&shape, &days(&["2026-01", "2026-02"])), None);
        assert!(both.filter(&shape, &days(&["2026-02"])).unwrap().contains("'2026-03-01'"));
        assert_eq!(last_day("2026-02".parse().unwrap()), date("2026-02-28"));
    }
}
