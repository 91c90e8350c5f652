//! Changes: what names their rows, what they bring, and their place among the rows.

use super::change_batch::{COMMIT_LSN, COMMIT_TIME, NEW_DAY, OLD_DAY, OPERATION, ORDINAL, UNCHANGED, XID};
use super::table_buffer_test::{append, bound, row, timestamps};
use super::*;
use crate::base::{ColumnType, Lsn, PartitionBy, SourceColumn, TableName, TableShape, XidSet};
use crate::decode::{Datum, Message, encode, parse};
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::datatypes::{Date32Type, Int32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use deltalake::arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use std::sync::Arc;

const BY: Transaction = Transaction { xid: 700, commit_lsn: Lsn(0x10), commit_time_micros: 77 };
const AT: Datum<'_> = Datum::Text(b"2026-01-02 03:04:05");
const N: Datum<'_> = Datum::Null;
const JANUARY_2: i32 = 20_455;

fn text(text: &str) -> Datum<'_> {
    Datum::Text(text.as_bytes())
}

type Old<'a> = (u8, &'a [Datum<'a>]);

fn update(buffer: &mut TableBuffer, old: Option<Old<'_>>, new: &[Datum<'_>]) -> Result<(), BufferError> {
    let frame = encode::update(1, old, new);
    let Ok(Message::Update { old, new, .. }) = parse(&frame, false) else { panic!("an Update") };
    buffer.update(old.as_ref(), &new, &BY, None)
}

fn delete(buffer: &mut TableBuffer, old: Old<'_>) -> Result<(), BufferError> {
    let frame = encode::delete(1, old);
    let Ok(Message::Delete { old, .. }) = parse(&frame, false) else { panic!("a Delete") };
    buffer.delete(&old, &BY, None)
}

/// id, note, created_at, number; the key is (id, created_at).
fn shape(identity: &[usize], partition_by: PartitionBy) -> TableShape {
    let column = |name: &str, column_type, nullable| SourceColumn {
        name: name.to_owned(),
        lake_name: name.to_owned(),
        type_oid: 1,
        type_modifier: -1,
        column_type,
        nullable,
    };
    TableShape {
        table: TableName::new("public", "event"),
        columns: vec![
            column("id", ColumnType::Int4, false),
            column("note", ColumnType::Text, true),
            column("created_at", ColumnType::Timestamp, false),
            column("number", ColumnType::Text, false),
        ],
        partition_column: 2,
        partition_by,
        time_zone: chrono_tz::UTC,
        key: vec![0, 2],
        identity: identity.to_vec(),
        identity_is_ambiguous: false,
    }
}

/// The only batch of changes, which ended.
fn changes(buffer: &mut TableBuffer) -> ChangeBatch {
    buffer.end_transaction();
    let mut cut = buffer.cut_for_a_commit().unwrap();
    assert!(cut.arriving_changes.is_empty() && cut.ended_changes.len() == 1, "{cut:?}");
    assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
    cut.ended_changes.remove(0)
}

fn ordinals(batch: &RecordBatch) -> Vec<u32> {
    batch.column_by_name(ORDINAL).unwrap().as_primitive::<UInt32Type>().values().to_vec()
}

fn operations(batch: &ChangeBatch) -> Vec<Operation> {
    let numbers = batch.keys.column_by_name(OPERATION).unwrap().as_primitive::<UInt8Type>().values().to_vec();
    numbers.into_iter().map(|number| Operation::from_number(number).unwrap()).collect()
}

