//! Of which days PostgreSQL has rows.

use super::SnapshotError;
use super::places::{LOCK_ATTEMPTS, LOCK_SECONDS, Place, Sizes, SourceTable, are_untouched, places};
use super::work::Blocks;
use crate::base::{ColumnType, DaySet, Partition, TableShape};
use crate::connect::{Settings, control};
use crate::source::{self, Brief, SourceError, days_in, quote_identifier};
use chrono::{NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Blocks that are looked through in one statement, under one lock: 128 MiB.
const BLOCKS_AT_ONCE: u32 = 16_384;
/// How often a table that is moved meanwhile is looked for again.
const ATTEMPTS: u32 = 10;
/// How the server prints the beginning of an hour.
const HOUR: &str = "%Y-%m-%d %H:%M:%S";

/// The days (months) that PostgreSQL has rows of, anywhere, and about how many bytes of each. Runs inside whatever transaction the session
/// is in, and sees what that sees; no lock outlives the statement that needed it. A day whose rows were all deleted may be among them.
/// A session of its own, from `settings`, sees afterwards whether a table was rewritten under an older snapshot, which finds nothing in it then.
///
/// # Errors
/// [`SnapshotError::ChangedWhileListed`]; [`SnapshotError::Undatable`] for rows that no day can hold, [`SnapshotError::ForeignLeaf`], [`SnapshotError::RowSecurity`],
/// [`SnapshotError::Locked`]; as any statement.
pub async fn days_with_rows(
    client: &Client,
    settings: &Settings,
    table: &SourceTable,
) -> Result<BTreeMap<Partition, u64>, SnapshotError> {
    let mut found = BTreeMap::new();
    let places = places(client, table, &DaySet::whole(), Sizes::Rough).await?;
    for place in &places {
        if place.is_empty() {
            continue;
        }
        let days = match place.only_partition(table.shape().partition_by) {
            Some(day) => BTreeSet::from([day]),
            None => looked_through(client, table.shape(), place).await?,
        };
        let each = place.extent.bytes / u64::try_from(days.len().max(1)).unwrap_or(u64::MAX);
        for day in days {
            *found.entry(day).or_default() += each;
        }
    }
    let by = table.shape().partition_by;
    let read: Vec<&Place> = places.iter().filter(|place| place.only_partition(by).is_none()).collect();
    let watching = control(settings).await?;
    source::prepare_copying(watching.client()).await?;
    match are_untouched(watching.client(), &read).await? {
        true => Ok(found),
        false => Err(SnapshotError::ChangedWhileListed { table: table.shape().table.clone() }),
    }
}

/// The days of a place whose bounds do not tell, piece by piece.
async fn looked_through(
    client: &Client,
    shape: &TableShape,
    place: &Place,
) -> Result<BTreeSet<Partition>, SnapshotError> {
    let mut days = BTreeSet::new();
    for blocks in Blocks::cut(place.extent.blocks, BLOCKS_AT_ONCE) {
        for text in texts(client, shape, place.extent.oid, blocks).await? {
            let of = days_of(shape, &text).ok_or_else(|| undatable(shape))?;
            days.extend(of.into_iter().map(|date| shape.partition_by.partition_of(date)));
        }
    }
    Ok(days)
}

/// The texts of what some blocks' rows are dated by.
async fn texts(
    client: &Client,
    shape: &TableShape,
    relation: u32,
    blocks: Blocks,
) -> Result<Vec<String>, SnapshotError> {
    let (mut locked, mut moved) = (0, 0);
    loop {
        let brief = Brief::begin(client).await?;
        let asked = ask(client, shape, relation, blocks).await;
        let ended = brief.end(client).await;
        match asked {
            Ok(Some(texts)) => {
                ended?;
                return Ok(texts);
            }
            Ok(None) => moved += 1,
            Err(error) if error.is_undefined_object() => moved += 1,
            Err(error) if error.is_lock_conflict() => locked += 1,
            Err(error) => return Err(error.into()),
        }
        ended?;
        let table = shape.table.clone();
        if locked >= LOCK_ATTEMPTS {
            return Err(SnapshotError::Locked { table, seconds: LOCK_SECONDS });
        }
        if moved >= ATTEMPTS {
            return Err(SnapshotError::ChangedWhileListed { table });
        }
    }
}

/// None where the relation is not to be found under its name.
async fn ask(
    client: &Client,
    shape: &TableShape,
    relation: u32,
    blocks: Blocks,
) -> Result<Option<Vec<String>>, SourceError> {
    let Some(name) = source::begin_range(client, relation).await? else { return Ok(None) };
    let texts = days_in(client, &expression(shape), &name, &blocks.condition()).await?;
    Ok(source::still_named(client, relation, &name).await?.then_some(texts))
}

fn undatable(shape: &TableShape) -> SnapshotError {
    let column = shape.columns.get(shape.partition_column).map(|column| column.name.clone());
    SnapshotError::Undatable { table: shape.table.clone(), column: column.unwrap_or_default() }
}

/// What tells a row's day: the date, or the hour in UTC, for the lake's own zone rules say where in it a day ends.
fn expression(shape: &TableShape) -> String {
    let Some(column) = shape.columns.get(shape.partition_column) else { return "NULL".to_owned() };
    let name = quote_identifier(&column.name);
    match column.column_type {
        ColumnType::TimestampTz => format!("date_trunc('hour', {name} AT TIME ZONE 'UTC')"),
        _ => format!("{name}::pg_catalog.date"),
    }
}

/// The day that a text of [`expression`] names, or the two that an hour may belong to; None for one that the lake cannot have.
fn days_of(shape: &TableShape, text: &str) -> Option<Vec<NaiveDate>> {
    let column = shape.columns.get(shape.partition_column)?;
    match column.column_type {
        ColumnType::TimestampTz => days_of_hour(text, shape.time_zone),
        _ => Some(vec![date(text)?]),
    }
}

fn days_of_hour(text: &str, zone: Tz) -> Option<Vec<NaiveDate>> {
    date(text.get(..10)?)?;
    let first = NaiveDateTime::parse_from_str(text, HOUR).ok()?;
    let local = |moment: NaiveDateTime| zone.from_utc_datetime(&moment).date_naive();
    let last = first.checked_add_signed(TimeDelta::hours(1) - TimeDelta::microseconds(1))?;
    Some(if local(first) == local(last) { vec![local(first)] } else { vec![local(first), local(last)] })
}

/// Exactly `YYYY-MM-DD`: no infinity, no BC, no fifth digit.
fn date(text: &str) -> Option<NaiveDate> {
    text.parse::<Partition>().ok().map(Partition::first_day).filter(|_| text.len() == 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionBy;
    use crate::snapshot::places::tests::shape;

    #[test]
    fn a_date_is_one_that_the_lake_can_have() {
        let shape = shape(PartitionBy::Day);
        assert_eq!(days_of(&shape, "2026-01-02"), Some(vec!["2026-01-02".parse().unwrap()]));
        for text in ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "2026-01", ""] {
            assert_eq!(days_of(&shape, text), None, "{text}");
        }
    }

    #[test]
    fn an_hour_is_of_the_days_of_the_lakes_zone() {
        let of = |text, zone| {
            days_of_hour(text, zone).map(|days| days.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("2026-01-01 15:00:00", Tz::Asia__Tokyo).as_deref(), Some("2026-01-02"));
        assert_eq!(of("2026-01-01 14:00:00", Tz::Asia__Tokyo).as_deref(), Some("2026-01-01"));
        assert_eq!(of("2026-01-01 18:00:00", Tz::Asia__Kolkata).as_deref(), Some("2026-01-01 2026-01-02"));
        assert_eq!(of("0044-03-15 10:00:00 BC", Tz::UTC), None);
        assert_eq!(of("infinity", Tz::UTC), None);
        assert_eq!(of("監査監査監査", Tz::UTC), None);
    }
}
