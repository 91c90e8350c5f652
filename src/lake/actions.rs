//! The lines of a Delta log entry: those that are read, and those that are written.
//!
//! Only what this room decides on is parsed; every other action and field is passed over (Delta protocol, "Actions").

use super::active::ActiveFile;
use super::progress::Progress;
use super::schema::LakeSchema;
use super::staged::StagedFile;
use crate::base::{ColumnType, PartitionBy, TableShape};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::LazyLock;
use uuid::Uuid;

/// Commits between two checkpoints, for other writers of the table and for this one.
pub(super) const CHECKPOINT_INTERVAL: u64 = 100;

/// Written into every commit, so that an entry of this process that landed late is told from another process's.
pub(super) static PROCESS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

const ENGINE: &str = concat!("lakebed/", env!("CARGO_PKG_VERSION"));

/// One line of a log entry, or one row of a checkpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub(super) protocol: Option<Protocol>,
    pub(super) meta_data: Option<Metadata>,
    pub(super) txn: Option<Transaction>,
    pub(super) remove: Option<Removal>,
    pub(super) commit_info: Option<CommitInfo>,
}

impl Line {
    /// None for a line that says nothing of interest here, as most rows of a checkpoint do.
    pub(super) fn if_any(self) -> Option<Self> {
        let empty =
            self.protocol.is_none() && self.meta_data.is_none() && self.txn.is_none() && self.commit_info.is_none();
        if empty { None } else { Some(self) }
    }
}

/// `protocol`: what a reader and a writer must understand.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: i32,
    pub(super) min_writer_version: i32,
    #[serde(default)]
    pub(super) reader_features: Option<Vec<String>>,
    #[serde(default)]
    pub(super) writer_features: Option<Vec<String>>,
}

/// The table property that says which columns have statistics in the log.
pub(super) const STATISTICS_COLUMNS: &str = "delta.dataSkippingStatsColumns";

/// `metaData`: schema, partition columns and table properties, and whatever else another program put there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) schema_string: String,
    #[serde(default)]
    pub(super) partition_columns: Vec<String>,
    #[serde(default)]
    pub(super) configuration: Option<BTreeMap<String, Option<String>>>,
    /// `id`, `name`, `format`, `createdTime`, …: kept as they are found.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

impl Metadata {
    /// Sets a table property.
    pub(super) fn set(&mut self, key: &str, value: String) {
        self.configuration.get_or_insert_default().insert(key.to_owned(), Some(value));
    }
}

/// `txn`: an application's own progress.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    pub(super) app_id: String,
    pub(super) version: i64,
}

/// `remove`: which file, and whether rows went with it or only moved to another one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Removal {
    #[serde(default)]
    pub(super) path: String,
    #[serde(default = "yes")]
    pub(super) data_change: bool,
}

/// The protocol requires `dataChange`; where it is missing, the worse is assumed.
fn yes() -> bool {
    true
}

/// `commitInfo`, as far as lakebed's own entries are recognised by it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitInfo {
    #[serde(default)]
    pub(super) txn_id: Option<String>,
    #[serde(default)]
    pub(super) lakebed_process: Option<String>,
    #[serde(default)]
    pub(super) operation: Option<String>,
    #[serde(default)]
    pub(super) lakebed_erasure: Option<String>,
}

