//! Every error before a session stands, with its remedy.

use super::{ConnectError, ServerError, Settings, SettingsError};
use crate::base::remedies::{CANARY, Case, assert_line, assert_remedies, every_variant};
use std::io;

fn endpoint() -> String {
    "db.example:5432".to_owned()
}

/// What a server sends: a primary message over lines, and a DETAIL with contents.
pub(crate) fn server_error(sqlstate: &str) -> ServerError {
    ServerError::from_fields(format!("SFATAL\0C{sqlstate}\0Mit\nsays no\0D{CANARY}\0\0").as_bytes())
}

pub(crate) fn every_setting() -> Vec<Case<SettingsError>> {
    let unreadable = io::Error::from(io::ErrorKind::PermissionDenied);
    every_variant!(SettingsError {
        Definite ["connection URL", "write postgresql://USER@HOST:PORT/DATABASE"] NotAUrl;
        Definite ["connection URL", "a stray %", "percent-encode it or correct it"] Malformed { what: "a stray %" };
        Definite ["\"sslmood\" in the URL", "remove it"] UnknownParameter { name: "sslmood".to_owned(), place: "the URL" };
        Definite ["sslmode cannot be \"maybe\"", "use prefer or require"]
            BadValue { name: "sslmode", value: "maybe".to_owned(), allowed: "prefer or require" };
        Definite ["\"idp\"", "add it to ~/.pg_service.conf or correct PGSERVICE"] UnknownService { service: "idp".to_owned() };
        Definite ["/etc/pg_service.conf:7", "correct the line"]
            ServiceSyntax { path: "/etc/pg_service.conf".to_owned(), line: 7 };
        Definite ["/etc/key", "permission denied", "correct the path or its permissions"]
            Unreadable { path: "/etc/key".to_owned(), reason: unreadable };
        Definite ["no role", "write it into the URL (postgresql://USER@…) or set PGUSER"] NoUser;
    })
}

pub(crate) fn every() -> Vec<Case<ConnectError>> {
    let user = || "archivist".to_owned();
    let reason = || "it says no".to_owned();
    every_variant!(ConnectError {
        Transient ["db.example:5432", "it says no", "start the server or correct [source].url"]
            Unreachable { endpoint: endpoint(), reason: reason() };
        Transient ["db.example:5432", "within 9 s", "raise connect_timeout"] TimedOut { endpoint: endpoint(), seconds: 9 };
        Transient ["db.example:5432", "it says no", "look at the server's log"] Lost { endpoint: endpoint(), reason: reason() };
        Definite ["db.example:5432", "turn ssl on in the server, or set sslmode=prefer"] TlsRefused { endpoint: endpoint() };
        Definite ["db.example:5432", "it says no", "give it another"]
            Certificate { endpoint: endpoint(), reason: reason(), remedy: "give it another" };
        Definite ["sslkey /etc/key", "it says no", "correct the path, the file or its permissions"]
            TlsFile { parameter: "sslkey", path: "/etc/key".to_owned(), reason: reason() };
        Definite ["db.example:5432", "\"archivist\"", "put it into the URL, PGPASSWORD or ~/.pgpass"]
            PasswordMissing { endpoint: endpoint(), user: user() };
        Definite ["db.example:5432", "\"archivist\"", "correct it in the URL, PGPASSWORD or ~/.pgpass", "run `lakebed init`"]
            PasswordRefused { endpoint: endpoint(), user: user() };
        Definite ["db.example:5432", "\"archivist\"", "SQLSTATE 28000", "create the role, or allow it in pg_hba.conf and reload"]
            RoleRefused { endpoint: endpoint(), user: user(), server: server_error("28000") };
        Definite ["db.example:5432", "\"idp\"", "create it or correct [source].url"]
            DatabaseMissing { endpoint: endpoint(), database: "idp".to_owned() };
        Definite ["db.example:5432", "it says no"] Authentication { endpoint: endpoint(), reason: reason() };
        Definite ["db.example:5432", "it says no (SQLSTATE 42501)", "look into the server's log"]
            Server { endpoint: endpoint(), server: server_error("42501") };
        Definite ["db.example:5432", "it says no", "correct host and port in [source].url"]
            Protocol { endpoint: endpoint(), what: reason() };
    })
}

#[test]
fn every_setting_and_every_refused_session_names_a_remedy() {
    assert_remedies(&every_setting());
    assert_remedies(&every());
}

#[test]
fn whatever_ends_an_authentication_has_a_remedy() {
    for (error, remedy) in [
        (
            ConnectError::failed_exchange(endpoint(), "it says no"),
            "correct the password, or look into the server's log",
        ),
        (ConnectError::without_channel_binding(endpoint()), "use sslmode=require or stronger and scram-sha-256"),
    ] {
        assert_line(&error.to_string(), &["db.example:5432", remedy]);
    }
}

#[test]
fn every_fault_of_tls_has_a_remedy() {
    use rustls::{AlertDescription, CertificateError, Error};
    for (fault, remedy) in [
        (Error::InvalidCertificate(CertificateError::NotValidForName), "or use sslmode=verify-ca"),
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), "point sslrootcert at the authority"),
        (
            Error::AlertReceived(AlertDescription::CertificateRequired),
            "client certificate that it accepts (sslcert, sslkey)",
        ),
        (Error::DecryptError, "look at ssl settings of the server and sslmode of the URL"),
    ] {
        assert_line(&ConnectError::from_tls(&fault, endpoint()).to_string(), &["db.example:5432", remedy]);
    }
}

#[test]
fn no_url_that_is_refused_shows_its_password() {
    for url in [
        "mysql://user:PASSWORD@host/db",
        "postgresql://user:PASSWORD@host/%zz",
        "postgresql://user:PASSWORD%@host/db",
        "postgresql://user:PASSWORD@host:port/db",
        "postgresql://user:PASSWORD@host/db?sslmode=maybe",
        "postgresql://user:PASSWORD@host/db?sslmood=require",
        "postgresql://user@host/db?password=PASSWORD&connect_timeout=soon",
    ] {
        let error = Settings::from_url(&url.replace("PASSWORD", CANARY)).unwrap_err();
        assert_line(&error.to_string(), &[": "]);
        assert!(!format!("{error:?}").contains(CANARY));
    }
}
