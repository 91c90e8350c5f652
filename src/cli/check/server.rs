//! The server's settings and the login's attributes.

use super::finding::{Area, Findings};
use crate::connect::Settings;
use crate::source::{RoleFacts, ServerFacts, quote_identifier};
use bytesize::ByteSize;

/// PostgreSQL 14: `binary` and `messages` of pgoutput.
const VERSION_MIN: u32 = 140_000;

pub(super) fn check(findings: &mut Findings, server: &ServerFacts, settings: &Settings) {
    for warning in settings.warnings() {
        findings.warning(Area::Server, warning.clone(), "correct [source].url");
    }
    judge(findings, server, &settings.endpoint());
}

fn judge(findings: &mut Findings, server: &ServerFacts, endpoint: &str) {
    const AREA: Area = Area::Server;
    let version = server.version_text();
    if server.version < VERSION_MIN {
        findings.error(AREA, format!("{endpoint} runs PostgreSQL {version}"), "upgrade the server to 14 or newer");
    } else {
        findings.ok(AREA, format!("{endpoint} runs PostgreSQL {version}, system {}", server.system_identifier));
    }
    if server.wal_level == "logical" {
        findings.ok(AREA, "wal_level is logical");
    } else {
        let remedy = "ALTER SYSTEM SET wal_level = 'logical', then restart the server";
        findings.error(AREA, format!("wal_level is {}", server.wal_level), remedy);
    }
    if server.in_recovery {
        let remedy = "let [source].url name the primary";
        findings.warning(AREA, "the server is a standby: a slot cannot be created there before 16", remedy);
    }
    free(
        findings,
        "replication slots",
        "max_replication_slots",
        server.replication_slots_used,
        server.replication_slots_max,
    );
    free(findings, "WAL senders", "max_wal_senders", server.wal_senders_used, server.wal_senders_max);
    match server.slot_wal_keep_bytes {
        Some(limit) => findings.ok(
            AREA,
            format!("max_slot_wal_keep_size is {}: a consumer that is away for longer loses its slot", ByteSize(limit)),
        ),
        None => findings.warning(
            AREA,
            "max_slot_wal_keep_size is not set: while lakebed is away, WAL grows until the disk is full",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB', or what the disk can hold; SELECT pg_reload_conf()",
        ),
    }
}

fn free(findings: &mut Findings, what: &str, setting: &str, used: u64, all: u64) {
    if used < all {
        findings.ok(Area::Server, format!("{used} of {all} {what} in use"));
    } else {
        let remedy = format!("ALTER SYSTEM SET {setting} = {}, then restart the server", all + 10);
        findings.warning(Area::Server, format!("all {all} {what} are in use"), remedy);
    }
}

pub(super) fn check_login(findings: &mut Findings, role: Option<&RoleFacts>, user: &str) {
    const AREA: Area = Area::Login;
    let Some(role) = role else {
        findings.error(AREA, format!("role {user} does not exist"), "lakebed init --admin-url …");
        return;
    };
    if role.superuser {
        let remedy = "let lakebed init --admin-url … create a login of its own for [source].url";
        findings.warning(AREA, format!("login {user} is a superuser, far more than the pipeline needs"), remedy);
    } else if role.replication {
        findings.ok(AREA, format!("login {user} may replicate"));
    } else {
        let remedy = format!("ALTER ROLE {} REPLICATION", quote_identifier(user));
        findings.error(AREA, format!("login {user} may not replicate"), remedy);
    }
    if role.owned_objects > 0 && !role.superuser {
        let what = format!("login {user} owns {} objects, and whatever it owns it can drop", role.owned_objects);
        let remedy = format!("REASSIGN OWNED BY {} TO another role, in every database", quote_identifier(user));
        findings.warning(AREA, what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::base::Lsn;

    #[test]
    fn a_login_that_owns_something_is_warned_of() {
        let role = |owned_objects| RoleFacts {
            name: "lakebed".into(),
            can_login: true,
            replication: true,
            bypasses_row_security: false,
            superuser: false,
            can_connect: true,
            owned_objects,
        };
        use Severity::{Ok, Warning};
        for (owned, expected) in [(0, vec![Ok]), (2, vec![Ok, Warning])] {
            let mut findings = Findings::default();
            check_login(&mut findings, Some(&role(owned)), "lakebed");
            let severities: Vec<Severity> = findings.all().iter().map(|finding| finding.severity).collect();
            assert_eq!(severities, expected);
        }
    }

    #[test]
    fn settings_that_stop_replication_are_errors_and_risks_are_warnings() {
        let server = ServerFacts {
            version: 130_004,
            wal_level: "replica".into(),
            replication_slots_max: 2,
            replication_slots_used: 2,
            wal_senders_max: 10,
            wal_senders_used: 1,
            slot_wal_keep_bytes: None,
            in_recovery: false,
            system_identifier: "7".into(),
            wal_position: Lsn(1),
            database: "d".into(),
            user: "u".into(),
        };
        let mut findings = Findings::default();
        judge(&mut findings, &server, "127.0.0.1:5432");
        let severities: Vec<Severity> = findings.all().iter().map(|finding| finding.severity).collect();
        use Severity::{Error, Ok, Warning};
        assert_eq!(severities, [Error, Error, Warning, Ok, Warning]);
    }
}
