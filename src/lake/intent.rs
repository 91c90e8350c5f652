//! What a writer says before it uploads: `<table>/_lakebed/staging/<token>.json`. The files of a process that died are found by
//! the token in their names, and told from committed ones by the log from the intent's version on.
//!
//! Readers of Delta tables pass over folders that begin with an underscore, and so does vacuum.

use bytes::Bytes;
use deltalake::logstore::object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FOLDER: &str = "_lakebed/staging";

const SUFFIX: &str = ".zstd.parquet";

/// The content of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// The process that uploads.
    pub(super) process: String,
    /// Whose progress its commits record.
    pub(super) app_id: String,
    /// A version of the table from before any file with the token was committed.
    pub(super) version: u64,
}

impl Intent {
    pub(super) fn to_bytes(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }
}

/// Where the intents of a table are.
pub(super) fn folder() -> Path {
    Path::from(FOLDER)
}

pub(super) fn path_of(token: Uuid) -> Path {
    folder().join(format!("{token}.json"))
}

/// The token of an intent by its path; None for anything else in the folder.
pub(super) fn token_of_intent(path: &Path) -> Option<Uuid> {
    token(path.filename()?.strip_suffix(".json")?)
}

/// The name of a token's file; `number` makes it unique.
pub(super) fn file_name(number: u64, token: Uuid) -> String {
    format!("part-{number:05}-{token}{SUFFIX}")
}

/// The token in a data file's name; None where no writer of this room made the name.
pub(super) fn token_of_file(name: &str) -> Option<Uuid> {
    let (number, text) = name.strip_prefix("part-")?.strip_suffix(SUFFIX)?.split_once('-')?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if numbered { token(text) } else { None }
}

/// Only as it is written here: lower case, with hyphens.
fn token(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|token| token.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_its_names_and_in_no_other() {
        let id = Uuid::new_v4();
        for number in [0, 99_999, 100_000] {
            assert_eq!(token_of_file(&file_name(number, id)), Some(id));
        }
        assert_eq!(token_of_intent(&path_of(id)), Some(id));
        let upper = id.to_string().to_uppercase();
        for other in [
            format!("part-00000-{id}-c000.snappy.parquet"),
            format!("part-00000-{id}.parquet"),
            format!("part--{id}.zstd.parquet"),
            format!("part-0000x-{id}.zstd.parquet"),
            format!("part-00000-{upper}.zstd.parquet"),
            format!("part-00000-{}.zstd.parquet", id.simple()),
            format!("{id}.zstd.parquet"),
        ] {
            assert_eq!(token_of_file(&other), None, "{other}");
        }
    }
}
