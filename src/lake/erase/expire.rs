//! The end of an erasure: log entries that may tell erased values are removed, once a checkpoint stands for them.
//!
//! Every entry and checkpoint below the new one goes, whatever it is about: any of them may have named an erased file, or one of its
//! predecessors, with its least and greatest values, and a checkpoint names every file that was active. What the new checkpoint itself
//! says of removed files is path, partition and size: a `remove` of ours has no statistics. One of another program may have some, and
//! stays in checkpoints for the retention of removed files.

use super::Eraser;
use crate::lake::checkpoint::checkpoint_now;
use crate::lake::error::LakeError;
use crate::lake::log::LOG_FOLDER;
use crate::ops::fail_points;
use deltalake::logstore::object_store::path::Path;
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// Listings, because whoever feeds the table may just have been writing an older checkpoint. One that arrives still later is removed by
/// whoever calls again.
const PASSES_MAX: usize = 5;

/// Digits of a version in the names of a log.
const DIGITS: usize = 20;

/// Names of a log that lie below a checkpoint.
#[derive(Default)]
struct Older {
    entries: BTreeMap<u64, Path>,
    /// Checkpoints and their parts, checksums, entries that others put together.
    others: Vec<Path>,
}

impl Older {
    fn note(&mut self, path: Path, checkpoint: u64) {
        let Some((version, rest)) = path.filename().and_then(|name| name.split_once('.')) else { return };
        let plain = version.len() == DIGITS && version.bytes().all(|byte| byte.is_ascii_digit());
        let Some(version) = version.parse::<u64>().ok().filter(|version| plain && *version < checkpoint) else {
            return;
        };
        if rest == "json" {
            self.entries.insert(version, path);
        } else {
            self.others.push(path);
        }
    }
}

impl Eraser {
    /// Makes sure that a checkpoint of `version`, an erasure's, or a later one counts, and removes everything of the log that is older than
    /// that checkpoint. Returns how many objects went. Older versions of the table cannot be read any more then, by nobody. To be
    /// called when the erasure's files are deleted, for its entry may go, too; it can be called again at any time.
    ///
    /// # Errors
    /// [`LakeError::Contended`] when an older checkpoint was put in the new one's place; what the store and the table library say.
    pub async fn expire_log(&mut self, version: u64) -> Result<u64, LakeError> {
        let checkpoint = self.checkpoint_since(version).await?;
        fail_points::reach("erase.after_checkpoint");
        let mut removed = 0;
        for _ in 0..PASSES_MAX {
            let Older { entries, others } = self.older_than(checkpoint).await?;
            if entries.is_empty() && others.is_empty() {
                break;
            }
            removed += (entries.len() + others.len()) as u64;
            self.remove(&others).await?;
            // One after the other, the oldest first: so long as a version's entry is there, no later one is gone, and who follows the log
            // can tell by the entry before its own that its own counts (lake/expiry.rs).
            for path in entries.into_values() {
                self.remove(&[path]).await?;
            }
        }
        self.table.log.settle().await?;
        Ok(removed)
    }

    /// The checkpoint that readers begin with, once it is one of `version` or later.
    async fn checkpoint_since(&self, version: u64) -> Result<u64, LakeError> {
        let (mut waiting, mut written) = (self.patience.begin(), false);
        loop {
            let attempt = match self.counting_checkpoint().await {
                Ok(Some(found)) if found >= version => return Ok(found),
                // There is one, and somebody's slower one, of an older version, took its place as the one to begin with.
                Ok(_) if written => return Err(LakeError::Contended { location: self.location().to_owned() }),
                Ok(_) => checkpoint_now(&self.table.log_store).await,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(()) => written = true,
                Err(error) => waiting.wait_out(error).await?,
            }
        }
    }

    /// The version that `_last_checkpoint` names, if its checkpoint is there as a whole.
    async fn counting_checkpoint(&self) -> Result<Option<u64>, LakeError> {
        let Some(hint) = self.table.log.last_checkpoint().await? else { return Ok(None) };
        let (_, entries) = self.table.log.way_to(hint).await?;
        Ok(Some(hint).filter(|hint| *entries.start() == hint.saturating_add(1)))
    }

    async fn older_than(&self, checkpoint: u64) -> Result<Older, LakeError> {
        let folder = Path::from(LOG_FOLDER);
        let failed = |error| LakeError::store("list the Delta log of", self.table.location(), &error);
        let mut objects = self.table.log.store.list(Some(&folder));
        let mut older = Older::default();
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if object.location.parts_count() == folder.parts_count() + 1 {
                older.note(object.location, checkpoint);
            }
        }
        Ok(older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_checkpoint_goes() {
        let mut older = Older::default();
        for name in [
            "00000000000000000009.json",
            "00000000000000000008.json",
            "00000000000000000009.crc",
            "00000000000000000008.checkpoint.parquet",
            "00000000000000000007.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000006.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json",
            "00000000000000000001.00000000000000000009.compacted.json",
            "00000000000000000010.json",
            "00000000000000000010.checkpoint.parquet",
            "00000000000000000011.json",
            "_last_checkpoint",
            "9.json",
            "0000000000000000000x.json",
        ] {
            older.note(Path::from(LOG_FOLDER).join(name), 10);
        }
        assert_eq!(older.entries.keys().copied().collect::<Vec<_>>(), [8, 9]);
        assert_eq!(older.others.len(), 5);
    }
}