fn old_days(batch: &ChangeBatch) -> Vec<Option<i32>> {
    batch.keys.column_by_name(OLD_DAY).unwrap().as_primitive::<Date32Type>().iter().collect()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<Option<i32>> {
    batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().iter().collect()
}

#[test]
fn a_change_remembers_its_row_and_its_transaction() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Month));
    delete(&mut buffer, (b'K', &[text("7"), N, AT, N])).unwrap();
    update(&mut buffer, None, &[text("8"), N, AT, text("b")]).unwrap();
    update(&mut buffer, Some((b'K', &[text("8"), N, AT, N])), &[text("9"), N, AT, text("b")]).unwrap();
    buffer.truncate(&BY, None).unwrap();
    let batch = changes(&mut buffer);
    assert_eq!(batch.keys.schema(), key_schema(&shape(&[0, 2], PartitionBy::Month)));
    assert_eq!(batch.patches.schema(), patch_schema(&shape(&[0, 2], PartitionBy::Month)));
    assert_eq!(ordinals(&batch.keys), [0, 1, 2, 3]);
    assert_eq!(operations(&batch), [Operation::Delete, Operation::Update, Operation::Update, Operation::Truncate]);
    assert_eq!(integers(&batch.keys, "id"), [Some(7), Some(8), Some(8), None]);
    let first = Some(JANUARY_2 - 1);
    assert_eq!(old_days(&batch), [first, first, first, None], "the month's first day");
    assert_eq!(batch.keys.column_by_name(COMMIT_LSN).unwrap().as_primitive::<UInt64Type>().values(), &[0x10; 4]);
    assert_eq!(batch.keys.column_by_name(COMMIT_TIME).unwrap().as_primitive::<Int64Type>().values(), &[77; 4]);
    assert_eq!(batch.keys.column_by_name(XID).unwrap().as_primitive::<UInt32Type>().values(), &[700; 4]);
    assert!(batch.xids.is_none() && batch.patches.num_rows() == 0);
}

#[test]
fn a_row_is_named_by_the_identity_out_of_whatever_comes() {
    let mut buffer = bound(shape(&[3], PartitionBy::Day));
    delete(&mut buffer, (b'K', &[N, N, N, text("a")])).unwrap();
    delete(&mut buffer, (b'O', &[text("1"), text("note"), AT, text("b")])).unwrap();
    update(&mut buffer, None, &[text("2"), N, AT, text("c")]).unwrap();
    let batch = changes(&mut buffer);
    let numbers = batch.keys.column_by_name("number").unwrap().as_string::<i32>();
    assert_eq!(numbers.iter().flatten().collect::<Vec<_>>(), ["a", "b", "c"]);
    let unknown = "the identity does not tell, and the new row may be in another partition";
    assert_eq!(old_days(&batch), [None, Some(JANUARY_2), None], "{unknown}");
    assert_eq!(batch.keys.num_columns(), 7);
}

/// D3: what the server leaves out is never taken for NULL.
#[test]
fn d3_what_was_not_sent_comes_from_the_old_row_or_stays_open() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Day));
    let new = [text("1"), Datum::Unchanged, AT, text("b")];
    update(&mut buffer, None, &new).unwrap();
    update(&mut buffer, Some((b'O', &[text("1"), text("kept"), AT, text("a")])), &new).unwrap();
    update(&mut buffer, Some((b'K', &[text("2"), N, AT, N])), &new).unwrap();
    // A key that is too large to stand in the row: it comes with the old tuple.
    update(&mut buffer, Some((b'K', &[text("3"), N, AT, N])), &[Datum::Unchanged, N, AT, text("b")]).unwrap();
    buffer.end_transaction();
    let cut = buffer.cut_for_a_commit().unwrap();
    let batch = &cut.ended_changes[0];
    assert_eq!(operations(batch), [Operation::Patch, Operation::Update, Operation::Patch, Operation::Update]);
    assert_eq!(integers(&batch.keys, "id"), [Some(1), Some(1), Some(2), Some(3)]);
    assert_eq!(ordinals(&batch.patches), [0, 2]);
    assert_eq!(integers(&batch.patches, "id"), [Some(1), Some(1)]);
    let unchanged = batch.patches.column_by_name(UNCHANGED).unwrap().as_binary::<i32>();
    assert_eq!((unchanged.value(0), unchanged.value(1)), (&[0b10][..], &[0b10][..]));
    let days = batch.patches.column_by_name(NEW_DAY).unwrap().as_primitive::<Date32Type>();
    assert_eq!(days.values(), &[JANUARY_2; 2]);
    assert!(batch.patches.column_by_name("note").unwrap().is_null(0));
    let rows = &cut.ended[0];
    assert_eq!(integers(&rows.rows, "id"), [Some(1), Some(3)]);
    assert_eq!(rows.rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("kept"), None]);
    assert_eq!(rows.eras.as_ref().unwrap().iter().collect::<Vec<_>>(), [(2, 1), (4, 1)], "behind their changes");
}

