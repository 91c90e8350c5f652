//! What the settings read besides the URL: variables, files and the operating system's user, so that tests can inject them.

use super::os_user;
use std::io;
use std::path::Path;

/// A file's text with the permission bits that libpq judges it by.
#[derive(Clone)]
pub struct EnvironmentFile {
    /// The whole text.
    pub text: String,
    /// `st_mode & 0o777`.
    pub permissions: u32,
}

/// The world around a connection URL.
pub trait Environment {
    /// An environment variable; an empty one counts as unset, as in libpq.
    fn variable(&self, name: &str) -> Option<String>;
    /// A regular file's text. `NotFound` is an ordinary answer, everything else a fault.
    fn file(&self, path: &Path) -> io::Result<EnvironmentFile>;
    /// Whether something exists under this path.
    fn exists(&self, path: &Path) -> bool;
    /// The operating system's name of the effective user, where it has one.
    fn user(&self) -> Option<String>;
    /// The home directory of that user.
    fn home(&self) -> Option<String>;
}

/// The process's own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn file(&self, path: &Path) -> io::Result<EnvironmentFile> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let text = std::fs::read_to_string(path)?;
        Ok(EnvironmentFile { text, permissions: metadata.permissions().mode() & 0o777 })
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn user(&self) -> Option<String> {
        os_user::current()
            .map(|entry| entry.name)
            .or_else(|| self.variable("USER"))
            .or_else(|| self.variable("LOGNAME"))
    }

    /// `HOME` first, then the user database, as libpq does since version 14.
    fn home(&self) -> Option<String> {
        self.variable("HOME").or_else(|| os_user::current().map(|entry| entry.home))
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// An environment made of literals: user `ann`, home `/home/ann`.
    #[derive(Default)]
    pub(crate) struct FakeEnvironment {
        variables: BTreeMap<String, String>,
        files: BTreeMap<PathBuf, EnvironmentFile>,
    }

    impl FakeEnvironment {
        pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
            self.variables.insert(name.to_owned(), value.to_owned());
            self
        }

        pub(crate) fn with_file(mut self, path: &str, permissions: u32, text: &str) -> Self {
            self.files.insert(PathBuf::from(path), EnvironmentFile { text: text.to_owned(), permissions });
            self
        }
    }

    impl Environment for FakeEnvironment {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).filter(|value| !value.is_empty()).cloned()
        }

        fn file(&self, path: &Path) -> io::Result<EnvironmentFile> {
            self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.files.contains_key(path)
        }

        fn user(&self) -> Option<String> {
            Some("ann".to_owned())
        }

        fn home(&self) -> Option<String> {
            Some("/home/ann".to_owned())
        }
    }
}
