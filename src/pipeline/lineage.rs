//! Whether this server's WAL goes on where the lake ends: the one place that decides it (W2).
//!
//! Three witnesses are heard: the server (who it is, its timeline and what that descends from, how far it has written), the slot
//! (what it was told to forget), and the lake (what its acknowledgement record says was acknowledged, and how far each table is).
//! Whenever they contradict each other something is missing or would be skipped, so nothing is followed until a person has
//! decided. [`judge`] is pure: whoever asks has read everything before, the slot before the record, because a running pipeline
//! writes the record first.

use crate::base::{Classify, Lsn, RetryClass};
use crate::lake::Acknowledgement;
use crate::wal::{ReplicationConnection, TimelineSwitch, WalError};
use std::collections::BTreeMap;

/// The server's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// IDENTIFY_SYSTEM's system identifier.
    pub system_identifier: String,
    /// The timeline that it writes now.
    pub timeline: u32,
    /// How far WAL is flushed.
    pub flushed: Lsn,
    /// What its timeline descends from.
    pub history: Vec<TimelineSwitch>,
}

impl Lineage {
    /// Asks the server.
    ///
    /// # Errors
    /// As any command of the connection.
    pub async fn read(connection: &mut ReplicationConnection) -> Result<Self, WalError> {
        let system = connection.identify_system().await?;
        let history = connection.timeline_history(system.timeline).await?;
        let (timeline, flushed) = (system.timeline, system.flushed);
        Ok(Self { system_identifier: system.system_identifier, timeline, flushed, history })
    }
}

/// The lake's word: the newest acknowledgement record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The system that was followed.
    pub system_identifier: String,
    /// The timeline that was followed.
    pub timeline: u32,
    /// The slot was told to forget everything up to here, or was about to be told so.
    pub acknowledged: Lsn,
    /// How far each table (`schema.table`) was then.
    pub tables: BTreeMap<String, Lsn>,
}

impl From<Acknowledgement> for Recorded {
    fn from(record: Acknowledgement) -> Self {
        let Acknowledgement { system_identifier, timeline, acknowledged, tables, recorded_at: _ } = record;
        Self { system_identifier, timeline, acknowledged, tables }
    }
}

/// One lake table as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMark {
    /// `schema.table`
    pub table: String,
    /// How far its own log is.
    pub recorded: Lsn,
    /// A parked table stands still on purpose.
    pub parked: bool,
}

/// How the server's WAL goes on where the lake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// On the timeline of the record.
    Same,
    /// On a younger timeline that left the record's at `switched_at`, behind everything the lake holds. The record has to name the
    /// new timeline before anything of it is committed.
    Switched {
        /// The record's timeline.
        from: u32,
        /// Where it was left.
        switched_at: Lsn,
    },
}

/// Why the stream may not be followed. Always definite: each needs a person's decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation; fields are what they name
pub enum LineageError {
    #[error(
        "the lake has no record of what slot \"{slot}\" has acknowledged, so it cannot be told whether anything is missing; run `lakebed init`, with --from-now if it asks for that"
    )]
    NoRecord { slot: String },
    #[error(
        "the lake follows system {recorded}, but the server is system {found}; connect [source].url to the server that goes with this lake, or begin another lake with a slot of its own"
    )]
    OtherSystem { recorded: String, found: String },
    #[error(
        "the lake holds transactions up to WAL position {held}, but the server has written only up to {flushed}: it was restored to an earlier state, and following it would skip what it writes next; restore the server that goes with this lake, or begin another lake with a slot of its own"
    )]
    ServerBehindLake { held: Lsn, flushed: Lsn },
    #[error(
        "replication slot \"{slot}\" stands at WAL position {confirmed}, but the lake has acknowledged only {acknowledged}: the slot was advanced, or dropped and made again by hand, or the lake was restored from an older copy, and changes between the two are missing; put the newer copy of the lake back, or accept that gap with `lakebed init --from-now` and copy what it left out with `lakebed repair --execute`"
    )]
    SlotAheadOfLake { slot: String, confirmed: Lsn, acknowledged: Lsn },
    #[error(
        "the lake table of {table} is recorded up to WAL position {recorded}, but it was at {expected} when that was acknowledged: it was restored from an older copy, and changes between the two are missing; put the newer copy back, or accept that gap with `lakebed init --from-now` and copy what it left out with `lakebed repair --execute`"
    )]
    TableBehindRecord { table: String, recorded: Lsn, expected: Lsn },
    #[error(
        "the lake table of {table} stands at WAL position {recorded}, and the slot was acknowledged up to {confirmed} while the table was not in the pipeline file: changes between the two are missing; accept that gap with `lakebed init --from-now` and copy what it left out with `lakebed repair --execute`"
    )]
    TableNotFollowed { table: String, recorded: Lsn, confirmed: Lsn },
    #[error(
        "this lake refused its server before, which had written less than the lake holds ({held}), and a server that was rolled back must not be followed once it has written more; when the right server is back, remove {object} and start again"
    )]
    RefusedBefore { held: Lsn, object: String },
    #[error(
        "the server writes timeline {timeline}, which left timeline {from} at WAL position {switched_at}, before {held}, which the lake holds: what the lake took from timeline {from} behind that point never happened on this server; connect [source].url to a server that did not lose it, or begin another lake with a slot of its own"
    )]
    TimelineDiverged { timeline: u32, from: u32, switched_at: Lsn, held: Lsn },
    #[error(
        "the lake follows timeline {recorded}, and the server writes timeline {timeline}, which does not descend from it; connect [source].url to the server that goes with this lake, or begin another lake with a slot of its own"
    )]
    TimelineUnknown { timeline: u32, recorded: u32 },
}

