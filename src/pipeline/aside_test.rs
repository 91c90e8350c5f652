//! **S1**: arbitrary interleavings of transactions and copies of days, against what a plain database holds.

use super::aside::{CopiedTable, CopyOrder, DayRules};
use super::catalog::{Catalog, Catalogued};
use super::follow::{Follow, Following};
use super::in_progress::InProgress;
use super::in_progress_test::{catalogued, publication};
use super::land::LandCommand;
use super::limits::Limits;
use super::routes::Routes;
use super::skips::Skips;
use super::transaction::Progress;
use crate::base::{
    COPY_MARKER, ColumnType, DaySet, Lsn, MARKER_PREFIX, Partition, PartitionBy, SourceColumn, TableName, TableShape,
    XidSet,
};
use crate::buffer::change_batch::{OPERATION, ORDINAL};
use crate::buffer::{ChangeBatch, Operation, PartitionBatch, TableBuffer};
use crate::config::BufferSection;
use crate::decode::{Datum, Message, Relation, RelationColumn, ReplicaIdentity, encode};
use crate::lake::SourceRelation;
use crate::source::Pressure;
use deltalake::arrow::array::AsArray;
use deltalake::arrow::array::types::{Int32Type, TimestampMicrosecondType, UInt8Type, UInt32Type};
use deltalake::arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

const OID: u32 = 4711;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// The wire counts from 2000 on, and Arrow from 1970.
const DAYS_TO_2000: i64 = 10_957;

/// What names a row: its id and its day.
type Key = (i32, u8);
type Rows = BTreeMap<Key, i32>;

fn day(day: u8) -> Partition {
    format!("2000-01-{:02}", day + 1).parse().unwrap()
}

fn shape() -> Arc<TableShape> {
    let column = |(name, type_oid, column_type): (&str, u32, ColumnType)| SourceColumn {
        name: name.to_owned(),
        lake_name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        column_type,
        nullable: false,
    };
    let columns = [("id", 23, ColumnType::Int4), ("note", 25, ColumnType::Text), ("at", 1114, ColumnType::Timestamp)];
    Arc::new(TableShape {
        table: TableName::new("public", "events"),
        columns: columns.into_iter().map(column).collect(),
        partition_column: 2,
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        key: vec![0, 2],
        identity: vec![0, 2],
        identity_is_ambiguous: false,
    })
}

fn relation() -> Relation {
    let column = |column: &SourceColumn| RelationColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: -1,
        is_key: column.name != "note",
    };
    let columns = shape().columns.iter().map(column).collect();
    let (schema, name) = ("public".to_owned(), "events".to_owned());
    Relation { oid: OID, schema, name, replica_identity: ReplicaIdentity::Default, columns }
}

/// A statement, on a row that it names; those that make no sense at the time do nothing.
#[derive(Clone, Copy, Debug)]
enum Statement {
    Insert(Key),
    Note(Key),
    /// The note is not sent, as it has not changed.
    Touch(Key),
    Move(Key, Key),
    /// And the note is not sent.
    MoveTouched(Key, Key),
    Delete(Key),
    Truncate,
}

#[derive(Clone, Debug)]
enum Step {
    Transaction(Vec<Statement>),
    /// A copy of some of the marked days begins, if none is on its way.
    Begin(Vec<u8>),
    /// The server makes a snapshot: what is copied is what it holds now.
    Snapshot,
    Floor,
    Land,
    GiveUp,
    Flush,
    Room,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || (0..4, 0_u8..3);
    let statement = prop_oneof![
        6 => key().prop_map(Statement::Insert),
        2 => key().prop_map(Statement::Note),
        2 => key().prop_map(Statement::Touch),
        2 => (key(), key()).prop_map(|(from, to)| Statement::Move(from, to)),
        1 => (key(), key()).prop_map(|(from, to)| Statement::MoveTouched(from, to)),
        2 => key().prop_map(Statement::Delete),
        1 => Just(Statement::Truncate),
    ];
    let step = prop_oneof![
        8 => proptest::collection::vec(statement, 0..6).prop_map(Step::Transaction),
        3 => proptest::collection::vec(0_u8..3, 1..3).prop_map(Step::Begin),
        3 => Just(Step::Snapshot),
        3 => Just(Step::Floor),
        3 => Just(Step::Land),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Flush),
        1 => Just(Step::Room),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Copy {
    days: DaySet,
    snapshot: Option<(Lsn, Rows)>,
    is_floor_told: bool,
}

struct Server {
    follow: Follow,
    orders: mpsc::Sender<CopyOrder>,
    lsn: u64,
    xid: u32,
    note: i32,
    rows: Rows,
    history: Vec<(Lsn, Rows)>,
    copy: Option<Copy>,
    /// What the lake's model is told beside the commands: rows of each copy that was finished.
    copied: std::sync::mpsc::Sender<Rows>,
    described: bool,
}

impl Server {
    async fn send(&mut self, bytes: &[u8]) {
        self.lsn += 8;
        assert_eq!(self.follow.data(Lsn(self.lsn), bytes).await.unwrap(), None);
    }

