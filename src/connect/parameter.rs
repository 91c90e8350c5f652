//! The names of libpq's connection parameters: which are honoured here, which environment variable stands behind each, and
//! which may be passed over because they cannot change anything.

use super::error::SettingsError;
use std::collections::BTreeMap;

/// Honoured parameters, with libpq's environment variable (section 34.15 of PostgreSQL's manual).
pub(super) const PARAMETERS: &[(&str, Option<&str>)] = &[
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("service", Some("PGSERVICE")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// Parameters of libpq that change nothing here: encoding and replication are pinned, Kerberos and TLS compression do not exist.
const WITHOUT_EFFECT: &[&str] =
    &["client_encoding", "fallback_application_name", "gsslib", "krbsrvname", "replication", "sslcompression"];

/// Parameters by name.
pub(super) type Parameters = BTreeMap<&'static str, String>;

/// Adds one parameter; the last mention in the same source wins, as in libpq.
pub(super) fn insert(
    parameters: &mut Parameters,
    name: &str,
    value: String,
    source: &'static str,
) -> Result<(), SettingsError> {
    if WITHOUT_EFFECT.contains(&name) || (name == "gssencmode" && value != "require") {
        return Ok(());
    }
    match PARAMETERS.iter().find(|(known, _)| *known == name) {
        Some((known, _)) => {
            parameters.insert(known, value);
            Ok(())
        }
        None => Err(SettingsError::UnknownParameter { name: name.to_owned(), place: source }),
    }
}

/// Fills what is not set yet, so that the caller's order of sources is the precedence.
pub(super) fn fill(parameters: &mut Parameters, weaker: Parameters) {
    for (name, value) in weaker {
        parameters.entry(name).or_insert(value);
    }
}
