//! Where the lake is: a URL and the options of its store.

use super::error::{LakeError, one_line_without_queries};
use super::local_files::RealDisk;
use super::local_store::LocalStore;
use deltalake::DeltaTableBuilder;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use deltalake::logstore::{LogStoreRef, ObjectStoreRef, object_store_factories};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use url::Url;
use uuid::Uuid;

/// The lake's root: every table is a folder below it.
#[derive(Clone)]
pub struct LakeLocation {
    url: Url,
    options: HashMap<String, String>,
    store: Option<ObjectStoreRef>,
    /// The same store, where it is a local folder of ours.
    local: Option<Arc<LocalStore>>,
}

/// Option values may be secrets, so only their names are shown.
impl fmt::Debug for LakeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        f.debug_struct("LakeLocation")
            .field("url", &shown(&self.url))
            .field("options", &options)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for LakeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl LakeLocation {
    /// A location by URL: `file:///folder`, `s3://bucket/prefix`, `gs://…` or `az://…`, with the object store's options
    /// (object_store's configuration keys). No IO.
    pub fn new(url: &Url, options: &BTreeMap<String, String>) -> Result<Self, LakeError> {
        let refuse = |reason: &str| LakeError::Location { location: shown(url), reason: reason.to_owned() };
        match url.scheme() {
            "file" if url.to_file_path().is_err() => return Err(refuse("a local lake is file:///absolute/path")),
            "memory" => return Err(refuse("rows in memory are not an archive")),
            "file" => {}
            scheme => {
                let registered = Url::parse(&format!("{scheme}://"));
                if !registered.is_ok_and(|scheme| object_store_factories().contains_key(&scheme)) {
                    return Err(refuse("known are file://, s3://, gs:// and az:// URLs"));
                }
            }
        }
        let options = options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let folder = if url.scheme() == "file" { url.to_file_path().ok() } else { None };
        let local = folder.map(|folder| Arc::new(LocalStore::new(folder, Arc::new(RealDisk))));
        let store = local.clone().map(|local| -> ObjectStoreRef { local });
        Ok(Self { url: as_folder(url), options, store, local })
    }

    /// A location on a store that the caller made; `store` is rooted at the root of the bucket or file
    /// system, and `url` names the folder in it.
    pub fn with_store(url: &Url, store: ObjectStoreRef) -> Self {
        Self { url: as_folder(url), options: HashMap::new(), store: Some(store), local: None }
    }

    /// Writes an object, checks that it cannot be created twice, and removes it. A missing local folder is created.
    ///
    /// # Errors
    /// [`LakeError::Store`] when the store refuses, [`LakeError::NoPutIfAbsent`] when two writers would not notice each other.
    pub async fn probe(&self) -> Result<(), LakeError> {
        let location = self.to_string();
        self.create_local_folder().await?;
        let store = self.store()?;
        let name = Path::from(format!("_lakebed_probe_{}", Uuid::new_v4()));
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = || PutPayload::from_static(b"lakebed");
        let failed = |error: &ObjectStoreError| LakeError::store("write to", &location, error);
        match store.put_opts(&name, payload(), create()).await {
            // Nobody else has this name: an attempt whose answer was lost had made it.
            Ok(_) | Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
        let second = store.put_opts(&name, payload(), create()).await;
        let read = store.get(&name).await;
        let removed = store.delete(&name).await;
        match second {
            Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. }) => {}
            Err(error) => return Err(failed(&error)),
            Ok(_) => return Err(LakeError::NoPutIfAbsent { location }),
        }
        read.map_err(|error| LakeError::store("read from", &location, &error))?;
        removed.map_err(|error| LakeError::store("delete from", &location, &error))
    }

    /// The folder of a table; `path` is relative to the root, `/` between folders.
    pub(super) fn table_url(&self, path: &str) -> Result<Url, LakeError> {
        let refuse = |reason: &str| LakeError::Location { location: self.to_string(), reason: reason.to_owned() };
        let folders: Vec<&str> = path.split('/').collect();
        if folders.iter().any(|folder| matches!(*folder, "" | "." | "..")) {
            return Err(refuse("a table's path may not be empty or leave the lake"));
        }
        let mut url = self.url.clone();
        url.path_segments_mut().map_err(|()| refuse("it has no path"))?.pop_if_empty().extend(folders).push("");
        Ok(url)
    }

    /// The store, rooted at the lake's root.
    pub(super) fn store(&self) -> Result<ObjectStoreRef, LakeError> {
        Ok(self.log_store_at(&self.url)?.object_store(None))
    }

    /// The folder of lakebed's own objects of one kind, for one slot; whatever its name holds, it is one folder.
    pub(super) fn own_folder(&self, kind: &'static str, slot: &str) -> Path {
        Path::from("_lakebed").join(kind).join(slot)
    }

    /// The table library's store for a folder of the lake.
    pub(super) fn log_store_at(&self, url: &Url) -> Result<LogStoreRef, LakeError> {
        let builder = self.builder_at(url)?;
        builder.build_storage().map_err(|error| LakeError::Location {
            location: shown(url),
            reason: one_line_without_queries(&error.to_string()),
        })
    }

    /// The table library's builder for a folder of the lake.
    pub(super) fn builder_at(&self, url: &Url) -> Result<DeltaTableBuilder, LakeError> {
        let builder = DeltaTableBuilder::from_url(url.clone())
            .map_err(|error| LakeError::Location {
                location: shown(url),
                reason: one_line_without_queries(&error.to_string()),
            })?
            .with_storage_options(self.options.clone());
        Ok(match &self.store {
            Some(store) => builder.with_storage_backend(store.clone(), url.clone()),
            None => builder,
        })
    }

    /// Creates the root folder of a local lake; other stores have no folders.
    pub(super) async fn create_local_folder(&self) -> Result<(), LakeError> {
        let Some(local) = &self.local else { return Ok(()) };
        local.create_root().await.map_err(|error| LakeError::io("create the folder", &self.to_string(), &error))
    }

    /// Makes the names in a folder of a local lake durable, which a process that died may have left half-way; `folder` is below
    /// the root. Whoever believes what it reads there calls this first.
    pub(super) async fn settle(&self, folder: &Path) -> Result<(), LakeError> {
        let Some(local) = &self.local else { return Ok(()) };
        let settled = local.settle_folder(folder).await;
        settled.map_err(|error| LakeError::io("sync", &format!("{self}/{folder}"), &error))
    }
}

