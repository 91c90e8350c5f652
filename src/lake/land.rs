//! Landing: a commit that outlives the store's failures. The log says what happened, and is read again after every one (L2).

use super::actions;
use super::commit::{Entry, FOREIGN_ENTRIES_MAX};
use super::error::LakeError;
use super::patience::{Patience, Waiting};
use super::progress::Durable;
use super::rules::{Fit, Standing};
use super::staged::StagedFile;
use super::table::{LakeTable, position_of};
use crate::base::Lsn;

impl LakeTable {
    /// [`Self::commit`], waiting out transient errors: after each, the log is read again, and only what it does not hold is
    /// committed again. It also settles what an earlier call left in doubt.
    ///
    /// Cancel-safe in this sense: after a dropped call the next one learns what the dropped one did.
    ///
    /// # Errors
    /// Definite ones as [`Self::commit`]; a transient one when nobody waits any more. [`LakeError::Overtaken`] when the log has
    /// moved to another position than `at`: the rows of `files` may be there, so the stream must start again from
    /// what a fresh handle says is recorded.
    pub async fn land(&mut self, files: &[StagedFile], at: Lsn, patience: &Patience) -> Result<Durable, LakeError> {
        let before = self.recorded;
        let mut waiting = patience.begin();
        let durable = loop {
            let error = match self.commit(files, at).await {
                Ok(durable) => break durable,
                Err(error) => error,
            };
            self.settle(&mut waiting, error).await?;
            if self.recorded == at {
                break Durable::new(at);
            }
            if self.recorded != before {
                return Err(LakeError::Overtaken { location: self.log.location.clone(), version: self.version });
            }
        };
        waiting.worked(&self.log.location);
        Ok(durable)
    }

    /// Commits files that the recorded position has nothing to do with, which stays where it is. `token` is their own application id:
    /// when the log holds it already, nothing happens. Returns whether they were committed.
    ///
    /// # Errors
    /// As [`Self::land`].
    pub(super) async fn land_once(
        &mut self,
        files: &[StagedFile],
        (token, position): (&str, Lsn),
        patience: &Patience,
    ) -> Result<bool, LakeError> {
        let position = position_of(position)?;
        let entry = |commit, now| actions::append(&self.schema, files, token, position, commit, now);
        let entry = Entry::new(entry, ["lake.before_log_write", "lake.after_log_write"]);
        let mut waiting = patience.begin();
        while !self.holds(token, &mut waiting).await? {
            match self.put_entry(&entry).await {
                Ok(version) => {
                    self.checkpoints.after_commit(version, &self.log_store);
                    waiting.worked(&self.log.location);
                    return Ok(true);
                }
                Err(error) => self.settle(&mut waiting, error).await?,
            }
        }
        Ok(false)
    }

    /// Whether something was ever committed under an application id.
    pub(super) async fn holds(&self, token: &str, waiting: &mut Waiting) -> Result<bool, LakeError> {
        loop {
            match self.log.read().await {
                Ok(state) => return Ok(state.is_some_and(|state| state.transactions.contains_key(token))),
                Err(error) => waiting.wait_out(error).await?,
            }
        }
    }

    /// Parks the table: it stands still since `since`, or since its recorded position where that is later. The commit carries no
    /// file, and the recorded position stays. Parking a parked table changes nothing.
    ///
    /// # Errors
    /// As [`Self::land`], the schema aside. After an error the handle takes no rows, as if it were parked.
    pub async fn park(&mut self, since: Lsn, patience: &Patience) -> Result<(), LakeError> {
        // What stands in the table's way must not stand in this one's.
        self.rules.checked = false;
        let mut waiting = patience.begin();
        while self.parked.is_none() {
            let parked = match self.in_doubt {
                true => Err(LakeError::InDoubt { location: self.log.location.clone() }),
                false => self.put_parking(since).await,
            };
            if let Err(error) = parked {
                self.settle(&mut waiting, error).await?;
            }
        }
        waiting.worked(&self.log.location);
        Ok(())
    }

    async fn put_parking(&mut self, since: Lsn) -> Result<(), LakeError> {
        // Version 0 would say that the table is not parked.
        let since = since.max(self.recorded).max(Lsn(1));
        let position = position_of(since)?;
        let app_id = self.rules.progress.parked_app_id();
        let entry = |commit, now| actions::parking(&app_id, position, commit, now);
        let entry = Entry::new(entry, ["lake.before_park", "lake.after_park"]);
        let version = self.put_entry(&entry).await?;
        self.parked = Some(since);
        self.checkpoints.after_commit(version, &self.log_store);
        Ok(())
    }

    /// After an error: waits, then reads the log until it can be read. Doubt alone needs no wait.
    pub(super) async fn settle(&mut self, waiting: &mut Waiting, error: LakeError) -> Result<(), LakeError> {
        match error {
            LakeError::InDoubt { .. } => {}
            LakeError::FilesMoved { .. } | LakeError::Expired { .. } => {
                tracing::info!(%error, "another program was faster");
            }
            // The rows held by the caller are the wrong ones, and no wait changes that.
            LakeError::Overtaken { .. } => return Err(error),
            error => waiting.wait_out(error).await?,
        }
        while let Err(error) = self.reopen().await {
            if matches!(error, LakeError::Overtaken { .. }) {
                return Err(error);
            }
            waiting.wait_out(error).await?;
        }
        Ok(())
    }

    /// Reads the log again: what it says counts, whatever the store answered before.
    pub(super) async fn reopen(&mut self) -> Result<(), LakeError> {
        let Some(state) = self.log.read().await? else {
            return Err(LakeError::Missing { location: self.log.location.clone() });
        };
        let Standing { recorded, parked, uncopied, fit: Fit { schema, pending } } = self.rules.standing(&state)?;
        if state.version < self.version || recorded < self.recorded {
            return Err(self.log.broken(format!(
                "it went back from version {} and {} to version {} and {recorded} while the pipeline ran",
                self.version, self.recorded, state.version
            )));
        }
        self.look_at_what_came(state.version).await?;
        self.version = state.version;
        self.recorded = recorded;
        (self.parked, self.uncopied) = (parked, uncopied);
        (self.metadata, self.schema, self.pending) = (state.metadata, schema, pending);
        self.in_doubt = false;
        Ok(())
    }

    /// The entries between the known version and `newest`: progress of this pipeline must be this process's.
    async fn look_at_what_came(&mut self, newest: u64) -> Result<(), LakeError> {
        let oldest = (self.version + 1).max(newest.saturating_sub(FOREIGN_ENTRIES_MAX));
        let app_id = self.rules.progress.app_id();
        for version in oldest..=newest {
            // What a checkpoint stands for may have been cleaned up.
            let Some(lines) = self.log.entry(version).await? else { continue };
            self.warn_of_removals(version, &lines);
            if lines.iter().filter_map(|line| line.txn.as_ref()).any(|txn| txn.app_id == app_id) {
                self.check_process(version, &lines)?;
            }
        }
        Ok(())
    }
}