    /// What a statement sends, if it does anything.
    fn run(&mut self, statement: Statement) -> Option<Vec<u8>> {
        self.note += 1;
        let note = self.note;
        let (old, new, sent) = match statement {
            Statement::Insert(key) if !self.rows.contains_key(&key) => (None, Some((key, note)), true),
            Statement::Note(key) => (self.rows.contains_key(&key).then_some(key), Some((key, note)), true),
            Statement::Touch(key) => (Some(key), Some((key, *self.rows.get(&key)?)), false),
            Statement::Move(from, to) if !self.rows.contains_key(&to) => (Some(from), Some((to, note)), true),
            Statement::MoveTouched(from, to) if !self.rows.contains_key(&to) => {
                (Some(from), Some((to, *self.rows.get(&from)?)), false)
            }
            Statement::Delete(key) => (Some(key), None, true),
            Statement::Truncate => {
                self.rows.clear();
                let relation_oids = vec![OID];
                let message = Message::Truncate { xid: None, relation_oids, cascade: false, restart_identity: false };
                return Some(encode::message(&message));
            }
            _ => return None,
        };
        let is_update = old.is_some() && new.is_some();
        if !matches!(statement, Statement::Insert(_)) {
            self.rows.remove(&old?)?;
        }
        let texts = |(id, day): Key| (id.to_string(), (i64::from(day) * MICROS_PER_DAY + i64::from(id)).to_be_bytes());
        let key = old.map(texts);
        let key = key.as_ref().map(|(id, at)| [Datum::Text(id.as_bytes()), Datum::Null, Datum::Binary(&at[..])]);
        let Some((new_key, note)) = new else { return key.map(|key| encode::delete(OID, (b'K', &key))) };
        self.rows.insert(new_key, note);
        let ((id, at), note) = (texts(new_key), note.to_string());
        let note = if sent { Datum::Text(note.as_bytes()) } else { Datum::Unchanged };
        let columns = [Datum::Text(id.as_bytes()), note, Datum::Binary(&at[..])];
        let key = key.filter(|_| old != Some(new_key));
        Some(match is_update {
            true => encode::update(OID, key.as_ref().map(|key| (b'K', &key[..])), &columns),
            false => encode::insert(OID, &columns),
        })
    }

    async fn transaction(&mut self, statements: &[Statement]) {
        self.xid += 1;
        let commit_lsn = Lsn(self.lsn + 8 * (statements.len() as u64 + 4));
        let begin = Message::Begin { final_lsn: commit_lsn, commit_time_micros: 0, xid: self.xid };
        self.send(&encode::message(&begin)).await;
        if !self.described {
            self.send(&encode::message(&Message::Relation { xid: None, relation: relation() })).await;
            self.described = true;
        }
        for (place, statement) in statements.iter().enumerate() {
            let Some(bytes) = self.run(*statement) else { continue };
            self.send(&bytes).await;
            if place % 2 == 1 {
                self.follow.make_room_inside_a_transaction().await.unwrap();
            }
        }
        let end_lsn = Lsn(commit_lsn.0 + 8);
        self.send(&encode::message(&Message::Commit { commit_lsn, end_lsn, commit_time_micros: 0 })).await;
        self.lsn = end_lsn.0;
        self.history.push((end_lsn, self.rows.clone()));
    }

