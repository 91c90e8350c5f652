//! Which PostgreSQL is run, as which operating system user, and with which settings.

use super::DemoError;
use super::signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Where Debian's postgresql-15 puts its server programs.
const DEBIAN_15_BIN: &str = "/usr/lib/postgresql/15/bin";
/// Where `scripts/test` says that PostgreSQL 18 is.
const POSTGRES_18_BIN: &str = "LAKEBED_POSTGRES_18_BIN";

/// A PostgreSQL to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// Debian's PostgreSQL 15 with pg_partman and pg_cron.
    Debian15,
    /// Any other.
    At {
        /// Folder of `initdb` and `postgres`.
        bin_dir: PathBuf,
        /// Whether pg_partman and pg_cron are installed there.
        has_extensions: bool,
    },
}

impl ServerKind {
    /// PostgreSQL 18 without extensions, found by the environment variable `LAKEBED_POSTGRES_18_BIN`.
    ///
    /// # Errors
    /// [`DemoError::Missing`] when the variable is not set; `scripts/test` installs that server and sets it.
    pub fn postgres_18() -> Result<Self, DemoError> {
        match std::env::var_os(POSTGRES_18_BIN) {
            Some(bin_dir) => Ok(ServerKind::At { bin_dir: bin_dir.into(), has_extensions: false }),
            None => Err(DemoError::Missing {
                what: "PostgreSQL 18".to_owned(),
                remedy: format!("run scripts/test, or set {POSTGRES_18_BIN} to the folder of its initdb"),
            }),
        }
    }

    /// Folder of the server programs.
    pub fn bin_dir(&self) -> &Path {
        match self {
            ServerKind::Debian15 => Path::new(DEBIAN_15_BIN),
            ServerKind::At { bin_dir, .. } => bin_dir,
        }
    }

    /// Whether pg_partman and pg_cron can be created in it.
    pub fn has_extensions(&self) -> bool {
        match self {
            ServerKind::Debian15 => true,
            ServerKind::At { has_extensions, .. } => *has_extensions,
        }
    }

    pub(super) fn program(&self, name: &str) -> Result<PathBuf, DemoError> {
        let path = self.bin_dir().join(name);
        if path.exists() {
            return Ok(path);
        }
        let remedy = match self {
            ServerKind::Debian15 => {
                "apt-get install postgresql-15 postgresql-15-partman postgresql-15-cron (scripts/demo does it)"
                    .to_owned()
            }
            ServerKind::At { bin_dir, .. } => format!("{} does not hold a PostgreSQL server", bin_dir.display()),
        };
        Err(DemoError::Missing { what: path.display().to_string(), remedy })
    }
}

/// Certificate files of a server with TLS; they are copied, because the server insists on owning its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain of the server, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authority that signs client certificates, PEM, if clients may bring one.
    pub client_authority: Option<PathBuf>,
}

/// The user that the server runs as. PostgreSQL refuses root, so root lends it the packaged user `postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    Ourselves,
    Other { user_id: u32, group_id: u32 },
}

impl Account {
    /// Ourselves, or `postgres` when we are root.
    pub(super) fn find() -> Result<Self, DemoError> {
        if number_from_id(&["-u"])? != 0 {
            return Ok(Account::Ourselves);
        }
        let missing = |_| DemoError::Missing {
            what: "the operating system user postgres".to_owned(),
            remedy: "PostgreSQL does not run as root; install postgresql-15, which creates that user".to_owned(),
        };
        let user_id = number_from_id(&["-u", "postgres"]).map_err(missing)?;
        let group_id = number_from_id(&["-g", "postgres"]).map_err(missing)?;
        Ok(Account::Other { user_id, group_id })
    }

