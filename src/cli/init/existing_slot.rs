//! A slot that is there already: whether its lake tables may be completed, or something would be missing without a word (W2).

use super::beginning::{Beginning, Existing, Gap};
use crate::base::{Lsn, TableName};
use crate::pipeline::LineageError;
use crate::source::{PublicationFacts, SlotFacts, quote_literal};
use anyhow::{bail, ensure};

/// A configured table as the lake has it.
#[derive(Clone, Debug)]
pub(super) struct LakeState {
    pub(super) table: TableName,
    /// `None` when there is no lake table.
    pub(super) recorded: Option<Lsn>,
    /// Nothing was committed since its creation.
    pub(super) only_created: bool,
    /// How far it was when the slot was last acknowledged, if it was there then and is not parked.
    pub(super) expected: Option<Lsn>,
}

impl LakeState {
    /// The lake table was restored from an older copy.
    fn behind_record(&self) -> Option<LineageError> {
        let (recorded, expected) = (self.recorded?, self.expected?);
        let table = self.table.to_string();
        (recorded < expected).then_some(LineageError::TableBehindRecord { table, recorded, expected })
    }
}

/// The slot and what the lake says about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotSide<'a> {
    pub(super) slot: &'a SlotFacts,
    /// What the newest acknowledgement record says; `None` without one.
    pub(super) acknowledged: Option<Lsn>,
}

/// What to do with a usable slot.
///
/// A publication's changes work from their own position in the WAL: what was written while a table, or the publication, was
/// missing is not sent afterwards (or, without any publication, never passed). Mending it here would hide that.
pub(super) fn judge(
    side: SlotSide<'_>,
    (publication_name, publication): (&str, Option<&PublicationFacts>),
    tables: &[LakeState],
    existing: Existing,
) -> anyhow::Result<Beginning> {
    let slot = side.slot;
    let Some(publication) = publication else {
        bail!(
            "slot {0} exists but publication {publication_name} does not, and the slot cannot pass what was written without it; drop \
             the slot first (SELECT pg_drop_replication_slot({1})), then run lakebed init --snapshot for an empty lake, or accept the \
             gap with lakebed init --from-now and let lakebed repair --execute copy what is missing",
            slot.name,
            quote_literal(&slot.name)
        );
    };
    // What is copied needs no change from before.
    let is_copied = |state: &LakeState| existing == Existing::Copy && state.recorded.is_none();
    let unpublished: Vec<&LakeState> =
        tables.iter().filter(|state| publication.find(&state.table).is_none() && !is_copied(state)).collect();
    let remedy = match unpublished.iter().all(|state| state.recorded.is_none()) {
        true => "copy what is there with --snapshot, or accept the gap with --from-now",
        false => "accept the gap with --from-now, and let lakebed repair --execute copy what is missing",
    };
    ensure!(
        existing == Existing::LeaveOut || unpublished.is_empty(),
        "slot {} exists but publication {publication_name} does not send {}: what was committed there until now is never sent and \
         would be missing from the lake; {remedy}",
        slot.name,
        names(unpublished.iter().map(|state| &state.table))
    );
    // Nobody follows a slot that has moved further than the record: `run` refuses it.
    let ahead = side.acknowledged.zip(slot.confirmed).filter(|(acknowledged, confirmed)| confirmed > acknowledged);
    let whole = |state: &LakeState| state.recorded.is_some() && state.behind_record().is_none();
    if side.acknowledged.is_some() && ahead.is_none() && tables.iter().all(whole) {
        return Ok(Beginning::Complete);
    }
    at_slot(side, tables, existing)
}

fn at_slot(side: SlotSide<'_>, tables: &[LakeState], existing: Existing) -> anyhow::Result<Beginning> {
    let slot = side.slot;
    let Some(confirmed) = slot.confirmed else {
        bail!("slot {} is still being created by another session; try again when that has ended", slot.name);
    };
    if slot.active {
        let holder = slot.holder.as_ref().map_or_else(|| "another session".to_owned(), ToString::to_string);
        bail!(
            "slot {} is in use by {holder}, and a lake table cannot begin at a position that moves; stop lakebed run first",
            slot.name
        );
    }
    if nothing_was_followed(confirmed, side.acknowledged, tables) {
        return Ok(Beginning::AtSlot { at: confirmed, gap: Gap::None, existing });
    }
    if existing == Existing::LeaveOut {
        let known = side.acknowledged.is_some_and(|acknowledged| confirmed <= acknowledged);
        let gap = if known { Gap::SomeTables } else { Gap::Everywhere };
        return Ok(Beginning::AtSlot { at: confirmed, gap, existing });
    }
    let none_is_there = tables.iter().all(|state| state.recorded.is_none());
    if existing == Existing::Copy && none_is_there {
        return Ok(Beginning::AtSlot { at: confirmed, gap: Gap::None, existing });
    }
    if let Some(acknowledged) = side.acknowledged.filter(|acknowledged| *acknowledged < confirmed) {
        bail!(LineageError::SlotAheadOfLake { slot: slot.name.clone(), confirmed, acknowledged });
    }
    if let Some(error) = tables.iter().find_map(LakeState::behind_record) {
        bail!(error);
    }
    if existing == Existing::Copy && side.acknowledged.is_some() {
        return Ok(Beginning::AtSlot { at: confirmed, gap: Gap::None, existing });
    }
    ensure!(
        tables.iter().any(|state| state.recorded.is_none()) && existing != Existing::Copy,
        "slot {} exists but the lake has no record of what it acknowledged: whether changes before {confirmed} are missing cannot be \
         told; put the lake's folder _lakebed back, or accept a possible gap with --from-now",
        slot.name
    );
    let never_used = if none_is_there {
        " (if an init was interrupted here, or the slot comes from the SQL of --dry-run, nothing was read from this slot yet and \
         --from-now continues without loss)"
    } else {
        ""
    };
    bail!(
        "slot {} exists but there is no lake table for {}: what was committed before {confirmed} would be missing from it; copy what \
         the source has with --snapshot, restore the lake table, or accept the gap with --from-now{never_used}",
        slot.name,
        names(tables.iter().filter(|state| state.recorded.is_none()).map(|state| &state.table))
    );
}

