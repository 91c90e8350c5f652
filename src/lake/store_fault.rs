//! What an object store's error means, by its type, and what to do about it.

use crate::base::{Classify, RetryClass};
use deltalake::logstore::object_store::Error as ObjectStoreError;
use std::error::Error;
use std::fmt;
use std::io;

/// What a store's error means, with its remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Bucket, container or folder is absent.
    Missing,
    /// The login may not.
    Denied,
    /// The login was not accepted.
    Unauthenticated,
    /// A local file system that is mounted read-only.
    ReadOnly,
    /// A file stands where a folder should.
    NotAFolder,
    /// No space or quota left.
    Full,
    /// The store cannot do this at all.
    Unsupported,
    /// A condition on the object did not hold.
    Condition,
    /// Everything else: a lost connection, a time-out, a busy server.
    Unreachable,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it does not exist; create the bucket or folder, or correct [lake].url",
            Self::Denied => "permission denied; give lakebed's user read, write and delete rights there",
            Self::Unauthenticated => "the credentials were refused; check [lake.options] and the environment",
            Self::ReadOnly => "the file system is read-only; remount it or choose another [lake].url",
            Self::NotAFolder => "a part of the path is a file, not a folder; correct [lake].url",
            Self::Full => "no space is left; free some there",
            Self::Unsupported => "the store does not support the operation; use another store or check [lake.options]",
            Self::Condition => {
                "the object is not in the state that was expected; look for another program that writes there"
            }
            Self::Unreachable => "the store failed; check that it is up and reachable",
        })
    }
}

impl Classify for StoreFault {
    fn retry_class(&self) -> RetryClass {
        match self {
            // Space comes back without anybody touching lakebed, and trying again harms nothing.
            Self::Full | Self::Unreachable => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}

impl StoreFault {
    /// The meaning of an object store's error, by type; a local file system's by the operating system's error within.
    pub(super) fn of(error: &ObjectStoreError) -> Self {
        match error {
            ObjectStoreError::NotFound { .. } => Self::Missing,
            ObjectStoreError::PermissionDenied { .. } => Self::Denied,
            ObjectStoreError::Unauthenticated { .. } => Self::Unauthenticated,
            ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. } => Self::Condition,
            ObjectStoreError::NotSupported { .. }
            | ObjectStoreError::NotImplemented { .. }
            | ObjectStoreError::InvalidPath { .. }
            | ObjectStoreError::UnknownConfigurationKey { .. } => Self::Unsupported,
            other => operating_system_error(other).map_or(Self::Unreachable, Self::of_io),
        }
    }

    /// The meaning of the operating system's error.
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => Self::NotAFolder,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Unreachable,
        }
    }
}

fn operating_system_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_decides_whether_to_try_again() {
        let source = || "x".into();
        let path = String::new;
        let definite = [
            ObjectStoreError::NotFound { path: path(), source: source() },
            ObjectStoreError::PermissionDenied { path: path(), source: source() },
            ObjectStoreError::Unauthenticated { path: path(), source: source() },
            ObjectStoreError::Precondition { path: path(), source: source() },
        ];
        for error in definite {
            assert_eq!(StoreFault::of(&error).retry_class(), RetryClass::Definite, "{error}");
        }
        for (kind, expected) in [
            (io::ErrorKind::ReadOnlyFilesystem, StoreFault::ReadOnly),
            (io::ErrorKind::PermissionDenied, StoreFault::Denied),
            (io::ErrorKind::NotADirectory, StoreFault::NotAFolder),
            (io::ErrorKind::StorageFull, StoreFault::Full),
        ] {
            let error = ObjectStoreError::Generic { store: "LocalFileSystem", source: io::Error::from(kind).into() };
            assert_eq!(StoreFault::of(&error), expected);
        }
        let transient = ObjectStoreError::Generic { store: "S3", source: source() };
        assert_eq!(StoreFault::of(&transient).retry_class(), RetryClass::Transient);
    }
}
