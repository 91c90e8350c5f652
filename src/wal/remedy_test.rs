//! Every error of the replication connection, with its remedy.

use super::WalError;
use crate::base::RetryClass;
use crate::base::remedies::{Case, assert_line, assert_remedies, every_variant};
use crate::connect::ConnectError;
use crate::connect::remedy_test::server_error;
use std::io;

pub(crate) fn every() -> Vec<Case<WalError>> {
    let endpoint = || "db.example:5432".to_owned();
    let slot = || "idp".to_owned();
    let cut = io::Error::from(io::ErrorKind::ConnectionReset);
    every_variant!(WalError {
        Definite ["db.example:5432", "turn ssl on in the server"] Connect(ConnectError::TlsRefused { endpoint: endpoint() });
        Definite ["\"archivist\"", "SQLSTATE 42501", "run `lakebed init`, or ALTER ROLE … REPLICATION as superuser"]
            NoReplicationRight { user: "archivist".to_owned(), server: server_error("42501") };
        Definite ["\"replica\"", "set wal_level = logical and restart the server"] WalLevel { found: "replica".to_owned() };
        Definite ["slot \"idp\" does not exist", "create it with `lakebed init --snapshot`"] SlotMissing { slot: slot() };
        Definite ["slot \"idp\"", "SQLSTATE 55006", "stop the other `lakebed run`, or end that backend"]
            SlotInUse { slot: slot(), server: server_error("55006") };
        Definite ["slot \"idp\" exists already", "drop it with pg_drop_replication_slot first"] SlotExists { slot: slot() };
        Definite ["slot \"idp\"", "SQLSTATE 55000", "look at pg_replication_slots", "`lakebed check`"]
            SlotUnusable { slot: slot(), server: server_error("55000") };
        Definite ["SQLSTATE 53400", "raise max_replication_slots and restart it"] NoFreeSlot { server: server_error("53400") };
        Definite ["publication \"idp\" does not exist", "create it with `lakebed init`"]
            PublicationMissing { publication: slot(), server: server_error("42704") };
        Definite ["decode", "SQLSTATE XX000", "look into the server's log", "set streaming = false in [source]"]
            NotDecoded { server: server_error("XX000") };
        Definite ["IDENTIFY_SYSTEM", "it says no (SQLSTATE 42601)", "look into the server's log"]
            Server { during: "IDENTIFY_SYSTEM", server: server_error("42601") };
        Transient ["db.example:5432", "start lakebed again, nothing unacknowledged is lost"]
            Io { endpoint: endpoint(), source: cut };
        Transient ["db.example:5432", "look at the server's log"] Closed { endpoint: endpoint() };
        Transient ["db.example:5432", "silent for 9 s", "look at the network and the server"]
            Silent { endpoint: endpoint(), seconds: 9 };
        Definite ["db.example:5432", "a short frame", "look for a proxy between lakebed and PostgreSQL, or report a bug"]
            Protocol { endpoint: endpoint(), what: "a short frame".to_owned() };
        Definite ["the replication stream has ended", "open a new one"] Ended;
    })
}

#[test]
fn every_error_of_the_replication_connection_names_a_remedy() {
    assert_remedies(&every());
}

/// What a server says to a command on a slot, by its code.
#[test]
fn every_refused_command_on_a_slot_names_a_remedy() {
    let cases: [(&str, RetryClass, &[&str]); 9] = [
        ("42501", RetryClass::Definite, &["archivist", "run `lakebed init`"]),
        ("42704", RetryClass::Definite, &["idp", "create it with `lakebed init"]),
        ("42710", RetryClass::Definite, &["idp", "pg_drop_replication_slot"]),
        ("55006", RetryClass::Definite, &["idp", "stop the other `lakebed run`"]),
        ("55000", RetryClass::Definite, &["idp", "`lakebed check`"]),
        ("0A000", RetryClass::Definite, &["idp", "`lakebed check`"]),
        ("53400", RetryClass::Definite, &["raise max_replication_slots"]),
        ("XX000", RetryClass::Definite, &["look into the server's log"]),
        ("57P01", RetryClass::Transient, &["look into the server's log"]),
    ];
    for (code, class, words) in cases {
        let error = WalError::from_slot_command(server_error(code), "idp", "archivist", "START_REPLICATION");
        assert_eq!(crate::base::Classify::retry_class(&error), class, "{error}");
        assert_line(&error.to_string(), words);
    }
}

/// What ends the stream between rows, by its code.
#[test]
fn every_end_of_the_stream_names_a_remedy() {
    let cases: [(&str, &[&str]); 3] = [
        ("42704", &["publication \"idp\" does not exist"]),
        ("XX000", &["could not decode its write-ahead log"]),
        ("57P01", &["stopped the replication stream"]),
    ];
    for (code, words) in cases {
        assert_line(&WalError::from_stream(server_error(code), "idp").to_string(), words);
    }
}
