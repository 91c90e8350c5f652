//! PostgreSQL's write-ahead log as a stream of whole frames, with an answer to the server that nothing can hold up.
//!
//! tokio-postgres has no replication mode, so the connection is ours, on postgres-protocol's codec: startup and
//! authentication, the few commands that lakebed needs, and one task that owns the socket while WAL flows.
//!
//! ```text
//! socket ─▶ Intake: cut whole CopyData ─▶ WalBatch ─▶ channel bounded in bytes ─▶ ReplicationStream::next
//!   ▲          (one task: reads, its own feedback timer, the half-dead peer's clock)
//!   └── status update ◀── Feedback::acknowledge(LSN) ◀── whoever made the data durable
//! ```
//!
//! Promises owned here:
//! - **W3** Keepalives are answered on time whatever the lake is doing: when the channel is full the socket is not read, but
//!   the same task goes on sending status updates on its timer. A walsender counts any message of ours as life.
//! - The mechanical half of **W1**: the flushed position sent is exactly what was acknowledged, never goes backwards, and
//!   written = flushed = applied, so that nobody can take "received" for "durable". What may be acknowledged is the
//!   pipeline's decision, which sees keepalives in order with the data.
//! - The mechanical half of **W2**: a slot is created by [`ReplicationConnection::create_slot`] or
//!   [`ReplicationConnection::create_exporting_slot`] and nothing else; a missing,
//!   busy or lost slot is a definite error that names the remedy. [`ReplicationConnection::timeline_history`] tells where a
//!   promoted or restored server left what it wrote before; whether it may be followed is the pipeline's decision.
//! - Malformed frames are errors: no panic, and no allocation that the received bytes do not justify.

mod authentication;
mod budget;
mod command;
mod connection;
mod error;
mod feedback;
mod frame;
mod intake;
mod pace;
#[cfg(test)]
pub(crate) mod remedy_test;
mod session;
mod setting;
mod startup;
mod stream;
mod stream_task;
mod timeline;

pub use budget::WalBatch;
pub use connection::{CreatedSlot, ExportedSlot, FAILOVER_VERSION_MIN, NewSlot, ReplicationConnection, SystemIdentity};
pub use error::WalError;
pub use feedback::Feedback;
pub use frame::WalFrame;
pub use stream::{ReplicationStream, StreamOptions};
pub use timeline::TimelineSwitch;
