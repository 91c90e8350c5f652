//! lakebed follows PostgreSQL's write-ahead log into date-partitioned Delta Lake tables, and answers SQL over them.
//!
//! The rooms, in the data's order: [`wal`] → [`decode`] → [`buffer`] → [`lake`], read back by [`query`]. [`source`] is the
//! control plane, [`snapshot`] copies what exists already, [`pipeline`] the only place where stages meet, [`cli`] one file a verb. `ARCHITECTURE.md` has the map, the
//! promises and the permitted edges; `tests/` holds both to it.

pub mod base;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod connect;
pub mod decode;
pub mod demo;
pub mod lake;
pub mod ops;
pub mod pipeline;
pub mod query;
pub mod reconcile;
pub mod snapshot;
pub mod source;
pub mod wal;
