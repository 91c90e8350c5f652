//! D1: parsing is total, and exact on whatever is valid.

use super::encode;
use super::mutate::{mutate, mutations};
use super::*;
use crate::base::Lsn;
use proptest::collection::vec;
use proptest::prelude::*;

const MICROS: i64 = 1_767_225_600_123_456;

/// Everything that a message could need; each test message takes its part.
#[derive(Clone, Debug)]
struct Parts {
    xid: Option<u32>,
    ints: [u32; 2],
    lsns: [u64; 2],
    times: [i64; 2],
    names: [String; 2],
    flags: [bool; 2],
    rows: [Vec<u8>; 2],
    oids: Vec<u32>,
    content: Vec<u8>,
    relation: Relation,
}

fn name() -> impl Strategy<Value = String> {
    vec(proptest::char::range('\u{1}', '\u{3fff}'), 0..8).prop_map(|chars| chars.into_iter().collect())
}

fn row() -> impl Strategy<Value = Vec<u8>> {
    let column = (0..4_u8, vec(any::<u8>(), 0..20));
    vec(column, 0..8).prop_map(|columns| {
        let datums = columns.iter().map(|(kind, bytes)| match kind {
            0 => Datum::Null,
            1 => Datum::Unchanged,
            2 => Datum::Text(bytes),
            _ => Datum::Binary(bytes),
        });
        encode::tuple(&datums.collect::<Vec<_>>())
    })
}

fn relation() -> impl Strategy<Value = Relation> {
    use ReplicaIdentity::{Default, Full, Index, Nothing};
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>())
        .prop_map(|(name, type_oid, type_modifier, is_key)| RelationColumn { name, type_oid, type_modifier, is_key });
    let identity = proptest::sample::select(vec![Default, Nothing, Full, Index]);
    (any::<u32>(), name(), name(), identity, vec(column, 0..6)).prop_map(
        |(oid, schema, name, replica_identity, columns)| Relation { oid, schema, name, replica_identity, columns },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    let time = || (i64::MIN + 946_684_800_000_000)..=i64::MAX;
    let scalars = (any::<Option<u32>>(), any::<[u32; 2]>(), any::<[u64; 2]>(), [time(), time()], any::<[bool; 2]>());
    let rest = ([name(), name()], [row(), row()], vec(any::<u32>(), 0..5), vec(any::<u8>(), 0..20), relation());
    (scalars, rest).prop_map(|((xid, ints, lsns, times, flags), (names, rows, oids, content, relation))| Parts {
        xid,
        ints,
        lsns,
        times,
        names,
        flags,
        rows,
        oids,
        content,
        relation,
    })
}

fn changes(parts: &Parts) -> Vec<Message<'_>> {
    let Parts { xid, ints: [int, _], lsns: [lsn, _], names: [first, second], flags: [one, two], .. } = parts;
    let (xid, lsn) = (*xid, Lsn(*lsn));
    let tuple = |bytes| Tuple::read(&mut reader::Reader::new(bytes, "Test")).unwrap();
    let [new, other] = parts.rows.each_ref().map(|bytes| tuple(bytes.as_slice()));
    let old = if *one { OldTuple::Key(other) } else { OldTuple::Full(other) };
    vec![
        Message::Relation { xid, relation: parts.relation.clone() },
        Message::Type { xid, oid: *int, schema: first, name: second },
        Message::Insert { xid, relation_oid: *int, new },
        Message::Update { xid, relation_oid: *int, old: two.then_some(old), new },
        Message::Delete { xid, relation_oid: *int, old },
        Message::Truncate { xid, relation_oids: parts.oids.clone(), cascade: *one, restart_identity: *two },
        Message::LogicalMessage { xid, transactional: *one, lsn, prefix: first, content: &parts.content },
    ]
}

