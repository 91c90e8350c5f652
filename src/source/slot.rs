//! The replication slot: where it stands, what it holds back, and who holds it (W2, the reading half).

use super::read::{field, position, read, unsigned};
use super::{Headroom, SourceError};
use crate::base::Lsn;
use std::fmt;
use tokio_postgres::Client;

/// The session that uses a slot, as far as the asking role may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHolder {
    /// `pg_replication_slots.active_pid`.
    pub pid: i32,
    /// The session's login.
    pub user: Option<String>,
    /// Its `application_name`.
    pub application_name: Option<String>,
    /// Where it connects from; `None` is a Unix socket, or not visible.
    pub client_address: Option<String>,
}

/// "process 4711 (lakebed, user lakebed, from 10.0.0.7)".
impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.application_name.iter().filter(|name| !name.is_empty()).cloned().collect();
        parts.extend(self.user.iter().map(|user| format!("user {user}")));
        parts.extend(self.client_address.iter().map(|address| format!("from {address}")));
        write!(f, "process {}", self.pid)?;
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }
}

/// `pg_replication_slots`, the columns of 14 to 18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFacts {
    /// Its name.
    pub name: String,
    /// `None` for a physical slot.
    pub plugin: Option<String>,
    /// `None` for a physical slot.
    pub database: Option<String>,
    /// Dropped with its session.
    pub temporary: bool,
    /// Whether a session uses it.
    pub active: bool,
    /// Who.
    pub holder: Option<SlotHolder>,
    /// What was acknowledged.
    pub confirmed: Option<Lsn>,
    /// The oldest WAL it needs.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that can still be written before the slot may be lost; `None` without a limit.
    pub safe_wal_bytes: Option<u64>,
    /// WAL that the server keeps because of it.
    pub retained_bytes: Option<u64>,
    /// WAL between what was acknowledged and the server's position.
    pub lag_bytes: Option<u64>,
    /// Decodes PREPARE TRANSACTION at its prepare.
    pub two_phase: bool,
    /// Server 17+: why it was invalidated.
    pub invalidation_reason: Option<String>,
    /// Server 17+: kept on a standby through a failover.
    pub failover: bool,
}

impl SlotFacts {
    /// Whether the server threw its WAL away or invalidated it: nothing can be read from it any more.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some()
    }

    /// Its distance from being lost, under the server's `max_slot_wal_keep_size`.
    pub fn headroom(&self, limit_bytes: Option<u64>) -> Headroom {
        Headroom {
            wal_status: self.wal_status.clone(),
            safe_wal_bytes: self.safe_wal_bytes,
            retained_bytes: self.retained_bytes,
            limit_bytes,
        }
    }

    /// What stands against using this slot in `database`, with its remedy. A slot that another session holds is fine here.
    pub fn unusable(&self, database: &str) -> Option<String> {
        let Self { name, .. } = self;
        let replace = format!(
            "choose another name in [source] slot, or remove it: SELECT pg_drop_replication_slot({})",
            super::quote_literal(name)
        );
        match (&self.plugin, &self.database) {
            (None, _) => return Some(format!("slot {name} is a physical slot; {replace}")),
            (Some(plugin), _) if plugin != "pgoutput" => {
                return Some(format!("slot {name} uses plugin {plugin}, not pgoutput; {replace}"));
            }
            (_, Some(other)) if other != database => {
                return Some(format!("slot {name} belongs to database {other}, not {database}; {replace}"));
            }
            _ => {}
        }
        if self.temporary {
            return Some(format!("slot {name} is temporary and ends with its session; {replace}"));
        }
        if self.two_phase {
            return Some(format!("slot {name} has two_phase on, which lakebed does not follow; {replace}"));
        }
        self.is_lost().then(|| {
            let why = self.invalidation_reason.as_deref().unwrap_or("max_slot_wal_keep_size was exceeded");
            format!(
                "slot {name} is lost ({why}): changes since {} are gone from the server; remove it with SELECT \
                 pg_drop_replication_slot({}), then accept the gap with lakebed init --from-now, and let lakebed repair --execute copy \
                 what it left out",
                self.confirmed.unwrap_or(Lsn::ZERO),
                super::quote_literal(name)
            )
        })
    }
}

