//! `land` and the lake as plain lists, for the tests of the following stage: what each commit makes visible.

use super::land::LandCommand;
use crate::base::Lsn;
use crate::buffer::change_batch::{COMMIT_LSN, NEW_DAY, OPERATION, ORDINAL};
use crate::buffer::{ChangeBatch, Operation, PartitionBatch};
use deltalake::arrow::array::AsArray;
use deltalake::arrow::array::types::{
    Date32Type, Int32Type, TimestampMicrosecondType, UInt8Type, UInt32Type, UInt64Type,
};
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::HashMap;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A row: `version` is when `created_at` was written last, and `note` when the note was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) id: i32,
    pub(super) note: i32,
    pub(super) version: i32,
}

/// What a transaction does, in the words of SQL.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Insert(Row),
    /// Of every row with that id; the id may change.
    Update(i32, Row),
    /// An UPDATE that does not touch the note, which the server leaves out.
    Touch {
        id: i32,
        version: i32,
    },
    Delete(i32),
    Truncate,
}

impl Op {
    pub(super) fn apply(&self, rows: &mut Vec<Row>) {
        match self {
            Op::Insert(row) => rows.push(row.clone()),
            Op::Update(id, row) => {
                rows.retain(|known| known.id != *id);
                rows.push(row.clone());
            }
            Op::Touch { id, version } => {
                rows.iter_mut().filter(|known| known.id == *id).for_each(|known| known.version = *version);
            }
            Op::Delete(id) => rows.retain(|known| known.id != *id),
            Op::Truncate => rows.clear(),
        }
    }
}

/// A change as the buffer hands it on.
#[derive(Debug)]
struct Change {
    ordinal: u32,
    operation: Operation,
    id: Option<i32>,
    /// Of a patch.
    version: i32,
}

/// Rows with their eras, and changes, of one segment.
#[derive(Default)]
struct Segment {
    rows: Vec<(Row, u32)>,
    changes: Vec<Change>,
    whole: usize,
    joined: usize,
    joined_changes: usize,
}

#[derive(Default)]
pub(super) struct Lake {
    waiting: Segment,
    in_progress: HashMap<u32, (Vec<PartitionBatch>, Vec<ChangeBatch>)>,
    pub(super) visible: Vec<Row>,
    pub(super) commits: Vec<(Lsn, Vec<Row>)>,
    /// Batches that had eras.
    pub(super) eras: usize,
}

