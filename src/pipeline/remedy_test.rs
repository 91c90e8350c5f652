//! Every end of a pipeline, with its remedy, as `run` shows it.

use super::{LineageError, PipelineError};
use crate::base::remedies::{Case, assert_remedies, every_variant};
use crate::base::{Lsn, TableName};
use crate::buffer::BufferError;
use crate::connect::{ConnectError, SettingsError};
use crate::decode::DecodeError;
use crate::lake::LakeError;
use crate::reconcile::ReconcileError;
use crate::snapshot::SnapshotError;
use crate::source::SourceError;
use crate::wal::WalError;
use crate::{buffer, connect, decode, lake, source, wal};

pub(crate) fn every_lineage() -> Vec<Case<LineageError>> {
    let slot = || "idp".to_owned();
    let (recorded, found) = ("7412".to_owned(), "7413".to_owned());
    let (low, high) = (Lsn(16), Lsn(32));
    every_variant!(LineageError {
        Definite ["slot \"idp\"", "run `lakebed init`"] NoRecord { slot: slot() };
        Definite ["system 7412", "system 7413", "connect [source].url to the server that goes with this lake"]
            OtherSystem { recorded, found };
        Definite ["up to WAL position 0/20", "only up to 0/10", "restore the server that goes with this lake"]
            ServerBehindLake { held: high, flushed: low };
        Definite ["slot \"idp\" stands at WAL position 0/20", "only 0/10", "restored from an older copy", "put the newer copy of the lake back", "accept that gap with `lakebed init --from-now`"]
            SlotAheadOfLake { slot: slot(), confirmed: high, acknowledged: low };
        Definite ["public.event", "0/10", "0/20", "put the newer copy back, or accept that gap with `lakebed init --from-now`"]
            TableBehindRecord { table: "public.event".to_owned(), recorded: low, expected: high };
        Definite ["public.event", "0/10", "0/20", "accept that gap with `lakebed init --from-now`"]
            TableNotFollowed { table: "public.event".to_owned(), recorded: low, confirmed: high };
        Definite ["0/20", "when the right server is back, remove the-object and start again"]
            RefusedBefore { held: high, object: "the-object".to_owned() };
        Definite ["timeline 2, which left timeline 1 at WAL position 0/10, before 0/20", "connect [source].url to a server that did not lose it"]
            TimelineDiverged { timeline: 2, from: 1, switched_at: low, held: high };
        Definite ["timeline 1", "timeline 2", "connect [source].url to the server that goes with this lake"]
            TimelineUnknown { timeline: 2, recorded: 1 };
    })
}

