//! Every error of the lake, with its remedy.

use super::{LakeError, StoreFault};
use crate::base::remedies::{CANARY, Case, assert_line, assert_remedies, every_variant};
use crate::base::{Classify, Lsn, RetryClass, TableName};
use deltalake::logstore::object_store::Error as ObjectStoreError;

fn location() -> String {
    "s3://bucket/lake/event".to_owned()
}

fn table() -> TableName {
    TableName::new("public", "event")
}

pub(crate) fn every() -> Vec<Case<LakeError>> {
    let (found, expected, column) = ("lakebed/1/a".to_owned(), "lakebed/2/b".to_owned(), "Übel".to_owned());
    let reason = || "version 7 is missing".to_owned();
    every_variant!(LakeError {
        Definite ["s3://bucket/lake/event", "version 7", "correct [lake].url or [lake.options]"]
            Location { location: location(), reason: reason() };
        Definite ["cannot write to s3://bucket/lake/event", "(no)", "create the bucket or folder, or correct [lake].url"]
            Store { doing: "write to", location: location(), fault: StoreFault::Missing, detail: " (no)".to_owned() };
        Definite ["s3://bucket/lake/event", "use a store with conditional writes"] NoPutIfAbsent { location: location() };
        Definite ["s3://bucket/lake/event", "`lakebed init --snapshot` creates it"] Missing { location: location() };
        Definite ["2026-01-02 of public.event", "dropped", "leave these days out"]
            OnlyHere { table: table(), days: "2026-01-02".to_owned() };
        Definite ["Übel", "public.event", "rename it or leave the table out"] ColumnName { table: table(), column: column.clone() };
        Definite ["Übel", "public.event", "keeps for itself", "rename it or leave the table out"] ReservedColumn { table: table(), column };
        Definite ["s3://bucket/lake", "no column number", "lake_columns = { number = \"…\" }", "set the table up anew"]
            KeyColumnMissing { location: location(), table: table(), column: "number".to_owned() };
        Definite ["s3://bucket/lake/event", "public.event", "extra (added)", "move the Delta table away or choose another [lake].url"]
            SchemaDiffers { location: location(), table: table(), columns: "extra (added)".to_owned() };
        Definite ["s3://bucket/lake/event", "public.event", "by another rule", "correct [[table]], or begin another Delta table elsewhere"]
            FolderRuleDiffers { location: location(), table: table(), rules: "partition_by is day there, month here".to_owned() };
        Definite ["s3://bucket/lake/event", "reader version 3", "move the table away or choose another [lake].url"]
            UnsupportedProtocol { location: location(), found: "reader version 3".to_owned() };
        Definite ["s3://bucket/lake/event", "fed by lakebed/1/a, not by lakebed/2/b", "give every pipeline its own [lake].url, or move the table away"]
            ForeignProgress { location: location(), found, expected };
        Definite ["s3://bucket/lake/event", "choose another [lake].url or move it away"] NotLakebed { location: location() };
        Definite ["s3://bucket/lake/event", "0/10", "0/8", "restart lakebed, and report it if it happens again"]
            AlreadyRecorded { location: location(), recorded: Lsn(16), at: Lsn(8) };
        Definite ["FFFFFFFF/FFFFFFFF", "report it"] PositionTooLarge { at: Lsn(u64::MAX) };
        Definite ["version 7", "s3://bucket/lake/event", "stop the other one, then start again"]
            SecondWriter { location: location(), version: 7 };
        Transient ["version 7", "s3://bucket/lake/event", "read again"] Overtaken { location: location(), version: 7 };
        Definite ["s3://bucket/lake/event", "parked since 0/8", "until its missing days were copied again"]
            Parked { location: location(), since: Lsn(8) };
        Definite ["s3://bucket/lake/event", "UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')"]
            ProgressExpires { location: location() };
        Transient ["s3://bucket/lake/event", "open the table again"] InDoubt { location: location() };
        Transient ["s3://bucket/lake/event", "start lakebed again when they are done"] Contended { location: location() };
        Transient ["version 7", "s3://bucket/lake/event", "planned anew"] FilesMoved { location: location(), version: 7 };
        Transient ["version 7", "s3://bucket/lake/event", "read again from its newest checkpoint"]
            Expired { location: location(), version: 7 };
        Definite ["s3://bucket/lake/event", "version 7", "correct --where"] Unjudged { location: location(), reason: reason() };
        Definite ["part-1.parquet", "s3://bucket/lake/event", "version 7", "restore it from a copy or an object version"]
            DataFile { location: location(), path: "part-1.parquet".to_owned(), reason: reason() };
        Definite ["public.event", "0/10", "detail", "row id=7", "lakebed skip --lsn 0/10"]
            NoEarlierRow { table: table(), column: "detail".to_owned(), key: "row id=7".to_owned(), commit_lsn: Lsn(16) };
        Definite ["s3://bucket/lake/event", "version 7", "restore it or move the table away"]
            Log { location: location(), reason: reason() };
        Definite ["s3://bucket/lake/event", "version 7", "restore it"] Record { location: location(), reason: reason() };
        Definite ["s3://bucket/lake/event", "version 7", "a fault of lakebed, report it"]
            Batch { location: location(), reason: reason() };
        Definite ["s3://bucket/lake/event", "version 7", "a fault of lakebed, report it"]
            Encode { location: location(), reason: reason() };
        Transient ["s3://bucket/lake/event", "open a new writer"] WriterBroken { location: location() };
        Transient ["s3://bucket/lake/event", "process 7", "rewrite", "wait until it is done, or stop it"]
            LockHeld { location: location(), by: "process 7".to_owned(), what: "rewrite".to_owned() };
        Transient ["s3://bucket/lake/event", "went to process 7", "planned again"]
            LockLost { location: location(), by: "process 7".to_owned() };
        Definite ["s3://bucket/lake/event", "a fault of lakebed, report it"] NotFenced { location: location() };
    })
}

