//! Whether `run` would follow: the same question that it asks, for the verbs that only look.

use crate::base::Lsn;
use crate::connect::Settings;
use crate::lake::{Acknowledgements, LakeLocation};
use crate::pipeline::{Lineage, TableMark, judge};
use crate::source::SlotFacts;
use crate::wal::ReplicationConnection;

/// Why the stream may not be followed into these tables, if it may not; the error is why that could not be found out. `slot` was
/// read before this is called, so that a pipeline that runs meanwhile has recorded what it shows.
pub(super) async fn refusal(
    settings: &Settings,
    location: &LakeLocation,
    slot: &SlotFacts,
    tables: &[TableMark],
) -> anyhow::Result<Option<String>> {
    let (_, record) = Acknowledgements::open(location, &slot.name).await?;
    let mut connection = ReplicationConnection::open(settings).await?;
    let server = Lineage::read(&mut connection).await?;
    let confirmed = slot.confirmed.unwrap_or(Lsn::ZERO);
    let judged = judge(&server, (&slot.name, confirmed), record.map(Into::into).as_ref(), tables);
    Ok(judged.err().map(|error| error.to_string()))
}
