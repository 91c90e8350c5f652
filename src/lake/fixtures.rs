//! Tables and rows for this room's tests.

use super::encoder::Encoding;
use super::schema::LakeSchema;
pub(super) use super::scripted_store::{Fault, Request, ScriptedStore};
use super::{LakeLocation, Progress, StagedFile};
use crate::base::{ColumnType, Lsn, Partition, PartitionBy, SourceColumn, TableName, TableShape};
use crate::buffer::PartitionBatch;
use chrono::NaiveDate;
use deltalake::arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray};
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use url::Url;

pub(super) const PATH: &str = "security_event";

pub(super) fn column(name: &str, column_type: ColumnType, nullable: bool) -> SourceColumn {
    SourceColumn {
        name: name.to_owned(),
        lake_name: name.to_owned(),
        type_oid: 0,
        type_modifier: -1,
        column_type,
        nullable,
    }
}

fn shape(table: &str, columns: Vec<SourceColumn>, partition_column: usize) -> TableShape {
    TableShape {
        table: TableName::new("public", table),
        columns,
        partition_column,
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        key: vec![0, partition_column],
        identity: vec![0, partition_column],
        identity_is_ambiguous: false,
    }
}

/// The first customer's table.
pub(super) fn security_event() -> TableShape {
    use ColumnType::{Inet, Jsonb, Text, Timestamp, Uuid};
    let columns = vec![
        column("id", Uuid, false),
        column("type", Text, false),
        column("description", Text, false),
        column("tenant_id", Uuid, false),
        column("tenant_name", Text, false),
        column("client_id", Text, false),
        column("client_name", Text, false),
        column("user_id", Uuid, true),
        column("user_name", Text, true),
        column("external_user_id", Text, true),
        column("ip_address", Inet, true),
        column("user_agent", Text, true),
        column("detail", Jsonb, false),
        column("created_at", Timestamp, false),
    ];
    shape("security_event", columns, 13)
}

/// A column of every kind.
pub(super) fn every_type() -> TableShape {
    let kinds = [
        ("id", ColumnType::Uuid),
        ("flag", ColumnType::Bool),
        ("small_number", ColumnType::Int2),
        ("number", ColumnType::Int4),
        ("big_number", ColumnType::Int8),
        ("real_number", ColumnType::Float4),
        ("double_number", ColumnType::Float8),
        ("amount", ColumnType::Decimal { precision: 38, scale: 10 }),
        ("any_amount", ColumnType::Numeric),
        ("on_date", ColumnType::Date),
        ("on_time", ColumnType::Time),
        ("at_time", ColumnType::Timestamp),
        ("at_time_zone", ColumnType::TimestampTz),
        ("address", ColumnType::Inet),
        ("network", ColumnType::Cidr),
        ("station", ColumnType::MacAddr),
        ("document", ColumnType::Json),
        ("documents", ColumnType::Jsonb),
        ("bytes", ColumnType::Bytea),
        ("label", ColumnType::Text),
        ("labels", ColumnType::ServerText),
    ];
    let columns = kinds.into_iter().map(|(name, kind)| column(name, kind, name != "id")).collect();
    shape("every_type", columns, 11)
}

pub(super) fn progress() -> Progress {
    let table = TableName::new("public", "security_event");
    Progress { system_identifier: "7412".to_owned(), pipeline: "lakebed".to_owned(), table, epoch: 0 }
}

pub(super) fn day(day: u32) -> Partition {
    PartitionBy::Day.partition_of(NaiveDate::from_ymd_opt(2026, 1, day).unwrap())
}

