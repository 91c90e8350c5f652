//! One commit: the log entry is put if absent, and the log is believed over the store's answer (L2).

use super::actions::{self, Line, PROCESS};
use super::active::ActiveFile;
use super::error::{LakeError, one_line_without_queries};
use super::progress::Durable;
use super::rules::Fit;
use super::staged::StagedFile;
use super::table::{LakeTable, position_of};
use super::uncopied;
use crate::base::{Classify, DaySet, Lsn, RetryClass};
use crate::ops::fail_points;
use bytes::Bytes;
use chrono::Utc;
use deltalake::logstore::CommitOrBytes;
use std::borrow::Borrow;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Attempts of one commit, whether other writers took the version or the store failed.
const ATTEMPTS_MAX: usize = 10;

/// Attempts after a store's transient failure that left the log as it was.
const FAILURES_MAX: usize = 3;

/// Entries of other writers that one look at the log reads at most.
pub(super) const FOREIGN_ENTRIES_MAX: u64 = 1_000;

/// Characters of another program's name for its operation that reach our log.
const OPERATION_CHARS_MAX: usize = 60;

/// What the log says after an attempt that was not answered with success.
enum Outcome {
    /// The attempt landed after all.
    Landed(u64),
    /// Other writers appended; this is the next free version.
    Moved(u64),
    /// Nothing happened.
    Unchanged,
}

/// An entry to be written, at whatever version is free.
pub(super) struct Entry {
    bytes: Bytes,
    /// Tells this very attempt from every other one.
    commit: Uuid,
    /// Fail points before and after the store's answer.
    points: [&'static str; 2],
    /// Files that must still be active: those that the entry removes.
    removes: BTreeSet<String>,
    /// The entry has a metaData of its own, made from the one that is known.
    alters: bool,
    /// The entry stands on the whole table as it is known.
    alone: bool,
    /// The application id under which nobody else may have committed anything.
    sole: Option<&'static str>,
}

impl Entry {
    pub(super) fn new(make: impl FnOnce(Uuid, i64) -> Vec<u8>, points: [&'static str; 2]) -> Self {
        let commit = Uuid::new_v4();
        let bytes = make(commit, Utc::now().timestamp_millis()).into();
        Self { bytes, commit, points, removes: BTreeSet::new(), alters: false, alone: false, sole: None }
    }

    /// Refused as [`LakeError::FilesMoved`] once somebody else has removed one of these files (L2).
    pub(super) fn removing(self, paths: impl Iterator<Item = String>) -> Self {
        Self { removes: paths.collect(), ..self }
    }

    /// Refused as [`LakeError::FilesMoved`] once somebody else has altered the table.
    pub(super) fn altering(self) -> Self {
        Self { alters: true, ..self }
    }

    /// Refused as [`LakeError::FilesMoved`] once somebody else has written anything.
    pub(super) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Refused as [`LakeError::FilesMoved`] once somebody else has committed anything under this application id.
    pub(super) fn sole(self, app_id: &'static str) -> Self {
        Self { sole: Some(app_id), ..self }
    }

    fn stands_on(&self, lines: &[Line]) -> bool {
        let mut removed = lines.iter().filter_map(|line| line.remove.as_ref());
        !removed.any(|removal| self.removes.contains(&removal.path))
    }

    fn is_outdated_by(&self, lines: &[Line]) -> bool {
        let mut transactions = lines.iter().filter_map(|line| line.txn.as_ref());
        self.alone
            || self.alters && lines.iter().any(|line| line.meta_data.is_some())
            || self.sole.is_some_and(|app_id| transactions.any(|transaction| transaction.app_id == app_id))
    }
}

impl LakeTable {
    /// Commits `files` and the position `at` in one log entry (L1). No files is a commit too: progress without rows.
    ///
    /// An append by another program is passed over: nothing that it did can make this one wrong. After any error, and after
    /// a dropped call, the outcome is unknown to this handle: it refuses to commit, and [`Self::land`] or opening the table
    /// again tells.
    ///
    /// # Errors
    /// [`LakeError::AlreadyRecorded`] when `at` is not above [`Self::recorded`]; [`LakeError::Parked`];
    /// [`LakeError::SecondWriter`], [`LakeError::Overtaken`] and [`LakeError::ForeignProgress`] when another lakebed writes or
    /// wrote; schema or protocol errors when somebody changed the table.
    pub async fn commit(&mut self, files: &[StagedFile], at: Lsn) -> Result<Durable, LakeError> {
        self.may_commit(files, at)?;
        let position = position_of(at)?;
        let app_id = self.rules.progress.app_id();
        let entry = |commit, now| actions::append(&self.schema, files, &app_id, position, commit, now);
        let entry = Entry::new(entry, self.points);
        let version = self.put_entry(&entry).await?;
        self.recorded = at;
        self.checkpoints.after_commit(version, &self.log_store);
        Ok(Durable::new(at))
    }