impl Lake {
    pub(super) fn take(&mut self, command: LandCommand) {
        match command {
            LandCommand::Rows { xid: None, batch, .. } => {
                self.waiting.whole += 1;
                self.rows(&batch);
            }
            LandCommand::Changes { xid: None, batch, .. } => {
                let commits = batch.keys.column_by_name(COMMIT_LSN).unwrap().as_primitive::<UInt64Type>();
                assert!(commits.values().iter().all(|lsn| *lsn > 0), "a whole transaction tells its commit");
                self.waiting.whole += 1;
                self.waiting.changes.extend(changes(&batch));
            }
            LandCommand::Rows { xid: Some(xid), batch, .. } => self.in_progress.entry(xid).or_default().0.push(batch),
            LandCommand::Changes { xid: Some(xid), batch, .. } => {
                self.in_progress.entry(xid).or_default().1.push(batch);
            }
            LandCommand::Join { by, aborted, .. } => {
                assert!(by.commit_lsn > Lsn::ZERO);
                let (rows, joined) = self.in_progress.remove(&by.xid).unwrap_or_default();
                for batch in rows {
                    self.rows(&batch.without(&aborted).unwrap());
                }
                let joined: Vec<Change> =
                    joined.into_iter().flat_map(|batch| changes(&batch.without(&aborted).unwrap())).collect();
                self.waiting.joined += 1;
                self.waiting.joined_changes += joined.len();
                self.waiting.changes.extend(joined);
            }
            LandCommand::Forget { xid } => drop(self.in_progress.remove(&xid)),
            LandCommand::Commit { at } => self.commit(at),
            LandCommand::Idle { .. } | LandCommand::Evolve { .. } | LandCommand::NoteSource { .. } => {}
            LandCommand::Park { .. } => panic!("nothing parks here"),
            LandCommand::Prepare { .. }
            | LandCommand::Copied { .. }
            | LandCommand::Abandon { .. }
            | LandCommand::CopyLanded { .. }
            | LandCommand::Mark { .. }
            | LandCommand::Keep { .. } => panic!("nothing is copied here"),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.in_progress.is_empty() && self.waiting.rows.is_empty() && self.waiting.changes.is_empty()
    }

    fn rows(&mut self, batch: &PartitionBatch) {
        self.eras += usize::from(batch.eras.is_some());
        let rows = rows(&batch.rows);
        let eras: Vec<u32> = match &batch.eras {
            None => vec![0; rows.len()],
            Some(eras) => eras.iter().flat_map(|(era, rows)| (0..rows).map(move |_| era)).collect(),
        };
        assert_eq!(eras.len(), rows.len());
        self.waiting.rows.extend(rows.into_iter().zip(eras));
    }

    /// The segment's changes, in their order, on what was there and on its own rows.
    fn commit(&mut self, at: Lsn) {
        let mut segment = std::mem::take(&mut self.waiting);
        if !segment.changes.is_empty() {
            let alone = segment.joined == 1 && segment.whole == 0;
            assert!(segment.joined == 0 || (alone && segment.joined_changes > 0), "changes beside what was streamed");
        }
        segment.changes.sort_by_key(|change| change.ordinal);
        assert!(segment.changes.is_sorted_by(|one, next| one.ordinal < next.ordinal), "{:?}", segment.changes);
        let mut all: Vec<(Row, u32)> = self.visible.drain(..).map(|row| (row, 0)).collect();
        all.append(&mut segment.rows);
        for change in &segment.changes {
            let concerns = |row: &Row, era: u32| era <= change.ordinal && change.id.is_none_or(|id| id == row.id);
            match change.operation {
                Operation::Patch => {
                    let rows = all.iter_mut().filter(|(row, era)| concerns(row, *era));
                    rows.for_each(|(row, _)| row.version = change.version);
                }
                _ => all.retain(|(row, era)| !concerns(row, *era)),
            }
        }
        self.visible = all.into_iter().map(|(row, _)| row).collect();
        self.commits.push((at, self.visible.clone()));
    }
}

fn versions(batch: &RecordBatch) -> Vec<i32> {
    let micros = batch.column_by_name("created_at").unwrap().as_primitive::<TimestampMicrosecondType>();
    micros.values().iter().map(|micros| i32::try_from(micros.rem_euclid(MICROS_PER_DAY)).unwrap()).collect()
}

fn ids(batch: &RecordBatch) -> Vec<Option<i32>> {
    batch.column_by_name("id").unwrap().as_primitive::<Int32Type>().iter().collect()
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
    let rows = ids(batch).into_iter().zip(notes).zip(versions(batch));
    rows.map(|((id, note), version)| Row { id: id.unwrap(), note: note.unwrap().parse().unwrap(), version }).collect()
}

fn changes(batch: &ChangeBatch) -> Vec<Change> {
    let number =
        |batch: &RecordBatch| batch.column_by_name(ORDINAL).unwrap().as_primitive::<UInt32Type>().values().to_vec();
    let operations = batch.keys.column_by_name(OPERATION).unwrap().as_primitive::<UInt8Type>();
    let patched: HashMap<u32, i32> = number(&batch.patches).into_iter().zip(versions(&batch.patches)).collect();
    let days = batch.patches.column_by_name(NEW_DAY).unwrap().as_primitive::<Date32Type>();
    assert_eq!(days.len(), patched.len());
    let named = number(&batch.keys).into_iter().zip(operations.values()).zip(ids(&batch.keys));
    let change = |((ordinal, operation), id): ((u32, &u8), Option<i32>)| {
        let operation = Operation::from_number(*operation).unwrap();
        assert_eq!(patched.contains_key(&ordinal), operation == Operation::Patch);
        assert_eq!(id.is_none(), operation == Operation::Truncate);
        Change { ordinal, operation, id, version: patched.get(&ordinal).copied().unwrap_or(0) }
    };
    named.map(change).collect()
}
