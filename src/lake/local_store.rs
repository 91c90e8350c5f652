//! A local folder as an object store whose writes are on the disk before they count.
//!
//! The library's own store for local files leaves that to the operating system, so a power failure could take away what a slot
//! was already acknowledged with. Here every put writes a temporary file, syncs it, gives it its name, and syncs the folder
//! that holds the name and the folders that hold that folder. Reads and listings are the library's.
//!
//! A temporary file is the object's name with `#` and digits behind it: the library's own convention, which listings leave out
//! and reads refuse, so a dead process's is never taken for data.

use super::local_files::{Disk, LocalError, Temporary, create_folders, sync_folders};
use async_trait::async_trait;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use futures::FutureExt;
use futures::stream::BoxStream;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Folders that are known to be on the disk, before they are forgotten and synced once more.
const SETTLED_FOLDERS_MAX: usize = 10_000;

/// Rooted at `/`, like the library's; durable at and below the lake's own folder.
#[derive(Debug)]
pub(super) struct LocalStore {
    files: LocalFileSystem,
    place: Arc<Place>,
}

/// What a write needs beside the reactor.
#[derive(Debug)]
struct Place {
    /// The lake's folder. Whoever made the folders above it made them durable.
    root: PathBuf,
    disk: Arc<dyn Disk>,
    /// Folders whose own names are on the disk. A name that only exists may be what a process left that died before it
    /// synced, so each process syncs it once itself.
    settled: Mutex<HashSet<PathBuf>>,
}

impl Place {
    /// Syncs the folder that holds `path`, where a name was just made, and, once, the folders that hold that folder.
    fn settle(&self, path: &std::path::Path) -> Result<(), LocalError> {
        let Some(folder) = path.parent() else { return Ok(()) };
        sync_folders(&*self.disk, [folder])?;
        if self.settled().contains(folder) {
            return Ok(());
        }
        let above = folder.ancestors().take_while(|above| above.starts_with(&self.root) && *above != self.root);
        sync_folders(&*self.disk, above.filter_map(std::path::Path::parent))?;
        let mut settled = self.settled();
        if settled.len() >= SETTLED_FOLDERS_MAX {
            settled.clear();
        }
        settled.insert(folder.to_owned());
        Ok(())
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // Whatever a panic left, a folder in the set was synced.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, path: &std::path::Path, payload: &PutPayload, create: bool) -> Result<PutResult, LocalError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            // Somebody removed it; made anew, its name has to be synced anew.
            self.settled().retain(|known| !known.starts_with(folder) && !folder.starts_with(known));
        }
        let mut temporary = Temporary::new(path)?;
        temporary.append(payload)?;
        temporary.sync(&*self.disk)?;
        let tag = temporary.tag()?;
        let named = if create { temporary.link(path) } else { temporary.rename(path) };
        match named {
            Ok(()) => self.settle(path)?,
            // Whoever made it may have died before it was synced, and whoever is told that it exists relies on it.
            Err(exists @ LocalError::AlreadyExists { .. }) => {
                self.settle(path)?;
                return Err(exists);
            }
            Err(error) => return Err(error),
        }
        Ok(PutResult { e_tag: Some(tag), version: None })
    }
}

impl LocalStore {
    /// A store for the lake at `root`, an absolute path.
    pub(super) fn new(root: PathBuf, disk: Arc<dyn Disk>) -> Self {
        let place = Place { root, disk, settled: Mutex::default() };
        Self { files: LocalFileSystem::new(), place: Arc::new(place) }
    }

    /// Creates the lake's own folder, and the ones above it that are missing, durably.
    pub(super) async fn create_root(&self) -> std::io::Result<()> {
        let place = self.place.clone();
        let created = beside_the_reactor(move || {
            let created = create_folders(&place.root)?;
            // Each new name is held by the folder above it.
            sync_folders(&*place.disk, created.iter().filter_map(|folder| folder.parent()))?;
            if let (true, Some(above)) = (created.is_empty(), place.root.parent()) {
                // A process that died may have made the root. A folder that may not be read was there before lakebed.
                let _ = place.disk.sync_folder(above);
            }
            Ok(())
        });
        created.await.map_err(LocalError::into_io)
    }

