//! A table of the lake beside a plain list of its rows, and the journal beside what happened to them.

use super::{ChangeSpool, Rewriter, Segment, StreamedCommit};
use crate::base::{DaySet, Partition, Runs, XidSet};
use crate::buffer::{ChangeBatch, Operation, PartitionBatch, arrow_schema, change_batch};
use crate::lake::fixtures::{Lake, PATH, day, lsn, progress, security_event};
use crate::lake::{LakeTable, Patience, TableWriter, WriterOptions, journal_path};
use deltalake::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use deltalake::arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::arrow::util::display::array_value_to_string;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DETAIL: usize = 12;
const DESCRIPTION: usize = 2;
const CREATED_AT: usize = 13;

/// A row of the model: its number and day are its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    number: u32,
    day: u32,
    description: String,
    detail: String,
}

fn id(number: u32) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", number.wrapping_mul(2_654_435_761))
}

fn micros(number: u32, on: u32) -> i64 {
    let midnight = day(on).first_day().and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
    midnight + i64::from(number) * 1_000_001 % 86_400_000_000
}

fn day_number(on: u32) -> i32 {
    let days = day(on).first_day().signed_duration_since(chrono::NaiveDate::default()).num_days();
    i32::try_from(days).unwrap()
}

/// Rows in the table's columns; `None` stands for what was not sent.
fn event_columns(rows: &[(u32, u32, Option<&str>, Option<&str>)]) -> Vec<ArrayRef> {
    let fixed = |text: &str| Arc::new(StringArray::from(vec![text; rows.len()])) as ArrayRef;
    let mut columns: Vec<ArrayRef> = (0..14).map(|_| fixed("x")).collect();
    columns[0] = Arc::new(rows.iter().map(|row| Some(id(row.0))).collect::<StringArray>());
    columns[DESCRIPTION] = Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>());
    columns[DETAIL] = Arc::new(rows.iter().map(|row| row.3).collect::<StringArray>());
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| micros(row.0, row.1)));
    columns[CREATED_AT] = Arc::new(times.with_timezone("UTC"));
    columns
}

fn batch(on: u32, rows: &[Row], eras: Option<Runs>) -> PartitionBatch {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row.number, row.day, Some(row.description.as_str()), Some(row.detail.as_str())))
        .collect();
    let rows = RecordBatch::try_new(arrow_schema(&security_event()), event_columns(&rows)).unwrap();
    PartitionBatch { partition: day(on), rows, xids: None, eras }
}

/// A change as the buffer hands it on.
#[derive(Clone, Debug)]
struct Change {
    ordinal: u32,
    operation: Operation,
    transaction: u32,
    xid: u32,
    key: (u32, u32),
    /// Of a patch.
    new: Option<Row>,
}

fn change_batch(changes: &[Change], with_xids: bool) -> ChangeBatch {
    let schema = arrow_schema(&security_event());
    let named = |change: &Change| change.operation != Operation::Truncate;
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let keys = Schema::new(vec![
        field(change_batch::ORDINAL, DataType::UInt32),
        field(change_batch::OPERATION, DataType::UInt8),
        field(change_batch::COMMIT_LSN, DataType::UInt64),
        field(change_batch::COMMIT_TIME, DataType::Int64),
        field(change_batch::XID, DataType::UInt32),
        field(change_batch::OLD_DAY, DataType::Date32),
        field("id", DataType::Utf8),
        schema.field(CREATED_AT).clone().with_nullable(true),
    ]);
    let times = changes.iter().map(|change| named(change).then(|| micros(change.key.0, change.key.1)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(changes.iter().map(|change| change.ordinal))),
        Arc::new(UInt8Array::from_iter_values(changes.iter().map(|change| change.operation as u8))),
        Arc::new(UInt64Array::from_iter_values(changes.iter().map(|change| u64::from(change.transaction)))),
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| i64::from(change.transaction)))),
        Arc::new(UInt32Array::from_iter_values(changes.iter().map(|change| change.xid))),
        Arc::new(changes.iter().map(|change| named(change).then(|| day_number(change.key.1))).collect::<Date32Array>()),
        Arc::new(changes.iter().map(|change| named(change).then(|| id(change.key.0))).collect::<StringArray>()),
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
    ];
    let keys = RecordBatch::try_new(Arc::new(keys), columns).unwrap();
    let patched: Vec<&Change> = changes.iter().filter(|change| change.operation == Operation::Patch).collect();
    let mut fields = vec![
        field(change_batch::ORDINAL, DataType::UInt32),
        field(change_batch::NEW_DAY, DataType::Date32),
        field(change_batch::UNCHANGED, DataType::Binary),
    ];
    fields.extend(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    let new = |change: &&Change| change.new.clone().unwrap();
    let news: Vec<Row> = patched.iter().map(new).collect();
    let mut unchanged = [0_u8; 2];
    unchanged[DETAIL / 8] |= 1 << (DETAIL % 8);
    let mut patches: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(patched.iter().map(|change| change.ordinal))),
        Arc::new(Date32Array::from_iter_values(news.iter().map(|row| day_number(row.day)))),
        Arc::new(BinaryArray::from_iter_values(patched.iter().map(|_| unchanged))),
    ];
    let sent: Vec<_> = news.iter().map(|row| (row.number, row.day, Some(row.description.as_str()), None)).collect();
    patches.extend(event_columns(&sent));
    let patches = RecordBatch::try_new(Arc::new(Schema::new(fields)), patches).unwrap();
    let mut xids = Runs::default();
    changes.iter().for_each(|change| xids.push(change.xid, 1));
    ChangeBatch { keys, patches, xids: with_xids.then_some(xids) }
}

