//! A stretch of the WAL that was not followed, said where the table's changes are looked for.
//!
//! One entry `gap` in the journal, whose commit LSN is the stretch's end: what changed in it is not in the lake. It lies in the
//! partition of the day on which it was recorded, because no row dates it. Why it was accepted is in the finding.

use super::error::LakeError;
use super::journal::JournalPlace;
use super::journal_rows::gap_row;
use super::location::LakeLocation;
use super::patience::Patience;
use super::progress::Progress;
use super::writer::{TableWriter, WriterOptions};
use crate::base::{Lsn, TableShape};
use crate::buffer::PartitionBatch;
use chrono::{DateTime, Utc};
use std::ops::Range;

/// Records that the changes of a table in `gap` were not followed. The same stretch again changes nothing: its commit carries an
/// application id of its own. The journal's recorded position stays where it is, so what is sent from within the stretch
/// all the same is not taken for known. Returns whether anything was written.
///
/// # Errors
/// As [`LakeTable::create`](super::LakeTable::create) and [`LakeTable::land`](super::LakeTable::land).
pub async fn record_gap(
    location: &LakeLocation,
    path: &str,
    (shape, progress): (&TableShape, &Progress),
    gap: Range<Lsn>,
    recorded_at: DateTime<Utc>,
    patience: &Patience,
) -> Result<bool, LakeError> {
    if gap.is_empty() {
        return Ok(false);
    }
    let place = JournalPlace::beside_shape((location.clone(), path), shape, progress, gap.start)?;
    let mut table = place.open(patience).await?;
    let token = table.rules.progress.gap_app_id(&gap);
    if table.holds(&token, &mut patience.begin()).await? {
        table.close().await;
        return Ok(false);
    }
    // A process that follows the table meanwhile takes files of its own application id for those of a dead predecessor.
    let mut writer = TableWriter::under(token.clone(), &table, WriterOptions::default(), patience.clone())?;
    let rows = gap_row(&table.schema.arrow, gap.end, recorded_at.timestamp_micros());
    let rows = rows.map_err(|reason| LakeError::Batch { location: table.location().to_owned(), reason })?;
    let partition = shape.partition_by.partition_of(recorded_at.date_naive());
    writer.write(PartitionBatch { partition, rows, xids: None, eras: None }).await?;
    let files = writer.finish().await?;
    let written = table.land_once(&files, (&token, gap.end), patience).await?;
    if written {
        writer.committed(&table).await;
    }
    writer.discard().await?;
    table.close().await;
    Ok(written)
}