    async fn obey(&mut self, order: CopyOrder) {
        assert!(self.follow.obey(order).await.unwrap().is_none());
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Transaction(statements) => self.transaction(statements).await,
            Step::Begin(days) => {
                let marked = &self.follow.tables[0].days.marked;
                let days: DaySet = days.iter().map(|number| day(*number)).filter(|day| marked.contains(*day)).collect();
                if self.copy.is_none() && !days.is_empty() {
                    let ((begun, _), (landed, _)) = (oneshot::channel(), oneshot::channel());
                    self.copy = Some(Copy { days: days.clone(), ..Copy::default() });
                    self.obey(CopyOrder::Begin { batch: vec![(0, days)], begun, landed }).await;
                }
            }
            Step::Snapshot => {
                if let Some(copy) = self.copy.as_mut().filter(|copy| copy.snapshot.is_none()) {
                    let of_days = self.rows.iter().filter(|((_, number), _)| copy.days.contains(day(*number)));
                    copy.snapshot = Some((Lsn(self.lsn), of_days.map(|(key, note)| (*key, *note)).collect()));
                }
            }
            Step::Floor => {
                let copy = self.copy.as_mut().filter(|copy| !copy.is_floor_told);
                if let Some((copy, (floor, _))) = copy.and_then(|copy| copy.snapshot.clone().map(|at| (copy, at))) {
                    copy.is_floor_told = true;
                    self.obey(CopyOrder::Floor(floor)).await;
                }
            }
            Step::Land => {
                if let Some(copy) = self.copy.take_if(|copy| copy.is_floor_told) {
                    self.land(copy).await;
                }
            }
            Step::GiveUp => {
                if self.copy.take().is_some() {
                    self.obey(CopyOrder::GiveUp).await;
                }
            }
            Step::Flush => self.follow.flush().await.unwrap(),
            Step::Room => self.follow.make_room_inside_a_transaction().await.unwrap(),
        }
    }

    async fn land(&mut self, copy: Copy) {
        let Some((_, rows)) = copy.snapshot else { return };
        let count = rows.len() as u64;
        let was_given_up = self.follow.aside.is_none();
        let copied =
            CopiedTable { table: 0, days: copy.days, written: Vec::new(), rows: count, gone: Default::default() };
        let marker = format!("{COPY_MARKER}{}", self.lsn);
        let order = CopyOrder::Finish { copied: vec![copied], marker: marker.clone() };
        assert!(self.orders.try_send(order).is_ok());
        if !was_given_up {
            self.copied.send(rows).unwrap();
        }
        let (prefix, content) = (MARKER_PREFIX, marker.as_bytes());
        let message = Message::LogicalMessage { xid: None, transactional: false, lsn: Lsn(self.lsn), prefix, content };
        self.send(&encode::message(&message)).await;
        self.history.push((Lsn(self.lsn), self.rows.clone()));
        assert!(self.follow.aside.is_none());
    }
}

#[derive(Default)]
struct Lake {
    visible: Rows,
    marked: DaySet,
    waiting: (Vec<(Key, i32, u32)>, Vec<Change>),
    aside: (Vec<PartitionBatch>, Vec<ChangeBatch>),
    copied: Option<DaySet>,
    commits: Vec<(Lsn, Rows, DaySet)>,
}

struct Change {
    ordinal: u32,
    operation: Operation,
    key: Option<Key>,
    new_key: Option<Key>,
}

impl Lake {
    fn take(&mut self, command: LandCommand, copies: &std::sync::mpsc::Receiver<Rows>) {
        match command {
            LandCommand::Rows { xid: None, batch, .. } => self.waiting.0.extend(rows(&batch)),
            LandCommand::Changes { xid: None, batch, .. } => self.waiting.1.extend(changes(&batch)),
            LandCommand::Rows { xid: Some(0), batch, .. } => self.aside.0.push(batch),
            LandCommand::Changes { xid: Some(0), batch, .. } => self.aside.1.push(batch),
            LandCommand::Forget { xid: 0 } => self.aside = Default::default(),
            LandCommand::Copied { copied, below } => self.join(copied.days, copies.recv().unwrap(), &below),
            LandCommand::CopyLanded { landed } => drop(landed.send(())),
            LandCommand::Mark { days, .. } => self.marked.extend(&days),
            LandCommand::Commit { at } => self.commit(at),
            LandCommand::Idle { .. } | LandCommand::NoteSource { .. } | LandCommand::Abandon { .. } => {}
            _ => panic!("a command that this test does not ask for"),
        }
    }