/// One of each variant.
pub(crate) fn every() -> Vec<Case<PipelineError>> {
    let table = || TableName::new("public", "event");
    let (slot, endpoint, publication) = (|| "idp".to_owned(), || "db.example:5432".to_owned(), || "audit".to_owned());
    let at = Lsn(16);
    every_variant!(PipelineError {
        Definite ["[source].url is not usable", "write postgresql://USER@HOST:PORT/DATABASE"] Settings(SettingsError::NotAUrl);
        Definite ["db.example:5432", "turn ssl on in the server"] Connect(ConnectError::TlsRefused { endpoint: endpoint() });
        Definite ["public.event", "ALTER TABLE … SET LOGGED"] Source(SourceError::NotLogged { table: table() });
        Definite ["slot \"idp\" does not exist", "create it with `lakebed init --snapshot`"] Wal(WalError::SlotMissing { slot: slot() });
        Definite ["public.event", "change it back", "WAL position 0/10", "nothing was acknowledged from there on"]
            Columns { at, error: Box::new(SourceError::DatingColumnRetyped { table: table(), column: "at".to_owned() }) };
        Definite ["\"audit\" does not publish public.event any more", "ALTER PUBLICATION … ADD TABLE", "set up anew"]
            NoLongerPublished { table: table(), publication: publication() };
        Definite ["public.event was dropped and made again", "truncate = \"apply\"", "set the table up anew", "on_error = \"park\""]
            Recreated { table: table(), at };
        Transient ["public.event", "column labels", "the stream starts again and asks for text"]
            BinaryNotUnderstood { table: table(), column: "labels".to_owned() };
        Definite ["row-level security", "public.event", "BYPASSRLS"]
            Snapshot(SnapshotError::RowSecurity { tables: "public.event".to_owned() });
        Definite ["public.event stands still", "see lakebed status"]
            Reconcile(ReconcileError::StandsStill { table: table() });
        Definite ["s3://bucket/lake", "`lakebed init --snapshot` creates it"] Lake(LakeError::Missing { location: "s3://bucket/lake".to_owned() });
        Definite ["WAL position 0/10", "nothing was acknowledged from there on", "report it with the server's version"]
            Decode { at, error: DecodeError::Empty };
        Definite ["public.event", "commits at WAL position 0/10", "nothing was acknowledged from there on", "report this with the server's version"]
            Row { at, error: BufferError::NotBound { table: table() } };
        Definite ["WAL position 0/10", "a COMMIT without BEGIN", "restart, and report it if it happens again"]
            Order { at, what: "a COMMIT without BEGIN" };
        Definite ["TRUNCATE of public.event", "commits at WAL position 0/10", "truncate = \"apply\"", "`lakebed skip`", "on_error = \"park\""]
            Truncate { table: table(), at };
        Definite ["db.example:5432", "wal_level = replica", "set wal_level = logical in postgresql.conf and restart the server"]
            WalLevel { endpoint: endpoint(), found: "replica".to_owned() };
        Definite ["db.example:5432", "130009", "lakebed needs 14 or later"]
            ServerVersion { endpoint: endpoint(), found: 130_009 };
        Definite ["\"audit\" does not exist in database \"idp\"", "run `lakebed init`"]
            NoPublication { publication: publication(), database: slot() };
        Definite ["\"audit\" does not publish it", "run `lakebed init`, or correct it with ALTER PUBLICATION"]
            PublicationDiffers { publication: publication(), problem: "does not publish it".to_owned() };
        Definite ["\"idp\" does not exist on db.example:5432", "run `lakebed init --snapshot`", "`lakebed init --from-now` accepts that gap", "`lakebed repair --execute`"]
            NoSlot { slot: slot(), endpoint: endpoint() };
        Definite ["slot \"idp\"", "run `lakebed init`"] Lineage(LineageError::NoRecord { slot: slot() });
        Definite ["commits at WAL position 0/10", "step over it with `lakebed skip`"] FurtherRefused { at };
        Definite ["public.event", "\"audit\"", "commits at WAL position 0/10", "publish_via_partition_root", "restart lakebed"]
            UnknownRelation { table: table(), publication: publication(), at };
        Transient ["start lakebed again when it is back, nothing unacknowledged is lost"] ServerStopped;
        Definite ["slot idp is lost", "accept the gap"] SlotUnusable { problem: "slot idp is lost: accept the gap".to_owned() };
        Transient ["\"idp\" is in use by process 7", "stop that one first"]
            SlotHeld { slot: slot(), holder: "process 7".to_owned() };
        Transient ["land stage", "restart lakebed"] StageGone { stage: "land" };
        Transient ["land stage panicked", "restart it, nothing unacknowledged is lost"] StagePanicked { stage: "land" };
    })
}

/// Every error of every room, as a pipeline ends with it.
pub(crate) fn every_wrapped() -> Vec<Case<PipelineError>> {
    fn wrapped<E>(cases: Vec<Case<E>>, wrap: impl Fn(E) -> PipelineError) -> Vec<Case<PipelineError>> {
        cases.into_iter().map(|case| case.wrapped(&wrap)).collect()
    }
    let at = Lsn(16);
    let mut all = wrapped(connect::remedy_test::every_setting(), PipelineError::Settings);
    all.extend(wrapped(connect::remedy_test::every(), PipelineError::Connect));
    all.extend(wrapped(source::remedy_test::every(), PipelineError::Source));
    all.extend(wrapped(source::remedy_test::every_state(), PipelineError::Source));
    all.extend(wrapped(wal::remedy_test::every(), PipelineError::Wal));
    all.extend(wrapped(lake::remedy_test::every(), PipelineError::Lake));
    all.extend(wrapped(lake::remedy_test::every_fault(), PipelineError::Lake));
    all.extend(wrapped(decode::remedy_test::every(), |error| PipelineError::Decode { at, error }));
    all.extend(wrapped(buffer::remedy_test::every(), |error| PipelineError::Row { at, error }));
    all.extend(wrapped(every_lineage(), PipelineError::Lineage));
    all.extend(wrapped(crate::snapshot::remedy_test::every(), PipelineError::Snapshot));
    all
}

#[test]
fn every_end_of_a_pipeline_names_a_remedy() {
    assert_remedies(&every_lineage());
    assert_remedies(&every());
    assert_remedies(&every_wrapped());
}

/// `lakebed skip --lsn` wants the position of a commit.
#[test]
fn a_skip_is_offered_only_with_the_position_that_it_asks_for() {
    for case in every().into_iter().chain(every_wrapped()) {
        let message = case.error.to_string();
        assert!(!message.contains("`lakebed skip`") || message.contains("commits at WAL position 0/10"), "{message}");
    }
}
