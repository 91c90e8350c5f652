//! Changes of rows against a plain list of rows: whatever comes, the table holds what the list holds.

use super::{ChangeSpool, Rewriter, Segment, StreamedCommit};
use crate::base::{Lsn, Partition, Runs, XidSet};
use crate::buffer::{ChangeBatch, Operation, PartitionBatch, arrow_schema, change_batch};
use crate::lake::fixtures::{Lake, PATH, day, lsn, progress, security_event};
use crate::lake::{LakeTable, Patience, TableWriter, WriterOptions, journal_path, table_days};
use deltalake::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use deltalake::arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const DETAIL: usize = 12;
const DESCRIPTION: usize = 2;
const CREATED_AT: usize = 13;

/// A row of the model: its number and day are its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
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

/// A table beside its model.
struct World {
    lake: Lake,
    table: LakeTable,
    writer: TableWriter,
    model: BTreeMap<(u32, u32), Row>,
    at: u64,
    /// Of the segment that is being made.
    rows: Vec<(Row, u32)>,
    changes: Vec<Change>,
    counter: u32,
    transaction: u32,
}

impl World {
    async fn new() -> Self {
        let lake = Lake::new();
        let table = LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap();
        let writer = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
        let (model, rows, changes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { lake, table, writer, model, at: 1, rows, changes, counter: 0, transaction: 10 }
    }

    fn insert(&mut self, number: u32, on: u32, text: &str) {
        let row = Row { number, day: on, description: text.to_owned(), detail: format!("detail of {text}") };
        self.put(row);
    }

    fn put(&mut self, row: Row) {
        self.model.insert((row.number, row.day), row.clone());
        self.rows.push((row, self.counter));
    }

    fn change(&mut self, operation: Operation, key: (u32, u32), new: Option<Row>) {
        let (ordinal, transaction) = (self.counter, self.transaction);
        self.changes.push(Change { ordinal, operation, transaction, xid: transaction, key, new });
        self.counter += 1;
    }

    fn delete(&mut self, key: (u32, u32)) -> Option<Row> {
        let old = self.model.remove(&key)?;
        self.change(Operation::Delete, key, None);
        Some(old)
    }

    /// The whole new version is sent.
    fn update(&mut self, key: (u32, u32), new: Row) {
        self.model.remove(&key);
        self.change(Operation::Update, key, None);
        self.put(new);
    }

    /// All but the detail is sent.
    fn patch(&mut self, key: (u32, u32), mut new: Row) {
        new.detail = self.model.remove(&key).unwrap().detail;
        self.change(Operation::Patch, key, Some(new.clone()));
        self.model.insert((new.number, new.day), new);
    }

    fn truncate(&mut self) {
        self.model.clear();
        self.change(Operation::Truncate, (0, 0), None);
    }

    fn end_transaction(&mut self) {
        self.transaction += 1;
        self.counter += 1;
    }

    /// The segment as it is so far.
    async fn segment(&mut self, memory: usize, commit: Option<StreamedCommit>) -> Segment {
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
        Segment { table, files, changes, aborted: XidSet::default(), commit }
    }

    async fn flush(&mut self, memory: usize, round_bytes: usize) -> super::Landed {
        self.end_transaction();
        let segment = self.segment(memory, None).await;
        self.land(segment, round_bytes).await
    }

    async fn land(&mut self, segment: Segment, round_bytes: usize) -> super::Landed {
        self.at += 1;
        let rewriter = Rewriter { writer: WriterOptions::default(), round_bytes };
        let landed = self.table.land_changes(segment, &[], &rewriter, lsn(self.at), &Patience::none()).await.unwrap();
        self.counter = 0;
        self.assert_equal().await;
        landed
    }

    async fn assert_equal(&self) {
        let mut found = self.read().await;
        found.sort();
        assert_eq!(found, self.model.values().cloned().collect::<Vec<_>>());
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
    let bytes = bytes::Bytes::from(std::fs::read(lake.folder.path().join(PATH).join(path)).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(|batch| batch.unwrap()) {
        let text = |index: usize| batch.column(index).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let number = u32::from_str_radix(&text(0).value(row)[24..], 16).unwrap();
            let on = (1..=28).find(|on| day(*on) == partition).unwrap();
            let time = batch.column(CREATED_AT).as_primitive::<TimestampMicrosecondType>().value(row);
            assert_eq!(time, micros(number, on));
            assert!(!text(DETAIL).is_null(row));
            let (description, detail) = (text(DESCRIPTION).value(row).to_owned(), text(DETAIL).value(row).to_owned());
            rows.push(Row { number, day: on, description, detail });
        }
    }
    rows
}

fn row(number: u32, on: u32, text: &str) -> Row {
    Row { number, day: on, description: text.to_owned(), detail: format!("detail of {text}") }
}

#[tokio::test]
async fn d3_what_an_update_does_not_send_is_the_earlier_versions() {
    let mut world = World::new().await;
    for number in 0..50 {
        world.insert(number, 1 + number % 3, "first");
    }
    world.flush(1 << 20, 1 << 20).await;
    world.patch((1, 2), row(1, 2, "second"));
    world.patch((1, 2), row(1, 2, "third"));
    world.patch((2, 3), row(2, 1, "another day"));
    world.patch((3, 1), row(103, 1, "another key"));
    world.patch((103, 1), row(203, 1, "and another"));
    world.insert(300, 1, "new");
    world.patch((300, 1), row(300, 1, "new and changed"));
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.files, landed.figures.rows, landed.figures.unmatched), (3, 3, 0));
    assert_eq!(landed.superseded.len(), 1);
}

