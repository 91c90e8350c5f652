//! The blocking half of [`super::local_store`]: temporary files, names and syncs. Nothing here belongs on the reactor.

use super::leftovers::temporary_suffix;
use deltalake::logstore::object_store::{Error as ObjectStoreError, PutPayload};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Names tried for a temporary file.
const NAMES_MAX: usize = 8;

/// The calls that make a write durable, so that a test can watch them.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// The file's content and size.
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()>;

    /// The names in a folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// fsync(2).
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn sync_file(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// A local write failed; the operating system's error is within.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists already", path.display())]
    AlreadyExists { path: PathBuf, source: io::Error },
    #[error("the upload has ended")]
    Ended,
    #[error("the write stopped: {source}")]
    Stopped { source: tokio::task::JoinError },
}

impl LocalError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io { source, .. } | Self::AlreadyExists { source, .. } => source,
            other => io::Error::other(other),
        }
    }
}

impl From<LocalError> for ObjectStoreError {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::AlreadyExists { path, source } => {
                Self::AlreadyExists { path: path.display().to_string(), source: source.into() }
            }
            other => Self::Generic { store: "local folder", source: Box::new(other) },
        }
    }
}

/// A file under a name that is nobody's, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    /// It has its final name and no other.
    moved: bool,
}

impl Temporary {
    /// An empty one beside `target`, in a folder that is created as needed.
    pub(super) fn new(target: &Path) -> Result<Self, LocalError> {
        let mut last = None;
        for _ in 0..NAMES_MAX {
            let mut name = target.as_os_str().to_owned();
            name.push(temporary_suffix());
            let path = PathBuf::from(name);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, moved: false }),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let Some(folder) = target.parent() else { return Err(LocalError::io("create", &path, error)) };
                    create_folders(folder)?;
                    last = Some((path, error));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = Some((path, error)),
                Err(error) => return Err(LocalError::io("create", &path, error)),
            }
        }
        let (path, error) = last.unwrap_or_else(|| (target.to_owned(), ErrorKind::AlreadyExists.into()));
        Err(LocalError::io("create", &path, error))
    }

    pub(super) fn append(&mut self, payload: &PutPayload) -> Result<(), LocalError> {
        let written = payload.iter().try_for_each(|bytes| self.file.write_all(bytes));
        written.map_err(|source| LocalError::io("write to", &self.path, source))
    }

    pub(super) fn write_at(&self, payload: &PutPayload, mut offset: u64) -> Result<(), LocalError> {
        for bytes in payload {
            let written = self.file.write_all_at(bytes, offset);
            written.map_err(|source| LocalError::io("write to", &self.path, source))?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn sync(&self, disk: &dyn Disk) -> Result<(), LocalError> {
        disk.sync_file(&self.file, &self.path).map_err(|source| LocalError::io("sync", &self.path, source))
    }

    /// As the library makes one for the same file: inode, time and size.
    pub(super) fn tag(&self) -> Result<String, LocalError> {
        let found = self.file.metadata().map_err(|source| LocalError::io("look at", &self.path, source))?;
        let micros = i128::from(found.mtime()) * 1_000_000 + i128::from(found.mtime_nsec() / 1_000);
        Ok(format!("{:x}-{micros:x}-{:x}", found.ino(), found.size()))
    }

    /// Gives it the name if nobody has it; the temporary name goes with `self`.
    pub(super) fn link(self, target: &Path) -> Result<(), LocalError> {
        std::fs::hard_link(&self.path, target).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => LocalError::AlreadyExists { path: target.to_owned(), source },
            _ => LocalError::io("link", target, source),
        })
    }

    /// Gives it the name, whoever has it.
    pub(super) fn rename(mut self, target: &Path) -> Result<(), LocalError> {
        std::fs::rename(&self.path, target).map_err(|source| LocalError::io("rename a file to", target, source))?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            // What stays is a name that listings leave out.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Creates a folder and those above it that are missing; returns the new ones, outermost first.
pub(super) fn create_folders(folder: &Path) -> Result<Vec<PathBuf>, LocalError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.is_dir()).collect();
    let mut created = Vec::with_capacity(missing.len());
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder) {
            Ok(()) => created.push(folder.to_owned()),
            // Somebody else was faster, and may not have synced it yet.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {
                created.push(folder.to_owned())
            }
            Err(error) => return Err(LocalError::io("create the folder", folder, error)),
        }
    }
    Ok(created)
}

/// Each folder once.
pub(super) fn sync_folders<'a>(disk: &dyn Disk, folders: impl IntoIterator<Item = &'a Path>) -> Result<(), LocalError> {
    for folder in folders.into_iter().collect::<BTreeSet<_>>().into_iter().rev() {
        disk.sync_folder(folder).map_err(|source| LocalError::io("sync the folder", folder, source))?;
    }
    Ok(())
}
