//! A put returns when file and names are on the disk, in an order that a power failure at any moment cannot break.

use super::super::local_files::{Disk, RealDisk};
use super::LocalStore;
use crate::lake::StoreFault;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{CopyMode, CopyOptions, Error, ObjectStore, ObjectStoreExt};
use deltalake::logstore::object_store::{PutMode, PutOptions, PutPayload};
use futures::TryStreamExt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Remembers what was synced, below the lake's root, and whether the watched name was there by then.
#[derive(Debug, Default)]
struct Watched {
    root: PathBuf,
    name: Mutex<PathBuf>,
    seen: Mutex<Vec<String>>,
    failing: Mutex<Option<io::ErrorKind>>,
}

impl Watched {
    fn note(&self, what: &str, path: &std::path::Path) -> io::Result<()> {
        if let Some(kind) = *self.failing.lock().unwrap() {
            return Err(kind.into());
        }
        let shown = path.strip_prefix(&self.root).map_or("above".to_owned(), |path| path.display().to_string());
        let shown = shown.split('#').next().unwrap().to_owned();
        let named = if self.name.lock().unwrap().exists() { "named" } else { "unnamed" };
        self.seen.lock().unwrap().push(format!("{what} {shown:?} {named}"));
        Ok(())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Disk for Watched {
    fn sync_file(&self, file: &File, path: &std::path::Path) -> io::Result<()> {
        assert!(path.to_str().unwrap().contains('#') || *self.name.lock().unwrap() == path);
        self.note("file", path)?;
        RealDisk.sync_file(file, path)
    }

    fn sync_folder(&self, folder: &std::path::Path) -> io::Result<()> {
        self.note("folder", folder)?;
        RealDisk.sync_folder(folder)
    }
}

struct Site {
    _folder: TempDir,
    root: PathBuf,
    disk: Arc<Watched>,
    store: LocalStore,
}

fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/lake");
    let disk = Arc::new(Watched { root: root.clone(), ..Watched::default() });
    let store = LocalStore::new(root.clone(), disk.clone());
    Site { _folder: folder, root, disk, store }
}

impl Site {
    /// The object's path for the store; syncs from now on say whether it is there.
    fn watch(&self, name: &str) -> Path {
        let path = self.root.join(name);
        path.clone_into(&mut self.disk.name.lock().unwrap());
        Path::from_absolute_path(path).unwrap()
    }

    async fn put(&self, name: &str, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.store.put_opts(&self.watch(name), PutPayload::from_static(b"lakebed"), options).await.map(drop)
    }

    fn files(&self) -> Vec<String> {
        let mut found: Vec<String> = std::fs::read_dir(self.root.join("t"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        found
    }
}

#[tokio::test]
async fn a_new_object_is_synced_then_named_then_its_folders_are_synced() {
    let site = site();
    site.store.create_root().await.unwrap();
    assert_eq!(site.disk.take(), [r#"folder "above" unnamed"#, r#"folder "above" unnamed"#]);
    site.put("t/day=1/x.parquet", PutMode::Create).await.unwrap();
    let expected = [
        r#"file "t/day=1/x.parquet" unnamed"#,
        r#"folder "t/day=1" named"#,
        r#"folder "t" named"#,
        r#"folder "" named"#,
    ];
    assert_eq!(site.disk.take(), expected);
    site.put("t/day=1/y.parquet", PutMode::Create).await.unwrap();
    assert_eq!(site.disk.take(), [r#"file "t/day=1/y.parquet" unnamed"#, r#"folder "t/day=1" named"#]);
    // A name that another process made counts only once this one has synced it.
    std::fs::create_dir_all(site.root.join("t/day=2")).unwrap();
    site.put("t/day=2/z.parquet", PutMode::Overwrite).await.unwrap();
    assert_eq!(site.disk.take().len(), 4);
}

#[tokio::test]
async fn an_object_that_is_there_is_not_overwritten_and_is_durable_when_that_is_said() {
    let site = site();
    site.put("t/x.json", PutMode::Create).await.unwrap();
    site.disk.take();
    let error = site.put("t/x.json", PutMode::Create).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(site.disk.take(), [r#"file "t/x.json" named"#, r#"folder "t" named"#]);
    assert_eq!(site.files(), ["x.json"]);
}

#[tokio::test]
async fn uploads_and_copies_are_synced_too() {
    let site = site();
    let path = site.watch("t/big.parquet");
    let mut upload = site.store.put_multipart(&path).await.unwrap();
    let parts = [upload.put_part(PutPayload::from_static(b"lake")), upload.put_part(PutPayload::from_static(b"bed"))];
    futures::future::try_join_all(parts.into_iter().rev()).await.unwrap();
    assert!(site.disk.take().is_empty());
    upload.complete().await.unwrap();
    assert!(upload.complete().await.is_err());
    let expected = [r#"file "t/big.parquet" unnamed"#, r#"folder "t" named"#, r#"folder "" named"#];
    assert_eq!(site.disk.take(), expected);
    assert_eq!(site.store.get(&path).await.unwrap().bytes().await.unwrap(), "lakebed");
    let copy = site.watch("t/copy.parquet");
    site.store.copy_opts(&path, &copy, CopyOptions::new().with_mode(CopyMode::Create)).await.unwrap();
    assert_eq!(site.disk.take(), [r#"file "t/copy.parquet" named"#, r#"folder "t" named"#]);
    let mut upload = site.store.put_multipart(&site.watch("t/aborted")).await.unwrap();
    upload.put_part(PutPayload::from_static(b"lake")).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(site.files(), ["big.parquet", "copy.parquet"]);
}

#[tokio::test]
async fn a_temporary_file_of_a_dead_process_is_never_taken_for_data() {
    let site = site();
    site.put("t/x.json", PutMode::Create).await.unwrap();
    std::fs::write(site.root.join("t/x.json#12345678901234567890"), "torn").unwrap();
    std::fs::write(site.root.join("t/y.json#1"), "torn").unwrap();
    let root = Path::from_absolute_path(&site.root).unwrap();
    let listed: Vec<_> = site.store.list(Some(&root)).map_ok(|object| object.location).try_collect().await.unwrap();
    assert_eq!(listed, [root.clone().join("t").join("x.json")]);
    assert!(site.put("t/y.json#1", PutMode::Overwrite).await.is_err(), "such a name cannot be addressed");
}

#[tokio::test]
async fn a_sync_that_fails_fails_the_put_with_the_operating_systems_error() {
    let site = site();
    site.put("t/x.json", PutMode::Create).await.unwrap();
    for (kind, fault) in
        [(io::ErrorKind::StorageFull, StoreFault::Full), (io::ErrorKind::Other, StoreFault::Unreachable)]
    {
        *site.disk.failing.lock().unwrap() = Some(kind);
        let error = site.put("t/y.json", PutMode::Create).await.unwrap_err();
        assert_eq!(StoreFault::of(&error), fault, "{error}");
        assert_eq!(site.files(), ["x.json"], "what was not synced has no name");
    }
}

#[tokio::test]
async fn the_first_to_create_wins_among_many() {
    let site = site();
    let puts = (0..8).map(|_| site.put("t/x.json", PutMode::Create));
    let outcomes = futures::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(site.files(), ["x.json"]);
}
