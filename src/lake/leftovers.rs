//! Temporary files of dead processes on a local lake. Listings leave them out, so neither readers nor vacuum ever see them, and
//! only who made them can know them: their names say which process that was.

use super::actions::PROCESS;
use std::fs::DirEntry;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;
use url::Url;

/// Digits of a process's number in a name; those of the file's own number follow.
const PROCESS_DIGITS: usize = 20;
const FILE_DIGITS: usize = 10;

/// A predecessor wrote before this process did; a successor may be writing now.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

static OURS: LazyLock<String> = LazyLock::new(|| format!("{:020}", PROCESS.as_u64_pair().1));

/// What is appended to a file's name while it is written: `#` and digits, which the object store's local listing leaves out.
pub(super) fn temporary_suffix() -> String {
    LazyLock::force(&STARTED);
    format!("#{}{:010}", *OURS, rand::random::<u32>())
}

/// Removes what other processes left below a folder of a local lake. To be called where no other process of this pipeline can be
/// at work. An attempt: what stays is found the next time.
pub(super) async fn remove_temporary_files(folder: &str) {
    let path = Url::parse(folder).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok());
    let Some(path) = path else { return };
    let removed = tokio::task::spawn_blocking(move || remove_below(&path)).await;
    if let Ok(files @ 1..) = removed {
        tracing::debug!(folder, files, "removed what a dead process was writing");
    }
}

fn remove_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut removed = 0;
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            removed += remove_below(&entry.path());
        } else if is_anothers(&entry.file_name().to_string_lossy()) && is_older_than_this_process(&entry) {
            removed += usize::from(std::fs::remove_file(entry.path()).is_ok());
        }
    }
    removed
}

fn is_older_than_this_process(entry: &DirEntry) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written < *STARTED)
}

/// Other programs' temporary files have shorter numbers.
fn is_anothers(name: &str) -> bool {
    let Some((_, number)) = name.rsplit_once('#') else { return false };
    number.len() == PROCESS_DIGITS + FILE_DIGITS
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !number.starts_with(OURS.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_another_process_of_lakebed_is_tidied_after() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let ours = format!("part.parquet{}", temporary_suffix());
        let another = format!("part.parquet#{:020}{:010}", 7, 7);
        for name in [ours.as_str(), another.as_str(), "part.parquet", "part.parquet#1", "part#x.parquet"] {
            std::fs::write(below.join(name), b"").unwrap();
        }
        let successors = format!("part.parquet#{:020}{:010}", 8, 8);
        std::fs::write(below.join(&successors), b"").unwrap();
        let before = *STARTED - std::time::Duration::from_secs(60);
        std::fs::File::options().write(true).open(below.join(&another)).unwrap().set_modified(before).unwrap();
        remove_temporary_files(Url::from_directory_path(folder.path()).unwrap().as_str()).await;
        let mut left: Vec<String> =
            std::fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected =
            vec![ours, successors, "part#x.parquet".to_owned(), "part.parquet".to_owned(), "part.parquet#1".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }
}