/// An entry of the journal: the transaction, what it did, and the row as it was.
type OldImage = (u32, &'static str, Row);

/// A table beside its model.
pub(super) struct World {
    pub(super) lake: Lake,
    pub(super) table: LakeTable,
    writer: TableWriter,
    pub(super) model: BTreeMap<(u32, u32), Row>,
    /// Of these the lake has the row itself, or one that stands for it, and the transaction has not touched it.
    in_the_lake: BTreeSet<(u32, u32)>,
    /// What the transaction did first to rows of the lake.
    firsts: Vec<(Operation, Row)>,
    /// What the journal has to hold.
    old_images: Vec<OldImage>,
    pub(super) at: u64,
    /// Of the segment that is being made.
    rows: Vec<(Row, u32)>,
    changes: Vec<Change>,
    counter: u32,
    pub(super) transaction: u32,
}

impl World {
    pub(super) async fn new() -> Self {
        let lake = Lake::new();
        let table = LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap();
        let writer = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
        Self {
            lake,
            table,
            writer,
            model: BTreeMap::new(),
            in_the_lake: BTreeSet::new(),
            firsts: Vec::new(),
            old_images: Vec::new(),
            at: 1,
            rows: Vec::new(),
            changes: Vec::new(),
            counter: 0,
            transaction: 10,
        }
    }

    pub(super) fn insert(&mut self, number: u32, on: u32, text: &str) {
        let row = Row { number, day: on, description: text.to_owned(), detail: format!("detail of {text}") };
        self.put(row);
    }

    pub(super) fn put(&mut self, row: Row) {
        self.model.insert((row.number, row.day), row.clone());
        self.rows.push((row, self.counter));
    }

    fn change(&mut self, operation: Operation, key: (u32, u32), new: Option<Row>) {
        let (ordinal, transaction) = (self.counter, self.transaction);
        self.changes.push(Change { ordinal, operation, transaction, xid: transaction, key, new });
        self.counter += 1;
    }

    pub(super) fn delete(&mut self, key: (u32, u32)) -> Option<Row> {
        self.touch(Operation::Delete, key);
        let old = self.model.remove(&key)?;
        self.change(Operation::Delete, key, None);
        Some(old)
    }

    /// The whole new version is sent.
    pub(super) fn update(&mut self, key: (u32, u32), new: Row) {
        self.touch(Operation::Update, key);
        self.model.remove(&key);
        self.change(Operation::Update, key, None);
        self.put(new);
    }

    /// All but the detail is sent.
    pub(super) fn patch(&mut self, key: (u32, u32), mut new: Row) {
        self.touch(Operation::Patch, key);
        new.detail = self.model.remove(&key).unwrap().detail;
        self.change(Operation::Patch, key, Some(new.clone()));
        self.model.insert((new.number, new.day), new);
    }

    pub(super) fn truncate(&mut self) {
        let keys: Vec<_> = self.model.keys().copied().collect();
        keys.into_iter().for_each(|key| self.touch(Operation::Truncate, key));
        self.model.clear();
        self.change(Operation::Truncate, (0, 0), None);
    }

    /// What is there of a day goes; what comes of it from here on is all that there is, and has no earlier version.
    pub(super) fn replace_day(&mut self, on: u32) {
        self.model.retain(|(_, day), _| *day != on);
        self.in_the_lake.retain(|(_, day)| *day != on);
    }

    /// A TRUNCATE that concerns one day, of which the lake has no row.
    pub(super) fn truncate_day(&mut self, on: u32) {
        self.model.retain(|(_, day), _| *day != on);
        self.change(Operation::Truncate, (0, 0), None);
    }

    fn touch(&mut self, operation: Operation, key: (u32, u32)) {
        if self.in_the_lake.remove(&key) {
            self.firsts.push((operation, self.model[&key].clone()));
        }
    }

    /// The last change never was: the row is there as before.
    pub(super) fn was_rolled_back(&mut self, row: Row) {
        self.firsts.pop();
        self.in_the_lake.insert((row.number, row.day));
        self.model.insert((row.number, row.day), row);
    }

    /// What a transaction deleted and left as it was has nets to nothing.
    pub(super) fn end_transaction(&mut self) {
        for (operation, old) in std::mem::take(&mut self.firsts) {
            let key = (old.number, old.day);
            if operation == Operation::Delete && self.model.get(&key) == Some(&old) {
                self.in_the_lake.insert(key);
                continue;
            }
            let name = match operation {
                Operation::Delete => "delete",
                Operation::Update | Operation::Patch => "update",
                Operation::Truncate => "truncate",
            };
            self.old_images.push((self.transaction, name, old));
        }
        self.transaction += 1;
        self.counter += 1;
    }

    /// The segment as it is so far.
    pub(super) async fn segment(&mut self, memory: usize, commit: Option<StreamedCommit>) -> Segment {
        let mut eras = BTreeMap::<u32, (Vec<Row>, Runs)>::new();
        for (row, era) in self.rows.drain(..) {
            let (rows, runs) = eras.entry(row.day).or_default();
            rows.push(row);
            runs.push(era, 1);
        }
        for (on, (rows, runs)) in eras {
            let none_before = runs.iter().all(|(era, _)| era == 0);
            self.writer.write(batch(on, &rows, (!none_before).then_some(runs))).await.unwrap();
        }
        let mut changes = ChangeSpool::new(&self.writer, memory);
        for part in std::mem::take(&mut self.changes).chunks(7) {
            changes.push(change_batch(part, commit.is_some())).await.unwrap();
        }
        let table = security_event().table;
        let files = self.writer.finish().await.unwrap();
        Segment { table, files, changes, aborted: XidSet::default(), commit, replaces: DaySet::default() }
    }

    pub(super) async fn flush(&mut self, memory: usize, round_bytes: usize) -> super::Landed {
        self.end_transaction();
        let segment = self.segment(memory, None).await;
        self.land(segment, round_bytes).await
    }

    pub(super) async fn land(&mut self, segment: Segment, round_bytes: usize) -> super::Landed {
        self.at = self.at.max(u64::from(self.transaction)) + 1;
        self.transaction += 2;
        let rewriter = Rewriter { writer: WriterOptions::default(), round_bytes };
        let landed = self.table.land_changes(segment, &[], &rewriter, lsn(self.at), &Patience::none()).await.unwrap();
        self.counter = 0;
        self.in_the_lake = self.model.keys().copied().collect();
        self.assert_equal().await;
        landed
    }

    async fn assert_equal(&self) {
        let mut found = self.read().await;
        found.sort();
        assert_eq!(found, self.model.values().cloned().collect::<Vec<_>>());
        let mut expected = self.old_images.clone();
        expected.sort();
        assert_eq!(self.journal(), expected);
    }

    /// Every entry of the journal; nothing of it is ever rewritten.
    fn journal(&self) -> Vec<OldImage> {
        let mut entries = Vec::new();
        let mut folders = vec![self.lake.folder.path().join(journal_path(PATH))];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
                if path.is_dir() && !path.ends_with("_delta_log") && !path.ends_with("_lakebed") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    entries.extend(read_entries(&std::fs::read(path).unwrap()));
                }
            }
        }
        entries.sort();
        entries
    }

    /// What a reader of the table sees.
    async fn read(&self) -> Vec<Row> {
        let log = &self.table.log;
        let wanted = crate::lake::active::Wanted::All;
        let files = log.active_files(self.table.version(), crate::base::PartitionBy::Day, &wanted).await.unwrap();
        files.iter().flat_map(|file| read_file(&self.lake, &file.object_path(), file.partition)).collect()
    }
}

