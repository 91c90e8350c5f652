//! The replication connection before WAL flows: who the server is, and the slot.

use super::command::{self, CommandError, Reply, Row, quote_identifier, quote_literal};
use super::error::WalError;
use super::session::Session;
use super::setting::parse_time;
use super::startup::start_session;
use super::stream::{ReplicationStream, StreamOptions};
use super::timeline::{TimelineSwitch, parse_history};
use crate::base::Lsn;
use crate::connect::{ConnectError, Settings, sqlstate};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// The first `server_version_num` whose slots can be kept on a standby through a failover.
pub const FAILOVER_VERSION_MIN: u32 = 170_000;
/// No connection is given up earlier: the server's own default patience.
const RECEIVE_TIMEOUT_MIN: Duration = Duration::from_secs(60);

/// IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's unique number, as text.
    pub system_identifier: String,
    /// The current timeline.
    pub timeline: u32,
    /// How far WAL is flushed.
    pub flushed: Lsn,
    /// The database of this session.
    pub database: String,
}

/// CREATE_REPLICATION_SLOT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Transactions that commit after this position are in the stream.
    pub consistent_point: Lsn,
}

/// What kind of slot is created with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSlot {
    /// It ends with the connection.
    Temporary,
    /// It stays.
    Permanent {
        /// From server 17 on, a standby may keep it through a failover; older servers are not asked for it.
        failover: bool,
    },
}

/// CREATE_REPLICATION_SLOT with a snapshot, which other sessions can import until the connection's next command or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedSlot {
    /// The snapshot sees exactly the transactions that committed before this position; all others are in the slot's stream.
    pub consistent_point: Lsn,
    /// For SET TRANSACTION SNAPSHOT.
    pub snapshot_name: String,
}

/// A session in replication mode.
#[derive(Debug)]
pub struct ReplicationConnection {
    session: Session,
    server_version: u32,
    /// `wal_sender_timeout` of this session; zero is none.
    sender_timeout: Duration,
    settings: Settings,
    endpoint: String,
}

impl ReplicationConnection {
    /// Connects with `replication=database` and everything pinned that the form of values depends on.
    pub async fn open(settings: &Settings) -> Result<Self, WalError> {
        let started = start_session(settings).await.map_err(|error| match error {
            ConnectError::Server { server, .. } if server.is(sqlstate::INSUFFICIENT_PRIVILEGE) => {
                WalError::NoReplicationRight { user: settings.user().to_owned(), server }
            }
            error => error.into(),
        })?;
        let mut connection = Self {
            session: started.session,
            server_version: started.server_version,
            sender_timeout: Duration::ZERO,
            settings: settings.clone(),
            endpoint: settings.endpoint(),
        };
        connection.pin_newer_timeouts().await?;
        let row = connection.one_row("SHOW wal_sender_timeout", "SHOW wal_sender_timeout").await?;
        let shown: String = connection.value(&row, 0)?;
        connection.sender_timeout =
            parse_time(&shown).ok_or_else(|| connection.protocol("a wal_sender_timeout that is no time"))?;
        connection.leave_unchecked_bytes_alone().await?;
        Ok(connection)
    }

    /// The server's `server_version_num`, such as 150018.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// How long this server may be silent before it is taken for dead: its own `wal_sender_timeout`, and never less than 60 s. A
    /// busy walsender says something only every half of its timeout, so whoever raised it because its decoding takes long would
    /// lose every connection to a shorter patience here.
    pub fn receive_timeout(&self) -> Duration {
        self.sender_timeout.max(RECEIVE_TIMEOUT_MIN)
    }

