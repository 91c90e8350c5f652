//! The messages of pgoutput, protocol versions 1 to 4.

use super::{OldTuple, Relation, Tuple};
use crate::base::Lsn;

/// One message (PostgreSQL manual, 55.9). Times are microseconds since 1970-01-01 UTC.
///
/// `xid` of a change is present inside a streamed block only: the (sub)transaction that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the manual's, named as there")]
pub enum Message<'a> {
    /// `B`: a committed transaction starts; `final_lsn` is the LSN of its commit record.
    Begin { final_lsn: Lsn, commit_time_micros: i64, xid: u32 },
    /// `C`: it ends; `end_lsn` is the position behind its commit record.
    Commit { commit_lsn: Lsn, end_lsn: Lsn, commit_time_micros: i64 },
    /// `O`: the transaction came from another server.
    Origin { commit_lsn: Lsn, name: &'a str },
    /// `R`: a table's columns from here on.
    Relation { xid: Option<u32>, relation: Relation },
    /// `Y`: a type that is not built in.
    Type { xid: Option<u32>, oid: u32, schema: &'a str, name: &'a str },
    /// `I`
    Insert { xid: Option<u32>, relation_oid: u32, new: Tuple<'a> },
    /// `U`: `old` only where the key changed or the identity is FULL.
    Update { xid: Option<u32>, relation_oid: u32, old: Option<OldTuple<'a>>, new: Tuple<'a> },
    /// `D`
    Delete { xid: Option<u32>, relation_oid: u32, old: OldTuple<'a> },
    /// `T`
    Truncate { xid: Option<u32>, relation_oids: Vec<u32>, cascade: bool, restart_identity: bool },
    /// `M`: `pg_logical_emit_message`.
    LogicalMessage { xid: Option<u32>, transactional: bool, lsn: Lsn, prefix: &'a str, content: &'a [u8] },
    /// `S`: a block of a transaction in progress starts.
    StreamStart { xid: u32, first_segment: bool },
    /// `E`: the block ends.
    StreamStop,
    /// `c`: a streamed transaction committed.
    StreamCommit { xid: u32, commit_lsn: Lsn, end_lsn: Lsn, commit_time_micros: i64 },
    /// `A`: a streamed (sub)transaction aborted; where and when only with `streaming 'parallel'`.
    StreamAbort { xid: u32, subtransaction_xid: u32, abort: Option<(Lsn, i64)> },
    /// `b`: a prepared transaction starts.
    BeginPrepare { prepare_lsn: Lsn, end_lsn: Lsn, prepare_time_micros: i64, xid: u32, gid: &'a str },
    /// `P`: it ends with PREPARE TRANSACTION.
    Prepare { prepare_lsn: Lsn, end_lsn: Lsn, prepare_time_micros: i64, xid: u32, gid: &'a str },
    /// `K`
    CommitPrepared { commit_lsn: Lsn, end_lsn: Lsn, commit_time_micros: i64, xid: u32, gid: &'a str },
    /// `r`
    RollbackPrepared {
        prepare_end_lsn: Lsn,
        rollback_end_lsn: Lsn,
        prepare_time_micros: i64,
        rollback_time_micros: i64,
        xid: u32,
        gid: &'a str,
    },
    /// `p`: a streamed transaction was prepared.
    StreamPrepare { prepare_lsn: Lsn, end_lsn: Lsn, prepare_time_micros: i64, xid: u32, gid: &'a str },
}
