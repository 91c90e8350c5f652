//! A slot that is there already: whether its lake tables may be completed, or something would be missing without a word (W2).

use super::beginning::Beginning;
use crate::base::{Lsn, TableName};
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
}

/// What to do with a usable slot.
///
/// A publication's changes work from their own position in the WAL: what was written while a table, or the publication, was
/// missing is not sent afterwards (or, without any publication, never passed). Mending it here would hide that.
pub(super) fn judge(
    slot: &SlotFacts,
    (publication_name, publication): (&str, Option<&PublicationFacts>),
    tables: &[LakeState],
    from_now: bool,
) -> anyhow::Result<Beginning> {
    let Some(publication) = publication else {
        bail!(
            "slot {0} exists but publication {publication_name} does not, and the slot cannot pass what was written without it; drop \
             the slot first (SELECT pg_drop_replication_slot({1})), then accept the gap with lakebed init --from-now",
            slot.name,
            quote_literal(&slot.name)
        );
    };
    let unpublished: Vec<&TableName> =
        tables.iter().map(|state| &state.table).filter(|table| publication.find(table).is_none()).collect();
    ensure!(
        from_now || unpublished.is_empty(),
        "slot {} exists but publication {publication_name} does not send {}: what was committed there until now is never sent and \
         would be missing from the lake; accept the gap with --from-now",
        slot.name,
        names(unpublished.into_iter())
    );
    if tables.iter().all(|state| state.recorded.is_some()) {
        return Ok(Beginning::Complete);
    }
    at_slot(slot, tables, from_now)
}

fn at_slot(slot: &SlotFacts, tables: &[LakeState], from_now: bool) -> anyhow::Result<Beginning> {
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
    if from_now || nothing_was_followed(confirmed, tables) {
        return Ok(Beginning::AtSlot(confirmed));
    }
    let never_used = if tables.iter().all(|state| state.recorded.is_none()) {
        " (if an init was interrupted here, or the slot comes from the SQL of --dry-run, nothing was read from this slot yet and \
         --from-now continues without loss)"
    } else {
        ""
    };
    bail!(
        "slot {} exists but there is no lake table for {}: what was committed before {confirmed} would be missing from it; restore \
         the lake table, or accept the gap with --from-now{never_used}",
        slot.name,
        names(tables.iter().filter(|state| state.recorded.is_none()).map(|state| &state.table))
    );
}

/// An `init` that failed between two lake tables: those that exist begin where the slot still is. Equal positions alone would not
/// prove it, because a run that ended leaves them equal, too.
fn nothing_was_followed(confirmed: Lsn, tables: &[LakeState]) -> bool {
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
        LakeState { table: TableName::new("public", name), recorded, only_created }
    }

    fn judged(slot: &SlotFacts, published: &[&str], tables: &[LakeState], from_now: bool) -> Result<Beginning, String> {
        judge(slot, ("lakebed", Some(&publication(published))), tables, from_now).map_err(|error| error.to_string())
    }

    #[test]
    fn a_publication_is_not_repaired_under_a_slot_without_consent() {
        let tables = [lake("a", Some(AT), false), lake("b", Some(AT), false)];
        assert_eq!(judged(&slot(), &["a", "b"], &tables, false), Ok(Beginning::Complete));
        let refused = judged(&slot(), &["a"], &tables, false).unwrap_err();
        assert!(refused.contains("does not send public.b") && refused.contains("--from-now"), "{refused}");
        assert_eq!(judged(&slot(), &["a"], &tables, true), Ok(Beginning::Complete));
        for from_now in [false, true] {
            let refused = judge(&slot(), ("lakebed", None), &tables, from_now).unwrap_err().to_string();
            assert!(refused.contains("SELECT pg_drop_replication_slot('lakebed')"), "{refused}");
        }
    }

    #[test]
    fn an_init_that_failed_between_two_tables_goes_on_and_a_lost_table_is_a_gap() {
        let begun = [lake("a", Some(AT), true), lake("b", None, false)];
        assert_eq!(judged(&slot(), &["a", "b"], &begun, false), Ok(Beginning::AtSlot(AT)));
        let followed = [lake("a", Some(AT), false), lake("b", None, false)];
        let elsewhere = [lake("a", Some(Lsn(255)), true), lake("b", None, false)];
        for tables in [followed, elsewhere] {
            let refused = judged(&slot(), &["a", "b"], &tables, false).unwrap_err();
            assert!(refused.contains("no lake table for public.b") && !refused.contains("interrupted"), "{refused}");
            assert_eq!(judged(&slot(), &["a", "b"], &tables, true), Ok(Beginning::AtSlot(AT)));
        }
        let none = [lake("a", None, false), lake("b", None, false)];
        let refused = judged(&slot(), &["a", "b"], &none, false).unwrap_err();
        assert!(refused.contains("continues without loss"), "{refused}");
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