fn read_file(lake: &Lake, path: &str, partition: Partition) -> Vec<Row> {
    let bytes = std::fs::read(lake.folder.path().join(PATH).join(path)).unwrap();
    let on = (1..=28).find(|on| day(*on) == partition).unwrap();
    let rows: Vec<Row> = batches(&bytes).iter().flat_map(rows_of).collect();
    assert!(rows.iter().all(|row| row.day == on), "a row lies in another day's file");
    rows
}

fn batches(bytes: &[u8]) -> Vec<RecordBatch> {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let text = |name: &str, row: usize| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
    let details = batch.column_by_name("detail").unwrap();
    let times = batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let row = |row: usize| {
        assert!(!details.is_null(row));
        let number = u32::from_str_radix(&text("id", row)[24..], 16).unwrap();
        let on = (1..=28).find(|on| micros(number, *on) == times.value(row)).unwrap();
        Row { number, day: on, description: text("description", row), detail: text("detail", row) }
    };
    (0..batch.num_rows()).map(row).collect()
}

fn read_entries(bytes: &[u8]) -> Vec<OldImage> {
    let entries = |batch: &RecordBatch| {
        let operations = batch.column_by_name("lakebed_operation").unwrap().as_string::<i32>().clone();
        let xids = batch.column_by_name("lakebed_xid").unwrap().clone();
        let number = |row: usize| array_value_to_string(&xids, row).unwrap().parse().unwrap();
        let name =
            |row: usize| ["delete", "update", "truncate"].into_iter().find(|name| *name == operations.value(row));
        let rows = rows_of(batch).into_iter().enumerate();
        rows.map(|(row, image)| (number(row), name(row).unwrap(), image)).collect::<Vec<_>>()
    };
    batches(bytes).iter().flat_map(entries).collect()
}

pub(super) fn row(number: u32, on: u32, text: &str) -> Row {
    Row { number, day: on, description: text.to_owned(), detail: format!("detail of {text}") }
}