/// The letter of an old row is the root's replica identity; what it holds is its partition's.
#[test]
fn d3_an_old_row_is_what_it_holds_and_not_what_its_letter_says() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Day));
    let new = [text("1"), Datum::Unchanged, AT, text("b")];
    // REPLICA IDENTITY FULL, of the root alone: the key comes, and nothing else.
    update(&mut buffer, Some((b'O', &[text("2"), N, AT, N])), &new).unwrap();
    // Of the partition alone.
    update(&mut buffer, Some((b'K', &[text("2"), text("kept"), AT, text("a")])), &new).unwrap();
    delete(&mut buffer, (b'K', &[text("1"), text("kept"), AT, text("b")])).unwrap();
    delete(&mut buffer, (b'O', &[text("1"), N, AT, N])).unwrap();
    buffer.end_transaction();
    let cut = buffer.cut_for_a_commit().unwrap();
    let batch = &cut.ended_changes[0];
    assert_eq!(operations(batch), [Operation::Patch, Operation::Update, Operation::Delete, Operation::Delete]);
    assert_eq!(integers(&batch.keys, "id"), [Some(2), Some(2), Some(1), Some(1)]);
    assert_eq!(old_days(batch), [Some(JANUARY_2); 4]);
    let notes = cut.ended[0].rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>();
    assert_eq!(notes, [Some("kept")]);
}

#[test]
fn d3_a_refused_change_leaves_nothing_behind_and_names_its_row() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Day));
    let sound = [text("1"), N, AT, text("b")];
    let infinite = [text("1"), N, text("infinity"), text("b")];
    let cases: [(Option<Old<'_>>, &[Datum<'_>], &str); 8] = [
        (None, &infinite, "created_at of row id=1, created_at=infinity: an infinite"),
        (None, &[N, N, AT, N], "id of row id=NULL, created_at=2026-01-02 03:04:05: it is NULL"),
        (None, &[text("x"), Datum::Unchanged, AT, N], "id of row id=?"),
        (None, &[Datum::Unchanged, N, AT, text("b")], "id of row id=?"),
        (None, &[text("1"), N, Datum::Unchanged, text("b")], "created_at of row id=1, created_at=?: the server left"),
        (Some((b'K', &[text("x"), N, AT, N])), &sound, "id of row id=1"),
        (Some((b'K', &[N, N, N, text("a")])), &sound, ": a changed row is named by number, and not by id, created_at"),
        (Some((b'K', &[text("1"), N, AT])), &sound, ": the server sent a row of"),
    ];
    for (old, new, expected) in cases {
        update(&mut buffer, None, &sound).unwrap();
        let error = update(&mut buffer, old, new).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        append(&mut buffer, &sound).unwrap();
    }
    let error = delete(&mut buffer, (b'K', &[text("1"), text("canary"), N, N])).unwrap_err().to_string();
    assert!(error.contains("named by id, note, and not by id, created_at"), "{error}");
    assert!(!error.contains("canary"), "{error}");
    let error = delete(&mut buffer, (b'O', &[N, N, AT, text("b")])).unwrap_err().to_string();
    assert!(error.contains("id of row id=NULL"), "{error}");
    buffer.end_transaction();
    let cut = buffer.cut_for_a_commit().unwrap();
    let numbers: Vec<u32> = cut.ended_changes.iter().flat_map(|batch| ordinals(&batch.keys)).collect();
    assert_eq!(numbers, (0..8).collect::<Vec<u32>>());
    assert_eq!(cut.ended.iter().map(|batch| batch.rows.num_rows()).sum::<usize>(), 16);
    assert!(cut.ended_changes.iter().all(|batch| batch.patches.num_rows() == 0));
}

#[test]
fn d3_partitions_that_name_their_rows_differently_take_no_update_that_may_mean_another_row() {
    let shape = TableShape { identity_is_ambiguous: true, ..shape(&[0, 2], PartitionBy::Day) };
    let mut buffer = bound(shape);
    let new = [text("1"), N, AT, text("b")];
    append(&mut buffer, &new).unwrap();
    let error = update(&mut buffer, None, &new).unwrap_err();
    assert!(matches!(error, BufferError::IdentityAmbiguous { .. }), "{error}");
    update(&mut buffer, Some((b'K', &[text("1"), N, AT, N])), &new).unwrap();
    assert_eq!(changes(&mut buffer).len(), 1);
}

