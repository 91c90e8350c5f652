//! What the log of a Delta table on the local disk says, entry by entry: which files went and came, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// One commit.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) written_at: SystemTime,
    /// The WAL position that it reaches; an entry that only changes the table's columns has none.
    pub(crate) reaches: Option<u64>,
    pub(crate) added: BTreeMap<String, u64>,
    pub(crate) removed: BTreeSet<String>,
    /// Rows of the files that it adds.
    pub(crate) rows: u64,
}

impl Entry {
    fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let written_at = std::fs::metadata(path).ok()?.modified().ok()?;
        let mut entry = Self { written_at, reaches: None, added: BTreeMap::new(), removed: BTreeSet::new(), rows: 0 };
        for line in text.lines() {
            entry.take(&serde_json::from_str(line).expect("an action of the log"));
        }
        Some(entry)
    }

    fn take(&mut self, action: &serde_json::Value) {
        if let Some(path) = action["add"]["path"].as_str() {
            self.added.insert(path.to_owned(), action["add"]["size"].as_u64().expect("a size"));
            let stats: serde_json::Value =
                serde_json::from_str(action["add"]["stats"].as_str().expect("statistics")).expect("statistics in JSON");
            self.rows += stats["numRecords"].as_u64().expect("a number of rows");
        }
        if let Some(path) = action["remove"]["path"].as_str() {
            self.removed.insert(path.to_owned());
        }
        // Notes about gaps and standing still have other prefixes.
        if action["txn"]["appId"].as_str().is_some_and(|app_id| app_id.starts_with("lakebed/")) {
            self.reaches = action["txn"]["version"].as_u64();
        }
    }
}

/// A table as far as its log has been read.
#[derive(Debug)]
pub(crate) struct TableLog {
    folder: PathBuf,
    next_version: u64,
    /// Files that the table consists of, and their bytes.
    pub(crate) files: BTreeMap<String, u64>,
    /// Rows of all files that were ever added. In a journal, from which nothing is removed, these are its rows.
    pub(crate) rows_added: u64,
}

impl TableLog {
    /// Nothing is read yet, and the table need not be there.
    pub(crate) fn of(folder: PathBuf) -> Self {
        Self { folder, next_version: 0, files: BTreeMap::new(), rows_added: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    /// Entries that were written since the last call.
    pub(crate) fn read_on(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next_entry() {
            entries.push(entry);
        }
        entries
    }

    /// Entries up to the one that holds what was committed behind this WAL position. `look` is called again and again meanwhile, and
    /// panics where waiting is in vain.
    pub(crate) async fn read_past(&mut self, position: u64, mut look: impl FnMut()) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            look();
            match self.next_entry() {
                Some(entry) => {
                    let is_past = entry.reaches.is_some_and(|reached| reached > position);
                    entries.push(entry);
                    if is_past {
                        return entries;
                    }
                }
                None => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    fn next_entry(&mut self) -> Option<Entry> {
        let entry = Entry::read(&self.folder.join(format!("_delta_log/{:020}.json", self.next_version)))?;
        self.next_version += 1;
        for path in &entry.removed {
            assert!(self.files.remove(path).is_some(), "{path} is removed and was not there");
        }
        self.files.extend(entry.added.clone());
        self.rows_added += entry.rows;
        Some(entry)
    }
}
