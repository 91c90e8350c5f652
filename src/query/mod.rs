//! Answers SQL over the lake, for people who write Athena-style queries.
//!
//! A script's way: [`parse`] cuts the text into statements and lets only those through that read ([`ReadStatement`] can be
//! made nowhere else); [`QueryEngine`] plans and runs each one with DataFusion over the lake's Delta tables; the rows
//! stream through a short bounded channel into a [`output::ResultWriter`] on a thread that may block ([`run_script`]).
//!
//! The room owns:
//! - **Q1**, read-only, on one snapshot a statement. Statements are judged twice, as written and as planned. All statements
//!   of one engine see the snapshot of the moment it was opened, so that several answers of one invocation fit each other.
//! - **Q2**, a time predicate, on the partition column or on year/month/day, reads no other day's files. Delta's statistics
//!   are rounded outward to milliseconds, so a day whose last event is at 23:59:59.999999 would look as if it reached into
//!   the next; `days` therefore turns bounds on the partition column into bounds on the partition folders.
//!
//! Nothing here needs PostgreSQL, or the right to write to the lake.

mod condition;
mod days;
mod engine;
mod error;
pub mod output;
mod read_only;
mod script;
mod session;
mod table;

pub use condition::RowCondition;
pub use engine::{QueryEngine, QueryOptions, QueryTable};
pub use error::QueryError;
pub use read_only::{ReadStatement, parse};
pub use script::run_script;

#[cfg(test)]
mod tests;