    fn join(&mut self, days: DaySet, copy: Rows, below: &XidSet) {
        assert!(self.waiting.0.is_empty() && self.waiting.1.is_empty(), "a copy lands alone");
        let (batches, change_batches) = std::mem::take(&mut self.aside);
        self.waiting.0.extend(copy.iter().map(|(key, note)| (*key, *note, 0)));
        for batch in batches {
            self.waiting.0.extend(rows(&batch.without(below).unwrap()));
        }
        for batch in change_batches {
            self.waiting.1.extend(changes(&batch.without(below).unwrap()));
        }
        self.copied = Some(days);
    }

    fn commit(&mut self, at: Lsn) {
        let (rows, mut changes) = std::mem::take(&mut self.waiting);
        // A TRUNCATE that was kept aside is none of the other days'.
        let concerned = self.copied.take().unwrap_or_else(DaySet::whole);
        if !concerned.is_whole() {
            self.visible.retain(|(_, number), _| !concerned.contains(day(*number)));
            self.marked.subtract(&concerned);
        }
        changes.sort_by_key(|change| change.ordinal);
        let mut all: Vec<(Key, i32, u32)> = self.visible.iter().map(|(key, note)| (*key, *note, 0)).collect();
        all.extend(rows);
        for change in changes {
            let concerns = |(key, _, era): &(Key, i32, u32)| {
                *era <= change.ordinal
                    && change.key.map_or_else(|| concerned.contains(day(key.1)), |named| named == *key)
            };
            match change.operation {
                Operation::Patch => {
                    let found = all.iter_mut().find(|row| concerns(row)).expect("D3: an earlier row");
                    (found.0, found.2) = (change.new_key.unwrap(), change.ordinal + 1);
                }
                _ => all.retain(|row| !concerns(row)),
            }
        }
        let count = all.len();
        self.visible = all.into_iter().map(|(key, note, _)| (key, note)).collect();
        assert_eq!(self.visible.len(), count, "a row twice");
        self.commits.push((at, self.visible.clone(), self.marked.clone()));
    }
}

fn keys(batch: &RecordBatch) -> Vec<Option<Key>> {
    let ids = batch.column_by_name("id").unwrap().as_primitive::<Int32Type>();
    let at = batch.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let key =
        |(id, at): (Option<i32>, Option<i64>)| Some((id?, u8::try_from(at? / MICROS_PER_DAY - DAYS_TO_2000).unwrap()));
    ids.iter().zip(at).map(key).collect()
}

fn rows(batch: &PartitionBatch) -> Vec<(Key, i32, u32)> {
    let notes = batch.rows.column_by_name("note").unwrap().as_string::<i32>();
    let eras: Vec<u32> = match &batch.eras {
        None => vec![0; batch.rows.num_rows()],
        Some(eras) => eras.iter().flat_map(|(era, rows)| (0..rows).map(move |_| era)).collect(),
    };
    let each = keys(&batch.rows).into_iter().zip(notes).zip(eras);
    each.map(|((key, note), era)| (key.unwrap(), note.unwrap().parse().unwrap(), era)).collect()
}

fn changes(batch: &ChangeBatch) -> Vec<Change> {
    let ordinals =
        |batch: &RecordBatch| batch.column_by_name(ORDINAL).unwrap().as_primitive::<UInt32Type>().values().to_vec();
    let patched: HashMap<u32, Option<Key>> = ordinals(&batch.patches).into_iter().zip(keys(&batch.patches)).collect();
    let operations = batch.keys.column_by_name(OPERATION).unwrap().as_primitive::<UInt8Type>();
    let each = ordinals(&batch.keys).into_iter().zip(operations.values()).zip(keys(&batch.keys));
    let change = |((ordinal, operation), key): ((u32, &u8), Option<Key>)| {
        let new_key = patched.get(&ordinal).copied().flatten();
        Change { ordinal, operation: Operation::from_number(*operation).unwrap(), key, new_key }
    };
    each.map(change).collect()
}

