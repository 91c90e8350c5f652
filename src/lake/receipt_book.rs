//! The receipts of the archive, kept beside the rows that they prove: `_lakebed/receipts`, a Delta table like the others.
//!
//! A receipt's place in its chain is the position that the table records (L1), so each is there once, and those that are missing are the
//! ones behind the recorded position. `content` is the text that was hashed; the other columns repeat what is asked for.

use super::error::LakeError;
use super::location::LakeLocation;
use super::partition_reader::{FileFault, PartitionReader};
use super::patience::Patience;
use super::progress::Progress;
use super::table::LakeTable;
use super::writer::{TableWriter, WriterOptions};
use crate::base::{ColumnType, Lsn, Partition, PartitionBy, SourceColumn, TableName, TableShape};
use crate::buffer::{PartitionBatch, arrow_schema};
use chrono::{DateTime, NaiveDate, Utc};
use deltalake::arrow::array::{
    ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use deltalake::arrow::datatypes::Int64Type;
use deltalake::arrow::error::ArrowError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Below the lake's root.
pub const RECEIPTS_PATH: &str = "_lakebed/receipts";

/// Memory for the few rows of a commit.
const WRITER_BYTES: usize = 8 << 20;

/// One receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookedReceipt {
    /// Its place in the chain, from 1.
    pub sequence: i64,
    /// SHA-256 of `content`, in hexadecimal.
    pub hash: String,
    /// `dropped`, `erased`, …
    pub kind: String,
    /// The table.
    pub table: String,
    /// The detached table, or the days.
    pub partition: String,
    /// First day.
    pub lower: NaiveDate,
    /// The day behind the last.
    pub upper: NaiveDate,
    /// Rows.
    pub rows: i64,
    /// Their digest.
    pub digest: String,
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
    /// The text that was hashed.
    pub content: String,
}

/// The table of receipts, open for writing.
pub struct ReceiptBook {
    table: LakeTable,
}

impl ReceiptBook {
    /// Opens the table, or makes it.
    ///
    /// # Errors
    /// As [`LakeTable::create`].
    pub async fn open(location: &LakeLocation) -> Result<Self, LakeError> {
        let (shape, progress) = (shape(), progress());
        let table = LakeTable::create(location, RECEIPTS_PATH, &shape, &progress, Lsn::ZERO).await?;
        Ok(Self { table })
    }

