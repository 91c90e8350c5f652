//! A throw-away PostgreSQL with the first customer in it: what the demo shows, the integration tests prove against and the
//! benches measure.
//!
//! Nothing here is a mock. [`Cluster`] makes a real server in a folder of its own and takes both away again, however the
//! program ends, and copies of it that stand by or were restored; [`customer`] puts the identity provider's tables into it with the real pg_partman and pg_cron;
//! [`generator`] makes its rows, the awkward ones included; [`load`] writes them the way the application does; [`tour`] is
//! the demo verb, which drives the other verbs as child processes, exactly as a person would.
//!
//! ```text
//! generator ─▶ load ─▶ Cluster (PostgreSQL) ─WAL─▶ `lakebed run` (child) ─▶ lake ─▶ `lakebed query` (child) ─▶ tour's report
//! ```
//!
//! The room owns no promise of the design; it is where the promises are put to the test.

mod cluster;
mod connection;
pub mod customer;
mod error;
pub mod generator;
pub mod load;
mod postmaster;
mod server;
mod signal;
pub mod tour;

pub use cluster::{Cluster, ClusterOptions, CopyKind};
pub use connection::Connection;
pub use error::DemoError;
pub use server::{ServerKind, TlsFiles};