fn follow(
    land: mpsc::Sender<LandCommand>,
    orders: mpsc::Receiver<CopyOrder>,
    limits: Limits,
    marked: DaySet,
) -> Follow {
    let (shape, table) = (shape(), TableName::new("public", "events"));
    let following = Following {
        shape: Arc::clone(&shape),
        buffer: TableBuffer::new(Arc::clone(&shape)),
        recorded: Lsn::ZERO,
        parked: false,
        may_park: false,
        may_be_emptied: true,
        source: Some(SourceRelation { oid: OID, since_xid: None }),
        emptied_by: None,
        described: 0,
        relation: None,
        days: DayRules { marked, copying: DaySet::default() },
    };
    Follow {
        tables: vec![following],
        routes: Routes::new(vec![(OID, table)], &publication()),
        land,
        durable: watch::channel(Lsn::ZERO).1,
        stop: watch::channel(false).1,
        pressure: watch::channel(Pressure::Ample).1,
        limits,
        marker: None,
        progress: Progress::default(),
        in_progress: InProgress::default(),
        skips: Skips::default(),
        catalog: Catalog { settings: None, tables: vec![Catalogued { found: shape, ..catalogued() }], binary: true },
        orders,
        aside: None,
        again: Default::default(),
        relations: 0,
    }
}

async fn run(before: &Rows, steps: &[Step], builder_bytes: usize) -> (Lake, Vec<(Lsn, Rows)>) {
    let buffer = BufferSection { max_age: Duration::from_secs(3600), max_bytes: 700, memory_limit_bytes: 256 << 20 };
    let limits = Limits { builder_bytes, batch_bytes: 120, ..Limits::new(&buffer) };
    let ((land, mut commands), (orders_in, orders_out)) = (mpsc::channel(3), mpsc::channel(4));
    let (copied, copies) = std::sync::mpsc::channel();
    let marked: DaySet = before.keys().map(|(_, number)| day(*number)).collect();
    let mut server = Server {
        follow: follow(land, orders_out, limits, marked.clone()),
        orders: orders_in,
        lsn: 100,
        xid: 700,
        note: 1000,
        rows: before.clone(),
        history: vec![(Lsn(0), before.clone())],
        copy: None,
        copied,
        described: false,
    };
    let driven = async {
        for step in steps {
            server.step(step).await;
        }
        // What is left is copied.
        server.step(&Step::GiveUp).await;
        for step in [Step::Begin(vec![0, 1, 2]), Step::Snapshot, Step::Floor, Step::Land, Step::Flush] {
            server.step(&step).await;
        }
        server
    };
    let taken = async {
        let mut lake = Lake { marked, ..Lake::default() };
        while let Some(command) = commands.recv().await {
            lake.take(command, &copies);
        }
        lake
    };
    let driven = async {
        let Server { history, .. } = driven.await;
        history
    };
    let (history, lake) = futures::join!(driven, taken);
    (lake, history)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// At every commit each day that is not marked is what the database had of it then, and in the end all are.
    #[test]
    fn s1_a_copied_day_is_what_the_database_had_at_every_commit(
        before in proptest::collection::btree_map((0..4, 0_u8..3), 0..9, 0..8),
        steps in steps(),
        builder_bytes in prop_oneof![Just(0_usize), Just(400), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (lake, history) = runtime.block_on(run(&before, &steps, builder_bytes));
        let unmarked = |rows: &Rows, marked: &DaySet| -> Rows {
            rows.iter().filter(|((_, number), _)| !marked.contains(day(*number))).map(|(key, note)| (*key, *note)).collect()
        };
        for (at, visible, marked) in &lake.commits {
            let (_, expected) = history.iter().rev().find(|(end, _)| end <= at).unwrap();
            prop_assert_eq!(unmarked(visible, marked), unmarked(expected, marked), "at {}", at);
        }
        let (_, last) = history.last().unwrap();
        prop_assert_eq!(&lake.visible, last);
        prop_assert!(lake.marked.is_empty());
    }
}
