//! Which subtransactions were rolled back, asked of the server itself.

use super::SourceError;
use super::read::{field, read};
use tokio_postgres::Client;

/// Those of some transaction ids (ranges, both ends included) that were rolled back. Of a transaction whose commit the stream has told the
/// others are committed, or are just becoming so.
///
/// # Errors
/// As any statement.
pub async fn rolled_back(client: &Client, ranges: &[(u32, u32)]) -> Result<Vec<u32>, SourceError> {
    // The stream has the lower half of an id; no id that it names is older than half of what that can tell apart.
    const SQL: &str = "
        WITH asked AS (SELECT generate_series(r.first, r.last) AS xid FROM unnest($1::int8[], $2::int8[]) AS r(first, last)),
             next AS (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS xid)
        SELECT asked.xid FROM asked CROSS JOIN next
        WHERE pg_xact_status((next.xid - ((next.xid - asked.xid) & 4294967295))::text::xid8) = 'aborted'
        ORDER BY 1";
    let (first, last): (Vec<i64>, Vec<i64>) =
        ranges.iter().map(|(first, last)| (i64::from(*first), i64::from(*last))).unzip();
    let rows = read(client, "asking which subtransactions were rolled back", SQL, &[&first, &last]).await?;
    let xids = rows.iter().map(|row| field::<i64>(row, "xid")).collect::<Result<Vec<_>, _>>()?;
    Ok(xids.into_iter().filter_map(|xid| u32::try_from(xid).ok()).collect())
}