impl Classify for LineageError {
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}

/// The first question of all: another server's tables and positions mean nothing here. Whoever opens lake tables asks it before.
///
/// # Errors
/// [`LineageError::OtherSystem`] unless there is no record, or it names `found`.
pub(super) fn same_system(found: &str, recorded: Option<&Recorded>) -> Result<(), LineageError> {
    match recorded {
        Some(record) if record.system_identifier != found => {
            let (recorded, found) = (record.system_identifier.clone(), found.to_owned());
            Err(LineageError::OtherSystem { recorded, found })
        }
        _ => Ok(()),
    }
}

/// Decides whether `slot`, which is confirmed up to `confirmed`, may be followed into these tables.
///
/// # Errors
/// The first contradiction, the most fundamental one first.
pub fn judge(
    server: &Lineage,
    (slot, confirmed): (&str, Lsn),
    recorded: Option<&Recorded>,
    tables: &[TableMark],
) -> Result<Descent, LineageError> {
    let Some(recorded) = recorded else { return Err(LineageError::NoRecord { slot: slot.to_owned() }) };
    same_system(&server.system_identifier, Some(recorded))?;
    // Rows alone count: a position without any is no loss when a server has not written so far.
    let known = recorded.tables.values().copied();
    let held = tables.iter().map(|mark| mark.recorded).chain(known).fold(Lsn::ZERO, Lsn::max);
    let descent = descent(server, recorded.timeline, held)?;
    if held > server.flushed {
        return Err(LineageError::ServerBehindLake { held, flushed: server.flushed });
    }
    let acknowledged = recorded.acknowledged;
    if confirmed > acknowledged {
        return Err(LineageError::SlotAheadOfLake { slot: slot.to_owned(), confirmed, acknowledged });
    }
    for mark in tables.iter().filter(|mark| !mark.parked) {
        let (table, stands_at) = (mark.table.clone(), mark.recorded);
        match recorded.tables.get(&mark.table).copied() {
            Some(expected) if stands_at < expected => {
                return Err(LineageError::TableBehindRecord { table, recorded: stands_at, expected });
            }
            // `init` notes every table that it begins; one that was taken out of the pipeline file in between was not followed.
            None if stands_at < confirmed => {
                return Err(LineageError::TableNotFollowed { table, recorded: stands_at, confirmed });
            }
            Some(_) | None => {}
        }
    }
    Ok(descent)
}

