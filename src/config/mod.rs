//! The pipeline file: what the operator wrote, checked once, before anything is touched.
//!
//! `raw` mirrors the TOML text (unknown keys are errors), `expand` fills `${VAR}` from the environment after parsing, so
//! that a variable's content can never become TOML, and `pipeline` is the validated form (its `sections`) that every other
//! room takes its settings from. An error names the file, the key and the remedy, and ends the command with exit code 2. Values may hold
//! passwords: no message here repeats one.

mod cron;
mod expand;
mod pipeline;
mod raw;
mod sections;

pub use cron::Schedule;
pub use pipeline::{ConfigError, Pipeline};
pub use sections::{
    ArchiveSection, BufferSection, LakeSection, OnError, OnTruncate, QuerySection, SnapshotSection, SourceSection,
    StatusSection, TableSection,
};