/// One store error of every fault; the match has no wildcard.
pub(crate) fn every_fault() -> Vec<Case<LakeError>> {
    const FAULTS: [StoreFault; 9] = [
        StoreFault::Missing,
        StoreFault::Denied,
        StoreFault::Unauthenticated,
        StoreFault::ReadOnly,
        StoreFault::NotAFolder,
        StoreFault::Full,
        StoreFault::Unsupported,
        StoreFault::Condition,
        StoreFault::Unreachable,
    ];
    let case = |fault| {
        let (class, words): (_, &'static [&'static str]) = match fault {
            StoreFault::Missing => (RetryClass::Definite, &["create the bucket or folder, or correct [lake].url"]),
            StoreFault::Denied => (RetryClass::Definite, &["give lakebed's user read, write and delete rights there"]),
            StoreFault::Unauthenticated => (RetryClass::Definite, &["check [lake.options] and the environment"]),
            StoreFault::ReadOnly => (RetryClass::Definite, &["remount it or choose another [lake].url"]),
            StoreFault::NotAFolder => (RetryClass::Definite, &["a file, not a folder; correct [lake].url"]),
            StoreFault::Full => (RetryClass::Transient, &["no space is left; free some there"]),
            StoreFault::Unsupported => (RetryClass::Definite, &["use another store or check [lake.options]"]),
            StoreFault::Condition => (RetryClass::Definite, &["look for another program that writes there"]),
            StoreFault::Unreachable => (RetryClass::Transient, &["check that it is up and reachable"]),
        };
        let error = LakeError::Store { doing: "write to", location: location(), fault, detail: String::new() };
        Case { error, class, words }
    };
    FAULTS.into_iter().map(case).collect()
}

#[test]
fn every_error_of_the_lake_names_the_place_and_a_remedy() {
    assert_remedies(&every());
    assert_remedies(&every_fault());
    for case in every_fault() {
        assert_line(&case.error.to_string(), &["cannot write to s3://bucket/lake/event: "]);
    }
}

/// A store's own words may go over lines and carry a signed URL.
#[test]
fn what_a_store_says_stays_on_one_line_and_shows_no_signature() {
    let source = || format!("PUT https://host/key?sig={CANARY}\n<Error>\n").into();
    let path = String::new;
    let errors = [
        ObjectStoreError::NotFound { path: path(), source: source() },
        ObjectStoreError::PermissionDenied { path: path(), source: source() },
        ObjectStoreError::Unauthenticated { path: path(), source: source() },
        ObjectStoreError::Precondition { path: path(), source: source() },
        ObjectStoreError::AlreadyExists { path: path(), source: source() },
        ObjectStoreError::NotSupported { source: source() },
        ObjectStoreError::Generic { store: "S3", source: source() },
    ];
    for error in errors {
        let error = LakeError::store("write to", &location(), &error);
        let words: &[&str] = match error.retry_class() {
            RetryClass::Definite => &["cannot write to s3://bucket/lake/event: ", ";"],
            RetryClass::Transient => &["cannot write to s3://bucket/lake/event: ", "check that it is up and reachable"],
        };
        assert_line(&error.to_string(), words);
    }
}
