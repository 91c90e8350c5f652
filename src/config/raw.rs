//! The pipeline file as written: one struct a TOML table, every value still text.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPipeline {
    pub(super) source: RawSource,
    pub(super) lake: RawLake,
    #[serde(default, rename = "table")]
    pub(super) tables: Vec<RawTable>,
    #[serde(default)]
    pub(super) buffer: RawBuffer,
    #[serde(default)]
    pub(super) archive: RawArchive,
    #[serde(default)]
    pub(super) status: RawStatus,
    #[serde(default)]
    pub(super) query: RawQuery,
    #[serde(default)]
    pub(super) snapshot: RawSnapshot,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    pub(super) url: String,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) streaming: Option<bool>,
    pub(super) failover: Option<bool>,
    pub(super) heartbeat_interval: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLake {
    pub(super) url: String,
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTable {
    pub(super) name: String,
    pub(super) partition_column: String,
    pub(super) partition_by: Option<String>,
    pub(super) time_zone: Option<String>,
    pub(super) on_error: Option<String>,
    pub(super) truncate: Option<String>,
    #[serde(default)]
    pub(super) text_columns: Vec<String>,
    #[serde(default)]
    pub(super) lake_columns: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBuffer {
    pub(super) max_age: Option<String>,
    pub(super) max_bytes: Option<String>,
    pub(super) memory_limit: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawArchive {
    pub(super) schema: Option<String>,
    pub(super) drop: Option<bool>,
    pub(super) schedule: Option<String>,
    pub(super) proof_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStatus {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuery {
    pub(super) database: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSnapshot {
    pub(super) connections: Option<i64>,
    pub(super) max_bytes_per_second: Option<String>,
    pub(super) batch_bytes: Option<String>,
}
