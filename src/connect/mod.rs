//! How lakebed reaches PostgreSQL: the settings that a libpq user expects, one socket with TLS, and the control session.
//!
//! ```text
//! URL ─┐                                                        ┌─▶ wal      (replication, its own startup)
//! service file ─▶ Settings ─▶ attempt ─▶ Socket (TCP, Unix, TLS)┤
//! PG* variables ┘   .pgpass                                     └─▶ control  (tokio-postgres over the same socket)
//! ```
//!
//! A URL that works with `psql` works here, with libpq's precedence (URL, service file, environment, default) and libpq's
//! meaning of `sslmode`. Replication and control session share one way to open a socket, so a certificate or a route that
//! works for one works for the other. What cannot be honoured is refused by name, never ignored: a setting that is dropped
//! silently may be the one that kept the password safe.
//!
//! Promises owned here:
//! - Every error says whether trying again helps, by SQLSTATE or type, never by the text of a message.
//! - No password in a message, a log line or a `Debug` form. A password in clear text leaves only over TLS or a Unix socket
//!   on the replication connection.
//! - No connection attempt waits for ever: `connect_timeout` covers name resolution, TLS and authentication.

mod attempt;
mod channel_binding;
mod connection_url;
mod control;
mod environment;
mod error;
mod os_user;
mod parameter;
mod password;
mod password_file;
mod server_error;
mod service_file;
mod settings;
mod socket;
mod tls;
mod verifier;

#[cfg(test)]
pub(crate) mod remedy_test;
#[cfg(test)]
mod settings_test;

pub use attempt::{attempt, open};
pub use control::{ControlConnection, control};
pub use environment::{Environment, EnvironmentFile, ProcessEnvironment};
pub use error::{ConnectError, SettingsError};
pub use password::Password;
pub use server_error::{ServerError, sqlstate};
pub use settings::{ChannelBinding, Keepalive, RootCertificate, Settings, SslMode};
pub use socket::Socket;
