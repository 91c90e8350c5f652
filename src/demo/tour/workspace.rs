//! The demo's own folder: pipeline file, log of `lakebed run`, and the lake.

use super::super::{Cluster, DemoError, customer};
use super::screen::{grouped, mebibytes};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Tells a folder that an earlier demo made, and may be cleared, from anybody else's.
const MARKER: &str = ".lakebed-demo";
/// Names that a demo puts into its folder.
const OURS: [&str; 3] = ["pipeline.toml", "run.log", "lake"];

/// The folder; removed on drop unless the user named it.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    is_temporary: bool,
}

impl Workspace {
    /// A temporary folder, or the one that the user named: new, empty, or left by an earlier demo.
    pub(super) fn create(named: Option<&Path>) -> Result<Self, DemoError> {
        let Some(named) = named else {
            let path = std::env::temp_dir().join(format!("lakebed-demo-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&path).map_err(DemoError::file("create", &path))?;
            return Ok(Self { path, is_temporary: true });
        };
        let path = std::path::absolute(named).map_err(DemoError::file("find", named))?;
        std::fs::create_dir_all(&path).map_err(DemoError::file("create", &path))?;
        let mut entries = std::fs::read_dir(&path).map_err(DemoError::file("read", &path))?;
        let marker = path.join(MARKER);
        if marker.exists() {
            for name in OURS {
                remove(&path.join(name))?;
            }
        } else if entries.next().is_some() {
            let reason = "is not empty and was not made by a demo: name a new folder";
            return Err(DemoError::Folder { path, reason });
        }
        std::fs::write(&marker, "Made by `lakebed demo`; the next demo in this folder clears it.\n")
            .map_err(DemoError::file("write", &marker))?;
        Ok(Self { path, is_temporary: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder behind, for whoever looks for the reason of a failure.
    pub(super) fn keep(&mut self) {
        self.is_temporary = false;
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    pub(super) fn pipeline_file(&self) -> PathBuf {
        self.path.join("pipeline.toml")
    }

    pub(super) fn run_log(&self) -> PathBuf {
        self.path.join("run.log")
    }

    pub(super) fn lake(&self) -> PathBuf {
        self.path.join("lake")
    }

    /// The pipeline file of a throw-away server: its password may stand in it, in a file that only its owner reads.
    pub(super) fn write_pipeline(&self, cluster: &Cluster, max_age_seconds: u64) -> Result<(), DemoError> {
        let lake = self.lake();
        std::fs::create_dir(&lake).map_err(DemoError::file("create", &lake))?;
        let lake_url = url::Url::from_directory_path(&lake).map_err(|()| DemoError::Folder {
            path: lake,
            reason: "cannot be written as a file:// URL: name another",
        })?;
        let password = uuid::Uuid::new_v4().simple();
        let text = format!(
            "# Written by `lakebed demo`; pipelines/security_event.toml explains every key.\n\
             [source]\n\
             url = \"postgresql://lakebed:{password}@127.0.0.1:{port}/{database}?sslmode=disable\"\n\
             slot = \"lakebed\"\n\
             publication = \"lakebed\"\n\n\
             [lake]\n\
             url = \"{lake_url}\"\n\n\
             [[table]]\n\
             name = \"public.security_event\"\n\
             partition_column = \"created_at\"\n\n\
             [[table]]\n\
             name = \"public.security_event_hook_results\"\n\
             partition_column = \"created_at\"\n\n\
             [buffer]\n\
             max_age = \"{max_age_seconds}s\"\n\n\
             [status]\n\
             listen = \"127.0.0.1:0\"\n\n\
             [query]\n\
             database = \"idp_archive\"\n",
            port = cluster.port(),
            database = customer::DATABASE,
        );
        let path = self.pipeline_file();
        std::fs::write(&path, "").map_err(DemoError::file("write", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(DemoError::file("set the permissions of", &path))?;
        std::fs::write(&path, text).map_err(DemoError::file("write", &path))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.is_temporary {
            // Nobody is left to tell, and the folder is a temporary one.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn remove(path: &Path) -> Result<(), DemoError> {
    let result = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DemoError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What lies in the lake.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Each folder that holds files, by its path below the lake.
    folders: BTreeMap<PathBuf, Size>,
}

/// What a folder holds itself.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    files: u64,
    bytes: u64,
}

/// A walk goes no deeper than table, year, month, day, file.
const DEPTH_MAX: u32 = 8;
/// Days shown at either end of a table.
const DAYS_SHOWN: usize = 2;

impl Tree {
    pub(super) fn read(lake: &Path) -> Result<Self, DemoError> {
        let mut tree = Self::default();
        tree.walk(lake, Path::new(""), 0)?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, below: &Path, depth: u32) -> Result<(), DemoError> {
        for entry in std::fs::read_dir(folder).map_err(DemoError::file("read", folder))? {
            let entry = entry.map_err(DemoError::file("read", folder))?;
            let metadata = entry.metadata().map_err(DemoError::file("read", &entry.path()))?;
            if metadata.is_dir() && depth < DEPTH_MAX {
                self.walk(&entry.path(), &below.join(entry.file_name()), depth + 1)?;
            } else {
                let size = self.folders.entry(below.to_owned()).or_default();
                size.files += 1;
                size.bytes += metadata.len();
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.folders.values().map(|size| size.bytes).sum()
    }

    /// The tree with most of its days left out.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut tables: BTreeMap<&Path, Vec<(&Path, Size)>> = BTreeMap::new();
        for (path, &size) in &self.folders {
            let table = path.iter().next().map_or(Path::new(""), Path::new);
            tables.entry(table).or_default().push((path.strip_prefix(table).unwrap_or(path), size));
        }
        for (table, folders) in tables {
            lines.push(format!("{}/", table.display()));
            let (log, days): (Vec<_>, Vec<_>) =
                folders.into_iter().partition(|(path, _)| path.starts_with("_delta_log"));
            let shown = |(path, Size { files, bytes }): &(&Path, Size)| {
                let plural = if *files == 1 { "file" } else { "files" };
                format!("  {}/   {} {plural}, {}", path.display(), grouped(*files), mebibytes(*bytes))
            };
            lines.extend(log.iter().map(shown));
            let left_out = days.len().saturating_sub(2 * DAYS_SHOWN);
            lines.extend(days.iter().take(DAYS_SHOWN).map(shown));
            if left_out > 0 {
                lines.push(format!("  …   {} more partitions", grouped(left_out as u64)));
            }
            lines.extend(days.iter().skip(DAYS_SHOWN + left_out).map(shown));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_a_demos_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("precious"), "1").unwrap();
        assert!(Workspace::create(Some(home.path())).unwrap_err().to_string().contains("not made by a demo"));
        let named = home.path().join("demo");
        std::fs::create_dir(&named).unwrap();
        drop(Workspace::create(Some(&named)).unwrap());
        std::fs::create_dir(named.join("lake")).unwrap();
        std::fs::write(named.join("mine"), "1").unwrap();
        Workspace::create(Some(&named)).unwrap();
        assert!(named.join("mine").exists() && !named.join("lake").exists());
    }

    #[test]
    fn the_tree_shows_both_ends_of_a_table() {
        let home = tempfile::tempdir().unwrap();
        for day in 1..=9 {
            let folder = home.path().join(format!("security_event/year=2026/month=01/day=0{day}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("a.parquet"), [0; 2048]).unwrap();
        }
        let tree = Tree::read(home.path()).unwrap();
        let lines = tree.lines();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1], "  year=2026/month=01/day=01/   1 file, 2.0 KiB");
        assert_eq!(lines[3], "  …   5 more partitions");
        assert_eq!(tree.bytes(), 9 * 2048);
    }
}
