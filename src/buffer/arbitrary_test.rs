//! D1, D3: arbitrary and damaged frames, parsed and appended: rows or errors, in bounds, and never a cell in a message.

use super::table_buffer_test::{bound, relation, whole};
use super::values_test::{VALUES, every_type};
use super::*;
use crate::base::{ColumnType, Runs};
use crate::decode::mutate::{Mutation, mutate, mutations};
use crate::decode::{Datum, Message, encode, parse};
use deltalake::arrow::array::{AsArray, types::UInt8Type};
use proptest::collection::vec;
use proptest::prelude::*;

const CANARY: &[u8] = b"canary-c0de";
/// Digits that the widest numeric prints from a send form of ten bytes.
const NUMERIC_TEXT_BYTES_MAX: usize = 131_072 + 16_383 + 3;
/// A new partition's builders, and what each row takes in all columns of fixed size.
const OVERHEAD_BYTES: usize = 64 << 10;

/// A column's value: sound, missing, of other types, or nothing that any type prints.
#[derive(Clone, Debug)]
enum Cell {
    SoundText,
    SoundBinary,
    Null,
    Unchanged,
    Canary,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

fn cell() -> impl Strategy<Value = Cell> {
    let special =
        [&b"infinity"[..], b"-infinity", b"NaN", b"0044-03-15 BC", b"10000-01-01", b"2026-01-01", b"24:00:00"];
    let special = proptest::sample::select(special.map(<[u8]>::to_vec).to_vec());
    prop_oneof![
        40 => Just(Cell::SoundText),
        40 => Just(Cell::SoundBinary),
        4 => Just(Cell::Null),
        1 => Just(Cell::Unchanged),
        2 => Just(Cell::Canary),
        2 => special.prop_map(Cell::Text),
        1 => vec(any::<u8>(), 0..30).prop_map(Cell::Text),
        2 => vec(prop_oneof![Just(0), Just(0x7F), Just(0xFF), any::<u8>()], 0..30).prop_map(Cell::Binary),
    ]
}

fn datum<'a>(column: usize, cell: &'a Cell) -> Datum<'a> {
    let (column_type, text, sent, _) = VALUES[column];
    match cell {
        Cell::SoundBinary if column_type != ColumnType::ServerText => Datum::Binary(sent),
        Cell::SoundText | Cell::SoundBinary => Datum::Text(text.as_bytes()),
        Cell::Null => Datum::Null,
        Cell::Unchanged => Datum::Unchanged,
        Cell::Canary => Datum::Text(CANARY),
        Cell::Text(bytes) => Datum::Text(bytes),
        Cell::Binary(bytes) => Datum::Binary(bytes),
    }
}

/// What a message says about the row.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Insert,
    Update,
    /// With the identity, every other column NULL.
    UpdateOfKey,
    /// With the whole old row, which is the new one.
    UpdateOfFull,
    Delete,
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(vec![Kind::Insert, Kind::Update, Kind::UpdateOfKey, Kind::UpdateOfFull, Kind::Delete])
}

/// A message as it stands in a stream of transactions in progress, or outside of one.
fn frame(kind: Kind, cells: &[Cell], xid: Option<u32>) -> Vec<u8> {
    let columns: Vec<Datum<'_>> = cells.iter().enumerate().map(|(column, cell)| datum(column, cell)).collect();
    let mut key = vec![Datum::Null; columns.len()];
    key[0] = columns[0];
    let mut frame = match kind {
        Kind::Insert => encode::insert(1, &columns),
        Kind::Update => encode::update(1, None, &columns),
        Kind::UpdateOfKey => encode::update(1, Some((b'K', &key)), &columns),
        Kind::UpdateOfFull => encode::update(1, Some((b'O', &columns)), &columns),
        Kind::Delete => encode::delete(1, (b'K', &key)),
    };
    if let Some(xid) = xid {
        frame.splice(1..1, xid.to_be_bytes());
    }
    frame
}

fn insert(cells: &[Cell], xid: Option<u32>) -> Vec<u8> {
    frame(Kind::Insert, cells, xid)
}

fn holds_no_cell(error: &BufferError) {
    let shown = format!("{error}{error:?}");
    assert!(!shown.contains("canary") && !error.to_string().contains('\n'), "{shown}");
}

