//! What keeps a process honest: owned tasks, shutdown on a signal, logging, and an allocator that keeps to the limit.
//!
//! A stage is a task with a name and an owner. [`tasks::Stages`] is the only place that spawns one, so that none can die
//! unnoticed: the first failure (a panic included) ends the pipeline with its reason. [`shutdown`] turns SIGTERM and SIGINT
//! into one request to flush, acknowledge and leave. [`fail_points`] are the named places where a test can end the process. Metrics and health move in here later.

pub mod allocator;
pub mod fail_points;
pub mod logging;
pub mod shutdown;
pub mod tasks;