#[test]
fn what_is_rolled_back_leaves_with_its_patches() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Day));
    for number in 0..6_u32 {
        let (id, gap) = (number.to_string(), if number % 2 == 0 { Datum::Unchanged } else { N });
        let frame = encode::update(1, None, &[text(&id), gap, AT, text("b")]);
        let Ok(Message::Update { new, .. }) = parse(&frame, false) else { panic!("an Update") };
        buffer.update(None, &new, &Transaction::in_progress(7), Some(10 + number / 2)).unwrap();
    }
    let mut aborted = XidSet::default();
    aborted.insert(11);
    let batch = buffer.cut().unwrap().arriving_changes.remove(0);
    assert_eq!(ordinals(&batch.patches), [0, 2, 4]);
    let live = buffer.live_changes(batch, &aborted).unwrap();
    assert_eq!((ordinals(&live.keys), ordinals(&live.patches)), (vec![0, 1, 4, 5], vec![0, 4]));
    assert_eq!(live.xids.unwrap().iter().collect::<Vec<_>>(), [(10, 2), (12, 2)]);
}

#[test]
fn enough_changes_for_a_batch_leave_in_order_and_are_counted_out() {
    let mut buffer = bound(shape(&[0, 2], PartitionBy::Day));
    for _ in 0..3 {
        delete(&mut buffer, (b'K', &[text("7"), N, AT, N])).unwrap();
        assert!(buffer.take_full_changes(1 << 20).unwrap().is_none());
    }
    assert!(buffer.bytes() > 3 * (29 + 4 + 8));
    assert_eq!(ordinals(&buffer.take_full_changes(1).unwrap().unwrap().keys), [0, 1, 2]);
    assert!(buffer.take_full_changes(1).unwrap().is_none());
    assert_eq!(buffer.bytes(), 0);
    delete(&mut buffer, (b'K', &[text("7"), N, AT, N])).unwrap();
    assert_eq!(ordinals(&changes(&mut buffer).keys), [3], "the numbers go on until a commit");
}

/// What a buffer is asked to do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Row,
    RefusedRow,
    Delete,
    Update,
    RefusedUpdate,
    Patch,
    EndTransaction,
    /// Room is made.
    Cut,
    TakeFull,
    Commit,
}

fn steps(changes: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Row),
        1 => Just(Step::RefusedRow),
        changes => Just(Step::Delete),
        changes => Just(Step::Update),
        changes.min(1) => Just(Step::RefusedUpdate),
        changes.min(1) => Just(Step::Patch),
        2 => Just(Step::EndTransaction),
        1 => Just(Step::Cut),
        1 => Just(Step::TakeFull),
        1 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The plain list: every row with its era, every change with its ordinal, those of ended transactions first.
#[derive(Default)]
struct Model {
    next: u32,
    changed: bool,
    rows: [Vec<(i32, u32)>; 2],
    changes: [Vec<u32>; 2],
}

impl Model {
    fn row(&mut self, number: i32) {
        self.rows[1].push((number, self.next));
    }

    fn change(&mut self) {
        self.changes[1].push(self.next);
        (self.next, self.changed) = (self.next + 1, true);
    }

    fn end(&mut self) {
        self.next += u32::from(std::mem::take(&mut self.changed));
        let [ended, arriving] = &mut self.rows;
        ended.append(arriving);
        let [ended, arriving] = &mut self.changes;
        ended.append(arriving);
    }
}

fn with_eras(batches: &[PartitionBatch]) -> Vec<(i32, u32)> {
    let mut all = Vec::new();
    for batch in batches {
        let numbers = batch.rows.column(0).as_primitive::<Int32Type>().values();
        let none = crate::base::Runs::of(0, numbers.len() as u64);
        let eras = batch.eras.as_ref().unwrap_or(&none).iter().flat_map(|(era, rows)| (0..rows).map(move |_| era));
        all.extend(numbers.iter().copied().zip(eras.collect::<Vec<_>>()));
    }
    all.sort_unstable();
    all
}

