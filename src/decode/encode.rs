//! The sender's side, for tests: messages and tuples as the server writes them.

use super::{Datum, Message, OldTuple, Relation, ReplicaIdentity, Tuple};

const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;

/// TupleData of these columns.
pub(crate) fn tuple(columns: &[Datum<'_>]) -> Vec<u8> {
    let mut out = i16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        let (kind, bytes) = match column {
            Datum::Null => (b'n', None),
            Datum::Unchanged => (b'u', None),
            Datum::Text(bytes) => (b't', Some(bytes)),
            Datum::Binary(bytes) => (b'b', Some(bytes)),
        };
        out.push(kind);
        if let Some(bytes) = bytes {
            out.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
            out.extend(*bytes);
        }
    }
    out
}

/// An Insert outside of a stream.
pub(crate) fn insert(relation_oid: u32, columns: &[Datum<'_>]) -> Vec<u8> {
    [&b"I"[..], &relation_oid.to_be_bytes(), b"N", &tuple(columns)].concat()
}

/// An Update outside of a stream; the old tuple is `K` (the identity) or `O` (the whole row).
pub(crate) fn update(relation_oid: u32, old: Option<(u8, &[Datum<'_>])>, new: &[Datum<'_>]) -> Vec<u8> {
    let old = old.map_or_else(Vec::new, |(kind, columns)| [&[kind][..], &tuple(columns)].concat());
    [&b"U"[..], &relation_oid.to_be_bytes(), &old, b"N", &tuple(new)].concat()
}

/// A Delete outside of a stream.
pub(crate) fn delete(relation_oid: u32, (kind, old): (u8, &[Datum<'_>])) -> Vec<u8> {
    [&b"D"[..], &relation_oid.to_be_bytes(), &[kind], &tuple(old)].concat()
}

/// Any message.
pub(crate) fn message(message: &Message<'_>) -> Vec<u8> {
    let mut out = Frame(Vec::new());
    match message {
        Message::Begin { final_lsn, commit_time_micros, xid } => {
            out.tag(b'B').long(final_lsn.0).time(*commit_time_micros).int(*xid)
        }
        Message::Commit { commit_lsn, end_lsn, commit_time_micros } => {
            out.tag(b'C').tag(0).long(commit_lsn.0).long(end_lsn.0).time(*commit_time_micros)
        }
        Message::Origin { commit_lsn, name } => out.tag(b'O').long(commit_lsn.0).name(name),
        Message::Relation { xid, relation } => out.tag(b'R').xid(*xid).relation(relation),
        Message::Type { xid, oid, schema, name } => out.tag(b'Y').xid(*xid).int(*oid).name(schema).name(name),
        Message::Insert { xid, relation_oid, new } => out.tag(b'I').xid(*xid).int(*relation_oid).row(b'N', new),
        Message::Update { xid, relation_oid, old, new } => {
            out.tag(b'U').xid(*xid).int(*relation_oid).old(old.as_ref()).row(b'N', new)
        }
        Message::Delete { xid, relation_oid, old } => out.tag(b'D').xid(*xid).int(*relation_oid).old(Some(old)),
        Message::Truncate { xid, relation_oids, cascade, restart_identity } => {
            let count = u32::try_from(relation_oids.len()).unwrap();
            out.tag(b'T').xid(*xid).int(count).tag(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            relation_oids.iter().fold(&mut out, |out, oid| out.int(*oid))
        }
        Message::LogicalMessage { xid, transactional, lsn, prefix, content } => {
            let count = u32::try_from(content.len()).unwrap();
            out.tag(b'M').xid(*xid).tag(u8::from(*transactional)).long(lsn.0).name(prefix).int(count).raw(content)
        }
        _ => return streaming(message),
    };
    out.0
}

fn streaming(message: &Message<'_>) -> Vec<u8> {
    let mut out = Frame(Vec::new());
    match message {
        Message::StreamStart { xid, first_segment } => out.tag(b'S').int(*xid).tag(u8::from(*first_segment)),
        Message::StreamStop => out.tag(b'E'),
        Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time_micros } => {
            out.tag(b'c').int(*xid).tag(0).long(commit_lsn.0).long(end_lsn.0).time(*commit_time_micros)
        }
        Message::StreamAbort { xid, subtransaction_xid, abort } => {
            out.tag(b'A').int(*xid).int(*subtransaction_xid);
            abort.iter().fold(&mut out, |out, (lsn, micros)| out.long(lsn.0).time(*micros))
        }
        Message::BeginPrepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid } => {
            out.tag(b'b').long(prepare_lsn.0).long(end_lsn.0).time(*prepare_time_micros).int(*xid).name(gid)
        }
        Message::Prepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid } => {
            out.tag(b'P').tag(0).long(prepare_lsn.0).long(end_lsn.0).time(*prepare_time_micros).int(*xid).name(gid)
        }
        Message::CommitPrepared { commit_lsn, end_lsn, commit_time_micros, xid, gid } => {
            out.tag(b'K').tag(0).long(commit_lsn.0).long(end_lsn.0).time(*commit_time_micros).int(*xid).name(gid)
        }
        Message::StreamPrepare { prepare_lsn, end_lsn, prepare_time_micros, xid, gid } => {
            out.tag(b'p').tag(0).long(prepare_lsn.0).long(end_lsn.0).time(*prepare_time_micros).int(*xid).name(gid)
        }
        Message::RollbackPrepared {
            prepare_end_lsn,
            rollback_end_lsn,
            prepare_time_micros,
            rollback_time_micros,
            xid,
            gid,
        } => {
            out.tag(b'r').tag(0).long(prepare_end_lsn.0).long(rollback_end_lsn.0).time(*prepare_time_micros);
            out.time(*rollback_time_micros).int(*xid).name(gid)
        }
        _ => panic!("a message of protocol 1"),
    };
    out.0
}

struct Frame(Vec<u8>);

impl Frame {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn tag(&mut self, byte: u8) -> &mut Self {
        self.raw(&[byte])
    }

    fn int(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn time(&mut self, micros: i64) -> &mut Self {
        self.raw(&(micros - MICROS_1970_TO_2000).to_be_bytes())
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.raw(name.as_bytes()).tag(0)
    }

    fn xid(&mut self, xid: Option<u32>) -> &mut Self {
        xid.iter().fold(self, |out, xid| out.int(*xid))
    }

    fn row(&mut self, kind: u8, row: &Tuple<'_>) -> &mut Self {
        let columns: Vec<Datum<'_>> = row.columns().map(Result::unwrap).collect();
        self.tag(kind).raw(&tuple(&columns))
    }

    fn old(&mut self, old: Option<&OldTuple<'_>>) -> &mut Self {
        match old {
            None => self,
            Some(OldTuple::Key(row)) => self.row(b'K', row),
            Some(OldTuple::Full(row)) => self.row(b'O', row),
        }
    }

    fn relation(&mut self, relation: &Relation) -> &mut Self {
        let identity = match relation.replica_identity {
            ReplicaIdentity::Default => b'd',
            ReplicaIdentity::Nothing => b'n',
            ReplicaIdentity::Full => b'f',
            ReplicaIdentity::Index => b'i',
        };
        let count = i16::try_from(relation.columns.len()).unwrap();
        self.int(relation.oid).name(&relation.schema).name(&relation.name).tag(identity).raw(&count.to_be_bytes());
        relation.columns.iter().fold(self, |out, column| {
            let out = out.tag(u8::from(column.is_key)).name(&column.name).int(column.type_oid);
            out.raw(&column.type_modifier.to_be_bytes())
        })
    }
}
