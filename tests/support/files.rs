//! What lies in the folder of a Delta table beside what its log names.

use std::collections::BTreeSet;
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
    let (there, removed) = (all_files(table), named(table, "remove"));
    added(table).into_iter().filter(|name| !there.contains(name) && !removed.contains(name)).collect()
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