    /// Gives a file or folder to the account, readable by it alone.
    pub(super) fn own(self, path: &Path, mode: u32) -> Result<(), DemoError> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(DemoError::file("set the permissions of", path))?;
        match self {
            Account::Ourselves => Ok(()),
            Account::Other { user_id, group_id } => std::os::unix::fs::chown(path, Some(user_id), Some(group_id))
                .map_err(DemoError::file("give to the user postgres", path)),
        }
    }

    /// A command that runs as the account (std drops supplementary groups when it changes the user) and dies with us.
    pub(super) fn command(self, program: &Path, death_signal: &str) -> std::process::Command {
        let mut command = signal::dependent_command(program, death_signal);
        if let Account::Other { user_id, group_id } = self {
            command.uid(user_id).gid(group_id);
        }
        // The folder that we stand in may be closed to the account, and the variables of a libpq user are not the server's.
        command.current_dir("/").stdin(Stdio::null());
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS", "PGPASSWORD", "LANGUAGE"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// NSS has to be asked, and `id` is in every coreutils.
fn number_from_id(arguments: &[&str]) -> Result<u32, DemoError> {
    let failed = |message: String| DemoError::Program { program: format!("id {}", arguments.join(" ")), message };
    let output =
        std::process::Command::new("id").args(arguments).output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Ends what a program has started when nobody waits for the program any more: initdb has servers of its own.
struct GroupGuard {
    leader_id: Option<u32>,
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(id) = self.leader_id {
            signal::send_to_group(id, libc::SIGKILL);
        }
    }
}

/// Runs a program, the leader of a process group, to its end; the group ends when the future is dropped.
pub(super) async fn run_to_end(command: std::process::Command, name: &str) -> Result<(), DemoError> {
    let failed = |message: String| DemoError::Program { program: name.to_owned(), message };
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| failed(error.to_string()))?;
    let leader_id = child.id();
    let mut ended = std::pin::pin!(child.wait_with_output());
    // Declared last, so dropped first: the leader has not been waited for then, and the group's id is still its own.
    let mut guard = GroupGuard { leader_id };
    let output = ended.as_mut().await;
    guard.leader_id = None;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("error")).or(text.lines().last()).unwrap_or("no message");
    Err(failed(format!("{line} ({})", output.status)))
}

/// What is written into postgresql.conf.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) port: u16,
    pub(super) socket_directory: &'a Path,
    pub(super) wal_level_logical: bool,
    pub(super) has_extensions: bool,
    pub(super) tls: bool,
    pub(super) client_authority: bool,
    pub(super) extra: &'a [(String, String)],
}

impl Settings<'_> {
    /// The file's text. Durability is off: the data is thrown away, and a crash of the server alone (not of the machine) is
    /// survived without it. Locks are raised because one statement on a root locks every leaf and index of 200 days.
    pub(super) fn text(&self) -> String {
        let socket_directory = self.socket_directory.display().to_string();
        let mut pairs: Vec<(&str, String)> = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", socket_directory.clone()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("wal_level", if self.wal_level_logical { "logical" } else { "replica" }.to_owned()),
            ("max_replication_slots", "20".to_owned()),
            ("max_wal_senders", "20".to_owned()),
            ("max_wal_size", "2GB".to_owned()),
            ("max_locks_per_transaction", "512".to_owned()),
            ("shared_buffers", "128MB".to_owned()),
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("jit", "off".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("lc_messages", "C".to_owned()),
        ];
        if self.has_extensions {
            pairs.push(("shared_preload_libraries", "pg_cron".to_owned()));
            pairs.push(("cron.database_name", "postgres".to_owned()));
            pairs.push(("cron.host", socket_directory));
        }
        if self.tls {
            pairs.push(("ssl", "on".to_owned()));
            pairs.push(("ssl_cert_file", "server.crt".to_owned()));
            pairs.push(("ssl_key_file", "server.key".to_owned()));
        }
        if self.client_authority {
            pairs.push(("ssl_ca_file", "client_authority.crt".to_owned()));
        }
        pairs.extend(self.extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
        pairs.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_settings_come_last_because_the_last_one_wins() {
        let extra = [("wal_sender_timeout".to_owned(), "1s".to_owned()), ("search_path".to_owned(), "it's".to_owned())];
        let settings = Settings {
            port: 1,
            socket_directory: Path::new("/s"),
            wal_level_logical: true,
            has_extensions: false,
            tls: false,
            client_authority: false,
            extra: &extra,
        };
        let text = settings.text();
        assert!(text.ends_with("wal_sender_timeout = '1s'\nsearch_path = 'it''s'\n"));
        assert!(text.contains("wal_level = 'logical'\n"));
        assert!(!text.contains("cron"));
    }

    #[test]
    fn a_missing_server_names_the_remedy() {
        let kind = ServerKind::At { bin_dir: "/nowhere".into(), has_extensions: false };
        assert!(kind.program("initdb").unwrap_err().to_string().contains("does not hold a PostgreSQL server"));
    }
}
