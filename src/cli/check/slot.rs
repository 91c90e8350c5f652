//! The slot: there, sound, and how far from being lost.

use super::finding::{Area, Findings};
use crate::source::{ServerFacts, SlotFacts};
use bytesize::ByteSize;

pub(super) fn check(findings: &mut Findings, slot: Option<&SlotFacts>, name: &str, server: &ServerFacts) {
    judge(findings, slot, name, &server.database);
}

fn judge(findings: &mut Findings, slot: Option<&SlotFacts>, name: &str, database: &str) {
    const AREA: Area = Area::Slot;
    let Some(slot) = slot else {
        findings.error(AREA, format!("slot {name} does not exist"), "lakebed init --admin-url …");
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
        let mut findings = Findings::default();
        judge(&mut findings, Some(&SlotFacts { active: false, ..slot }), "lakebed", "d");
        assert_eq!(findings.all()[0].severity, Warning, "a slot that nobody follows fills the server's disk");
    }
}
