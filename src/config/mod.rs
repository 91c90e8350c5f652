//! The pipeline file: what the operator wrote, checked once, before anything is touched.
//!
//! `raw` mirrors the TOML text (unknown keys are errors), `expand` fills `${VAR}` from the environment after parsing, so
//! that a variable's content can never become TOML, and `pipeline` is the validated form that every other room takes its
//! settings from. An error names the file, the key and the remedy, and ends the command with exit code 2. Values may hold
//! passwords: no message here repeats one.

mod cron;
mod expand;
mod pipeline;
mod raw;

pub use cron::Schedule;
pub use pipeline::{
    ArchiveSection, BufferSection, ConfigError, LakeSection, OnError, OnTruncate, Pipeline, QuerySection,
    SourceSection, StatusSection, TableSection,
};
