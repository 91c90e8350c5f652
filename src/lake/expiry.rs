//! A log whose old entries are gone, because a checkpoint stands for them: what that means for who follows it.
//!
//! Names of entries are the fence between writers: who puts the next version first has it. An entry that is removed gives its name
//! free, so who stood still for long may put an entry where nobody looks any more. Three rules keep that from losing rows:
//!
//! 1. Entries below a checkpoint are removed one after the other, the oldest first, after the checkpoint counts. So while a version's entry
//!    is there, no later one is gone.
//! 2. After each own entry the one before it is looked for, and a later checkpoint where that is gone ([`LakeError::Expired`]).
//! 3. Whoever hears that reads the log anew from its newest checkpoint: what that records counts, and nothing else.

use super::error::LakeError;
use super::log::Log;
use super::table::LakeTable;
use deltalake::logstore::commit_uri_from_version;
use deltalake::logstore::object_store::ObjectStoreExt;

impl Log {
    /// Whether a version's entry is gone because a checkpoint of a later one stands for it.
    pub(super) async fn is_expired(&self, version: u64) -> Result<bool, LakeError> {
        if self.has_entry(version).await? {
            return Ok(false);
        }
        Ok(self.newest_checkpoint().await?.is_some_and(|found| found > version))
    }

    pub(super) fn expired(&self, version: u64) -> LakeError {
        LakeError::Expired { location: self.location.clone(), version }
    }
}

impl LakeTable {
    /// A store makes folders as they are needed, so an entry can be written where the table no longer is: nobody could read it,
    /// and acknowledging its rows would lose them. The entry before it must be there, unless a checkpoint stands for it.
    ///
    /// Whoever stood still for long may find its next version's name free again, because the log was cleaned up beyond it meanwhile. Its
    /// entry lies behind a checkpoint then, where nobody reads it either. Entries go in their order, so the one before it is gone, too.
    pub(super) async fn stands_on_its_predecessor(&self, version: u64) -> Result<(), LakeError> {
        let before = version.saturating_sub(1);
        if self.log.has_entry(before).await? {
            return Ok(());
        }
        match self.log.newest_checkpoint().await? {
            Some(found) if found == before => Ok(()),
            // Or it counted, and was cleaned up itself since: what the log says now tells which.
            Some(found) if found > before => {
                self.forget_entry(version, found).await;
                Err(self.log.expired(version))
            }
            _ => Err(self.log.broken(format!(
                "the entry of version {before} disappeared while the pipeline ran; nothing was acknowledged since"
            ))),
        }
    }

    /// Removes an entry of our own that lies behind a checkpoint: it is the oldest one there, whether or not it counted. An attempt, for
    /// nobody reads it.
    async fn forget_entry(&self, version: u64, checkpoint: u64) {
        if checkpoint <= version {
            return;
        }
        if let Err(error) = self.log.store.delete(&commit_uri_from_version(Some(version))).await {
            tracing::debug!(%error, version, "an entry behind a checkpoint stays");
        }
    }
}
