//! Small nouns that every room shares: a position in the WAL, a day of events, a table's shape, and whether an error may
//! be retried.
//!
//! Nothing here does IO, reads a clock or knows a room. A type earns its place when two rooms that may not see each other
//! must agree on it; everything else lives where it is used.

mod backoff;
mod column;
mod day_set;
mod lsn;
mod marker;
mod partition;
#[cfg(test)]
pub(crate) mod remedies;
mod retry;
mod table;
mod xids;

pub use backoff::Backoff;
pub use column::{ColumnType, SourceColumn};
pub use day_set::DaySet;
pub use lsn::{Lsn, ParseLsnError};
pub use marker::{COPY_MARKER, MARKER_PREFIX, RECONCILE_MARKER};
pub use partition::{ParsePartitionError, Partition, PartitionBy};
pub use retry::{Classify, RetryClass};
pub use table::{ParseTableNameError, TableName, TableShape};
pub use xids::{Runs, XidSet};
