//! A snapshot and the position that it stands at: what it does not see is in the stream above, and nothing is in both.

use super::SnapshotError;
use crate::base::Lsn;
use crate::connect::{ConnectError, Settings, control};
use crate::ops::fail_points;
use crate::source;
use crate::wal::{ExportedSlot, NewSlot, ReplicationConnection, WalError};
use sha2::{Digest, Sha256};
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// A snapshot that takes longer is explained.
const SAID_AFTER: Duration = Duration::from_secs(5);
/// Between two lines about the same wait.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// too_many_connections: no walsender, or no connection at all, is left.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// A snapshot that other sessions of the database can import for as long as this is held. The slot that it came from keeps WAL and the
/// catalog's dead rows, so it is to be dropped once they have.
#[derive(Debug)]
pub struct Exported {
    slot: ExportedSlot,
    /// The temporary slot and the snapshot end with it.
    _connection: ReplicationConnection,
}

impl Exported {
    /// Makes a temporary slot and keeps its snapshot, for the process that follows the slot `followed`. Waits for transactions that are
    /// running, for as long as they do. Not cancel-safe on the server, which does not notice that nobody waits for the slot any more: it
    /// goes with the last of those transactions, or when the slot's next follower takes a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::NoFreeSlot`] and [`SnapshotError::NoFreeSender`] pass; else as the replication connection.
    pub async fn take(settings: &Settings, followed: &str) -> Result<Self, SnapshotError> {
        fail_points::reach("copy.before_snapshot");
        let prefix = temporary_slots_of(followed);
        end_abandoned(settings, &prefix).await;
        let mut connection = ReplicationConnection::open(settings).await.map_err(full)?;
        let name = format!("{prefix}{}", Uuid::new_v4().simple());
        let slot = {
            let mut creation = pin!(connection.create_exporting_slot(&name, NewSlot::Temporary));
            tokio::select! {
                slot = &mut creation => slot,
                never = explain(settings, &name) => match never {},
            }
        };
        let exported = Self::holding(connection, slot.map_err(full)?);
        fail_points::reach("copy.after_snapshot");
        Ok(exported)
    }

    /// A slot that was made on this connection, with whose next command, or end, the snapshot is gone.
    pub fn holding(connection: ReplicationConnection, slot: ExportedSlot) -> Self {
        Self { slot, _connection: connection }
    }

    /// The snapshot sees exactly what was committed before.
    pub fn floor(&self) -> Lsn {
        self.slot.consistent_point
    }

    /// For SET TRANSACTION SNAPSHOT ([`source::import_snapshot`]).
    pub fn name(&self) -> &str {
        &self.slot.snapshot_name
    }
}

/// How the names of the temporary slots begin that a slot's follower makes. At most 63 bytes are a slot's name, a UUID's 32 among them.
pub fn temporary_slots_of(followed: &str) -> String {
    let digest = Sha256::digest(followed.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("lakebed_copy_{digest}_")
}

/// Only one process follows a slot at a time: whatever temporary slots an earlier one has left behind keep WAL for nobody, and places of
/// which there are few. An attempt, since they go by themselves in the end.
async fn end_abandoned(settings: &Settings, prefix: &str) {
    let ended = match control(settings).await {
        Ok(session) => source::end_temporary_slots(session.client(), prefix).await.map_err(SnapshotError::from),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(0) => {}
        Ok(ended) => tracing::info!(ended, "ended temporary slots that an earlier copy had left behind"),
        Err(error) => tracing::debug!(%error, "temporary slots of earlier copies cannot be looked for"),
    }
}

/// Places are given back, unlike most limits that an administrator has set.
fn full(error: WalError) -> SnapshotError {
    match error {
        WalError::NoFreeSlot { server } => SnapshotError::NoFreeSlot { server },
        WalError::Connect(ConnectError::Server { server, .. }) if server.is(TOO_MANY_CONNECTIONS) => {
            SnapshotError::NoFreeSender { server }
        }
        error => error.into(),
    }
}

/// Says now and then what is waited for; never comes back.
async fn explain(settings: &Settings, slot: &str) -> std::convert::Infallible {
    sleep(SAID_AFTER).await;
    loop {
        let holders = match control(settings).await {
            Ok(session) => source::slot_waits_for(session.client(), slot).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        tracing::info!(
            processes = ?holders,
            "the snapshot for the copy waits until transactions that began before it have ended; see pg_stat_activity"
        );
        sleep(SAID_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify, RetryClass};
    use crate::connect::remedy_test::server_error;

    #[test]
    fn the_slots_of_followers_are_told_apart_and_their_names_fit() {
        let (long, other) = (temporary_slots_of(&"a".repeat(63)), temporary_slots_of(&"a".repeat(62)));
        assert_ne!(long, other);
        assert_eq!(format!("{long}{}", Uuid::new_v4().simple()).len(), 62);
    }

    #[test]
    fn a_full_server_passes() {
        let slot = full(WalError::NoFreeSlot { server: server_error("53400") });
        assert!(matches!(slot, SnapshotError::NoFreeSlot { .. }) && slot.retry_class() == RetryClass::Transient);
        let endpoint = "db:5432".to_owned();
        let sender = full(WalError::Connect(ConnectError::Server { endpoint, server: server_error("53300") }));
        assert!(matches!(sender, SnapshotError::NoFreeSender { .. }));
        assert_eq!(full(WalError::Ended).retry_class(), RetryClass::Definite);
    }
}