/// A younger timeline is followed only if it left the lake's own behind everything that the lake holds.
fn descent(server: &Lineage, from: u32, held: Lsn) -> Result<Descent, LineageError> {
    let timeline = server.timeline;
    if timeline == from {
        return Ok(Descent::Same);
    }
    let Some(switch) = server.history.iter().find(|switch| switch.timeline == from) else {
        return Err(LineageError::TimelineUnknown { timeline, recorded: from });
    };
    let switched_at = switch.switched_at;
    if switched_at < held {
        return Err(LineageError::TimelineDiverged { timeline, from, switched_at, held });
    }
    Ok(Descent::Switched { from, switched_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: &str = "public.security_event";
    const HOOKS: &str = "public.security_event_hook_results";

    fn server() -> Lineage {
        Lineage { system_identifier: "7412".to_owned(), timeline: 1, flushed: Lsn(1000), history: Vec::new() }
    }

    fn promoted(switched_at: u64) -> Lineage {
        let history = vec![TimelineSwitch { timeline: 1, switched_at: Lsn(switched_at) }];
        Lineage { timeline: 2, history, ..server() }
    }

    fn recorded() -> Recorded {
        let tables = [(EVENTS.to_owned(), Lsn(480)), (HOOKS.to_owned(), Lsn(300))].into();
        Recorded { system_identifier: "7412".to_owned(), timeline: 1, acknowledged: Lsn(500), tables }
    }

    fn mark(table: &str, recorded: u64) -> TableMark {
        TableMark { table: table.to_owned(), recorded: Lsn(recorded), parked: false }
    }

    fn judged(server: &Lineage, confirmed: u64, tables: &[TableMark]) -> Result<Descent, LineageError> {
        judge(server, ("lakebed", Lsn(confirmed)), Some(&recorded()), tables)
    }

    #[test]
    fn w2_what_agrees_is_followed() {
        // A crash between a commit and its record leaves a table further than the record; one between record and slot, the slot behind.
        for (confirmed, events) in [(500, 480), (400, 480), (0, 700), (500, 1000)] {
            let tables = [mark(EVENTS, events), mark(HOOKS, 300)];
            assert_eq!(judged(&server(), confirmed, &tables), Ok(Descent::Same), "{confirmed} {events}");
        }
        assert_eq!(judged(&server(), 500, &[mark("public.new", 500)]), Ok(Descent::Same), "`init` began it here");
        let taken_out = judged(&server(), 500, &[mark("public.new", 499)]);
        assert!(matches!(taken_out, Err(LineageError::TableNotFollowed { .. })), "{taken_out:?}");
    }

    #[test]
    fn w2_each_contradiction_is_a_definite_error_with_its_remedy() {
        let tables = [mark(EVENTS, 480), mark(HOOKS, 300)];
        let behind = [mark(EVENTS, 479), mark(HOOKS, 300)];
        let other = Lineage { system_identifier: "1".to_owned(), ..server() };
        let restored = Lineage { flushed: Lsn(479), ..server() };
        let older = Lineage { timeline: 3, history: promoted(1).history, ..server() };
        let unrelated = Recorded { timeline: 2, ..recorded() };
        let slot = ("lakebed", Lsn(500));
        let cases = [
            (judge(&server(), slot, None, &tables), "run `lakebed init`"),
            (judged(&other, 500, &tables), "system 1; connect"),
            (judged(&restored, 500, &tables), "only up to 0/1DF"),
            (
                judged(&server(), 501, &tables),
                "accept that gap with `lakebed init --from-now` and copy what it left out with `lakebed repair --execute`",
            ),
            (judged(&server(), 500, &behind), "put the newer copy back"),
            (judged(&promoted(479), 500, &tables), "left timeline 1 at WAL position 0/1DF, before 0/1E0"),
            (judge(&older, slot, Some(&unrelated), &tables), "does not descend from it"),
            (judge(&server(), slot, Some(&unrelated), &tables), "timeline 2, and the server writes timeline 1"),
        ];
        for (judged, words) in cases {
            let error = judged.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(words) && text.contains("; ") && !text.contains('\n'), "{text}");
            assert_eq!(error.retry_class(), RetryClass::Definite);
        }
    }

    #[test]
    fn w2_a_new_timeline_is_followed_only_behind_everything_the_lake_holds() {
        let at = |switched_at| Ok(Descent::Switched { from: 1, switched_at: Lsn(switched_at) });
        let tables = [mark(EVENTS, 480), mark(HOOKS, 300)];
        assert_eq!(judged(&promoted(480), 500, &tables), at(480), "what was acknowledged behind it held no row");
        // Committed and not yet acknowledged counts as held.
        let further = [mark(EVENTS, 600), mark(HOOKS, 300)];
        assert!(matches!(judged(&promoted(599), 500, &further), Err(LineageError::TimelineDiverged { .. })));
        assert_eq!(judged(&promoted(600), 500, &further), at(600));
        // Two promotions since: the one that left the lake's own timeline decides.
        let mut twice = promoted(600);
        twice.timeline = 3;
        twice.history.push(TimelineSwitch { timeline: 2, switched_at: Lsn(650) });
        assert_eq!(judged(&twice, 500, &further), at(600));
    }

    #[test]
    fn a_parked_table_may_stand_behind_the_record() {
        let parked = TableMark { parked: true, ..mark(EVENTS, 10) };
        assert_eq!(judged(&server(), 500, &[parked, mark(HOOKS, 300)]), Ok(Descent::Same));
    }

    proptest! {
        /// W2: whatever is followed, nothing that the slot forgot or the timeline lost lies behind what the lake holds.
        #[test]
        fn w2_nothing_is_followed_over_a_gap(
            confirmed in 0..20_u64, acknowledged in 0..20_u64, flushed in 0..20_u64, now in 0..20_u64, then in 0..20_u64,
            timeline in 1..4_u32, switches in proptest::collection::vec((1..4_u32, 0..20_u64), 0..3),
        ) {
            let history = switches.iter().map(|(timeline, at)| TimelineSwitch { timeline: *timeline, switched_at: Lsn(*at) });
            let server = Lineage { timeline, flushed: Lsn(flushed), history: history.collect(), ..server() };
            let recorded = Recorded {
                acknowledged: Lsn(acknowledged), tables: [(EVENTS.to_owned(), Lsn(then))].into(), ..recorded()
            };
            let judged = judge(&server, ("lakebed", Lsn(confirmed)), Some(&recorded), &[mark(EVENTS, now)]);
            let held = then.max(now);
            let branched_behind = timeline == 1
                || server.history.iter().find(|switch| switch.timeline == 1).is_some_and(|switch| switch.switched_at.0 >= held);
            let sound = confirmed <= acknowledged && now >= then && held <= flushed && branched_behind;
            prop_assert_eq!(judged.is_ok(), sound, "{:?}", judged);
        }
    }
}
