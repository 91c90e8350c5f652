//! What a table holds, from its log alone, and a handle for queries.

use super::error::LakeError;
use super::location::{LakeLocation, shown};
use deltalake::DeltaTable;
use std::collections::BTreeMap;

/// One partition of a table as its log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaySummary {
    /// Partition column and value, outermost first: year, month and, for a table of days, day.
    pub partition: Vec<(String, String)>,
    /// Rows; None when some file's statistics do not say.
    pub rows: Option<u64>,
    /// Active files.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// Opens a table at its newest version for reading.
///
/// # Errors
/// [`LakeError::Missing`] when there is none, and what the store says.
pub async fn open_for_query(location: &LakeLocation, path: &str) -> Result<DeltaTable, LakeError> {
    let url = location.table_url(path)?;
    let open = async || {
        let loading = Box::pin(location.builder_at(&url)?.load());
        loading.await.map_err(|error| LakeError::delta("open", &shown(&url), error))
    };
    if let Ok(table) = open().await {
        return Ok(table);
    }
    // The library says "no table" with several errors, so the log's folder is asked; and a table that was made while it looked is there the
    // second time.
    match location.log_store_at(&url)?.is_delta_table_location().await {
        Ok(false) => Err(LakeError::Missing { location: shown(&url) }),
        _ => open().await,
    }
}

/// Every partition of a table, oldest first, without opening a data file.
///
/// # Errors
/// As [`open_for_query`].
pub async fn table_days(location: &LakeLocation, path: &str) -> Result<Vec<DaySummary>, LakeError> {
    let table = open_for_query(location, path).await?;
    let name = shown(table.table_url());
    let summed = tokio::task::spawn_blocking(move || sum_days(&table)).await;
    summed
        .map_err(|error| LakeError::Log { location: name.clone(), reason: error.to_string() })?
        .map_err(|error| LakeError::delta("read the Delta log of", &name, error))
}

fn sum_days(table: &DeltaTable) -> Result<Vec<DaySummary>, deltalake::DeltaTableError> {
    let state = table.snapshot()?;
    let columns = state.metadata().partition_columns();
    let mut days: BTreeMap<Vec<String>, DaySummary> = BTreeMap::new();
    for file in state.log_data().iter() {
        let values = file.partition_values_map();
        let key: Vec<String> =
            columns.iter().map(|column| values.get(column).cloned().flatten().unwrap_or_default()).collect();
        let day = days.entry(key).or_insert_with_key(|key| DaySummary {
            partition: columns.iter().cloned().zip(key.iter().cloned()).collect(),
            rows: Some(0),
            files: 0,
            bytes: 0,
        });
        let rows = file.num_records().and_then(|rows| u64::try_from(rows).ok());
        day.rows = day.rows.zip(rows).map(|(sum, rows)| sum + rows);
        day.files += 1;
        day.bytes += u64::try_from(file.size()).unwrap_or(0);
    }
    Ok(days.into_values().collect())
}