fn frames(parts: &Parts) -> Vec<Message<'_>> {
    let Parts { ints: [xid, other], lsns, times, names: [gid, _], flags: [flag, _], .. } = parts;
    let (xid, [first, end_lsn], [time, other_time]) = (*xid, lsns.map(Lsn), *times);
    let (prepare_lsn, commit_lsn, prepare_time_micros, commit_time_micros) = (first, first, time, time);
    vec![
        Message::Begin { final_lsn: first, commit_time_micros, xid },
        Message::Commit { commit_lsn, end_lsn, commit_time_micros },
        Message::Origin { commit_lsn, name: gid },
        Message::StreamStart { xid, first_segment: *flag },
        Message::StreamStop,
        Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time_micros },
        Message::StreamAbort { xid, subtransaction_xid: *other, abort: flag.then_some((first, time)) },
        Message::BeginPrepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid },
        Message::Prepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid },
        Message::CommitPrepared { commit_lsn, end_lsn, commit_time_micros, xid, gid },
        Message::StreamPrepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid },
        Message::RollbackPrepared {
            prepare_end_lsn: first,
            rollback_end_lsn: end_lsn,
            prepare_time_micros,
            rollback_time_micros: other_time,
            xid,
            gid,
        },
    ]
}

/// The payload of tuples is compared by their columns: a tuple remembers the message that it stood in.
fn same(parsed: &Message<'_>, sent: &Message<'_>, bytes: &[u8]) -> bool {
    std::mem::discriminant(parsed) == std::mem::discriminant(sent) && encode::message(parsed) == bytes
}

/// Reads whatever parsed to its end. What was allocated is bounded by the bytes that are there, not by what they claim.
fn walk(bytes: &[u8], in_stream: bool) {
    let parsed = parse(bytes, in_stream);
    match &parsed {
        Ok(Message::Truncate { relation_oids, .. }) => assert!(relation_oids.capacity() * 4 <= bytes.len()),
        Ok(Message::Relation { relation, .. }) => assert!(relation.columns.capacity() * 10 <= bytes.len()),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
    let rows = match parsed {
        Ok(Message::Insert { new, .. }) => vec![new],
        Ok(Message::Update { old, new, .. }) => old.iter().map(OldTuple::tuple).chain([new]).collect(),
        Ok(Message::Delete { old, .. }) => vec![old.tuple()],
        _ => vec![],
    };
    for row in rows {
        assert_eq!(row.columns().filter(Result::is_ok).count(), row.len());
    }
}

proptest! {
    #[test]
    fn d1_arbitrary_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200), in_stream: bool) {
        walk(&bytes, in_stream);
    }

    #[test]
    fn d1_a_known_tag_with_arbitrary_bytes_is_a_message_or_an_error(
        tag in proptest::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec()),
        bytes in vec(prop_oneof![Just(0), Just(b'N'), Just(b't'), Just(1), any::<u8>()], 0..60),
        in_stream: bool,
    ) {
        walk(&[&[tag][..], &bytes].concat(), in_stream);
    }

    #[test]
    fn every_message_survives_the_wire(parts in parts()) {
        for (sent, in_stream) in changes(&parts).iter().map(|change| (change, parts.xid.is_some())) {
            let bytes = encode::message(sent);
            let parsed = parse(&bytes, in_stream).unwrap();
            prop_assert!(same(&parsed, sent, &bytes), "{parsed:?} of {sent:?}");
        }
        for sent in frames(&parts) {
            let bytes = encode::message(&sent);
            prop_assert_eq!(parse(&bytes, false).unwrap(), sent);
        }
    }

    #[test]
    fn d1_a_damaged_message_is_a_message_or_an_error(parts in parts(), mutations in mutations(), in_stream: bool) {
        for sent in changes(&parts).iter().chain(&frames(&parts)) {
            walk(&mutate(encode::message(sent), &mutations), in_stream);
        }
    }

    #[test]
    fn d1_a_frame_cut_or_prolonged_is_an_error(parts in parts()) {
        let in_stream = parts.xid.is_some();
        for sent in changes(&parts) {
            let mut bytes = encode::message(&sent);
            for end in 0..bytes.len() {
                prop_assert!(parse(&bytes[..end], in_stream).is_err());
            }
            bytes.push(0);
            prop_assert!(parse(&bytes, in_stream).is_err());
        }
    }
}

