//! What lies in the folder of a Delta table beside what its log names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Data files that no log entry adds, notes about staged files that nobody has dealt with, and changes that were put aside: relative to the
/// table's folder.
pub fn left_behind(table: &Path) -> Vec<String> {
    let added = added(table);
    let is_data = |name: &&String| name.ends_with(".parquet") && !name.starts_with('_') && !added.contains(*name);
    let is_note =
        |name: &&String| ["_lakebed/staging/", "_lakebed/changes/"].iter().any(|folder| name.starts_with(folder));
    all_files(table).iter().filter(|name| is_data(name) || is_note(name)).cloned().collect()
}

/// Data files that the table consists of but that are not there.
pub fn missing(table: &Path) -> Vec<String> {
    let there = all_files(table);
    current(table).into_iter().filter(|name| !there.contains(name)).collect()
}

/// Data files that the table consists of, relative to its folder.
pub fn current(table: &Path) -> BTreeSet<String> {
    let removed = named(table, "remove");
    added(table).into_iter().filter(|name| !removed.contains(name)).collect()
}

/// The same by day, `2026-01-02`.
pub fn by_day(table: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut days: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in current(table) {
        let parts = file.split('/').filter_map(|part| part.split_once('='));
        let day = parts.map(|(_, value)| value).collect::<Vec<_>>().join("-");
        days.entry(day).or_default().insert(file);
    }
    days
}

fn added(table: &Path) -> BTreeSet<String> {
    named(table, "add")
}

/// Files that an action of the log names. lakebed never uses a name twice.
pub fn named(table: &Path, action: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut found = BTreeSet::new();
    for entry in entries {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(path) = line[action]["path"].as_str() {
                found.insert(percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned());
            }
        }
    }
    found
}

fn all_files(table: &Path) -> BTreeSet<String> {
    let (mut folders, mut found) = (vec![table.to_owned()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(table).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}
