//! A store over the local file system whose requests fail as a script says, for this room's tests.

use async_trait::async_trait;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The kinds of request that have a script of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Request {
    /// Writes of log entries.
    PutEntry,
    /// Writes of anything else.
    PutData,
    /// Reads and looks, of anything.
    Get,
    /// Listings.
    List,
}

/// What happens to the next request of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    Pass,
    /// Not done, and a transient error.
    Reject,
    /// Not done, and a definite error.
    Deny,
    /// Done, and a transient error: the lost response. A read is only lost.
    FailAfterWrite,
    /// Not done yet, and a transient error: a request that is still under way, until [`ScriptedStore::land_late`]. A read is only
    /// lost.
    Late,
    /// What is under way arrives, then nothing.
    Arrive,
    /// Waits for [`ScriptedStore::release`], then nothing.
    Hold,
    /// Lets everything else go first, then nothing.
    Slow,
}

type Late = (Path, PutPayload, PutOptions);

#[derive(Debug)]
pub(super) struct ScriptedStore {
    inner: ObjectStoreRef,
    faults: Mutex<BTreeMap<Request, VecDeque<Fault>>>,
    late: Mutex<Vec<Late>>,
    released: watch::Sender<bool>,
}

impl ScriptedStore {
    pub(super) fn new(script: &[(Request, Fault)]) -> Self {
        let mut faults: BTreeMap<Request, VecDeque<Fault>> = BTreeMap::new();
        for (request, fault) in script {
            faults.entry(*request).or_default().push_back(*fault);
        }
        let inner = Arc::new(LocalFileSystem::new());
        Self { inner, faults: Mutex::new(faults), late: Mutex::default(), released: watch::Sender::new(false) }
    }

    /// More faults, behind those that have not happened yet.
    pub(super) fn expect(&self, request: Request, faults: &[Fault]) {
        self.faults.lock().unwrap().entry(request).or_default().extend(faults);
    }

    /// How many faults have not happened yet.
    pub(super) fn left(&self) -> usize {
        self.faults.lock().unwrap().values().map(VecDeque::len).sum()
    }

    /// The writes that were under way arrive now; returns how many of them were done.
    pub(super) async fn land_late(&self) -> usize {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        let mut landed = 0;
        for (location, payload, options) in late {
            landed += usize::from(self.inner.put_opts(&location, payload, options).await.is_ok());
        }
        landed
    }

    /// Lets everything pass that is held, now and later.
    pub(super) fn release(&self) {
        self.released.send_replace(true);
    }

    /// The next fault of a kind, once its waiting is over.
    async fn next(&self, request: Request) -> Fault {
        let fault = self.faults.lock().unwrap().get_mut(&request).and_then(VecDeque::pop_front);
        match fault.unwrap_or(Fault::Pass) {
            Fault::Hold => {
                let _ = self.released.subscribe().wait_for(|released| *released).await;
                Fault::Pass
            }
            Fault::Arrive => {
                self.land_late().await;
                Fault::Pass
            }
            Fault::Slow => {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Fault::Pass
            }
            other => other,
        }
    }

    async fn read_fault(&self, request: Request, location: &str) -> Result<()> {
        match self.next(request).await {
            Fault::Pass | Fault::Arrive | Fault::Hold | Fault::Slow => Ok(()),
            Fault::Deny => Err(denied(location)),
            Fault::Reject | Fault::FailAfterWrite | Fault::Late => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::Generic { store: "scripted", source: "no answer".into() }
}

fn denied(location: &str) -> Error {
    Error::PermissionDenied { path: location.to_owned(), source: "no".into() }
}

impl fmt::Display for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripted {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for ScriptedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let entry = location.as_ref().contains("/_delta_log/") && location.as_ref().ends_with(".json");
        match self.next(if entry { Request::PutEntry } else { Request::PutData }).await {
            Fault::Pass | Fault::Arrive | Fault::Hold | Fault::Slow => {
                self.inner.put_opts(location, payload, options).await
            }
            Fault::Reject => Err(lost()),
            Fault::Deny => Err(denied(location.as_ref())),
            Fault::FailAfterWrite => {
                self.inner.put_opts(location, payload, options).await?;
                Err(lost())
            }
            Fault::Late => {
                self.late.lock().unwrap().push((location.clone(), payload, options));
                Err(lost())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.read_fault(Request::Get, location.as_ref()).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // A listing never waits here: only its error is scripted.
        match self.read_fault(Request::List, "").now_or_never() {
            Some(Err(error)) => stream::once(async { Err(error) }).boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.read_fault(Request::List, "").await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
