//! Versions of rows that were in the lake: each that went away has left its old image in the journal, exactly once.

use super::lane::{TABLES, journal_of};
use super::{DATABASE, Lane, Site, Value, delta_rows};
use std::collections::BTreeMap;

/// What tells the versions of a row apart, in each of the tables.
const LABELS: [&str; 2] = ["description", "status"];

type Version = [String; 3];

/// The versions that the source had at a time when lake and source were equal.
#[derive(Default)]
pub struct Versions([Vec<Version>; 2]);

impl Versions {
    pub async fn of(site: &Site) -> Self {
        let mut versions = Self::default();
        for ((table, label), versions) in TABLES.iter().zip(LABELS).zip(&mut versions.0) {
            let micros = "(extract(epoch FROM created_at) * 1000000)::int8::text";
            let sql = format!("SELECT id::text, {micros}, {label} FROM public.{table}");
            let rows = site.cluster.query(DATABASE, &sql).await.unwrap();
            *versions = rows.into_iter().map(|row| <[_; 3]>::try_from(row).unwrap().map(Option::unwrap)).collect();
        }
        versions
    }

    /// Panics unless what has gone since then is in the journals once, and nothing is there twice. The lake is a local folder.
    pub async fn assert_journalled(&self, site: &Site, lane: &Lane) {
        let now = Self::of(site).await;
        for (place, (table, label)) in TABLES.iter().zip(LABELS).enumerate() {
            let columns = [("id", Value::Text), ("created_at", Value::Micros), (label, Value::Text)];
            let mut journal: BTreeMap<Version, u32> = BTreeMap::new();
            for row in delta_rows(&lane.table_folder(&journal_of(table)), &columns).await {
                let version = <[_; 3]>::try_from(row).unwrap().map(Option::unwrap_or_default);
                *journal.entry(version).or_default() += 1;
            }
            let now: std::collections::BTreeSet<&Version> = now.0[place].iter().collect();
            let gone: Vec<&Version> = self.0[place].iter().filter(|version| !now.contains(version)).collect();
            let missing: Vec<_> = gone.iter().filter(|version| !journal.contains_key(**version)).collect();
            let first = missing.first();
            assert!(missing.is_empty(), "{} of {} old images of {table}, {first:?} is one", missing.len(), gone.len());
            let twice: Vec<_> = journal.iter().filter(|(_, count)| **count > 1).collect();
            assert!(twice.is_empty(), "{} old images of {table} are there twice, {:?}", twice.len(), twice.first());
        }
    }
}