#[tokio::test]
async fn l3_only_files_that_hold_the_rows_are_rewritten() {
    let mut world = World::new().await;
    for on in 1..=9 {
        (0..20).for_each(|number| world.insert(on * 100 + number, on, "first"));
        world.flush(1 << 20, 1 << 20).await;
    }
    for number in 0..20 {
        world.patch((500 + number, 5), row(500 + number, 5, "second"));
    }
    assert_eq!(world.flush(1 << 20, 1 << 20).await.figures.files, 1);
    world.delete((500, 5));
    world.update((900, 9), row(900, 8, "moved"));
    assert_eq!(world.flush(1 << 20, 1 << 20).await.figures.files, 2);
}

#[tokio::test]
async fn l1_the_journal_has_the_old_row_of_every_change_once() {
    let mut world = World::new().await;
    (0..20).for_each(|number| world.insert(number, 1 + number % 2, "first"));
    world.flush(1 << 20, 1 << 20).await;
    let entries = async |world: &World| {
        let days = table_days(&world.lake.location, &journal_path(PATH)).await;
        days.map(|days| days.iter().map(|day| day.rows.unwrap()).collect::<Vec<u64>>()).unwrap_or_default()
    };
    assert!(entries(&world).await.is_empty(), "a table that only grows has no journal");
    for round in 1..=3_u32 {
        world.delete((2 * round, 1));
        world.update((2 * round + 7, 2), row(2 * round + 7, 3, "second"));
        world.patch((2 * round + 8, 1), row(2 * round + 8, 1, "third"));
        // Comes and goes between two flushes.
        world.insert(100 + round, 1, "brief");
        world.delete((100 + round, 1));
        world.transaction += 1_000;
        world.at += 1_000;
        world.flush(1, 1).await;
        let round = u64::from(round);
        assert_eq!(entries(&world).await, [2 * round, round]);
    }
    world.table.close().await;
}

#[tokio::test]
async fn a_row_that_one_transaction_deletes_and_inserts_again_stays_where_it_is() {
    let mut world = World::new().await;
    (0..30).for_each(|number| world.insert(number, 1, "first"));
    world.flush(1 << 20, 1 << 20).await;
    for number in 0..10 {
        let old = world.delete((number, 1)).unwrap();
        world.put(old);
    }
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.moved, landed.figures.files), (10, 0));
    let old = world.delete((1, 1)).unwrap();
    world.end_transaction();
    world.put(old);
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.moved, landed.figures.files), (0, 1), "by another transaction");
}

