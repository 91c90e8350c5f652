//! The server itself: version, settings that logical replication needs, identity and position.

use super::SourceError;
use super::read::{field, position, read_one, unsigned};
use crate::base::Lsn;
use tokio_postgres::Client;

/// Facts of one server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150018 is 15.18.
    pub version: u32,
    /// `wal_level`; must be `logical`.
    pub wal_level: String,
    /// `max_replication_slots`.
    pub replication_slots_max: u64,
    /// Slots that exist now.
    pub replication_slots_used: u64,
    /// `max_wal_senders`.
    pub wal_senders_max: u64,
    /// WAL senders that run now.
    pub wal_senders_used: u64,
    /// `max_slot_wal_keep_size` in bytes; `None` is the setting -1, no limit.
    pub slot_wal_keep_bytes: Option<u64>,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// `pg_control_system().system_identifier`, in decimal as IDENTIFY_SYSTEM prints it.
    pub system_identifier: String,
    /// What is flushed, or on a standby replayed.
    pub wal_position: Lsn,
    /// The database that was asked.
    pub database: String,
    /// The role that asked.
    pub user: String,
}

/// Asks for all of it in one statement.
///
/// # Errors
/// As any statement.
pub async fn server(client: &Client) -> Result<ServerFacts, SourceError> {
    const SQL: &str = "
        SELECT current_setting('server_version_num')::int8 AS version, current_setting('wal_level') AS wal_level,
               current_setting('max_replication_slots')::int8 AS slots_max,
               (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots_used,
               current_setting('max_wal_senders')::int8 AS senders_max,
               (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders_used,
               (SELECT setting::int8 * 1048576 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_bytes,
               pg_is_in_recovery() AS in_recovery,
               (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
               CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS wal_position,
               current_database()::text AS database, current_user::text AS user_name";
    let row = read_one(client, "reading the server's settings", SQL, &[]).await?;
    Ok(ServerFacts {
        version: u32::try_from(field::<i64>(&row, "version")?).unwrap_or(0),
        wal_level: field(&row, "wal_level")?,
        replication_slots_max: unsigned(&row, "slots_max")?.unwrap_or(0),
        replication_slots_used: unsigned(&row, "slots_used")?.unwrap_or(0),
        wal_senders_max: unsigned(&row, "senders_max")?.unwrap_or(0),
        wal_senders_used: unsigned(&row, "senders_used")?.unwrap_or(0),
        slot_wal_keep_bytes: unsigned(&row, "keep_bytes")?,
        in_recovery: field(&row, "in_recovery")?,
        system_identifier: field(&row, "system_identifier")?,
        wal_position: position(&row, "wal_position")?.unwrap_or(Lsn::ZERO),
        database: field(&row, "database")?,
        user: field(&row, "user_name")?,
    })
}

impl ServerFacts {
    /// The version as people write it: `15.18`.
    pub fn version_text(&self) -> String {
        format!("{}.{}", self.version / 10_000, self.version % 10_000)
    }
}