    /// IDENTIFY_SYSTEM, within the connect timeout.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, WalError> {
        let row = self.one_row("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_identifier: self.value(&row, 0)?,
            timeline: self.value(&row, 1)?,
            flushed: self.value(&row, 2)?,
            database: self.value(&row, 3)?,
        })
    }

    /// TIMELINE_HISTORY, within the connect timeout: every timeline that `timeline` descends from, the oldest first, with the
    /// position where it was left. Timeline 1 descends from none.
    ///
    /// # Errors
    /// [`WalError::Server`] when the server has no history file of that timeline, [`WalError::Protocol`] when it is not as
    /// documented.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<TimelineSwitch>, WalError> {
        // A cluster that never switched has no file.
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let row = self.one_row(&format!("TIMELINE_HISTORY {timeline}"), "TIMELINE_HISTORY").await?;
        let content: String = self.value(&row, 1)?;
        parse_history(&content).ok_or_else(|| self.protocol("a timeline history that is not as documented"))
    }

    /// Creates a logical slot with pgoutput; with `failover`, from server 17 on, one that a standby may keep through a failover
    /// (older servers have no such slots, and it is not asked for). May wait for transactions that are running; without a time
    /// limit, because a slot whose creation was given up half way would stay.
    pub async fn create_slot(&mut self, slot: &str, failover: bool) -> Result<CreatedSlot, WalError> {
        let command = create_command(slot, failover && self.server_version >= FAILOVER_VERSION_MIN);
        let rows = match self.run(&command).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain(error, slot, "the creation of the slot").await),
        };
        let row = rows.into_iter().next().ok_or_else(|| self.protocol("no row about the new slot"))?;
        Ok(CreatedSlot { consistent_point: self.value(&row, 1)? })
    }

    /// Creates a logical slot with pgoutput whose snapshot other sessions of the same database can import. May wait for transactions
    /// that are running, without a time limit, like [`Self::create_slot`].
    pub async fn create_exporting_slot(&mut self, slot: &str, kind: NewSlot) -> Result<ExportedSlot, WalError> {
        let command = exporting_command(slot, kind, self.server_version);
        let rows = match self.run(&command).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain(error, slot, "the creation of the slot").await),
        };
        let row = rows.into_iter().next().ok_or_else(|| self.protocol("no row about the new slot"))?;
        Ok(ExportedSlot { consistent_point: self.value(&row, 1)?, snapshot_name: self.value(&row, 2)? })
    }

    /// ALTER_REPLICATION_SLOT: has the slot kept on a standby through a failover. Only on server 17 and later, and only while
    /// nobody uses the slot.
    pub async fn enable_failover(&mut self, slot: &str) -> Result<(), WalError> {
        let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote_identifier(slot));
        match self.run(&command).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, slot, "the change of the slot").await),
        }
    }

    /// START_REPLICATION: from here on a task of the stream owns the socket.
    pub async fn start(mut self, options: StreamOptions) -> Result<ReplicationStream, WalError> {
        let command = start_command(&options);
        match command::run(&mut self.session, &command, &self.endpoint).await {
            Ok(Reply::CopyBoth) => {
                let (socket, received) = self.session.into_parts();
                Ok(ReplicationStream::new(socket, received, options, self.endpoint))
            }
            Ok(Reply::Rows(_)) => Err(self.protocol("no CopyBothResponse to START_REPLICATION")),
            Err(error) => Err(self.explain(error, &options.slot, "the start of replication").await),
        }
    }

    /// Timeouts that older servers do not know.
    async fn pin_newer_timeouts(&mut self) -> Result<(), WalError> {
        let newer = [(140_000, "SET idle_session_timeout = 0"), (170_000, "SET transaction_timeout = 0")];
        for (since, command) in newer {
            if self.server_version >= since {
                let outcome = self.run(command).await;
                outcome.map_err(|error| self.plain(error, "the pinning of timeouts"))?;
            }
        }
        Ok(())
    }

    /// A database of encoding SQL_ASCII holds bytes that nobody checked. Asked for UTF8, the server would end the stream at the first
    /// row that has others, without saying which row; as they are, decoding refuses them by the row's key.
    async fn leave_unchecked_bytes_alone(&mut self) -> Result<(), WalError> {
        let asked = self.run("SHOW server_encoding").await;
        let row = asked.map_err(|error| self.plain(error, "the database's encoding"))?.into_iter().next();
        let encoding: String = self.value(&row.unwrap_or_default(), 0)?;
        if encoding == "SQL_ASCII" {
            let outcome = self.run("SET client_encoding = 'SQL_ASCII'").await;
            outcome.map_err(|error| self.plain(error, "the choice of the encoding"))?;
        }
        Ok(())
    }

    async fn run(&mut self, command: &str) -> Result<Vec<Row>, CommandError> {
        match command::run(&mut self.session, command, &self.endpoint).await? {
            Reply::Rows(rows) => Ok(rows),
            Reply::CopyBoth => Err(CommandError::Session(self.protocol("an unexpected CopyBothResponse"))),
        }
    }

    async fn one_row(&mut self, command: &str, during: &'static str) -> Result<Row, WalError> {
        let limit = self.settings.connect_timeout();
        let outcome = match limit {
            None => self.run(command).await,
            Some(limit) => {
                let silent = WalError::Silent { endpoint: self.endpoint.clone(), seconds: limit.as_secs() };
                timeout(limit, self.run(command)).await.unwrap_or(Err(CommandError::Session(silent)))
            }
        };
        let rows = outcome.map_err(|error| self.plain(error, during))?;
        rows.into_iter().next().ok_or_else(|| self.protocol("an answer without a row"))
    }

    /// 55000 stands for a wrong wal_level and for a lost slot; the setting itself tells them apart, not the text.
    async fn explain(&mut self, error: CommandError, slot: &str, during: &'static str) -> WalError {
        let server = match error {
            CommandError::Session(error) => return error,
            CommandError::Server(server) => server,
        };
        if server.is(sqlstate::WRONG_STATE) || server.is(sqlstate::NOT_SUPPORTED) {
            let row = self.one_row("SHOW wal_level", "SHOW wal_level").await;
            let level = row.and_then(|row| self.value::<String>(&row, 0));
            if let Ok(found) = level.as_deref()
                && found != "logical"
            {
                return WalError::WalLevel { found: found.to_owned() };
            }
        }
        WalError::from_slot_command(server, slot, self.settings.user(), during)
    }

    fn plain(&self, error: CommandError, during: &'static str) -> WalError {
        match error {
            CommandError::Server(server) => WalError::Server { during, server },
            CommandError::Session(error) => error,
        }
    }

    fn value<T: FromStr>(&self, row: &Row, column: usize) -> Result<T, WalError> {
        let value = row.get(column).and_then(Option::as_ref).and_then(|text| text.parse().ok());
        value.ok_or_else(|| self.protocol("a row that is not as documented"))
    }

    fn protocol(&self, what: &str) -> WalError {
        WalError::protocol(what, &self.endpoint)
    }
}

