//! What can go wrong on the replication connection, each with its remedy.

use crate::base::{Classify, RetryClass};
use crate::connect::{ConnectError, ServerError, sqlstate};
use std::io;

/// The replication connection failed.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// 42501: the role may not replicate.
    #[error("role {user:?} may not replicate ({server}): run `lakebed init`, or ALTER ROLE … REPLICATION as superuser")]
    NoReplicationRight {
        /// The role.
        user: String,
        /// What the server said.
        server: ServerError,
    },
    /// The server does not write what logical decoding needs.
    #[error("wal_level of the server is {found:?}: set wal_level = logical and restart the server")]
    WalLevel {
        /// The setting in force.
        found: String,
    },
    /// 42704 at START_REPLICATION.
    #[error(
        "replication slot {slot:?} does not exist: create it with `lakebed init --snapshot`; if it existed before, rows since then are missing in the lake, and `lakebed repair --execute` copies them once the gap is accepted"
    )]
    SlotMissing {
        /// The slot.
        slot: String,
    },
    /// 55006: another consumer, whose PID the server names.
    #[error(
        "replication slot {slot:?} has a consumer already ({server}): stop the other `lakebed run`, or end that backend"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// What the server said, the PID among it.
        server: ServerError,
    },
    /// 42710 at CREATE_REPLICATION_SLOT.
    #[error("replication slot {slot:?} exists already: use it, or drop it with pg_drop_replication_slot first")]
    SlotExists {
        /// The slot.
        slot: String,
    },
    /// 55000 or 0A000 with wal_level in order: lost, of another database or plugin, physical.
    #[error(
        "replication slot {slot:?} cannot be used ({server}): look at pg_replication_slots (wal_status, database, plugin) with `lakebed check`"
    )]
    SlotUnusable {
        /// The slot.
        slot: String,
        /// What the server said.
        server: ServerError,
    },
    /// 53400: no slot is free.
    #[error("the server has no free replication slot ({server}): raise max_replication_slots and restart it")]
    NoFreeSlot {
        /// What the server said.
        server: ServerError,
    },
    /// 42704 while streaming: the publication is looked up with the first change, not at the start.
    #[error(
        "publication {publication:?} does not exist ({server}): create it with `lakebed init`; it must be older than the slot's position"
    )]
    PublicationMissing {
        /// The publication.
        publication: String,
        /// What the server said.
        server: ServerError,
    },
    /// The server failed inside its own decoding. One such fault passes: PostgreSQL 18 fails ("could not map filenumber") when a
    /// savepoint that rewrote a table is rolled back at the very moment at which its rows are streamed.
    #[error(
        "PostgreSQL could not decode its write-ahead log ({server}): look into the server's log; if a restart meets it again, set streaming = false in [source]"
    )]
    NotDecoded {
        /// What the server said.
        server: ServerError,
    },
    /// Any other error of the server.
    #[error("PostgreSQL stopped {during} ({server}): look into the server's log")]
    Server {
        /// What was being done.
        during: &'static str,
        /// What the server said.
        server: ServerError,
    },
    /// The socket broke.
    #[error(
        "the replication connection to {endpoint} broke ({source}): start lakebed again, nothing unacknowledged is lost"
    )]
    Io {
        /// Where.
        endpoint: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server closed the socket without a word.
    #[error("PostgreSQL at {endpoint} closed the replication connection: look at the server's log")]
    Closed {
        /// Where.
        endpoint: String,
    },
    /// Nothing came for the whole of `receive_timeout`, though an answer was asked for.
    #[error("PostgreSQL at {endpoint} was silent for {seconds} s: look at the network and the server")]
    Silent {
        /// Where.
        endpoint: String,
        /// The limit.
        seconds: u64,
    },
    /// The bytes break the protocol.
    #[error(
        "{endpoint} broke the replication protocol ({what}): look for a proxy between lakebed and PostgreSQL, or report a bug"
    )]
    Protocol {
        /// Where.
        endpoint: String,
        /// The broken rule.
        what: String,
    },
    /// The stream ended with an error that was reported before.
    #[error("the replication stream has ended: open a new one")]
    Ended,
}

impl WalError {
    /// The error of a command on `slot`, by SQLSTATE.
    pub(super) fn from_slot_command(server: ServerError, slot: &str, user: &str, during: &'static str) -> Self {
        let slot = slot.to_owned();
        match server.sqlstate.as_str() {
            sqlstate::INSUFFICIENT_PRIVILEGE => Self::NoReplicationRight { user: user.to_owned(), server },
            sqlstate::UNDEFINED_OBJECT => Self::SlotMissing { slot },
            sqlstate::DUPLICATE_OBJECT => Self::SlotExists { slot },
            sqlstate::OBJECT_IN_USE => Self::SlotInUse { slot, server },
            sqlstate::WRONG_STATE | sqlstate::NOT_SUPPORTED => Self::SlotUnusable { slot, server },
            sqlstate::CONFIGURATION_LIMIT => Self::NoFreeSlot { server },
            _ => Self::Server { during, server },
        }
    }

    /// An error that arrives between rows.
    pub(super) fn from_stream(server: ServerError, publication: &str) -> Self {
        if server.is(sqlstate::UNDEFINED_OBJECT) {
            Self::PublicationMissing { publication: publication.to_owned(), server }
        } else if server.is(sqlstate::INTERNAL_ERROR) {
            Self::NotDecoded { server }
        } else {
            Self::Server { during: "the replication stream", server }
        }
    }

    pub(super) fn io(source: io::Error, endpoint: &str) -> Self {
        Self::Io { endpoint: endpoint.to_owned(), source }
    }

    pub(super) fn protocol(what: impl Into<String>, endpoint: &str) -> Self {
        Self::Protocol { endpoint: endpoint.to_owned(), what: what.into() }
    }
}

impl Classify for WalError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Connect(error) => error.retry_class(),
            Self::Server { server, .. } => server.retry_class(),
            Self::Io { .. } | Self::Closed { .. } | Self::Silent { .. } => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}