/// Takes the frame as the pipeline would. Whether it was taken.
fn take(buffer: &mut TableBuffer, frame: &[u8], in_stream: bool) -> bool {
    let before = buffer.bytes();
    let by = Transaction::in_progress(7);
    let outcome = match parse(frame, in_stream) {
        Ok(Message::Insert { xid, new, .. }) => buffer.append(&new, xid),
        Ok(Message::Update { xid, old, new, .. }) => buffer.update(old.as_ref(), &new, &by, xid),
        Ok(Message::Delete { xid, old, .. }) => buffer.delete(&old, &by, xid),
        Ok(Message::Relation { relation, .. }) => {
            match buffer.bind(&relation) {
                Ok(()) => assert_eq!(relation.columns.len(), VALUES.len()),
                Err(error) => holds_no_cell(&error),
            }
            return false;
        }
        Ok(_) | Err(_) => return false,
    };
    // The row, and its identity.
    let limit = OVERHEAD_BYTES + 8 * frame.len() + 2 * NUMERIC_TEXT_BYTES_MAX;
    assert!(buffer.bytes() <= before + limit, "{} bytes of a frame of {}", buffer.bytes() - before, frame.len());
    outcome.as_ref().map_err(holds_no_cell).is_ok()
}

fn operations(changes: &ChangeBatch, operation: Operation) -> usize {
    let column = changes.keys.column_by_name(change_batch::OPERATION).unwrap().as_primitive::<UInt8Type>();
    column.values().iter().filter(|number| Operation::from_number(**number) == Some(operation)).count()
}

proptest! {
    #[test]
    fn d1_damaged_rows_are_taken_whole_or_refused_whole(
        rows in vec((kind(), vec(cell(), VALUES.len()), any::<u32>(), prop_oneof![2 => Just(Vec::new()), 3 => mutations()]), 1..12),
        in_stream: bool,
        damage in prop_oneof![3 => Just(Vec::new()), 1 => mutations()],
    ) {
        let shape = every_type();
        let described = Message::Relation { xid: in_stream.then_some(7), relation: relation(&shape) };
        let mut buffer = bound(shape);
        take(&mut buffer, &mutate(encode::message(&described), &damage), in_stream);
        let mut taken = 0;
        for (kind, cells, xid, mutations) in &rows {
            let frame = mutate(frame(*kind, cells, in_stream.then_some(*xid)), mutations);
            taken += u64::from(take(&mut buffer, &frame, in_stream));
        }
        buffer.end_transaction();
        let cut = buffer.cut_for_a_commit().unwrap();
        for batch in &cut.ended {
            let rows = batch.rows.num_rows() as u64;
            prop_assert_eq!(batch.xids.as_ref().map(Runs::rows), in_stream.then_some(rows));
            prop_assert_eq!(batch.eras.as_ref().map_or(rows, Runs::rows), rows);
        }
        // Every row that a change brought along follows it; an UPDATE is counted once.
        let counted = |changes: &ChangeBatch| (changes.len(), operations(changes, Operation::Update));
        let changes: Vec<(usize, usize)> = cut.ended_changes.iter().map(counted).collect();
        let rows = cut.ended.iter().map(|batch| batch.rows.num_rows()).sum::<usize>();
        let (all, updates) = changes.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        prop_assert_eq!((rows + all - updates) as u64, taken);
        for changes in &cut.ended_changes {
            prop_assert_eq!(changes.patches.num_rows(), operations(changes, Operation::Patch));
            let len = changes.len() as u64;
            prop_assert_eq!(changes.xids.as_ref().map(Runs::rows), in_stream.then_some(len));
        }
        prop_assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
    }

    #[test]
    fn d1_arbitrary_bytes_never_harm_a_buffer(frames in vec(vec(any::<u8>(), 0..80), 1..6), in_stream: bool) {
        let mut buffer = bound(every_type());
        for frame in frames {
            for tag in [b"I", b"U", b"D"] {
                take(&mut buffer, &[&tag[..], &frame].concat(), in_stream);
            }
            take(&mut buffer, &frame, in_stream);
        }
        whole(&mut buffer);
    }
}

/// Ten bytes that print 131,072 digits: the widest numeric there is, which the server could send as well.
#[test]
fn the_widest_numeric_stays_in_bounds() {
    let mut buffer = bound(every_type());
    let widest = Cell::Binary(vec![0, 1, 0x7F, 0xFF, 0, 0, 0x3F, 0xFF, 0x27, 0x0F]);
    let numeric = VALUES.iter().position(|value| value.0 == ColumnType::Numeric).unwrap();
    let mut cells = vec![Cell::SoundBinary; VALUES.len()];
    cells[numeric] = widest;
    assert!(take(&mut buffer, &insert(&cells, None), false));
    assert!(buffer.bytes() > 131_072 + 16_383);
    let damage = [Mutation::Cut { at: 40 }];
    assert!(!take(&mut buffer, &mutate(insert(&cells, None), &damage), false));
}
