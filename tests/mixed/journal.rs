//! What the journal of old images has to hold, and what it holds.

use super::model::{Committed, Operation};
use super::row::{Image, KINDS};
use crate::support::{Value, delta_rows};
use lakebed::base::Lsn;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// An old image: the transaction that ended it and how, and what it was.
type Entry = (u32, &'static str, Vec<Option<String>>);

/// The entries of one table's journal that were judged already.
#[derive(Default)]
pub struct Judged(BTreeMap<Entry, u32>);

/// Where the transactions of the stretch that is judged may lie.
pub struct Stretch<'a> {
    pub transactions: &'a [Committed],
    pub after: Lsn,
    pub until: Lsn,
    /// When each of them committed, in microseconds since 1970.
    pub times: &'a BTreeMap<u32, i64>,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// Entries that must be there, and further ones that may be: versions that came and went within the stretch, which were in the lake only
/// if a flush was made between.
fn expected(table: usize, transactions: &[Committed]) -> (BTreeSet<Entry>, BTreeSet<Entry>) {
    let (mut required, mut permitted) = (BTreeSet::new(), BTreeSet::new());
    let mut born: HashSet<Image> = HashSet::new();
    for Committed { xid, changes, born: after } in transactions {
        for change in changes.iter().filter(|change| change.table == table && !change.is_move) {
            let entry = (*xid, change.operation.name(), KINDS[table].shown(&change.before));
            let set = if born.contains(&change.before) { &mut permitted } else { &mut required };
            set.insert(entry);
        }
        born.extend(after.iter().filter(|(of, _)| *of == table).map(|(_, image)| *image));
    }
    (required, permitted)
}

impl Judged {
    /// Reads the journal beside a table and compares it with what the transactions since the last time did.
    pub async fn judge(&mut self, lake: &Path, table: usize, stretch: &Stretch<'_>) -> Result<(), String> {
        let kind = &KINDS[table];
        let own = ["lakebed_xid", "lakebed_operation", "lakebed_commit_lsn"].map(|name| (name, Value::Text));
        let mut columns = vec![("lakebed_commit_time", Value::Micros)];
        columns.extend(own);
        columns.extend(kind.shown_columns());
        let rows = delta_rows(&lake.join(format!("{}__changes", kind.table)), &columns).await;
        let mut found: BTreeMap<Entry, u32> = BTreeMap::new();
        let mut positions: BTreeMap<u32, (Lsn, i64)> = BTreeMap::new();
        for mut row in rows {
            let image = row.split_off(4);
            let text = |column: usize| row[column].clone().unwrap_or_default();
            let xid: u32 = text(1).parse().map_err(|_| format!("an entry without xid: {row:?}"))?;
            let operation = ["update", "delete"].into_iter().find(|name| *name == text(2));
            let operation =
                operation.ok_or_else(|| format!("an entry of transaction {xid} has operation {}", text(2)))?;
            let position: (Lsn, i64) = (text(3).parse().unwrap(), text(0).parse().unwrap());
            if *positions.entry(xid).or_insert(position) != position {
                return Err(format!("the entries of transaction {xid} have several positions or times"));
            }
            *found.entry((xid, operation, image)).or_default() += 1;
        }
        check_positions(stretch, &positions)?;
        self.compare(found, expected(table, stretch.transactions)).map_err(|text| format!("{}: {text}", kind.table))
    }

    fn compare(
        &mut self,
        found: BTreeMap<Entry, u32>,
        (required, permitted): (BTreeSet<Entry>, BTreeSet<Entry>),
    ) -> Result<(), String> {
        if let Some((entry, _)) = self.0.iter().find(|(entry, count)| found.get(entry) != Some(count)) {
            return Err(format!("the entry {entry:?} was there and is not any more, or twice"));
        }
        if let Some(missing) = required.iter().find(|entry| !found.contains_key(entry)) {
            return Err(format!("{} entries are required, this one is missing: {missing:?}", required.len()));
        }
        for (entry, count) in &found {
            let of_the_row = |other: &&Entry| other.2[0] == entry.2[0];
            let known = self.0.contains_key(entry) || required.contains(entry) || permitted.contains(entry);
            if *count != 1 || !known {
                let why = if known { "once is right" } else { "nothing of the kind happened" };
                let alike: Vec<&Entry> = required.iter().chain(&permitted).filter(of_the_row).collect();
                return Err(format!(
                    "the entry {entry:?} is there {count} times; {why}, expected of the row: {alike:?}"
                ));
            }
        }
        self.0 = found;
        Ok(())
    }
}

/// The transactions of a stretch lie behind one another, within it, and each has the time of its commit.
fn check_positions(stretch: &Stretch<'_>, positions: &BTreeMap<u32, (Lsn, i64)>) -> Result<(), String> {
    let mut last = stretch.after;
    for Committed { xid, .. } in stretch.transactions {
        let Some((lsn, micros)) = positions.get(xid) else { continue };
        if *lsn < last || *lsn > stretch.until {
            return Err(format!("transaction {xid} is at {lsn}, expected between {last} and {}", stretch.until));
        }
        if stretch.times.get(xid) != Some(micros) {
            return Err(format!(
                "transaction {xid} committed at {:?}, the journal says {micros}",
                stretch.times.get(xid)
            ));
        }
        last = *lsn;
    }
    Ok(())
}