    /// Whether a lake has the table.
    ///
    /// # Errors
    /// What the store says, and a log that cannot be read.
    pub async fn exists(location: &LakeLocation) -> Result<bool, LakeError> {
        match PartitionReader::open(location, RECEIPTS_PATH).await {
            Ok(_) => Ok(true),
            Err(LakeError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The last receipt that is there.
    pub fn last(&self) -> i64 {
        i64::try_from(self.table.recorded().0).unwrap_or(i64::MAX)
    }

    /// Adds the receipts behind the last one, in the order of the chain, in one commit.
    ///
    /// # Errors
    /// What the store says; [`LakeError::Overtaken`] and [`LakeError::SecondWriter`] when another process adds receipts just now: open the
    /// table again.
    pub async fn add(&mut self, receipts: &[BookedReceipt], patience: &Patience) -> Result<(), LakeError> {
        let Some(last) = receipts.last() else { return Ok(()) };
        let options = WriterOptions { memory_limit_bytes: WRITER_BYTES, ..WriterOptions::default() };
        let mut writer = TableWriter::new(&self.table, options, patience.clone())?;
        let mut partitions: BTreeMap<Partition, Vec<&BookedReceipt>> = BTreeMap::new();
        for receipt in receipts {
            partitions.entry(PartitionBy::Month.partition_of(receipt.lower)).or_default().push(receipt);
        }
        for (partition, receipts) in partitions {
            let rows = rows(&receipts).map_err(|error| LakeError::Batch {
                location: self.table.location().to_owned(),
                reason: error.to_string(),
            })?;
            writer.write(PartitionBatch { partition, rows, xids: None, eras: None }).await?;
        }
        let files = writer.finish().await?;
        let at = Lsn(u64::try_from(last.sequence).unwrap_or(0));
        let landed = self.table.land(&files, at, patience).await;
        if landed.is_ok() {
            writer.committed(&self.table).await;
        }
        let discarded = writer.discard().await;
        landed?;
        discarded
    }

    /// Waits for a checkpoint that is being written.
    pub async fn close(self) {
        self.table.close().await;
    }
}

/// What a lake has of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// The receipts, in the order of the chain.
    pub receipts: Vec<BookedReceipt>,
    /// The place of the last one that was ever written: whoever takes rows out leaves it as it is.
    pub last: i64,
}

/// Every receipt of a lake; none where there is no table of them.
///
/// # Errors
/// A file that is missing or cannot be read, and what the store says.
pub async fn booked_receipts(location: &LakeLocation) -> Result<Booked, FileFault> {
    let reader = match PartitionReader::open(location, RECEIPTS_PATH).await {
        Err(LakeError::Missing { .. }) => return Ok(Booked::default()),
        opened => opened?,
    };
    let last = reader.recorded(&progress().app_id()).await?.unwrap_or(0);
    let mut receipts = Vec::new();
    for file in reader.partitions().await?.values().flatten() {
        let file = reader.fetch(file).await?;
        receipts = file.read(receipts, take).await?;
    }
    receipts.sort_by_key(|receipt| receipt.sequence);
    Ok(Booked { receipts, last })
}

/// The partitions of a table that hold days which PostgreSQL has dropped.
pub(super) async fn dropped_partitions(
    location: &LakeLocation,
    table: &TableName,
    by: PartitionBy,
) -> Result<BTreeSet<Partition>, LakeError> {
    let booked = booked_receipts(location).await.map_err(|fault| match fault {
        FileFault::Lake(error) => error,
        fault => LakeError::Log { location: format!("{location}/{RECEIPTS_PATH}"), reason: fault.to_string() },
    })?;
    let name = table.to_string();
    let dropped = booked.receipts.iter().filter(|receipt| receipt.kind == "dropped" && receipt.table == name);
    let days = dropped.flat_map(|receipt| receipt.lower.iter_days().take_while(|day| *day < receipt.upper));
    Ok(days.map(|day| by.partition_of(day)).collect())
}

fn take(receipts: &mut Vec<BookedReceipt>, rows: &RecordBatch) -> Result<(), String> {
    let missing = |name: &str| format!("it has no column {name} as receipts have it");
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| missing(name));
    let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| missing(name));
    let number = |name: &str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| missing(name));
    let date = |name: &str| column(name)?.as_any().downcast_ref::<Date32Array>().ok_or_else(|| missing(name));
    let moments = column("recorded_at")?.as_any().downcast_ref::<TimestampMicrosecondArray>();
    let moments = moments.ok_or_else(|| missing("recorded_at"))?;
    for row in 0..rows.num_rows() {
        let text = |name: &str| Ok::<String, String>(text(name)?.value(row).to_owned());
        let day = |name: &str| date(name)?.value_as_date(row).ok_or_else(|| missing(name));
        receipts.push(BookedReceipt {
            sequence: number("sequence")?.value(row),
            hash: text("hash")?,
            kind: text("kind")?,
            table: text("table_name")?,
            partition: text("partition_name")?,
            lower: day("lower_bound")?,
            upper: day("upper_bound")?,
            rows: number("rows")?.value(row),
            digest: text("digest")?,
            recorded_at: DateTime::from_timestamp_micros(moments.value(row)).ok_or_else(|| missing("recorded_at"))?,
            content: text("content")?,
        });
    }
    Ok(())
}

