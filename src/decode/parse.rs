//! A frame becomes a [`Message`]: one function a message, fields in the manual's order.

use super::reader::Reader;
use super::{DecodeError, Message, OldTuple, Relation, Tuple};

const TRUNCATE_CASCADE: u8 = 1;
const TRUNCATE_RESTART_IDENTITY: u8 = 2;
const MESSAGE_IS_TRANSACTIONAL: u8 = 1;
const STREAM_FIRST_SEGMENT: u8 = 1;
/// Messages whose flags byte the manual calls unused.
const NO_FLAGS: u8 = 0;
const OID_BYTES: usize = 4;

/// Reads one frame whole.
///
/// `in_stream` says whether the frame stands between StreamStart and StreamStop, where changes start with a transaction id:
/// the bytes themselves do not tell.
///
/// # Errors
/// [`DecodeError`] for whatever is not exactly one message of protocol 1 to 4.
#[inline]
pub fn parse(payload: &[u8], in_stream: bool) -> Result<Message<'_>, DecodeError> {
    let (&tag, rest) = payload.split_first().ok_or(DecodeError::Empty)?;
    let mut reader = Reader::new(rest, message_name(tag)?);
    let message = if tag == b'I' { insert(&mut reader, in_stream)? } else { other(tag, &mut reader, in_stream)? };
    reader.finish()?;
    Ok(message)
}

fn message_name(tag: u8) -> Result<&'static str, DecodeError> {
    Ok(match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        _ => return Err(DecodeError::UnknownMessage { tag }),
    })
}

fn other<'a>(tag: u8, reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    match tag {
        b'B' => begin(reader),
        b'C' => commit(reader),
        b'O' => Ok(Message::Origin { commit_lsn: reader.lsn("commit LSN")?, name: reader.text("origin name")? }),
        b'R' => Ok(Message::Relation { xid: stream_xid(reader, in_stream)?, relation: Relation::read(reader)? }),
        b'Y' => described_type(reader, in_stream),
        b'U' => update(reader, in_stream),
        b'D' => delete(reader, in_stream),
        b'T' => truncate(reader, in_stream),
        b'M' => logical_message(reader, in_stream),
        b'S' => stream_start(reader),
        b'E' => Ok(Message::StreamStop),
        b'c' => stream_commit(reader),
        b'A' => stream_abort(reader),
        b'b' => begin_prepare(reader),
        b'P' => prepare(reader),
        b'K' => commit_prepared(reader),
        b'r' => rollback_prepared(reader),
        b'p' => stream_prepare(reader),
        _ => Err(DecodeError::UnknownMessage { tag }),
    }
}

#[inline]
fn stream_xid(reader: &mut Reader<'_>, in_stream: bool) -> Result<Option<u32>, DecodeError> {
    if in_stream { reader.unsigned("transaction id").map(Some) } else { Ok(None) }
}

#[inline]
fn insert<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    let xid = stream_xid(reader, in_stream)?;
    let relation_oid = reader.unsigned("relation oid")?;
    match reader.byte("tuple kind")? {
        b'N' => Ok(Message::Insert { xid, relation_oid, new: Tuple::read(reader)? }),
        tag => Err(reader.unknown_tag("tuple kind", tag)),
    }
}

fn update<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    let xid = stream_xid(reader, in_stream)?;
    let relation_oid = reader.unsigned("relation oid")?;
    let (old, kind) = match reader.byte("tuple kind")? {
        b'K' => (Some(OldTuple::Key(Tuple::read(reader)?)), reader.byte("tuple kind")?),
        b'O' => (Some(OldTuple::Full(Tuple::read(reader)?)), reader.byte("tuple kind")?),
        kind => (None, kind),
    };
    match kind {
        b'N' => Ok(Message::Update { xid, relation_oid, old, new: Tuple::read(reader)? }),
        tag => Err(reader.unknown_tag("tuple kind", tag)),
    }
}

fn delete<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    let xid = stream_xid(reader, in_stream)?;
    let relation_oid = reader.unsigned("relation oid")?;
    let old = match reader.byte("tuple kind")? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Full(Tuple::read(reader)?),
        tag => return Err(reader.unknown_tag("tuple kind", tag)),
    };
    Ok(Message::Delete { xid, relation_oid, old })
}

