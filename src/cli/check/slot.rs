//! The slot: there, sound, and how far from being lost.

use super::finding::{Area, Findings};
use crate::config::SourceSection;
use crate::source::{Pressure, ServerFacts, SlotFacts};
use crate::wal::FAILOVER_VERSION_MIN;
use bytesize::ByteSize;

pub(super) fn check(findings: &mut Findings, slot: Option<&SlotFacts>, source: &SourceSection, server: &ServerFacts) {
    judge(findings, slot, &source.slot, &server.database);
    if let Some(slot) = slot.filter(|slot| slot.unusable(&server.database).is_none()) {
        judge_headroom(findings, slot, server.slot_wal_keep_bytes);
        if source.failover && server.version >= FAILOVER_VERSION_MIN && !slot.failover {
            findings.warning(
                Area::Slot,
                format!("slot {} is not kept through a failover: a promoted standby could not be followed", slot.name),
                "stop lakebed run, then lakebed init; or failover = false in [source]",
            );
        }
    }
}

fn judge_headroom(findings: &mut Findings, slot: &SlotFacts, limit_bytes: Option<u64>) {
    const AREA: Area = Area::Slot;
    let name = &slot.name;
    let Some(limit) = limit_bytes else {
        let what = "max_slot_wal_keep_size has no limit: the slot cannot be lost, but what it retains can fill the server's disk";
        return findings.ok(AREA, what);
    };
    let headroom = slot.headroom(limit_bytes);
    let safe = ByteSize(slot.safe_wal_bytes.unwrap_or(0));
    let what = format!(
        "slot {name} has {safe} of {} left before it may be lost ({} %, {})",
        ByteSize(limit),
        headroom.safe_percent().unwrap_or(0),
        headroom.pressure().name()
    );
    let remedy =
        "start lakebed run, or see with lakebed status why it does not catch up; or raise max_slot_wal_keep_size";
    match headroom.pressure() {
        Pressure::Ample => findings.ok(AREA, what),
        Pressure::Low => findings.warning(AREA, what, remedy),
        // Said already when the server calls it unreserved.
        Pressure::Critical if slot.wal_status.as_deref() == Some("unreserved") => {}
        Pressure::Critical => findings.error(AREA, what, remedy),
    }
}

fn judge(findings: &mut Findings, slot: Option<&SlotFacts>, name: &str, database: &str) {
    const AREA: Area = Area::Slot;
    let Some(slot) = slot else {
        findings.error(AREA, format!("slot {name} does not exist"), "lakebed init --snapshot --admin-url …; if the lake has its tables already, lakebed init --from-now and then lakebed repair");
        return;
    };
    if let Some(problem) = slot.unusable(database) {
        findings.failed_text(AREA, &problem);
        return;
    }
    let used = match &slot.holder {
        Some(holder) => format!("in use by {holder}"),
        None => "not in use".to_owned(),
    };
    let retained = ByteSize(slot.retained_bytes.unwrap_or(0));
    match slot.wal_status.as_deref() {
        Some("unreserved") => findings.error(
            AREA,
            format!("slot {name} is about to be lost: {retained} of WAL are retained, beyond max_slot_wal_keep_size ({used})"),
            "start lakebed run now, or raise max_slot_wal_keep_size; SELECT pg_reload_conf()",
        ),
        Some("extended") => findings.warning(
            AREA,
            format!("slot {name} retains {retained} of WAL, more than max_wal_size ({used})"),
            "start lakebed run, or see with lakebed status why it does not catch up",
        ),
        _ if slot.holder.is_none() && !slot.active => findings.warning(
            AREA,
            format!("nobody follows slot {name}, for which the server keeps {retained} of WAL"),
            "start lakebed run; if it ends at once, its last line on standard error says why",
        ),
        _ => findings.ok(AREA, format!("slot {name} retains {retained} of WAL ({used})")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::base::Lsn;

    #[test]
    fn a_slot_near_its_end_is_an_error_before_it_is_lost() {
        let slot = SlotFacts {
            name: "lakebed".into(),
            plugin: Some("pgoutput".into()),
            database: Some("d".into()),
            temporary: false,
            active: true,
            holder: None,
            confirmed: Some(Lsn(1)),
            restart: Some(Lsn(1)),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            retained_bytes: Some(1),
            lag_bytes: Some(1),
            two_phase: false,
            invalidation_reason: None,
            failover: false,
        };
        use Severity::{Error, Ok, Warning};
        for (status, expected) in [("reserved", Ok), ("extended", Warning), ("unreserved", Error), ("lost", Error)] {
            let mut findings = Findings::default();
            judge(&mut findings, Some(&SlotFacts { wal_status: Some(status.into()), ..slot.clone() }), "lakebed", "d");
            assert_eq!(findings.all()[0].severity, expected, "{status}");
        }
        for (safe, limit, expected) in
            [(None, None, Ok), (Some(50), Some(100), Ok), (Some(39), Some(100), Warning), (Some(14), Some(100), Error)]
        {
            let mut findings = Findings::default();
            judge_headroom(&mut findings, &SlotFacts { safe_wal_bytes: safe, ..slot.clone() }, limit);
            assert_eq!(findings.all()[0].severity, expected, "{safe:?}");
        }
        let mut findings = Findings::default();
        judge(&mut findings, Some(&SlotFacts { active: false, ..slot }), "lakebed", "d");
        assert_eq!(findings.all()[0].severity, Warning, "a slot that nobody follows fills the server's disk");
    }
}