fn rows(receipts: &[&BookedReceipt]) -> Result<RecordBatch, ArrowError> {
    let text = |value: fn(&BookedReceipt) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(receipts.iter().map(|receipt| value(receipt))))
    };
    let number = |value: fn(&BookedReceipt) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(receipts.iter().map(|receipt| value(receipt))))
    };
    let date = |value: fn(&BookedReceipt) -> NaiveDate| -> ArrayRef {
        let days = receipts.iter().map(|receipt| value(receipt).signed_duration_since(NaiveDate::default()).num_days());
        Arc::new(Date32Array::from_iter_values(days.map(|days| i32::try_from(days).unwrap_or(0))))
    };
    let moments = receipts.iter().map(|receipt| receipt.recorded_at.timestamp_micros());
    let columns = vec![
        number(|receipt| receipt.sequence),
        text(|receipt| &receipt.hash),
        text(|receipt| &receipt.kind),
        text(|receipt| &receipt.table),
        text(|receipt| &receipt.partition),
        date(|receipt| receipt.lower),
        date(|receipt| receipt.upper),
        number(|receipt| receipt.rows),
        text(|receipt| &receipt.digest),
        Arc::new(TimestampMicrosecondArray::from_iter_values(moments).with_timezone("UTC")),
        text(|receipt| &receipt.content),
    ];
    RecordBatch::try_new(arrow_schema(&shape()), columns)
}

/// In the order of [`rows`]; kept in folders by the month of the first day.
fn shape() -> TableShape {
    let column = |name: &str, column_type: ColumnType| SourceColumn {
        name: name.to_owned(),
        lake_name: name.to_owned(),
        type_oid: 0,
        type_modifier: -1,
        column_type,
        nullable: false,
    };
    let columns = vec![
        column("sequence", ColumnType::Int8),
        column("hash", ColumnType::Text),
        column("kind", ColumnType::Text),
        column("table_name", ColumnType::Text),
        column("partition_name", ColumnType::Text),
        column("lower_bound", ColumnType::Date),
        column("upper_bound", ColumnType::Date),
        column("rows", ColumnType::Int8),
        column("digest", ColumnType::Text),
        column("recorded_at", ColumnType::TimestampTz),
        column("content", ColumnType::Json),
    ];
    TableShape {
        table: TableName::new("archive", "receipt"),
        columns,
        partition_column: 5,
        partition_by: PartitionBy::Month,
        time_zone: chrono_tz::UTC,
        key: vec![0],
        identity: vec![0],
        identity_is_ambiguous: false,
    }
}

/// Of no server and no slot: the chain goes on when the database moves to another server.
fn progress() -> Progress {
    Progress {
        system_identifier: "archive".to_owned(),
        pipeline: "receipts".to_owned(),
        table: TableName::new("archive", "receipt"),
        epoch: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn receipt(sequence: i64) -> BookedReceipt {
        BookedReceipt {
            sequence,
            hash: format!("{sequence:064x}"),
            kind: "dropped".to_owned(),
            table: "public.event".to_owned(),
            partition: format!("archive.event_p{sequence}"),
            lower: NaiveDate::from_ymd_opt(2026, 1, 31).unwrap(),
            upper: NaiveDate::from_ymd_opt(2026, 2, 1).unwrap(),
            rows: -sequence,
            digest: "0".repeat(32),
            recorded_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            content: format!("{{\"sequence\": {sequence}}}"),
        }
    }

    #[tokio::test]
    async fn receipts_come_back_as_they_went_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_file_path(folder.path()).unwrap();
        let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
        assert_eq!(booked_receipts(&location).await.unwrap(), Booked::default());
        let mut book = ReceiptBook::open(&location).await.unwrap();
        assert_eq!(book.last(), 0);
        book.add(&[receipt(1), receipt(2)], &Patience::none()).await.unwrap();
        book.close().await;
        let mut book = ReceiptBook::open(&location).await.unwrap();
        assert_eq!(book.last(), 2);
        let again = book.add(&[receipt(2)], &Patience::none()).await.unwrap_err();
        assert!(matches!(again, LakeError::AlreadyRecorded { .. }), "{again}");
        book.add(&[receipt(3)], &Patience::none()).await.unwrap();
        let booked = Booked { receipts: vec![receipt(1), receipt(2), receipt(3)], last: 3 };
        assert_eq!(booked_receipts(&location).await.unwrap(), booked);
    }
}