/// The URL for people, without a password.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that cannot carry a password has none to hide.
    let _ = url.set_password(None);
    url.set_query(None);
    url.as_str().trim_end_matches('/').to_owned()
}

fn as_folder(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify, RetryClass};

    fn local(path: &std::path::Path) -> LakeLocation {
        LakeLocation::new(&Url::from_file_path(path).unwrap(), &BTreeMap::new()).unwrap()
    }

    #[tokio::test]
    async fn a_probe_creates_the_folder_and_leaves_it_empty() {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("a/b c");
        local(&lake).probe().await.unwrap();
        assert_eq!(std::fs::read_dir(&lake).unwrap().count(), 0);
        local(&lake).probe().await.unwrap();
    }

    #[tokio::test]
    async fn an_unwritable_folder_is_a_definite_error_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for path in [file.join("lake"), file.clone()] {
            let error = local(&path).probe().await.unwrap_err();
            assert_eq!(error.retry_class(), RetryClass::Definite, "{error}");
            assert!(error.to_string().contains("is a file, not a folder; correct [lake].url"), "{error}");
        }
        let error = local(std::path::Path::new("/proc/lakebed")).probe().await.unwrap_err();
        assert_eq!(error.retry_class(), RetryClass::Definite, "{error}");
        assert!(error.to_string().starts_with("cannot create the folder file:///proc/lakebed: "), "{error}");
    }

    #[test]
    fn what_is_not_a_lake_is_refused_without_showing_a_password() {
        for (text, expected) in [
            ("ftp://user:SECRET@host/x", "known are file://"),
            ("file://host/x", "file:///absolute/path"),
            ("memory:///x", "not an archive"),
        ] {
            let error = LakeLocation::new(&Url::parse(text).unwrap(), &BTreeMap::new()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("SECRET"), "{error}");
        }
        let options = BTreeMap::from([("aws_secret_access_key".to_owned(), "SECRET".to_owned())]);
        let location = LakeLocation::new(&Url::parse("s3://bucket/lake").unwrap(), &options).unwrap();
        assert!(!format!("{location:?} {location}").contains("SECRET"));
        assert_eq!(location.table_url("security_event").unwrap().as_str(), "s3://bucket/lake/security_event/");
        assert!(location.table_url("../x").is_err() && location.table_url("").is_err());
    }
}