/// An `init` that failed between two lake tables: those that exist begin where the slot still is. Equal positions alone would not
/// prove it, because a run that ended leaves them equal, too.
fn nothing_was_followed(confirmed: Lsn, acknowledged: Option<Lsn>, tables: &[LakeState]) -> bool {
    if acknowledged.is_some_and(|acknowledged| acknowledged != confirmed) {
        return false;
    }
    let mut present = tables.iter().filter(|state| state.recorded.is_some()).peekable();
    present.peek().is_some() && present.all(|state| state.only_created && state.recorded == Some(confirmed))
}

fn names<'a>(tables: impl Iterator<Item = &'a TableName>) -> String {
    tables.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{PublishedTable, SlotHolder};

    const AT: Lsn = Lsn(256);

    fn slot() -> SlotFacts {
        SlotFacts {
            name: "lakebed".into(),
            plugin: Some("pgoutput".into()),
            database: Some("d".into()),
            temporary: false,
            active: false,
            holder: None,
            confirmed: Some(AT),
            restart: Some(Lsn(128)),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            retained_bytes: None,
            lag_bytes: None,
            two_phase: false,
            invalidation_reason: None,
            failover: false,
        }
    }

    fn publication(tables: &[&str]) -> PublicationFacts {
        let published = |name: &&str| PublishedTable {
            table: TableName::new("public", *name),
            has_column_list: false,
            has_row_filter: false,
        };
        PublicationFacts {
            name: "lakebed".into(),
            owner: "idp".into(),
            all_tables: false,
            schemas: Vec::new(),
            via_root: true,
            inserts: true,
            updates: true,
            deletes: true,
            truncates: true,
            generated_stored: false,
            tables: tables.iter().map(published).collect(),
        }
    }

    fn lake(name: &str, recorded: Option<Lsn>, only_created: bool) -> LakeState {
        LakeState { table: TableName::new("public", name), recorded, only_created, expected: None }
    }

    fn judged(slot: &SlotFacts, published: &[&str], tables: &[LakeState], from_now: bool) -> Result<Beginning, String> {
        with_record(slot, Some(AT), published, tables, from_now)
    }

    fn copied(acknowledged: Option<Lsn>, published: &[&str], tables: &[LakeState]) -> Result<Beginning, String> {
        let side = SlotSide { slot: &slot(), acknowledged };
        let publication = publication(published);
        judge(side, ("lakebed", Some(&publication)), tables, Existing::Copy).map_err(|error| error.to_string())
    }

    fn with_record(
        slot: &SlotFacts,
        acknowledged: Option<Lsn>,
        published: &[&str],
        tables: &[LakeState],
        from_now: bool,
    ) -> Result<Beginning, String> {
        let side = SlotSide { slot, acknowledged };
        let existing = if from_now { Existing::LeaveOut } else { Existing::Refuse };
        judge(side, ("lakebed", Some(&publication(published))), tables, existing).map_err(|error| error.to_string())
    }

    /// Whatever becomes of rows that exist already.
    fn at_slot(gap: Gap, from_now: bool) -> Result<Beginning, String> {
        let existing = if from_now { Existing::LeaveOut } else { Existing::Refuse };
        Ok(Beginning::AtSlot { at: AT, gap, existing })
    }

    #[test]
    fn a_table_that_is_copied_needs_nothing_from_before() {
        let begins = Ok(Beginning::AtSlot { at: AT, gap: Gap::None, existing: Existing::Copy });
        let added = [lake("a", Some(AT), false), lake("b", None, false)];
        assert_eq!(copied(Some(AT), &["a"], &added), begins, "the publication will send it from now on");
        assert_eq!(copied(Some(AT), &["a", "b"], &added), begins);
        let none = [lake("a", None, false), lake("b", None, false)];
        assert_eq!(copied(None, &["a", "b"], &none), begins, "an init that ended behind the slot");
        let refused = copied(Some(AT), &["b"], &added).unwrap_err();
        assert!(
            refused.contains("does not send public.a") && refused.contains("lakebed repair --execute"),
            "{refused}"
        );
        let refused = copied(None, &["a", "b"], &added).unwrap_err();
        assert!(refused.contains("no record"), "what the others miss is not known: {refused}");
        let refused = copied(Some(Lsn(255)), &["a", "b"], &added).unwrap_err();
        assert!(refused.contains("advanced, or dropped and made again"), "{refused}");
        let whole = [lake("a", Some(AT), false), lake("b", Some(AT), false)];
        assert_eq!(copied(Some(AT), &["a", "b"], &whole), Ok(Beginning::Complete));
    }

    #[test]
    fn a_publication_is_not_repaired_under_a_slot_without_consent() {
        let tables = [lake("a", Some(AT), false), lake("b", Some(AT), false)];
        assert_eq!(judged(&slot(), &["a", "b"], &tables, false), Ok(Beginning::Complete));
        let refused = judged(&slot(), &["a"], &tables, false).unwrap_err();
        assert!(refused.contains("does not send public.b") && refused.contains("--from-now"), "{refused}");
        assert_eq!(judged(&slot(), &["a"], &tables, true), Ok(Beginning::Complete));
        for existing in [Existing::Refuse, Existing::LeaveOut, Existing::Copy] {
            let side = SlotSide { slot: &slot(), acknowledged: Some(AT) };
            let refused = judge(side, ("lakebed", None), &tables, existing).unwrap_err().to_string();
            assert!(refused.contains("SELECT pg_drop_replication_slot('lakebed')"), "{refused}");
        }
    }

    #[test]
    fn an_init_that_failed_between_two_tables_goes_on_and_a_lost_table_is_a_gap() {
        let begun = [lake("a", Some(AT), true), lake("b", None, false)];
        assert_eq!(judged(&slot(), &["a", "b"], &begun, false), at_slot(Gap::None, false));
        let followed = [lake("a", Some(AT), false), lake("b", None, false)];
        let elsewhere = [lake("a", Some(Lsn(255)), true), lake("b", None, false)];
        for tables in [followed, elsewhere] {
            let refused = judged(&slot(), &["a", "b"], &tables, false).unwrap_err();
            assert!(refused.contains("no lake table for public.b") && !refused.contains("interrupted"), "{refused}");
            assert_eq!(judged(&slot(), &["a", "b"], &tables, true), at_slot(Gap::SomeTables, true));
        }
        assert_eq!(
            with_record(&slot(), None, &["a", "b"], &begun, false),
            at_slot(Gap::None, false),
            "nor a record yet"
        );
        let none = [lake("a", None, false), lake("b", None, false)];
        let refused = judged(&slot(), &["a", "b"], &none, false).unwrap_err();
        assert!(refused.contains("continues without loss"), "{refused}");
    }

    #[test]
    fn w2_a_slot_that_forgot_more_than_the_lake_knows_needs_consent() {
        let tables = [lake("a", Some(AT), false)];
        for (acknowledged, words) in [(Some(Lsn(255)), "advanced, or dropped and made again"), (None, "no record")] {
            let refused = with_record(&slot(), acknowledged, &["a"], &tables, false).unwrap_err();
            assert!(refused.contains(words) && refused.contains("--from-now"), "{refused}");
            assert_eq!(with_record(&slot(), acknowledged, &["a"], &tables, true), at_slot(Gap::Everywhere, true));
        }
        let restored = [LakeState { expected: Some(AT), ..lake("a", Some(Lsn(200)), false) }];
        let refused = judged(&slot(), &["a"], &restored, false).unwrap_err();
        assert!(refused.contains("restored from an older copy") && refused.contains("--from-now"), "{refused}");
        assert_eq!(judged(&slot(), &["a"], &restored, true), at_slot(Gap::SomeTables, true));
        let created = [lake("a", Some(AT), true)];
        assert_eq!(
            with_record(&slot(), None, &["a"], &created, false),
            at_slot(Gap::None, false),
            "an init that was interrupted"
        );
        assert_eq!(with_record(&slot(), Some(Lsn(257)), &["a"], &tables, false), Ok(Beginning::Complete));
    }

    #[test]
    fn a_position_that_moves_is_no_beginning() {
        let holder = SlotHolder { pid: 7, user: None, application_name: None, client_address: None };
        let used = SlotFacts { active: true, holder: Some(holder), ..slot() };
        let refused = judged(&used, &["a"], &[lake("a", None, false)], true).unwrap_err();
        assert!(refused.contains("process 7") && refused.contains("stop lakebed run first"), "{refused}");
        assert_eq!(judged(&used, &["a"], &[lake("a", Some(AT), false)], false), Ok(Beginning::Complete));
    }
}
