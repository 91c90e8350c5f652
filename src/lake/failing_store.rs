//! A local store whose data files and intents fail as scripted, for this room's tests.

use super::LakeLocation;
use super::fixtures::Lake;
use async_trait::async_trait;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use url::Url;

/// Which operations fail, how often, and which were asked for.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// PUTs that fail without a trace.
    pub(super) rejected_puts: AtomicUsize,
    /// PUTs that land and whose answer is lost.
    pub(super) unanswered_puts: AtomicUsize,
    /// GETs that fail.
    pub(super) failed_gets: AtomicUsize,
    /// DELETEs that fail.
    pub(super) failed_deletes: AtomicUsize,
    /// The names of all PUTs and DELETEs, in order.
    pub(super) asked: Mutex<Vec<String>>,
}

impl Script {
    /// The lake through a store that follows this script; its log is left alone.
    pub(super) fn on(self: &Arc<Self>, lake: &Lake) -> LakeLocation {
        let url = Url::from_directory_path(lake.folder.path()).unwrap();
        let inner: ObjectStoreRef = Arc::new(LocalFileSystem::new());
        LakeLocation::with_store(&url, Arc::new(FailingStore { inner, script: Arc::clone(self) }))
    }

    /// What was asked for, files by their last name.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn note(&self, verb: &str, path: &Path) {
        let name = path.filename().unwrap_or_default();
        self.asked.lock().unwrap().push(format!("{verb} {name}"));
    }
}

fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

fn lost() -> Error {
    Error::Generic { store: "failing", source: "no answer".into() }
}

#[derive(Debug)]
struct FailingStore {
    inner: ObjectStoreRef,
    script: Arc<Script>,
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failing {}", self.inner)
    }
}

fn is_log(path: &Path) -> bool {
    path.as_ref().contains("/_delta_log/")
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if is_log(location) {
            return self.inner.put_opts(location, payload, options).await;
        }
        self.script.note("PUT", location);
        if take(&self.script.rejected_puts) {
            return Err(lost());
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        if take(&self.script.unanswered_puts) { Err(lost()) } else { Ok(put) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !is_log(location) && take(&self.script.failed_gets) {
            return Err(lost());
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, script) = (Arc::clone(&self.inner), Arc::clone(&self.script));
        locations
            .then(move |location| {
                let (inner, script) = (Arc::clone(&inner), Arc::clone(&script));
                async move {
                    let location = location?;
                    script.note("DELETE", &location);
                    if take(&script.failed_deletes) {
                        return Err(lost());
                    }
                    let one = futures::stream::iter([Ok(location)]).boxed();
                    inner.delete_stream(one).next().await.unwrap()
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
