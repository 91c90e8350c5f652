//! How much more WAL the server can write before it may drop what the slot still needs.

use super::SourceError;
use super::read::{field, read, unsigned};
use tokio_postgres::Client;

/// Percent of the limit below which a slot is low on headroom: time to flush earlier.
const LOW_PERCENT: u64 = 40;
/// Percent of the limit below which it is about to be lost: WAL of a busy night fits into what is left.
const CRITICAL_PERCENT: u64 = 15;

/// The slot's distance from its loss, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that can still be written before the slot may be lost; `None` without a limit, and when it may be lost any moment.
    pub safe_wal_bytes: Option<u64>,
    /// WAL that the server keeps because of the slot.
    pub retained_bytes: Option<u64>,
    /// `max_slot_wal_keep_size`; `None` is no limit.
    pub limit_bytes: Option<u64>,
}

/// How near a slot is to its loss; the later, the worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing to do.
    #[default]
    Ample,
    /// Less than 40 % of `max_slot_wal_keep_size` are left.
    Low,
    /// Less than 15 % are left, or the next checkpoint may remove what the slot needs.
    Critical,
}

impl Pressure {
    /// One word for logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Critical => "critical",
        }
    }
}

impl Headroom {
    /// Decides the pressure. Without a limit there is none, however much is retained: then the disk is the limit, which is the
    /// server's to watch.
    pub fn pressure(&self) -> Pressure {
        if matches!(self.wal_status.as_deref(), Some("unreserved" | "lost")) {
            return Pressure::Critical;
        }
        match self.safe_percent() {
            Some(percent) if percent < CRITICAL_PERCENT => Pressure::Critical,
            Some(percent) if percent < LOW_PERCENT => Pressure::Low,
            _ => Pressure::Ample,
        }
    }

    /// What is left of the limit, in whole percent, rounded down; `None` without a limit. May be more than 100: the server counts
    /// whole segments, and `wal_keep_size` if that is larger.
    pub fn safe_percent(&self) -> Option<u64> {
        let (safe, limit) = (self.safe_wal_bytes?, self.limit_bytes?);
        u64::try_from(u128::from(safe) * 100 / u128::from(limit.max(1))).ok()
    }
}

/// Reads a slot's headroom in one statement; `None` when there is no slot of that name.
///
/// # Errors
/// As any statement.
pub async fn headroom(client: &Client, slot: &str) -> Result<Option<Headroom>, SourceError> {
    const SQL: &str = "
        SELECT s.wal_status, s.safe_wal_size,
               pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                    ELSE pg_current_wal_flush_lsn() END, s.restart_lsn)::int8 AS retained,
               (SELECT setting::int8 * 1048576 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_bytes
        FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1::text";
    let Some(row) = read(client, "reading the slot's headroom", SQL, &[&slot]).await?.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(Headroom {
        wal_status: field(&row, "wal_status")?,
        safe_wal_bytes: unsigned(&row, "safe_wal_size")?,
        retained_bytes: unsigned(&row, "retained")?,
        limit_bytes: unsigned(&row, "keep_bytes")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Pressure::{Ample, Critical, Low};

    #[test]
    fn pressure_follows_what_is_left_of_the_limit() {
        let pressure = |wal_status: &str, safe_wal_bytes, limit_bytes| {
            let wal_status = Some(wal_status.to_owned());
            Headroom { wal_status, safe_wal_bytes, retained_bytes: Some(u64::MAX), limit_bytes }.pressure()
        };
        let limit = Some(1000);
        for (safe, expected) in [(1100, Ample), (400, Ample), (399, Low), (150, Low), (149, Critical), (0, Critical)] {
            assert_eq!(pressure("extended", Some(safe), limit), expected, "{safe}");
        }
        assert_eq!(pressure("extended", None, None), Ample, "no limit");
        for status in ["unreserved", "lost"] {
            assert_eq!(pressure(status, None, limit), Critical, "{status}");
            assert_eq!(pressure(status, Some(900), limit), Critical, "{status}");
        }
        assert_eq!(pressure("reserved", Some(u64::MAX), Some(u64::MAX)), Ample, "no overflow");
        assert_eq!(pressure("reserved", Some(5), Some(0)), Ample);
        assert!(Ample < Low && Low < Critical);
    }
}
