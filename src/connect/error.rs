//! What can go wrong before a session stands, each with its remedy.

use super::server_error::{ServerError, sqlstate};
use crate::base::{Classify, RetryClass};
use std::io;

/// A connection setting is wrong; always definite.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not a connection URI.
    #[error("the connection URL does not start with postgresql://: write postgresql://USER@HOST:PORT/DATABASE")]
    NotAUrl,
    /// A part of the URL breaks libpq's rules.
    #[error("the connection URL holds {what}: percent-encode it or correct it")]
    Malformed {
        /// The rule that is broken.
        what: &'static str,
    },
    /// A parameter that is not known or cannot be honoured.
    #[error("connection parameter {name:?} in {place} is not supported: remove it")]
    UnknownParameter {
        /// The parameter.
        name: String,
        /// The URL or the service file.
        place: &'static str,
    },
    /// A known parameter with a value outside its domain.
    #[error("connection parameter {name} cannot be {value:?}: use {allowed}")]
    BadValue {
        /// The parameter.
        name: &'static str,
        /// Its value; never a password.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// `service=` names nothing.
    #[error("service {service:?} stands in no pg_service.conf: add it to ~/.pg_service.conf or correct PGSERVICE")]
    UnknownService {
        /// The name.
        service: String,
    },
    /// A line of the service file is not `name=value`.
    #[error("{path}:{line} is not name=value: correct the line")]
    ServiceSyntax {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// A file that was named cannot be read.
    #[error("cannot read {path} ({reason}): correct the path or its permissions")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's reason.
        reason: io::Error,
    },
    /// Neither the settings nor the operating system name a role.
    #[error("no role to connect as: write it into the URL (postgresql://USER@…) or set PGUSER")]
    NoUser,
}

impl Classify for SettingsError {
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}

/// No session could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name resolution or the connection itself failed.
    #[error("cannot reach PostgreSQL at {endpoint} ({reason}): start the server or correct [source].url")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// The system's reason.
        reason: String,
    },
    /// `connect_timeout` ran out.
    #[error(
        "PostgreSQL at {endpoint} did not answer within {seconds} s: look at the network and the server's load, or raise connect_timeout"
    )]
    TimedOut {
        /// Where.
        endpoint: String,
        /// The limit.
        seconds: u64,
    },
    /// The connection broke before the session stood.
    #[error("PostgreSQL at {endpoint} closed the connection ({reason}): look at the server's log")]
    Lost {
        /// Where.
        endpoint: String,
        /// The system's reason.
        reason: String,
    },
    /// The server speaks no TLS and `sslmode` insists on it.
    #[error(
        "PostgreSQL at {endpoint} offers no TLS: turn ssl on in the server, or set sslmode=prefer if the network is trusted"
    )]
    TlsRefused {
        /// Where.
        endpoint: String,
    },
    /// The server's certificate does not pass, or the server does not accept ours.
    #[error("TLS with PostgreSQL at {endpoint} failed ({reason}): {remedy}")]
    Certificate {
        /// Where.
        endpoint: String,
        /// What TLS says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use {parameter} {path} ({reason}): correct the path, the file or its permissions")]
    TlsFile {
        /// `sslrootcert`, `sslcert` or `sslkey`.
        parameter: &'static str,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The server wants a password and there is none.
    #[error(
        "PostgreSQL at {endpoint} wants a password for role {user:?}: put it into the URL, PGPASSWORD or ~/.pgpass"
    )]
    PasswordMissing {
        /// Where.
        endpoint: String,
        /// The role.
        user: String,
    },
    /// 28P01.
    #[error(
        "PostgreSQL at {endpoint} refused the password of role {user:?}: correct it in the URL, PGPASSWORD or ~/.pgpass; if the role does not exist yet, run `lakebed init` as administrator"
    )]
    PasswordRefused {
        /// Where.
        endpoint: String,
        /// The role.
        user: String,
    },
    /// 28000.
    #[error(
        "PostgreSQL at {endpoint} does not let role {user:?} in ({server}): create the role, or allow it in pg_hba.conf and reload"
    )]
    RoleRefused {
        /// Where.
        endpoint: String,
        /// The role.
        user: String,
        /// What the server said.
        server: ServerError,
    },
    /// 3D000.
    #[error("PostgreSQL at {endpoint} has no database {database:?}: create it or correct [source].url")]
    DatabaseMissing {
        /// Where.
        endpoint: String,
        /// The name.
        database: String,
    },
    /// The way of authentication cannot be gone.
    #[error("cannot authenticate to PostgreSQL at {endpoint}: {reason}")]
    Authentication {
        /// Where.
        endpoint: String,
        /// What and what to do.
        reason: String,
    },
    /// Any other error of the server.
    #[error("PostgreSQL at {endpoint} refused the connection ({server}): look into the server's log")]
    Server {
        /// Where.
        endpoint: String,
        /// What the server said.
        server: ServerError,
    },
    /// The peer does not speak PostgreSQL's protocol.
    #[error("{endpoint} does not answer as PostgreSQL does ({what}): correct host and port in [source].url")]
    Protocol {
        /// Where.
        endpoint: String,
        /// The broken rule.
        what: String,
    },
}

