//! Every error of a copy, with its remedy.

use super::SnapshotError;
use crate::base::remedies::{Case, assert_remedies, every_variant};
use crate::base::{PartitionBy, TableName};
use crate::buffer::BufferError;
use crate::connect::ConnectError;
use crate::connect::remedy_test::server_error;
use crate::decode::DecodeError;
use crate::lake::LakeError;
use crate::source::SourceError;
use crate::wal::WalError;

pub(crate) fn every() -> Vec<Case<SnapshotError>> {
    let table = || TableName::new("public", "event");
    let partition = PartitionBy::Day.partition_of("2026-01-02".parse().unwrap());
    every_variant!(SnapshotError {
        Definite ["db.example:5432", "turn ssl on in the server"]
            Connect(ConnectError::TlsRefused { endpoint: "db.example:5432".to_owned() });
        Definite ["\"replica\"", "set wal_level = logical"] Wal(WalError::WalLevel { found: "replica".to_owned() });
        Definite ["public.event", "make it permanent"] Source(SourceError::NotLogged { table: table() });
        Definite ["file:///lake/event", "`lakebed init --snapshot` creates it"]
            Lake(LakeError::Missing { location: "file:///lake/event".to_owned() });
        Definite ["public.event", "change the row, or name the column in text_columns"]
            Row { source: BufferError::NotBound { table: table() } };
        Definite ["copy of public.event", "report this with the server's version"]
            Decode { table: table(), source: DecodeError::Truncated { message: "CopyData", field: "row" } };
        Transient ["SQLSTATE 53400", "raise max_replication_slots"] NoFreeSlot { server: server_error("53400") };
        Transient ["SQLSTATE 53300", "raise max_wal_senders"] NoFreeSender { server: server_error("53300") };
        Definite ["public.leaf of public.event", "detach it"]
            ForeignLeaf { table: table(), partition: TableName::new("public", "leaf") };
        Definite ["row-level security", "public.event", "BYPASSRLS"] RowSecurity { tables: "public.event".to_owned() };
        Definite ["public.event has rows whose at is", "give them another date"]
            Undatable { table: table(), column: "at".to_owned() };
        Definite ["columns", "every other day", "try these again"] OthersCopied { reason: "its columns are others".to_owned() };
        Transient ["partition of public.event", "copied again"] Rewritten { table: table() };
        Transient ["partition of public.event", "run the command again"] ChangedWhileListed { table: table() };
        Transient ["partition of public.event", "more than 120 s", "copied again"] Locked { table: table(), seconds: 120 };
        Transient ["public.event", "copied again"] NotEnded { table: table() };
        Definite ["public.event", "2026-01-02", "report this"] Stray { table: table(), partition };
        Definite ["archive.event_p20260102", "public.event", "its columns differ", "stay marked until it is settled"]
            LeftAlone {
                table: table(),
                partition: TableName::new("archive", "event_p20260102"),
                reason: "its columns differ".to_owned(),
            };
        Transient ["given up", "they are copied again"] GivenUp;
        Definite ["panic", "report this"] Panicked;
    })
}

#[test]
fn every_error_of_a_copy_names_a_remedy() {
    assert_remedies(&every());
}
