//! The sections of the pipeline file, each value in its own type.

use super::cron::Schedule;
use crate::base::{PartitionBy, TableName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// `[source]`
#[derive(Clone)]
pub struct SourceSection {
    /// A libpq URL; it may hold a password, so it is never printed.
    pub url: String,
    /// The logical replication slot; also the pipeline's name in the lake.
    pub slot: String,
    /// The publication that the slot reads.
    pub publication: String,
    /// Whether transactions in progress are sent before they commit (protocol 2); without it the server gathers each whole.
    pub streaming: bool,
    /// Whether `init` asks for a slot that a standby keeps through a failover, where the server has such slots (17 and later).
    pub failover: bool,
    /// How often a small message is written into the WAL, so that the slot moves on where only other tables, or nobody, writes.
    pub heartbeat_interval: Option<Duration>,
}

impl std::fmt::Debug for SourceSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceSection")
            .field("slot", &self.slot)
            .field("publication", &self.publication)
            .field("streaming", &self.streaming)
            .field("failover", &self.failover)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .finish()
    }
}

/// `[lake]`
#[derive(Clone)]
pub struct LakeSection {
    /// The root; each table is a folder below it.
    pub url: Url,
    /// Object-store options; they may hold keys, so they are never printed.
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for LakeSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        let mut url = self.url.clone();
        // A URL that cannot carry a user or a password has none to hide.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_query(None);
        f.debug_struct("LakeSection").field("url", &url.as_str()).field("options", &options).finish()
    }
}

/// `[[table]]`
#[derive(Clone, Debug)]
pub struct TableSection {
    /// The published root.
    pub name: TableName,
    /// The column that dates a row.
    pub partition_column: String,
    /// Day or month.
    pub partition_by: PartitionBy,
    /// The zone in which a `timestamptz` partition column is cut into days.
    pub time_zone: chrono_tz::Tz,
    /// What a definite error of this table does to the others.
    pub on_error: OnError,
    /// What a TRUNCATE does to the lake's table.
    pub truncate: OnTruncate,
    /// Columns that the lake keeps as strings of the server's own text, whatever their type; each once, in the file's order.
    pub text_columns: Vec<String>,
    /// Source columns that have another name in the lake: each lake name once.
    pub lake_columns: BTreeMap<String, String>,
}

/// What happens when a change of a table cannot be taken, now or ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The pipeline stops, and the slot keeps everything until somebody has acted.
    #[default]
    Stop,
    /// The table stands still in the lake from that change on, until it is repaired; the other tables and the slot go on.
    Park,
}

/// What happens when the source table is emptied at one blow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTruncate {
    /// Nobody empties an archive by mistake: it is a change that cannot be taken ([`OnError`]).
    #[default]
    Refuse,
    /// The lake's table becomes empty, too.
    Apply,
}

impl TableSection {
    /// The table's folder below the lake's root.
    pub fn lake_path(&self) -> &str {
        &self.name.name
    }
}

/// `[buffer]`
#[derive(Clone, Debug)]
pub struct BufferSection {
    /// A row is in the lake at most this long after its transaction arrived.
    pub max_age: Duration,
    /// Buffered bytes that cause a flush before `max_age`.
    pub max_bytes: u64,
    /// Resident memory that `run` stays under.
    pub memory_limit_bytes: u64,
}

/// `[archive]`
#[derive(Clone, Debug)]
pub struct ArchiveSection {
    /// partman's `retention_schema`.
    pub schema: String,
    /// Whether a proved partition may be dropped.
    pub drop: bool,
    /// When what waits is balanced and dropped.
    pub schedule: Schedule,
    /// How often complete days are looked at, so that a fault is known long before their partition is detached.
    pub proof_interval: Duration,
}

/// `[status]`
#[derive(Clone, Debug)]
pub struct StatusSection {
    /// Address of the status page.
    pub listen: SocketAddr,
}

/// `[query]`
#[derive(Clone, Debug)]
pub struct QuerySection {
    /// Analysts may qualify a table with this name, as in Athena: `idp_archive.security_event`.
    pub database: Option<String>,
}

/// `[snapshot]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSection {
    /// Sessions that copy at once, 1 to 16; the one that holds the snapshot comes on top, as a WAL sender.
    pub connections: usize,
    /// What all of them together may read in a second, in bytes of COPY; without it, as fast as it goes.
    pub max_bytes_per_second: Option<u64>,
    /// Days are copied together up to about so many bytes of PostgreSQL's; each such batch has a snapshot of its own.
    pub batch_bytes: u64,
}
