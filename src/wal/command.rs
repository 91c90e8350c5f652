//! Commands of the replication grammar in the simple query protocol, and the quoting that its scanner understands.

use super::error::WalError;
use super::session::{BackendMessage, Session};
use crate::connect::ServerError;
use postgres_protocol::message::backend::{DATA_ROW_TAG, ERROR_RESPONSE_TAG, READY_FOR_QUERY_TAG};
use postgres_protocol::message::frontend;

/// CopyBothResponse; postgres-protocol does not know it.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// One row of text values.
pub(super) type Row = Vec<Option<String>>;

/// What a command came to.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is done; its rows.
    Rows(Vec<Row>),
    /// WAL follows.
    CopyBoth,
}

/// Why a command failed: the server's own verdict, after which the session goes on, or the session itself.
#[derive(Debug)]
pub(super) enum CommandError {
    Server(ServerError),
    Session(WalError),
}

/// Sends one command and reads its answer.
pub(super) async fn run(session: &mut Session, command: &str, endpoint: &str) -> Result<Reply, CommandError> {
    let broken = |fault: super::session::SessionFault| CommandError::Session(fault.during_command(endpoint));
    session.send(|out| frontend::query(command, out)).await.map_err(broken)?;
    let mut rows = Vec::new();
    let mut refusal = None;
    loop {
        let BackendMessage { tag, body } = session.receive().await.map_err(broken)?;
        match tag {
            COPY_BOTH_RESPONSE_TAG => return Ok(Reply::CopyBoth),
            DATA_ROW_TAG => {
                let row = parse_row(&body).ok_or_else(|| malformed_row(endpoint))?;
                rows.push(row);
            }
            ERROR_RESPONSE_TAG => refusal = Some(ServerError::from_fields(&body)),
            READY_FOR_QUERY_TAG => {
                return match refusal {
                    Some(server) => Err(CommandError::Server(server)),
                    None => Ok(Reply::Rows(rows)),
                };
            }
            // RowDescription, CommandComplete, notices.
            _ => {}
        }
    }
}

fn malformed_row(endpoint: &str) -> CommandError {
    CommandError::Session(WalError::protocol("a malformed DataRow", endpoint))
}

/// DataRow: a count, then length and bytes of each value, -1 for NULL.
fn parse_row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Row::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => row.push(None),
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                row.push(Some(String::from_utf8_lossy(value).into_owned()));
            }
        }
    }
    rest.is_empty().then_some(row)
}

/// An identifier, quoted.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal, quoted. The replication scanner (repl_scanner.l) knows no E'' strings, and a backslash is itself.
pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_quoted_as_the_replication_grammar_reads_them() {
        assert_eq!(quote_identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_literal(r"it's a \"), r"'it''s a \'");
        assert_eq!(quote_literal(&quote_identifier("p'q\"")), r#"'"p''q"""'"#);
    }

    #[test]
    fn a_row_holds_texts_and_nulls() {
        let body = [&b"\0\x03"[..], b"\0\0\0\x02ab", b"\xff\xff\xff\xff", b"\0\0\0\0"].concat();
        assert_eq!(parse_row(&body), Some(vec![Some("ab".to_owned()), None, Some(String::new())]));
    }

    proptest! {
        #[test]
        fn arbitrary_rows_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_row(&body);
        }
    }
}
