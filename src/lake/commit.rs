//! One commit: the log entry is put if absent, and the log is believed over the store's answer (L2).

use super::actions::{self, Line, PROCESS};
use super::error::LakeError;
use super::progress::Durable;
use super::staged::StagedFile;
use super::table::{LakeTable, position_of};
use crate::base::{Classify, Lsn, RetryClass};
use chrono::Utc;
use deltalake::logstore::CommitOrBytes;
use uuid::Uuid;

/// Attempts of one commit, whether other writers took the version or the store failed.
const ATTEMPTS_MAX: usize = 10;

/// Attempts after a store's transient failure that left the log as it was.
const FAILURES_MAX: usize = 3;

/// Entries of other writers that one look at the log reads at most.
const FOREIGN_ENTRIES_MAX: u64 = 1_000;

/// What the log says after an attempt that was not answered with success.
enum Standing {
    /// The attempt landed after all.
    Landed(u64),
    /// Other writers appended; this is the next free version.
    Moved(u64),
    /// Nothing happened.
    Unchanged,
}

impl LakeTable {
    /// Commits `files` and the position `at` in one log entry (L1). No files is a commit too: progress without rows.
    ///
    /// An append by another program is passed over: nothing that it did can make this one wrong. After any error, and after
    /// a dropped call, the outcome is unknown to this handle: it refuses to commit, and opening the table again tells.
    ///
    /// # Errors
    /// [`LakeError::AlreadyRecorded`] when `at` is not above [`Self::recorded`]; [`LakeError::SecondWriter`] and
    /// [`LakeError::ForeignProgress`] when another lakebed writes; schema or protocol errors when somebody changed the table.
    pub async fn commit(&mut self, files: &[StagedFile], at: Lsn) -> Result<Durable, LakeError> {
        let location = self.log.location.clone();
        if self.in_doubt {
            return Err(LakeError::InDoubt { location });
        }
        if at <= self.recorded {
            return Err(LakeError::AlreadyRecorded { location, recorded: self.recorded, at });
        }
        if let Some(file) = files.iter().find(|file| file.location != location) {
            let reason = format!("a file was written for {}", file.location);
            return Err(LakeError::Batch { location, reason });
        }
        let position = position_of(at)?;
        self.in_doubt = true;
        let version = self.put_entry(files, position).await?;
        self.stands_on_its_predecessor(version).await?;
        self.in_doubt = false;
        self.version = version;
        self.recorded = at;
        self.checkpoints.after_commit(version, &self.log_store);
        Ok(Durable::new(at))
    }

    /// A store makes folders as they are needed, so an entry can be written where the table no longer is: nobody could read it,
    /// and acknowledging its rows would lose them. The entry before it must be there, unless a checkpoint stands for it.
    async fn stands_on_its_predecessor(&self, version: u64) -> Result<(), LakeError> {
        let before = version.saturating_sub(1);
        if self.log.has_entry(before).await? || self.log.last_checkpoint().await?.is_some_and(|found| found >= before) {
            return Ok(());
        }
        Err(self.log.broken(format!(
            "the entry of version {before} disappeared while the pipeline ran; nothing was acknowledged since"
        )))
    }

    /// Writes the entry at the first free version after the known one; returns that version.
    async fn put_entry(&self, files: &[StagedFile], position: i64) -> Result<u64, LakeError> {
        let commit = Uuid::new_v4();
        let app_id = self.rules.progress.app_id();
        let mut version = self.version + 1;
        let mut failures = 0;
        for _ in 0..ATTEMPTS_MAX {
            let now = Utc::now().timestamp_millis();
            let entry = actions::append(&self.schema, files, &app_id, position, commit, now);
            let entry = CommitOrBytes::LogBytes(entry.into());
            let Err(error) = self.log_store.write_commit_entry(version, entry, commit).await else {
                return Ok(version);
            };
            match self.look_again(version, commit).await? {
                Standing::Landed(landed) => return Ok(landed),
                Standing::Moved(next) => version = next,
                Standing::Unchanged => {
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
    async fn look_again(&self, version: u64, commit: Uuid) -> Result<Standing, LakeError> {
        for next in version..version.saturating_add(FOREIGN_ENTRIES_MAX) {
            let Some(lines) = self.log.entry(next).await? else {
                return Ok(if next == version { Standing::Unchanged } else { Standing::Moved(next) });
            };
            if is_commit(&lines, commit) {
                return Ok(Standing::Landed(next));
            }
            self.check_foreign(next, &lines)?;
        }
        Err(LakeError::Contended { location: self.log.location.clone() })
    }

    /// Whether another commit leaves the table one that this pipeline may append to.
    fn check_foreign(&self, version: u64, lines: &[Line]) -> Result<(), LakeError> {
        let location = || self.log.location.clone();
        let app_id = self.rules.progress.app_id();
        for line in lines {
            if let Some(protocol) = &line.protocol {
                self.rules.check_protocol(protocol)?;
            }
            if let Some(metadata) = &line.meta_data {
                self.rules.check_metadata(metadata)?;
            }
            let Some(transaction) = &line.txn else { continue };
            if transaction.app_id == app_id {
                // An attempt of this process that a former handle gave up on may land at any time.
                let process = PROCESS.to_string();
                let own = lines.iter().filter_map(|line| line.commit_info.as_ref());
                let own = own.filter_map(|info| info.lakebed_process.as_ref()).any(|found| *found == process);
                let error = if own {
                    LakeError::InDoubt { location: location() }
                } else {
                    LakeError::SecondWriter { location: location(), version }
                };
                return Err(error);
            }
            self.rules.check_application(&transaction.app_id)?;
        }
        Ok(())
    }
}

fn is_commit(lines: &[Line], commit: Uuid) -> bool {
    let commit = commit.to_string();
    lines.iter().filter_map(|line| line.commit_info.as_ref()).any(|info| info.txn_id.as_ref() == Some(&commit))
}