/// Options in parentheses came with server 15; what an older one must understand is said in the old way.
fn create_command(slot: &str, failover: bool) -> String {
    let name = quote_identifier(slot);
    let options = if failover { "(FAILOVER true, SNAPSHOT 'nothing')" } else { "NOEXPORT_SNAPSHOT" };
    format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput {options}")
}

/// As [`create_command`], with a snapshot.
fn exporting_command(slot: &str, kind: NewSlot, server_version: u32) -> String {
    let name = quote_identifier(slot);
    let (temporary, options) = match kind {
        NewSlot::Temporary => (" TEMPORARY", "EXPORT_SNAPSHOT"),
        NewSlot::Permanent { failover: true } if server_version >= FAILOVER_VERSION_MIN => {
            ("", "(FAILOVER true, SNAPSHOT 'export')")
        }
        NewSlot::Permanent { .. } => ("", "EXPORT_SNAPSHOT"),
    };
    format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {options}")
}

/// `publication_names` is a list of identifiers inside a literal, so the name is quoted twice.
fn start_command(options: &StreamOptions) -> String {
    let mut settings = vec![
        format!("proto_version '{}'", options.protocol_version),
        format!("publication_names {}", quote_literal(&quote_identifier(&options.publication))),
    ];
    // A server refuses it with protocol 1.
    settings.extend((options.streaming && options.protocol_version >= 2).then(|| "streaming 'on'".to_owned()));
    settings.extend(options.binary.then(|| "binary 'true'".to_owned()));
    settings.extend(options.messages.then(|| "messages 'true'".to_owned()));
    let slot = quote_identifier(&options.slot);
    format!("START_REPLICATION SLOT {slot} LOGICAL {} ({})", options.start, settings.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_command_is_quoted() {
        let options = StreamOptions {
            slot: "s\"x".to_owned(),
            start: Lsn(0x1_0000_00AB),
            publication: "p'\"".to_owned(),
            messages: true,
            ..StreamOptions::default()
        };
        let expected = r#"START_REPLICATION SLOT "s""x" LOGICAL 1/AB (proto_version '1', publication_names '"p''"""', messages 'true')"#;
        assert_eq!(start_command(&options), expected);
    }

    #[test]
    fn streaming_is_asked_for_only_where_the_protocol_has_it() {
        let options = |protocol_version, streaming| StreamOptions { protocol_version, streaming, ..Default::default() };
        assert!(start_command(&options(2, true)).contains("(proto_version '2', publication_names"));
        assert!(start_command(&options(2, true)).contains(", streaming 'on')"));
        assert!(!start_command(&options(2, false)).contains("streaming"));
        assert!(!start_command(&options(1, true)).contains("streaming"));
    }

    #[test]
    fn a_failover_slot_is_asked_for_in_the_new_grammar_and_any_other_in_the_old() {
        let new = r#"CREATE_REPLICATION_SLOT "s""x" LOGICAL pgoutput (FAILOVER true, SNAPSHOT 'nothing')"#;
        assert_eq!(create_command("s\"x", true), new);
        assert_eq!(create_command("s", false), r#"CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput NOEXPORT_SNAPSHOT"#);
    }

    #[test]
    fn a_slot_with_a_snapshot_is_temporary_or_stays() {
        let command = |kind, version| exporting_command("s\"x", kind, version);
        let old = r#"CREATE_REPLICATION_SLOT "s""x" LOGICAL pgoutput EXPORT_SNAPSHOT"#;
        let new = r#"CREATE_REPLICATION_SLOT "s""x" LOGICAL pgoutput (FAILOVER true, SNAPSHOT 'export')"#;
        let temporary = r#"CREATE_REPLICATION_SLOT "s""x" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"#;
        assert_eq!(command(NewSlot::Temporary, 180_000), temporary);
        assert_eq!(command(NewSlot::Permanent { failover: false }, 180_000), old);
        assert_eq!(command(NewSlot::Permanent { failover: true }, 160_000), old);
        assert_eq!(command(NewSlot::Permanent { failover: true }, 170_000), new);
    }
}