fn truncate<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    let xid = stream_xid(reader, in_stream)?;
    let count = reader.count("relation count")?;
    let flags = reader.flags(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY)?;
    // The count is the sender's word; what is there to be read bounds the allocation.
    let mut relation_oids = Vec::with_capacity(count.min(reader.rest().len() / OID_BYTES));
    for _ in 0..count {
        relation_oids.push(reader.unsigned("relation oid")?);
    }
    let cascade = flags & TRUNCATE_CASCADE != 0;
    Ok(Message::Truncate { xid, relation_oids, cascade, restart_identity: flags & TRUNCATE_RESTART_IDENTITY != 0 })
}

fn described_type<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Type {
        xid: stream_xid(reader, in_stream)?,
        oid: reader.unsigned("type oid")?,
        schema: reader.text("schema name")?,
        name: reader.text("type name")?,
    })
}

fn logical_message<'a>(reader: &mut Reader<'a>, in_stream: bool) -> Result<Message<'a>, DecodeError> {
    let xid = stream_xid(reader, in_stream)?;
    let transactional = reader.flags(MESSAGE_IS_TRANSACTIONAL)? != 0;
    let lsn = reader.lsn("LSN")?;
    let prefix = reader.text("prefix")?;
    let count = reader.count("content length")?;
    let content = reader.bytes(count, "content")?;
    Ok(Message::LogicalMessage { xid, transactional, lsn, prefix, content })
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin {
        final_lsn: reader.lsn("final LSN")?,
        commit_time_micros: reader.micros("commit time")?,
        xid: reader.unsigned("transaction id")?,
    })
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(NO_FLAGS)?;
    Ok(Message::Commit {
        commit_lsn: reader.lsn("commit LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        commit_time_micros: reader.micros("commit time")?,
    })
}

fn stream_start<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let xid = reader.unsigned("transaction id")?;
    Ok(Message::StreamStart { xid, first_segment: reader.flags(STREAM_FIRST_SEGMENT)? != 0 })
}

fn stream_commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let xid = reader.unsigned("transaction id")?;
    reader.flags(NO_FLAGS)?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: reader.lsn("commit LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        commit_time_micros: reader.micros("commit time")?,
    })
}

fn stream_abort<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let xid = reader.unsigned("transaction id")?;
    let subtransaction_xid = reader.unsigned("subtransaction id")?;
    // Protocol 4 with streaming 'parallel' adds two fields, and only the length tells.
    let abort = match reader.rest() {
        [] => None,
        _ => Some((reader.lsn("abort LSN")?, reader.micros("abort time")?)),
    };
    Ok(Message::StreamAbort { xid, subtransaction_xid, abort })
}

fn begin_prepare<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::BeginPrepare {
        prepare_lsn: reader.lsn("prepare LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        prepare_time_micros: reader.micros("prepare time")?,
        xid: reader.unsigned("transaction id")?,
        gid: reader.text("transaction name")?,
    })
}

fn prepare<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(NO_FLAGS)?;
    Ok(Message::Prepare {
        prepare_lsn: reader.lsn("prepare LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        prepare_time_micros: reader.micros("prepare time")?,
        xid: reader.unsigned("transaction id")?,
        gid: reader.text("transaction name")?,
    })
}

fn commit_prepared<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(NO_FLAGS)?;
    Ok(Message::CommitPrepared {
        commit_lsn: reader.lsn("commit LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        commit_time_micros: reader.micros("commit time")?,
        xid: reader.unsigned("transaction id")?,
        gid: reader.text("transaction name")?,
    })
}

fn rollback_prepared<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(NO_FLAGS)?;
    Ok(Message::RollbackPrepared {
        prepare_end_lsn: reader.lsn("prepare end LSN")?,
        rollback_end_lsn: reader.lsn("rollback end LSN")?,
        prepare_time_micros: reader.micros("prepare time")?,
        rollback_time_micros: reader.micros("rollback time")?,
        xid: reader.unsigned("transaction id")?,
        gid: reader.text("transaction name")?,
    })
}

fn stream_prepare<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.flags(NO_FLAGS)?;
    Ok(Message::StreamPrepare {
        prepare_lsn: reader.lsn("prepare LSN")?,
        end_lsn: reader.lsn("end LSN")?,
        prepare_time_micros: reader.micros("prepare time")?,
        xid: reader.unsigned("transaction id")?,
        gid: reader.text("transaction name")?,
    })
}
