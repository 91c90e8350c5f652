//! What `init` leaves in the lake about the slot: the first acknowledgement record, and a finding about every gap that was accepted.

use crate::base::{Lsn, TableShape};
use crate::lake::{
    Acknowledgement, Acknowledgements, Finding, FindingKind, LakeLocation, Patience, Progress, record_finding,
    record_gap,
};
use crate::pipeline::{Lineage, TableMark, judge};
use crate::wal::ReplicationConnection;
use chrono::Utc;
use std::collections::BTreeMap;
use std::ops::Range;

/// The newest record of the slot, if there is one.
pub(super) async fn newest(location: &LakeLocation, slot: &str) -> anyhow::Result<Option<Acknowledgement>> {
    Ok(Acknowledgements::open(location, slot).await?.1)
}

/// A gap can be accepted; another system, a server behind the lake or a timeline that left it cannot: then the lake holds what this
/// server never wrote.
pub(super) async fn refuse_other_lineage(
    connection: &mut ReplicationConnection,
    slot: &str,
    record: Option<&Acknowledgement>,
    tables: &[TableMark],
) -> anyhow::Result<()> {
    let Some(record) = record else { return Ok(()) };
    let server = Lineage::read(connection).await?;
    // Without positions of its own nothing of slot and tables is judged here.
    let lineage_only = Acknowledgement { tables: BTreeMap::new(), ..record.clone() };
    judge(&server, (slot, Lsn::ZERO), Some(&lineage_only.into()), tables)?;
    Ok(())
}

/// Writes the record from which `run` goes on.
pub(super) async fn write(location: &LakeLocation, slot: &str, record: &Acknowledgement) -> anyhow::Result<()> {
    let (mut records, _) = Acknowledgements::open(location, slot).await?;
    Ok(records.write(record, &Patience::none()).await?)
}

/// What is missing, for whoever asks years later.
pub(super) async fn accept_gap(location: &LakeLocation, slot: &str, at: Lsn, missing: String) -> anyhow::Result<()> {
    let finding = Finding {
        kind: FindingKind::Gap,
        table: None,
        lsn: at,
        reason: format!("accepted with init --from-now: {missing}"),
        recorded_at: Utc::now(),
        recorded_by: "lakebed init".to_owned(),
    };
    Ok(record_finding(location, slot, &finding, &Patience::none()).await?)
}

/// The same for one table, where its changes are looked for. An `init` that is run again finds it.
pub(super) async fn journal_gap(
    location: &LakeLocation,
    path: &str,
    table: (&TableShape, &Progress),
    gap: Range<Lsn>,
) -> anyhow::Result<()> {
    record_gap(location, path, table, gap, Utc::now(), &Patience::none()).await?;
    Ok(())
}