/// Does the step, and compares what leaves.
fn check(buffer: &mut TableBuffer, model: &mut Model, step: Step, number: i32) {
    let (id, micros) = (number.to_string(), i64::from(number % 3) * 86_400_000_000);
    let sent = micros.to_be_bytes();
    let at = Datum::Binary(&sent);
    match step {
        Step::Row => {
            row(buffer, number, "x", micros).unwrap();
            model.row(number);
        }
        Step::RefusedRow => assert!(append(buffer, &[N, N, at]).is_err()),
        Step::Delete => {
            delete(buffer, (b'K', &[text(&id), N, N])).unwrap();
            model.change();
        }
        Step::Update => {
            update(buffer, None, &[text(&id), N, at]).unwrap();
            model.change();
            model.row(number);
        }
        Step::RefusedUpdate => assert!(update(buffer, None, &[text(&id), Datum::Text(b"\xff"), at]).is_err()),
        Step::Patch => {
            update(buffer, None, &[text(&id), Datum::Unchanged, at]).unwrap();
            model.change();
        }
        Step::EndTransaction => {
            buffer.end_transaction();
            model.end();
        }
        Step::TakeFull => {
            // What leaves early is of either part; the model forgets the same.
            while let Some(batch) = buffer.take_full(3, usize::MAX).unwrap() {
                let taken = with_eras(&[batch]);
                let known = model.rows.concat();
                assert!(taken.iter().all(|row| known.contains(row)), "{taken:?} of {known:?}");
                model.rows.iter_mut().for_each(|rows| rows.retain(|row| !taken.contains(row)));
            }
        }
        Step::Cut | Step::Commit => {
            let cut = if matches!(step, Step::Cut) { buffer.cut() } else { buffer.cut_for_a_commit() }.unwrap();
            let numbers = |batches: &[ChangeBatch]| -> Vec<u32> {
                batches.iter().flat_map(|batch| ordinals(&batch.keys)).collect()
            };
            let nothing_is_left = model.rows[1].is_empty() && model.changes[1].is_empty();
            let [ended, arriving] = std::mem::take(&mut model.rows);
            assert_eq!((with_eras(&cut.ended), with_eras(&cut.arriving)), (ended, arriving));
            let [ended, arriving] = std::mem::take(&mut model.changes);
            assert_eq!((numbers(&cut.ended_changes), numbers(&cut.arriving_changes)), (ended, arriving));
            assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
            if nothing_is_left && matches!(step, Step::Commit) {
                model.next = 0;
            }
        }
    }
}

proptest! {
    /// Whatever came before: a row's era is the number of changes before it, and a cut parts both at the last transaction's end.
    #[test]
    fn every_row_and_change_knows_its_place(steps in steps(2)) {
        let (mut buffer, mut model) = (timestamps(), Model::default());
        for (number, step) in (0..).zip(steps.into_iter().chain([Step::Commit])) {
            check(&mut buffer, &mut model, step, number);
        }
    }

    #[test]
    fn a_stream_that_only_grows_has_no_eras(steps in steps(0)) {
        let mut buffer = timestamps();
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Row => row(&mut buffer, number, "x", i64::from(number % 3) * 86_400_000_000).unwrap(),
                Step::EndTransaction => buffer.end_transaction(),
                Step::Cut | Step::Commit => {
                    let cut = buffer.cut_for_a_commit().unwrap();
                    prop_assert!(cut.ended.iter().chain(&cut.arriving).all(|batch| batch.eras.is_none()));
                    prop_assert!(cut.ended_changes.is_empty() && cut.arriving_changes.is_empty());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn an_unbound_buffer_takes_no_change() {
    let mut buffer = TableBuffer::new(Arc::new(shape(&[0, 2], PartitionBy::Day)));
    assert!(matches!(delete(&mut buffer, (b'K', &[text("1"), N, AT, N])), Err(BufferError::NotBound { .. })));
    assert!(matches!(update(&mut buffer, None, &[text("1"), N, AT, N]), Err(BufferError::NotBound { .. })));
}