impl ConnectError {
    /// The error that a server's refusal during startup is, by SQLSTATE.
    pub fn from_server(server: ServerError, endpoint: String, user: &str, database: &str) -> Self {
        match server.sqlstate.as_str() {
            sqlstate::INVALID_PASSWORD => Self::PasswordRefused { endpoint, user: user.to_owned() },
            sqlstate::INVALID_AUTHORIZATION => Self::RoleRefused { endpoint, user: user.to_owned(), server },
            sqlstate::UNKNOWN_DATABASE => Self::DatabaseMissing { endpoint, database: database.to_owned() },
            _ => Self::Server { endpoint, server },
        }
    }

    /// A read or write that failed before the session stood. Under TLS 1.3 the server's verdict on a client certificate
    /// arrives only here, as an alert.
    pub fn from_io(error: &io::Error, endpoint: String) -> Self {
        match tls_fault(error) {
            Some(fault) => Self::from_tls(fault, endpoint),
            None => Self::Lost { endpoint, reason: error.to_string() },
        }
    }

    /// A fault that rustls reports.
    pub(super) fn from_tls(fault: &rustls::Error, endpoint: String) -> Self {
        let remedy = match fault {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
            ) => {
                "connect by a name that the certificate carries as a subject alternative name, or use sslmode=verify-ca"
            }
            rustls::Error::InvalidCertificate(_) => {
                "point sslrootcert at the authority that signed the server's certificate"
            }
            rustls::Error::AlertReceived(_) => "give the server a client certificate that it accepts (sslcert, sslkey)",
            _ => "look at ssl settings of the server and sslmode of the URL",
        };
        Self::Certificate { endpoint, reason: fault.to_string(), remedy }
    }

    /// `channel_binding=require` cannot be kept.
    pub fn without_channel_binding(endpoint: String) -> Self {
        let reason = "channel_binding=require, but the server or the connection has none: use sslmode=require or stronger \
                      and scram-sha-256 in pg_hba.conf";
        Self::Authentication { endpoint, reason: reason.to_owned() }
    }

    /// The exchange itself failed, for a reason that the libraries give in their own words.
    pub fn failed_exchange(endpoint: String, reason: &str) -> Self {
        Self::Authentication {
            endpoint,
            reason: format!("{reason}: correct the password, or look into the server's log"),
        }
    }

    /// Whether the other kind of encryption may fare better: what libpq tries again for `allow` and `prefer`.
    pub(super) fn may_depend_on_encryption(&self) -> bool {
        matches!(
            self,
            Self::TlsRefused { .. } | Self::Certificate { .. } | Self::RoleRefused { .. } | Self::Server { .. }
        )
    }
}

/// The TLS error inside an IO error, if that is what it is.
pub(super) fn tls_fault(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

impl Classify for ConnectError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Lost { .. } => RetryClass::Transient,
            Self::Server { server, .. } => server.retry_class(),
            _ => RetryClass::Definite,
        }
    }
}
