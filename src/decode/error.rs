//! What can be wrong with a frame.

use crate::base::{Classify, RetryClass};

/// A frame is not a message of the protocol. Every rule names the message and, where there is one, the field; no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame has no bytes.
    #[error("the server sent an empty replication message; report this with the server's version")]
    Empty,
    /// The first byte names no message of protocol 1 to 4.
    #[error(
        "the server sent an unknown replication message (tag 0x{tag:02X}); use a supported server, PostgreSQL 14 to 18"
    )]
    UnknownMessage {
        /// The first byte.
        tag: u8,
    },
    /// The frame ends inside a field.
    #[error("the server's {message} message ends inside its {field}; report this with the server's version")]
    Truncated {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// The frame goes on after the message's last field.
    #[error("the server's {message} message has {count} bytes too many; report this with the server's version")]
    TrailingBytes {
        /// Name of the message.
        message: &'static str,
        /// How many.
        count: usize,
    },
    /// A name is not UTF-8, which the connection asks for.
    #[error(
        "the server's {message} message has a {field} that is not UTF-8; the connection needs client_encoding UTF8"
    )]
    NotUtf8 {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A count or length is below zero.
    #[error("the server's {message} message has a negative {field}; report this with the server's version")]
    NegativeCount {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A one-byte kind that the protocol does not list.
    #[error(
        "the server's {message} message has an unknown {field} (0x{tag:02X}); use a supported server, PostgreSQL 14 to 18"
    )]
    UnknownTag {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
        /// The byte.
        tag: u8,
    },
    /// A flag bit that the protocol does not list: its meaning might change what the row means.
    #[error(
        "the server's {message} message has unknown flags (0x{flags:02X}); use a supported server, PostgreSQL 14 to 18"
    )]
    UnknownFlags {
        /// Name of the message.
        message: &'static str,
        /// The byte.
        flags: u8,
    },
    /// A point in time does not fit 64 bits of microseconds since 1970.
    #[error("the server's {message} message has a time out of range; report this with the server's version")]
    TimeOutOfRange {
        /// Name of the message.
        message: &'static str,
    },
}

impl Classify for DecodeError {
    /// The server sends the same bytes again, so always definite.
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}
