//! What `init` does to the slot itself: made through the pipeline's own login, kept through a failover, and removed again when
//! nothing could begin at it.

use super::{Done, line, note};
use crate::base::Lsn;
use crate::connect::{self, Settings};
use crate::source::{self, quote_literal};
use crate::wal::{FAILOVER_VERSION_MIN, NewSlot, ReplicationConnection, WalError};
use anyhow::Context;
use std::time::Duration;
use tokio_postgres::Client;

/// After this long, whoever waits for a new slot is told what for.
const SLOT_CREATION_NOTE_AFTER: Duration = Duration::from_secs(3);

/// The server finds a consistent point only after every transaction that runs now has ended.
pub(super) async fn create_slot(
    connection: &mut ReplicationConnection,
    slot: &str,
    failover: bool,
) -> anyhow::Result<Lsn> {
    Ok(told(slot, connection.create_slot(slot, failover)).await?.consistent_point)
}

/// The same with a snapshot of what is committed at that point: its name is good for as long as the connection is idle.
pub(super) async fn create_exporting_slot(
    connection: &mut ReplicationConnection,
    slot: &str,
    failover: bool,
) -> anyhow::Result<(Lsn, String)> {
    let created = told(slot, connection.create_exporting_slot(slot, NewSlot::Permanent { failover })).await?;
    Ok((created.consistent_point, created.snapshot_name))
}

/// Says after a while what is waited for.
async fn told<T>(slot: &str, creation: impl Future<Output = Result<T, WalError>>) -> Result<T, WalError> {
    let mut creation = Box::pin(creation);
    tokio::select! {
        created = &mut creation => created,
        () = tokio::time::sleep(SLOT_CREATION_NOTE_AFTER) => {
            note(&format!("the server creates slot {slot}; waiting for running transactions to end (pg_stat_activity shows them)"));
            creation.await
        }
    }
}

/// Has a slot that is there kept through a failover, where the server can; what stands against it is only noted.
pub(super) async fn enable_failover(
    client: &Client,
    connection: &mut ReplicationConnection,
    slot: &str,
) -> anyhow::Result<Option<String>> {
    if connection.server_version() < FAILOVER_VERSION_MIN {
        return Ok(None);
    }
    let facts = source::slot(client, slot).await?;
    let Some(facts) = facts.filter(|facts| !facts.failover) else { return Ok(None) };
    if facts.active {
        note(&format!(
            "slot {slot} is not kept through a failover, which cannot be changed while it is in use: stop lakebed run, then run init again"
        ));
        return Ok(None);
    }
    match connection.enable_failover(slot).await {
        Ok(()) => Ok(Some(line(Done::Now, &format!("failover of slot {slot}")))),
        Err(error) => {
            note(&format!("slot {slot} is not kept through a failover: {error}"));
            Ok(None)
        }
    }
}

/// Removes a slot made just now, and says in a few words what became of it.
pub(super) async fn removed_again(login: &Settings, slot: &str) -> String {
    match remove_slot(login, slot).await {
        Ok(()) => "the new slot was removed again".to_owned(),
        Err(_) => format!("remove the new slot: SELECT pg_drop_replication_slot({})", quote_literal(slot)),
    }
}

async fn remove_slot(login: &Settings, slot: &str) -> anyhow::Result<()> {
    let control = connect::control(login).await?;
    control.client().execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.context("removing the slot")?;
    Ok(())
}