/// Rows of `partition`: `rows` of them, numbered from `first`, one second apart, the last in the day's last microsecond.
pub(super) fn events(partition: Partition, first: usize, rows: usize) -> PartitionBatch {
    let midnight = partition.first_day().and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
    let number = |row: usize| first + row;
    let text = |make: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((0..rows).map(|row| make(number(row))).collect::<StringArray>())
    };
    let uuid = |number: usize| format!("{:08x}-0000-4000-8000-{:012x}", number.wrapping_mul(2_654_435_761), number);
    let created_at = (0..rows).map(|row| {
        let last = row + 1 == rows;
        midnight + if last { 86_399_999_999 } else { i64::try_from(number(row) % 86_000).unwrap() * 1_000_000 }
    });
    let columns: Vec<ArrayRef> = vec![
        text(&|n| Some(uuid(n))),
        text(&|n| Some(["inspect_token_success", "login_success", "password_failure"][n % 3].to_owned())),
        text(&|n| Some(format!("event of kind {}", n % 3))),
        text(&|n| Some(uuid(n % 10))),
        text(&|n| Some(format!("tenant {}", n % 10))),
        text(&|n| Some(format!("client-{}", n % 50))),
        text(&|n| Some(format!("Client {}", n % 50))),
        text(&|n| (n % 7 != 0).then(|| uuid(n % 5_000))),
        text(&|n| (n % 7 != 0).then(|| format!("利用者{}@example.com", n % 5_000))),
        text(&|_| None),
        text(&|n| (n % 11 != 0).then(|| format!("10.{}.{}.{}", n % 200, n / 7 % 250, n / 13 % 250))),
        text(&|n| Some(format!("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{}.0", n % 30))),
        text(&|n| {
            Some(format!("{{\"n\": {n}, \"request_url\": \"https://id.example.com/v1/tokens/{:x}\"}}", n * 7_919))
        }),
        Arc::new(TimestampMicrosecondArray::from_iter_values(created_at).with_timezone("UTC")),
    ];
    PartitionBatch {
        partition,
        rows: RecordBatch::try_new(crate::buffer::arrow_schema(&security_event()), columns).unwrap(),
        xids: None,
        eras: None,
    }
}

/// A lake in a temporary folder.
pub(super) struct Lake {
    pub(super) folder: TempDir,
    pub(super) location: LakeLocation,
}

impl Lake {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
        Self { folder, location }
    }

    /// The same folder through a store whose writes of log entries fail as scripted.
    pub(super) fn with_faults(&self, faults: &[Fault]) -> LakeLocation {
        let script: Vec<_> = faults.iter().map(|fault| (Request::PutEntry, *fault)).collect();
        self.with_script(&script).0
    }

    /// The same folder through a store that fails as scripted, by the kind of request.
    pub(super) fn with_script(&self, script: &[(Request, Fault)]) -> (LakeLocation, Arc<ScriptedStore>) {
        let url = Url::from_directory_path(self.folder.path()).unwrap();
        let store = Arc::new(ScriptedStore::new(script));
        (LakeLocation::with_store(&url, store.clone()), store)
    }

    pub(super) fn log_file(&self, version: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("{PATH}/_delta_log/{version:020}.json"))
    }

    /// Appends a log entry as another program would.
    pub(super) fn foreign_entry(&self, version: u64, lines: &[&str]) {
        assert!(!self.log_file(version).exists());
        std::fs::write(self.log_file(version), lines.join("\n")).unwrap();
    }

    pub(super) fn data_files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries
                .map(
                    |path| {
                        if path.is_dir() { count(&path) } else { usize::from(path.extension().unwrap() == "parquet") }
                    },
                )
                .sum()
        }
        let folders = std::fs::read_dir(self.folder.path().join(PATH)).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|path| path.is_dir() && !path.ends_with("_delta_log")).map(|path| count(&path)).sum()
    }
}

/// A file that is named in a commit without being there: the log does not look.
pub(super) fn imaginary_file(lake: &Lake, number: u32) -> StagedFile {
    StagedFile {
        location: format!("{}/{PATH}", lake.location),
        path: format!("{}/part-{number:05}.zstd.parquet", day(1).path()),
        partition: day(1),
        size_bytes: 10,
        rows: 1,
        statistics: "{\"numRecords\":1}".to_owned(),
        modified_millis: 0,
        xids: None,
        eras: None,
        encoding: Arc::new(Encoding::new(Arc::new(LakeSchema::of(&security_event()).unwrap()), 1).unwrap()),
    }
}

pub(super) fn lsn(number: u64) -> Lsn {
    Lsn(number)
}