    /// Makes what an earlier process wrote into a folder as durable as if this one had: it may have died before it synced the
    /// names. A folder that does not exist holds nothing.
    pub(super) async fn settle_folder(&self, folder: &Path) -> std::io::Result<()> {
        let place = self.place.clone();
        let folder = folder.parts().fold(place.root.clone(), |folder, part| folder.join(part.as_ref()));
        let settled = beside_the_reactor(move || match folder.try_exists() {
            Ok(true) => place.settle(&folder.join("any")),
            _ => Ok(()),
        });
        settled.await.map_err(LocalError::into_io)
    }
}

/// To the end, also when the caller is dropped.
async fn beside_the_reactor<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(LocalError::Stopped { source: stopped }),
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "synced {}", self.files)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("a conditional update")),
        };
        if !options.attributes.is_empty() {
            return Err(unsupported("a put with attributes"));
        }
        let path = self.files.path_to_filesystem(location)?;
        let place = self.place.clone();
        Ok(beside_the_reactor(move || place.put(&path, &payload, create)).await?)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(unsupported("an upload with attributes"));
        }
        let path = self.files.path_to_filesystem(location)?;
        let opened = path.clone();
        let temporary = beside_the_reactor(move || Temporary::new(&opened)).await?;
        let state = Arc::new(Mutex::new(Some(temporary)));
        Ok(Box::new(Upload { state, offset: 0, path, place: self.place.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        let path = self.files.path_to_filesystem(to)?;
        let place = self.place.clone();
        let synced = beside_the_reactor(move || {
            // Whoever wrote the original need not have synced it.
            let file = std::fs::File::open(&path).map_err(|source| LocalError::io("open", &path, source))?;
            place.disk.sync_file(&file, &path).map_err(|source| LocalError::io("sync", &path, source))?;
            place.settle(&path)
        });
        Ok(synced.await?)
    }
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "a local lake".to_owned() }
}

/// Parts in the order in which they were handed over; one file, named and synced at the end.
#[derive(Debug)]
struct Upload {
    /// None once the upload has ended.
    state: Arc<Mutex<Option<Temporary>>>,
    offset: u64,
    path: PathBuf,
    place: Arc<Place>,
}

impl Upload {
    async fn with_file<T: Send + 'static>(
        state: Arc<Mutex<Option<Temporary>>>,
        work: impl FnOnce(&mut Option<Temporary>) -> Result<T, LocalError> + Send + 'static,
    ) -> Result<T> {
        let done = beside_the_reactor(move || work(&mut state.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(done.await?)
    }
}

/// The temporary file of an upload that never ended is removed beside the reactor too.
impl Drop for Upload {
    fn drop(&mut self) {
        if let Ok(reactor) = tokio::runtime::Handle::try_current() {
            let state = self.state.clone();
            drop(reactor.spawn_blocking(move || state.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += data.content_length() as u64;
        let work = move |file: &mut Option<Temporary>| match file {
            Some(file) => file.write_at(&data, offset),
            None => Err(LocalError::Ended),
        };
        Self::with_file(self.state.clone(), work).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (path, place) = (self.path.clone(), self.place.clone());
        let work = move |file: &mut Option<Temporary>| {
            let file = file.take().ok_or(LocalError::Ended)?;
            file.sync(&*place.disk)?;
            let tag = file.tag()?;
            file.rename(&path)?;
            place.settle(&path)?;
            Ok(PutResult { e_tag: Some(tag), version: None })
        };
        Self::with_file(self.state.clone(), work).await
    }

    async fn abort(&mut self) -> Result<()> {
        Self::with_file(self.state.clone(), |file| file.take().map(drop).ok_or(LocalError::Ended)).await
    }
}

#[cfg(test)]
#[path = "local_store_test.rs"]
mod tests;
