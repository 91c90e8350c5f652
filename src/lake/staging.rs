//! The names of one writer's files, and the intent that covers them for as long as any is in question.

use super::actions::PROCESS;
use super::error::LakeError;
use super::intent::{self, Intent};
use super::target::{Target, remove_all};
use crate::base::Partition;
use deltalake::logstore::object_store::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Commits during which a token is used: an intent costs two requests, and resolving one reads the log entries since it was put.
const VERSIONS_PER_TOKEN: u64 = 100;

/// Spent intents that could not be removed yet; with more, a token is kept for longer.
const SPENT_MAX: usize = 4;

/// Everything that one writer put, or is about to put, into the table's folder.
pub(super) struct Staging {
    target: Arc<Target>,
    /// None until the first upload.
    token: Option<Token>,
    /// Every file whose upload began and that was not handed over.
    uploads: Vec<Path>,
    /// Uploaded files that others stand for, and that could not be removed yet.
    superseded: Vec<Path>,
    /// Files were handed over, and nobody said that they were committed.
    unconfirmed: bool,
    /// Intents of earlier tokens, all of whose files were committed.
    spent: Vec<Path>,
}

struct Token {
    id: Uuid,
    /// Names given out.
    files: u64,
    /// The table's version in its intent.
    version: u64,
}

impl Staging {
    pub(super) fn on(target: Arc<Target>) -> Self {
        let (uploads, superseded, spent) = (Vec::new(), Vec::new(), Vec::new());
        Self { target, token: None, uploads, superseded, unconfirmed: false, spent }
    }

    /// A name that no other file ever has; the intent that covers it is in the store.
    pub(super) async fn next_path(&mut self, partition: Partition) -> Result<Path, LakeError> {
        let token = match &mut self.token {
            Some(token) => token,
            none => {
                let version = self.target.known_version.load(Ordering::Acquire);
                // Before the request, so that `discard` removes what a lost answer leaves behind.
                let token = none.insert(Token { id: Uuid::new_v4(), files: 0, version });
                put_intent(&self.target, token).await?;
                token
            }
        };
        let path = Path::from(format!("{}/{}", partition.path(), intent::file_name(token.files, token.id)));
        token.files += 1;
        self.uploads.push(path.clone());
        Ok(path)
    }

    /// A file that another one stands for is not needed any more.
    pub(super) async fn supersede(&mut self, path: Path) {
        self.superseded.push(path);
        self.remove_superseded().await;
    }

    /// A file that was handed over will certainly not be committed: [`Self::discard`] removes it, and the intent with it.
    pub(super) fn take_back(&mut self, path: Path) {
        self.superseded.push(path);
        self.unconfirmed = false;
    }

    /// The files are the caller's now; `any` says whether there were some.
    pub(super) fn hand_over(&mut self, any: bool) {
        self.uploads.clear();
        self.unconfirmed |= any;
    }

    /// Everything that was handed over is in the table's log. What cannot be removed now is tried again at the next call.
    pub(super) async fn committed(&mut self, version: u64) {
        self.target.known_version.fetch_max(version, Ordering::AcqRel);
        self.unconfirmed = false;
        self.remove_superseded().await;
        let covers_nothing = self.uploads.is_empty() && self.superseded.is_empty();
        if covers_nothing
            && self.spent.len() < SPENT_MAX
            && let Some(token) = self.token.take_if(|token| version.saturating_sub(token.version) >= VERSIONS_PER_TOKEN)
        {
            self.spent.push(intent::path_of(token.id));
        }
        if !self.spent.is_empty() && self.remove(&self.spent).await {
            self.spent.clear();
        }
    }

    /// Removes what was not handed over, then the intent, unless files are out of which nobody knows whether they were committed:
    /// those are for the next process to resolve.
    pub(super) async fn discard(self) -> Result<(), LakeError> {
        let Target { store, location, .. } = &*self.target;
        remove_all(store, location, self.uploads.iter().chain(&self.superseded)).await?;
        let current = self.token.filter(|_| !self.unconfirmed).map(|token| intent::path_of(token.id));
        remove_all(store, location, self.spent.iter().chain(&current)).await
    }

    async fn remove_superseded(&mut self) {
        if !self.superseded.is_empty() && self.remove(&self.superseded).await {
            self.superseded.clear();
        }
    }

    /// Whether all were removed.
    async fn remove(&self, paths: &[Path]) -> bool {
        let removed = remove_all(&self.target.store, &self.target.location, paths.iter()).await;
        if let Err(error) = &removed {
            tracing::debug!(%error, "tried again after the next commit");
        }
        removed.is_ok()
    }
}

async fn put_intent(target: &Target, token: &Token) -> Result<(), LakeError> {
    let app_id = target.app_id.clone();
    let intent = Intent { process: PROCESS.to_string(), app_id, version: token.version };
    let bytes = intent.to_bytes().map_err(|error| target.unfit(error.to_string()))?;
    target.put(&intent::path_of(token.id), bytes.into()).await
}
