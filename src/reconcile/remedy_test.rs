//! Every error of this room, with its remedy.

use super::ReconcileError;
use crate::base::TableName;
use crate::base::remedies::{assert_remedies, every_variant};
use crate::lake::LakeError;
use crate::source::SourceError;

#[test]
fn every_error_says_what_to_do() {
    let table = || TableName::new("public", "event");
    let slot = || "lakebed".to_owned();
    assert_remedies(&every_variant!(ReconcileError {
        Definite ["public.event", "make it permanent"] Source(SourceError::NotLogged { table: table() });
        Definite ["file:///lake/event", "`lakebed init` creates it"]
            Lake(LakeError::Missing { location: "file:///lake/event".to_owned() });
        Transient ["replication slot \"lakebed\"", "start lakebed run and try again"] NotFollowed { slot: slot() };
        Transient ["within 300 s", "replication slot \"lakebed\"", "see its lag in lakebed status and try again"]
            Behind { slot: slot(), seconds: 300 };
        Definite ["public.event stands still", "see lakebed status"] StandsStill { table: table() };
        Definite ["receipt 7 of public.event", "balance them by hand"] OtherColumns { table: table(), sequence: 7 };
        Transient ["public.event", "try again when they are quiet"] NotQuiet { table: table() };
        Definite ["public.leaf of public.event", "detach it"]
            ForeignLeaf { table: table(), partition: TableName::new("public", "leaf") };
    }));
}