/// Reads a slot; `None` when there is none of that name.
///
/// # Errors
/// As any statement.
pub async fn slot(client: &Client, name: &str) -> Result<Option<SlotFacts>, SourceError> {
    // Columns that only later versions have are read through to_jsonb, which gives NULL where they are absent.
    const SQL: &str = "
        SELECT s.plugin::text AS plugin, s.database::text AS database, s.temporary, s.active, s.active_pid,
               s.confirmed_flush_lsn, s.restart_lsn, s.wal_status, s.safe_wal_size, s.two_phase,
               pg_wal_lsn_diff(now.lsn, s.restart_lsn)::int8 AS retained,
               pg_wal_lsn_diff(now.lsn, s.confirmed_flush_lsn)::int8 AS lag,
               to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason,
               coalesce((to_jsonb(s) ->> 'failover')::bool, false) AS failover,
               a.usename::text AS holder_user, a.application_name AS holder_application, host(a.client_addr) AS holder_address
        FROM pg_catalog.pg_replication_slots s
        CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                ELSE pg_current_wal_flush_lsn() END AS lsn) AS now
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name = $1::text";
    let Some(row) = read(client, "reading the slot", SQL, &[&name]).await?.into_iter().next() else {
        return Ok(None);
    };
    let pid: Option<i32> = field(&row, "active_pid")?;
    let holder = match pid {
        None => None,
        Some(pid) => Some(SlotHolder {
            pid,
            user: field(&row, "holder_user")?,
            application_name: field(&row, "holder_application")?,
            client_address: field(&row, "holder_address")?,
        }),
    };
    Ok(Some(SlotFacts {
        name: name.to_owned(),
        plugin: field(&row, "plugin")?,
        database: field(&row, "database")?,
        temporary: field(&row, "temporary")?,
        active: field(&row, "active")?,
        holder,
        confirmed: position(&row, "confirmed_flush_lsn")?,
        restart: position(&row, "restart_lsn")?,
        wal_status: field(&row, "wal_status")?,
        safe_wal_bytes: unsigned(&row, "safe_wal_size")?,
        retained_bytes: unsigned(&row, "retained")?,
        lag_bytes: Some(field::<Option<i64>>(&row, "lag")?).flatten().map(|lag| u64::try_from(lag).unwrap_or(0)),
        two_phase: field(&row, "two_phase")?,
        invalidation_reason: field(&row, "invalidation_reason")?,
        failover: field(&row, "failover")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> SlotFacts {
        SlotFacts {
            name: "lakebed".into(),
            plugin: Some("pgoutput".into()),
            database: Some("idpserver".into()),
            temporary: false,
            active: false,
            holder: None,
            confirmed: Some(Lsn(256)),
            restart: Some(Lsn(128)),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            retained_bytes: Some(512),
            lag_bytes: Some(256),
            two_phase: false,
            invalidation_reason: None,
            failover: false,
        }
    }

    #[test]
    fn only_a_sound_pgoutput_slot_of_the_database_is_usable() {
        assert_eq!(healthy().unusable("idpserver"), None);
        let wrong = [
            SlotFacts { plugin: Some("wal2json".into()), ..healthy() },
            SlotFacts { plugin: None, database: None, ..healthy() },
            SlotFacts { database: Some("other".into()), ..healthy() },
            SlotFacts { temporary: true, ..healthy() },
            SlotFacts { two_phase: true, ..healthy() },
        ];
        for slot in wrong {
            assert!(slot.unusable("idpserver").unwrap().contains("pg_drop_replication_slot('lakebed')"), "{slot:?}");
        }
        let lost = SlotFacts { wal_status: Some("lost".into()), ..healthy() };
        assert!(lost.unusable("idpserver").unwrap().contains("--from-now"));
    }

    #[test]
    fn a_holder_is_named_as_far_as_it_can_be_seen() {
        let holder = SlotHolder { pid: 7, user: None, application_name: None, client_address: None };
        assert_eq!(holder.to_string(), "process 7");
        let holder = SlotHolder {
            user: Some("lakebed".into()),
            application_name: Some("lakebed".into()),
            client_address: Some("10.0.0.7".into()),
            ..holder
        };
        assert_eq!(holder.to_string(), "process 7 (lakebed, user lakebed, from 10.0.0.7)");
    }
}
