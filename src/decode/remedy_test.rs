//! Every way in which a frame can be no message, with its remedy.

use super::DecodeError;
use crate::base::remedies::{Case, assert_remedies, every_variant};

pub(crate) fn every() -> Vec<Case<DecodeError>> {
    let (message, field) = ("Relation", "column name");
    every_variant!(DecodeError {
        Definite ["empty replication message", "report this with the server's version"] Empty;
        Definite ["0x7A", "use a supported server, PostgreSQL 14 to 18"] UnknownMessage { tag: b'z' };
        Definite ["Relation", "column name", "report this with the server's version"] Truncated { message, field };
        Definite ["Relation", "3 bytes too many", "report this with the server's version"] TrailingBytes { message, count: 3 };
        Definite ["Relation", "column name", "the connection needs client_encoding UTF8"] NotUtf8 { message, field };
        Definite ["Relation", "column name", "report this with the server's version"] NegativeCount { message, field };
        Definite ["Relation", "0x09", "use a supported server, PostgreSQL 14 to 18"] UnknownTag { message, field, tag: 9 };
        Definite ["Relation", "0x09", "use a supported server, PostgreSQL 14 to 18"] UnknownFlags { message, flags: 9 };
        Definite ["Relation", "time out of range", "report this with the server's version"] TimeOutOfRange { message };
    })
}

#[test]
fn every_broken_frame_names_the_message_and_a_remedy() {
    assert_remedies(&every());
}