#[tokio::test]
async fn a_value_that_nobody_has_is_refused_with_the_rows_key() {
    let mut world = World::new().await;
    world.model.insert((7, 1), row(7, 1, "elsewhere"));
    world.patch((7, 1), row(7, 1, "second"));
    let segment = world.segment(1 << 20, None).await;
    let rewriter = Rewriter { writer: WriterOptions::default(), round_bytes: 1 << 20 };
    let refused = world.table.land_changes(segment, &[], &rewriter, lsn(9), &Patience::none()).await;
    let message = refused.err().unwrap().to_string();
    for words in ["column detail", "row id=", "created_at=2026-01-01", "lakebed skip --lsn 0/A"] {
        assert!(message.contains(words), "{message}");
    }
    assert!(!message.contains("second"), "{message}");
}

#[tokio::test]
async fn b2_changes_of_a_rolled_back_subtransaction_do_not_count_even_when_spooled() {
    for memory in [1, 1 << 20] {
        let mut world = World::new().await;
        (0..10).for_each(|number| world.insert(number, 1, "first"));
        world.flush(1 << 20, 1 << 20).await;
        let before = world.model.clone();
        world.transaction = 77;
        world.delete((3, 1));
        world.model = before;
        world.transaction = 78;
        world.delete((4, 1));
        let commit = StreamedCommit { commit_lsn: Lsn(500), commit_time_micros: 1 };
        let mut segment = world.segment(memory, Some(commit)).await;
        segment.aborted.insert(77);
        assert_eq!(world.land(segment, 1 << 20).await.figures.rows, 1);
    }
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u32, u32),
    Delete(u32),
    Update(u32, u32, u32),
    Patch(u32, u32, u32),
    MoveBack(u32),
    Truncate,
    End,
    Flush,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..60_u32, 1..4_u32).prop_map(|(number, on)| Action::Insert(number, on)),
        4 => any::<u32>().prop_map(Action::Delete),
        4 => (any::<u32>(), 0..60_u32, 1..4_u32).prop_map(|(which, number, on)| Action::Update(which, number, on)),
        4 => (any::<u32>(), 0..60_u32, 1..4_u32).prop_map(|(which, number, on)| Action::Patch(which, number, on)),
        2 => any::<u32>().prop_map(Action::MoveBack),
        1 => Just(Action::Truncate),
        3 => Just(Action::End),
        2 => Just(Action::Flush),
    ]
}

async fn play(actions: Vec<Action>, memory: usize, round_bytes: usize) {
    let mut world = World::new().await;
    for (step, action) in actions.into_iter().enumerate() {
        let text = format!("text {step}");
        let some = |world: &World, which: u32| {
            let keys: Vec<_> = world.model.keys().copied().collect();
            (!keys.is_empty()).then(|| keys[which as usize % keys.len()])
        };
        match action {
            Action::Insert(number, on) if !world.model.contains_key(&(number, on)) => world.insert(number, on, &text),
            Action::Insert(..) => {}
            Action::Delete(which) => {
                if let Some(key) = some(&world, which) {
                    world.delete(key);
                }
            }
            Action::Update(which, number, on) | Action::Patch(which, number, on) => {
                let Some(key) = some(&world, which) else { continue };
                let taken = world.model.contains_key(&(number, on)) && key != (number, on);
                let (number, on) = if taken { key } else { (number, on) };
                match action {
                    Action::Update(..) => world.update(key, row(number, on, &text)),
                    _ => world.patch(key, row(number, on, &text)),
                }
            }
            Action::MoveBack(which) => {
                if let Some(key) = some(&world, which)
                    && let Some(old) = world.delete(key)
                {
                    world.put(old);
                }
            }
            Action::Truncate => world.truncate(),
            Action::End => world.end_transaction(),
            Action::Flush => {
                world.flush(memory, round_bytes).await;
            }
        }
    }
    world.flush(memory, round_bytes).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_the_table_equal_to_a_plain_list(
        actions in proptest::collection::vec(action(), 1..90),
        memory in prop_oneof![Just(1_usize), Just(1 << 20)],
        round_bytes in prop_oneof![Just(1_usize), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(actions, memory, round_bytes));
    }
}