    /// Looks for entries of others behind the known version, so that a plan for a rewrite stands on the newest one.
    pub(super) async fn catch_up(&mut self) -> Result<(), LakeError> {
        for next in self.version + 1..self.version.saturating_add(FOREIGN_ENTRIES_MAX) {
            let Some(lines) = self.log.entry(next).await? else {
                return if self.log.is_expired(self.version).await? {
                    Err(self.log.expired(self.version))
                } else {
                    Ok(())
                };
            };
            self.check_foreign(next, &lines)?;
            self.version = next;
        }
        Err(LakeError::Contended { location: self.log.location.clone() })
    }

    /// Commits a rewrite: `removed` files go, `added` ones come, the days of `copied` are copied, and the position is `at`, in one entry (L1). It is never tried again
    /// blindly (L2): once another program has removed one of the files, the rewrite has to be planned anew.
    ///
    /// # Errors
    /// [`LakeError::FilesMoved`], and everything of [`Self::commit`].
    pub(super) async fn commit_rewrite(
        &mut self,
        removed: &[ActiveFile],
        added: &[&StagedFile],
        copied: &DaySet,
        at: Lsn,
    ) -> Result<Durable, LakeError> {
        self.may_commit(added, at)?;
        let position = position_of(at)?;
        let app_id = self.rules.progress.app_id();
        let marks = uncopied::unmarks(&app_id, &self.uncopied, copied);
        let entry = |commit, now| {
            let mut lines = match removed {
                [] => actions::append(&self.schema, added, &app_id, position, commit, now),
                _ => actions::rewrite(removed, added, &app_id, position, commit, now),
            };
            actions::push_marks(&mut lines, &marks, now);
            lines
        };
        let entry = Entry::new(entry, ["apply.before_log_write", "apply.after_log_write"]);
        let entry = entry.removing(removed.iter().map(|file| file.path.clone()));
        let version = self.put_entry(&entry).await?;
        self.recorded = at;
        self.uncopied.subtract(copied);
        self.checkpoints.after_commit(version, &self.log_store);
        Ok(Durable::new(at))
    }

    fn may_commit(&self, files: &[impl Borrow<StagedFile>], at: Lsn) -> Result<(), LakeError> {
        let location = self.log.location.clone();
        if let Some(since) = self.parked {
            return Err(LakeError::Parked { location, since });
        }
        if !self.rules.checked {
            return Err(LakeError::Batch { location, reason: "the table was opened to be parked".to_owned() });
        }
        if self.in_doubt {
            return Err(LakeError::InDoubt { location });
        }
        if let Some(pending) = &self.pending {
            return Err(self.rules.differs(pending));
        }
        if at <= self.recorded {
            return Err(LakeError::AlreadyRecorded { location, recorded: self.recorded, at });
        }
        match files.iter().map(Borrow::borrow).find(|file: &&StagedFile| file.location != location) {
            Some(file) => {
                Err(LakeError::Batch { location, reason: format!("a file was written for {}", file.location) })
            }
            None => Ok(()),
        }
    }

    /// Writes the entry at the first free version, which becomes the table's and is returned. From the first attempt until then
    /// the handle is in doubt.
    pub(super) async fn put_entry(&mut self, entry: &Entry) -> Result<u64, LakeError> {
        self.in_doubt = true;
        let version = self.put_at_free_version(entry).await?;
        self.stands_on_its_predecessor(version).await?;
        self.in_doubt = false;
        self.fenced = true;
        self.version = version;
        Ok(version)
    }

    async fn put_at_free_version(&mut self, entry: &Entry) -> Result<u64, LakeError> {
        let mut version = self.version + 1;
        let mut failures = 0;
        for _ in 0..ATTEMPTS_MAX {
            let bytes = CommitOrBytes::LogBytes(entry.bytes.clone());
            fail_points::reach(entry.points[0]);
            let written = self.log_store.write_commit_entry(version, bytes, entry.commit).await;
            fail_points::reach(entry.points[1]);
            let Err(error) = written else { return Ok(version) };
            match self.look_again(version, entry).await? {
                Outcome::Landed(landed) => return Ok(landed),
                Outcome::Moved(next) => version = next,
                Outcome::Unchanged => {
                    failures += 1;
                    let error = LakeError::transaction(&self.log.location, &error);
                    if failures == FAILURES_MAX || error.retry_class() == RetryClass::Definite {
                        return Err(error);
                    }
                }
            }
        }
        Err(LakeError::Contended { location: self.log.location.clone() })
    }