#[test]
fn fields_stand_where_the_manual_puts_them() {
    let since_2000 = (MICROS - 946_684_800_000_000).to_be_bytes();
    let begin = [&b"B"[..], &[0, 0, 0, 0x16, 0xB3, 0x74, 0xD8, 0x48], &since_2000, &[0, 0, 2, 1]].concat();
    let expected = Message::Begin { final_lsn: Lsn(0x16_B374_D848), commit_time_micros: MICROS, xid: 513 };
    assert_eq!(parse(&begin, false), Ok(expected));
    let insert = b"I\0\0\x40\0N\0\x04nut\0\0\0\x01xb\0\0\0\x02\0\x01";
    let Ok(Message::Insert { xid: None, relation_oid: 0x4000, new }) = parse(insert, false) else { panic!() };
    let columns: Vec<_> = new.columns().map(Result::unwrap).collect();
    assert_eq!(columns, [Datum::Null, Datum::Unchanged, Datum::Text(b"x"), Datum::Binary(b"\0\x01")]);
    let streamed = b"I\0\0\0\x07\0\0\x40\0N\0\0";
    assert!(matches!(parse(streamed, true), Ok(Message::Insert { xid: Some(7), relation_oid: 0x4000, .. })));
    assert!(parse(streamed, false).is_err());
}

#[test]
fn d1_each_broken_rule_has_its_error() {
    let truncated = |message, field| Err(DecodeError::Truncated { message, field });
    assert_eq!(parse(b"", false), Err(DecodeError::Empty));
    assert_eq!(parse(b"Z", false), Err(DecodeError::UnknownMessage { tag: b'Z' }));
    assert_eq!(parse(b"E\0", false), Err(DecodeError::TrailingBytes { message: "Stream Stop", count: 1 }));
    assert_eq!(parse(b"I\0\0\0\x01N\0\x01t\0\0\0\x05abc", false), truncated("Insert", "column value"));
    assert_eq!(parse(b"Y\0\0\0\x01abc", false), truncated("Type", "schema name"));
    let negative = |message, field| Err(DecodeError::NegativeCount { message, field });
    assert_eq!(parse(b"I\0\0\0\x01N\xff\xff", false), negative("Insert", "column count"));
    assert_eq!(parse(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff", false), negative("Insert", "column length"));
    assert_eq!(parse(b"T\xff\xff\xff\xff\0", false), negative("Truncate", "relation count"));
    let flags = |message, flags| Err(DecodeError::UnknownFlags { message, flags });
    assert_eq!(parse(b"T\0\0\0\0\x04", false), flags("Truncate", 4));
    assert_eq!(parse(b"C\x01", false), flags("Commit", 1));
    let tag = |message, field, tag| Err(DecodeError::UnknownTag { message, field, tag });
    assert_eq!(parse(b"I\0\0\0\x01O\0\0", false), tag("Insert", "tuple kind", b'O'));
    assert_eq!(parse(b"I\0\0\0\x01N\0\x01x", false), tag("Insert", "column kind", b'x'));
    assert_eq!(parse(b"R\0\0\0\x01\0\0x\0\0", false), tag("Relation", "replica identity", b'x'));
    let not_utf8 = Err(DecodeError::NotUtf8 { message: "Type", field: "schema name" });
    assert_eq!(parse(b"Y\0\0\0\x01\xff\0\0", false), not_utf8);
    let late = [&b"B\0\0\0\0\0\0\0\0"[..], &i64::MAX.to_be_bytes(), b"\0\0\0\0"].concat();
    assert_eq!(parse(&late, false), Err(DecodeError::TimeOutOfRange { message: "Begin" }));
}
