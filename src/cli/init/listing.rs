//! Which days of the tables that begin hold rows already, in their leaves, the default partition or the archive: those are copied, and all
//! others are made by the stream alone.

use super::note;
use crate::base::{DaySet, TableName};
use crate::connect::{self, Settings};
use crate::pipeline::archived_of;
use crate::reconcile;
use crate::snapshot::{self, SourceTable};
use crate::source::{self, TableFacts};
use anyhow::Context;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// The days of each table that are to be copied.
pub(super) type Marks = BTreeMap<TableName, DaySet>;

/// How often it is asked whether older transactions have ended, and when it is said what is waited for.
const POLL: Duration = Duration::from_millis(200);
const NOTE_AFTER: Duration = Duration::from_secs(3);

/// What an exported snapshot shows, on a session of the pipeline's own login.
pub(super) async fn under(
    login: &Settings,
    archive: &str,
    snapshot: &str,
    tables: &[&TableFacts],
) -> anyhow::Result<Marks> {
    let control = connect::control(login).await?;
    source::prepare_session(control.client()).await?;
    source::begin_under(control.client(), snapshot).await?;
    let marks = list((control.client(), login), archive, tables).await?;
    source::end_reading(control.client()).await?;
    Ok(marks)
}

/// What is committed now, likewise. The publication sends the tables already.
pub(super) async fn now(login: &Settings, archive: &str, tables: &[&TableFacts]) -> anyhow::Result<Marks> {
    let control = connect::control(login).await?;
    source::prepare_session(control.client()).await?;
    source::begin_now(control.client()).await?;
    let marks = list((control.client(), login), archive, tables).await?;
    source::end_reading(control.client()).await?;
    Ok(marks)
}

/// Waits for every transaction that writes and began before now. What it wrote before the publication sent the table is never sent, so
/// it has to be seen by the listing.
pub(super) async fn wait_for_older_writers(client: &Client) -> anyhow::Result<()> {
    let (next, begun) = (source::next_transaction(client).await?, Instant::now());
    let mut is_told = false;
    while source::oldest_transaction(client).await? < next {
        if !is_told && begun.elapsed() > NOTE_AFTER {
            is_told = true;
            note(
                "waiting for transactions to end that began before the publication sent every table (pg_stat_activity shows them)",
            );
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn list((client, login): (&Client, &Settings), archive: &str, tables: &[&TableFacts]) -> anyhow::Result<Marks> {
    let mut marks = Marks::new();
    for facts in tables {
        let table = &facts.shape.table;
        let found = reconcile::find(client, archive, facts).await?;
        for left in found.left_alone.iter().filter(|left| left.is_partition) {
            note(&format!("{} is not copied: {}", left.table, left.reason));
        }
        let archived = archived_of(&found.candidates);
        let source_table = SourceTable { facts: (*facts).clone(), archived };
        let days = snapshot::days_with_rows(client, login, &source_table).await;
        let days = days.with_context(|| format!("listing {table}"))?;
        let days = if !days.is_empty() && !facts.shape.changes_name_their_day() {
            DaySet::whole()
        } else {
            days.into_keys().collect()
        };
        marks.insert(table.clone(), days);
    }
    Ok(marks)
}