    /// Reads every entry from `version` on. An attempt that timed out may still land: the same identifier is then found at
    /// the next look, because this version is tried again before any later one.
    async fn look_again(&mut self, version: u64, entry: &Entry) -> Result<Outcome, LakeError> {
        for next in version..version.saturating_add(FOREIGN_ENTRIES_MAX) {
            let Some(lines) = self.log.entry(next).await? else {
                return Ok(if next == version { Outcome::Unchanged } else { Outcome::Moved(next) });
            };
            if is_commit(&lines, entry.commit) {
                // On a local disk the name may be all that is there yet.
                self.log.settle().await?;
                return Ok(Outcome::Landed(next));
            }
            // What it means for this pipeline is looked at when the table is read again.
            let outdated = entry.is_outdated_by(&lines);
            if !outdated {
                self.check_foreign(next, &lines)?;
            }
            if outdated || !entry.stands_on(&lines) {
                return Err(LakeError::FilesMoved { location: self.log.location.clone(), version: next });
            }
        }
        Err(LakeError::Contended { location: self.log.location.clone() })
    }

    /// Whether another commit leaves the table one that this pipeline may append to.
    fn check_foreign(&mut self, version: u64, lines: &[Line]) -> Result<(), LakeError> {
        self.warn_of_removals(version, lines);
        let (app_id, parked_app_id) = (self.rules.progress.app_id(), self.rules.progress.parked_app_id());
        for line in lines {
            if let Some(protocol) = &line.protocol {
                self.rules.check_protocol(protocol)?;
            }
            if let Some(metadata) = &line.meta_data {
                let Fit { schema, pending } = self.rules.fit(metadata)?;
                // While the table is about to change, that is no news.
                if let (Some(pending), None) = (&pending, &self.pending) {
                    return Err(self.rules.differs(pending));
                }
                (self.schema, self.pending) = (schema, pending);
                self.metadata = metadata.clone();
            }
            // Who feeds the table, and how far it is, is nothing to who only works on its files.
            let Some(transaction) = line.txn.as_ref().filter(|_| !self.rules.maintains) else { continue };
            uncopied::note(&mut self.uncopied, &app_id, &transaction.app_id, transaction.version);
            if transaction.app_id == app_id {
                self.check_process(version, lines)?;
                // An attempt of this process that a former handle gave up on may land at any time.
                return Err(LakeError::InDoubt { location: self.log.location.clone() });
            }
            if transaction.app_id == parked_app_id
                && let Some(since) = self.rules.parked_since(transaction.version)
                && self.rules.checked
            {
                return Err(LakeError::Parked { location: self.log.location.clone(), since });
            }
            self.rules.check_application(&transaction.app_id)?;
        }
        Ok(())
    }

    /// Whether an entry with this pipeline's progress is this process's. Before this handle's first own entry it may be what a
    /// dead process left on its way to the store; after it, whoever commits has seen that entry and goes on all the same.
    pub(super) fn check_process(&self, version: u64, lines: &[Line]) -> Result<(), LakeError> {
        let process = PROCESS.to_string();
        let infos = lines.iter().filter_map(|line| line.commit_info.as_ref());
        let mut processes = infos.filter_map(|info| info.lakebed_process.as_ref());
        let location = self.log.location.clone();
        match processes.any(|found| *found == process) {
            true => Ok(()),
            false if self.fenced => Err(LakeError::SecondWriter { location, version }),
            false => Err(LakeError::Overtaken { location, version }),
        }
    }

    /// Rows that another program removed are its own affair, but the table's days cannot balance with the source any more.
    pub(super) fn warn_of_removals(&mut self, version: u64, lines: &[Line]) {
        if version <= self.looked_at {
            return;
        }
        self.looked_at = version;
        let removed =
            lines.iter().filter(|line| line.remove.as_ref().is_some_and(|removal| removal.data_change)).count();
        let info = lines.iter().find_map(|line| line.commit_info.as_ref());
        if removed == 0 || info.is_some_and(|info| info.lakebed_process.is_some()) {
            return;
        }
        let operation = info.and_then(|info| info.operation.as_deref()).unwrap_or("unknown");
        let operation: String = one_line_without_queries(operation).chars().take(OPERATION_CHARS_MAX).collect();
        let location = &self.log.location;
        tracing::warn!(
            location,
            version,
            operation,
            files = removed,
            "another program removed rows; the days of this table cannot balance with the source"
        );
    }
}

fn is_commit(lines: &[Line], commit: Uuid) -> bool {
    let commit = commit.to_string();
    lines.iter().filter_map(|line| line.commit_info.as_ref()).any(|info| info.txn_id.as_ref() == Some(&commit))
}