/// How rows are put into folders, as table properties. Queries leave folders out by these and by nothing else, so a table keeps
/// for ever what it was created with.
pub(super) fn folder_rule(shape: &TableShape) -> [(&'static str, String); 3] {
    let column = shape.columns.get(shape.partition_column);
    let partition_by = match shape.partition_by {
        PartitionBy::Day => "day",
        PartitionBy::Month => "month",
    };
    // Only a timestamptz is cut in a zone; the days of a date and of a timestamp are the value's own.
    let zone = match (column.map(|column| column.column_type), shape.time_zone) {
        (_, Tz::UCT | Tz::Zulu | Tz::Etc__UTC | Tz::Etc__UCT | Tz::Etc__Zulu) => Tz::UTC,
        (Some(ColumnType::TimestampTz), zone) => zone,
        _ => Tz::UTC,
    };
    [
        ("lakebed.partition_column", column.map(|column| column.lake_name.clone()).unwrap_or_default()),
        ("lakebed.partition_by", partition_by.to_owned()),
        ("lakebed.time_zone", zone.name().to_owned()),
    ]
}

/// Version 0: protocol, schema and the position from which the table is complete.
pub(super) fn creation(
    schema: &LakeSchema,
    folder_rule: &[(&'static str, String)],
    progress: &Progress,
    position: i64,
    commit: Uuid,
    now_millis: i64,
) -> Vec<u8> {
    let operation = json!({
        "mode": "ErrorIfExists",
        "partitionBy": json!(schema.partition_columns).to_string(),
        "description": Value::Null,
    });
    let mut configuration = BTreeMap::from([
        (STATISTICS_COLUMNS, schema.statistics_columns()),
        ("delta.checkpointInterval", CHECKPOINT_INTERVAL.to_string()),
        ("lakebed.source", schema.table.to_string()),
    ]);
    configuration.extend(folder_rule.iter().cloned());
    let description = match progress.table == schema.table {
        true => format!("{} of PostgreSQL, kept by lakebed", schema.table),
        false => format!("Changed and removed rows of {} of PostgreSQL, kept by lakebed", schema.table),
    };
    let lines = [
        commit_info("CREATE TABLE", operation, commit, now_millis),
        json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
        json!({ "metaData": {
            "id": Uuid::new_v4().to_string(),
            "name": progress.table.name,
            "description": description,
            "format": { "provider": "parquet", "options": {} },
            "schemaString": schema.schema_string(),
            "partitionColumns": schema.partition_columns,
            "configuration": configuration,
            "createdTime": now_millis,
        } }),
        transaction(&progress.app_id(), position, now_millis),
    ];
    as_lines(&lines)
}

/// An append: the files and the position that they reach, in one entry (L1). One action at a time is a value in memory, because
/// a large transaction names tens of thousands of files.
pub(super) fn append(
    schema: &LakeSchema,
    files: &[impl Borrow<StagedFile>],
    app_id: &str,
    position: i64,
    commit: Uuid,
    now_millis: i64,
) -> Vec<u8> {
    let operation = json!({ "mode": "Append", "partitionBy": json!(schema.partition_columns).to_string() });
    let mut lines =
        as_lines(&[commit_info("WRITE", operation, commit, now_millis), transaction(app_id, position, now_millis)]);
    for file in files {
        push_line(&mut lines, &file.borrow().add_action());
    }
    lines
}

/// Rows changed: files go, others stand for them, and new ones come, in one entry with the position that all of it reaches (L1). The
/// partitions are named so that another program's check for conflicts can tell what this commit read.
pub(super) fn rewrite(
    removed: &[ActiveFile],
    added: &[&StagedFile],
    app_id: &str,
    position: i64,
    commit: Uuid,
    now_millis: i64,
) -> Vec<u8> {
    let mut info = commit_info("UPDATE", json!({ "predicate": predicate_of_partitions(removed) }), commit, now_millis);
    info["commitInfo"]["isBlindAppend"] = json!(false);
    let mut lines = as_lines(&[info, transaction(app_id, position, now_millis)]);
    push_files(&mut lines, removed, added, now_millis);
    lines
}

/// Rows are erased: their files go, and others stand for what stays. `app_id` is nobody's progress: by it those who erase notice each
/// other. `erasure` is the owner's name for what is done. The condition is not said: it names the very values that are to go.
pub(super) fn erasure(
    removed: &[ActiveFile],
    added: &[StagedFile],
    (app_id, stands_on): (&str, i64),
    erasure: Uuid,
    commit: Uuid,
    now_millis: i64,
) -> Vec<u8> {
    let mut info = commit_info("DELETE", json!({ "predicate": predicate_of_partitions(removed) }), commit, now_millis);
    info["commitInfo"]["isBlindAppend"] = json!(false);
    info["commitInfo"]["lakebedErasure"] = json!(erasure.to_string());
    let mut lines = as_lines(&[info, transaction(app_id, stands_on, now_millis)]);
    push_files(&mut lines, removed, added, now_millis);
    lines
}

/// The partitions of some files as a predicate over partition columns, in JSON as other writers put it.
fn predicate_of_partitions(files: &[ActiveFile]) -> String {
    let partitions: BTreeSet<_> = files.iter().map(|file| file.partition).collect();
    let of_one = |(column, value): (&str, String)| format!("{column} = '{value}'");
    let predicate = partitions.iter().map(|partition| {
        let columns: Vec<String> = partition.values().into_iter().map(of_one).collect();
        format!("({})", columns.join(" AND "))
    });
    json!([predicate.collect::<Vec<_>>().join(" OR ")]).to_string()
}

/// A commit without files that changes the table's columns or properties.
pub(super) fn alteration(operation: &str, metadata: &Metadata, commit: Uuid, now_millis: i64) -> Vec<u8> {
    let mut info = commit_info(operation, json!({}), commit, now_millis);
    info["commitInfo"]["isBlindAppend"] = json!(false);
    as_lines(&[info, json!({ "metaData": metadata })])
}

/// An alteration after which values of some columns are wider: the files that had them narrower go, and others stand for them.
pub(super) fn widening(
    metadata: &Metadata,
    removed: &[ActiveFile],
    added: &[StagedFile],
    commit: Uuid,
    now_millis: i64,
) -> Vec<u8> {
    let mut lines = alteration("CHANGE COLUMN", metadata, commit, now_millis);
    push_files(&mut lines, removed, added, now_millis);
    lines
}

/// A commit without files that says of which days the table's copy of PostgreSQL is still to come.
pub(super) fn marking(marks: &[(String, i64)], commit: Uuid, now_millis: i64) -> Vec<u8> {
    let mut lines = as_lines(&[commit_info("MARK", json!({}), commit, now_millis)]);
    push_marks(&mut lines, marks, now_millis);
    lines
}

/// Transaction identifiers beside the position.
pub(super) fn push_marks(text: &mut Vec<u8>, marks: &[(String, i64)], now_millis: i64) {
    for (app_id, version) in marks {
        push_line(text, &transaction(app_id, *version, now_millis));
    }
}

/// A commit without files that says since which position the table stands still.
pub(super) fn parking(app_id: &str, since: i64, commit: Uuid, now_millis: i64) -> Vec<u8> {
    as_lines(&[commit_info("PARK", json!({}), commit, now_millis), transaction(app_id, since, now_millis)])
}

fn commit_info(operation: &str, parameters: Value, commit: Uuid, now_millis: i64) -> Value {
    json!({ "commitInfo": {
        "timestamp": now_millis,
        "operation": operation,
        "operationParameters": parameters,
        "isBlindAppend": true,
        "engineInfo": ENGINE,
        "txnId": commit.to_string(),
        "lakebedProcess": PROCESS.to_string(),
    } })
}

fn transaction(app_id: &str, position: i64, now_millis: i64) -> Value {
    json!({ "txn": { "appId": app_id, "version": position, "lastUpdated": now_millis } })
}

fn as_lines(lines: &[Value]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        push_line(&mut text, line);
    }
    text
}

/// Files that go, and those that stand for them.
fn push_files(text: &mut Vec<u8>, removed: &[ActiveFile], added: &[impl Borrow<StagedFile>], now_millis: i64) {
    for file in removed {
        push_line(text, &file.remove_action(now_millis));
    }
    for file in added {
        push_line(text, &file.borrow().add_action());
    }
}

fn push_line(text: &mut Vec<u8>, line: &Value) {
    // A vector takes every byte, and a value has no key that is not a string: this cannot fail.
    let _ = writeln!(text, "{line}");
}
