//! The startup message of a replication session and what the server tells about itself.

use super::authentication::authenticate;
use super::session::{BackendMessage, Session};
use crate::connect::{ConnectError, ServerError, Settings, Socket, attempt};
use postgres_protocol::message::backend::{ERROR_RESPONSE_TAG, PARAMETER_STATUS_TAG, READY_FOR_QUERY_TAG};
use postgres_protocol::message::frontend;

/// What the text and binary forms of values depend on, and the timeouts that would end a stream; all known to every
/// supported server, because an unknown name in the startup message fails the connection.
const PINNED: &[(&str, &str)] = &[
    ("replication", "database"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    // regclass and its kind leave out a schema that is on the path; pg_catalog always is.
    ("search_path", ""),
    // So that a publication that is skipped does not go unheard.
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// A session that is ready for commands.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) session: Session,
    /// As `server_version_num`: 150018.
    pub(super) server_version: u32,
}

/// Opens, authenticates and pins, within the settings' connect timeout.
pub(super) async fn start_session(settings: &Settings) -> Result<Started, ConnectError> {
    attempt(settings, |socket| start_on(socket, settings)).await
}

async fn start_on(socket: Socket, settings: &Settings) -> Result<Started, ConnectError> {
    let mut session = Session::new(socket);
    let mut parameters = vec![
        ("user", settings.user()),
        ("database", settings.database()),
        ("application_name", settings.application_name()),
    ];
    parameters.extend_from_slice(PINNED);
    parameters.extend(settings.options().map(|options| ("options", options)));
    let sent = session.send(|out| frontend::startup_message(parameters, out)).await;
    sent.map_err(|fault| fault.during_startup(&settings.endpoint()))?;
    authenticate(&mut session, settings).await?;
    let server_version = read_parameters(&mut session, settings).await?;
    Ok(Started { session, server_version })
}

/// Everything up to ReadyForQuery. A role without the replication right is turned away here.
async fn read_parameters(session: &mut Session, settings: &Settings) -> Result<u32, ConnectError> {
    let mut server_version = 0;
    loop {
        let message = session.receive().await;
        let BackendMessage { tag, body } = message.map_err(|fault| fault.during_startup(&settings.endpoint()))?;
        match tag {
            READY_FOR_QUERY_TAG => return Ok(server_version),
            ERROR_RESPONSE_TAG => {
                let server = ServerError::from_fields(&body);
                let endpoint = settings.endpoint();
                return Err(ConnectError::from_server(server, endpoint, settings.user(), settings.database()));
            }
            PARAMETER_STATUS_TAG => {
                let mut parts = body.split(|byte| *byte == 0);
                if parts.next() == Some(b"server_version") {
                    server_version = version_number(&String::from_utf8_lossy(parts.next().unwrap_or_default()));
                }
            }
            // BackendKeyData and notices: nothing is cancelled from here.
            _ => {}
        }
    }
}

/// `15.18 (Debian …)` is 150018, `19beta1` is 190000; zero when it is neither.
fn version_number(text: &str) -> u32 {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    let major: u32 = digits(major).parse().unwrap_or(0);
    major.saturating_mul(10_000).saturating_add(digits(minor).parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("19beta1"), 190_000);
        assert_eq!(version_number("nonsense"), 0);
    }
}
