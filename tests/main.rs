//! One integration binary: linking it is the expensive part, so every test of the whole is a module here.

// Helpers of a test may fail as a test does; clippy's allowance ends at the #[test] functions themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod archive;
mod changes;
mod connection;
mod control;
mod copy;
mod crashes;
mod equality;
mod faults;
mod foreign;
mod house;
mod lineage;
mod mixed;
mod old_images;
mod parking;
mod refusals;
mod remedies;
mod restart;
mod schema;
mod streams;
mod supervision;
mod support;
mod values;
mod verbs;
