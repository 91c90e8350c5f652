//! A throw-away PostgreSQL: made in a folder of its own, run as a direct child, gone when dropped.

mod copy;

pub use copy::CopyKind;

use super::DemoError;
use super::connection::Connection;
use super::postmaster::Postmaster;
use super::server::{Account, ServerKind, Settings, TlsFiles, run_to_end};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The superuser of every cluster.
const SUPERUSER: &str = "postgres";
/// A start is tried this often: a free port may be taken by somebody else before the server binds it.
const START_ATTEMPTS: u32 = 5;
/// Recovery after an immediate shutdown is the slowest start.
const READY_WITHIN: Duration = Duration::from_secs(60);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// `sockaddr_un.sun_path` holds 108 bytes on Linux and 104 elsewhere, the file name `.s.PGSQL.65535` included.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 85;

/// What kind of cluster to make.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Which server.
    pub server: ServerKind,
    /// `wal_level = logical`, or `replica`.
    pub wal_level_logical: bool,
    /// Serve TLS with these files.
    pub tls: Option<TlsFiles>,
    /// Further lines of postgresql.conf, name and value; they win over ours.
    pub extra_settings: Vec<(String, String)>,
    /// Lines of pg_hba.conf that are looked at before ours (trust on the socket, scram-sha-256 on 127.0.0.1).
    pub authentication_rules: Vec<String>,
    /// Where to put it: a folder that does not exist yet or is empty, whose parents the server's user can enter. None: a
    /// fresh folder below the system's temporary folder.
    pub directory: Option<PathBuf>,
    /// Leave the folder behind, logs and data, for looking at it.
    pub keep_directory: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            server: ServerKind::Debian15,
            wal_level_logical: true,
            tls: None,
            extra_settings: Vec::new(),
            authentication_rules: Vec::new(),
            directory: None,
            keep_directory: false,
        }
    }
}

/// A running throw-away server. Dropping it stops the server, waits for its end and removes its folder.
#[derive(Debug)]
pub struct Cluster {
    // Declared first: the server ends before its folder goes.
    postmaster: Option<Postmaster>,
    directory: ClusterDirectory,
    server: ServerKind,
    account: Account,
    port: u16,
    password: String,
    /// What it was made with; a copy starts with the same.
    options: ClusterOptions,
}

impl Cluster {
    /// Makes the cluster and waits until it takes connections.
    ///
    /// # Errors
    /// A missing server program or user, a folder that cannot be used, or the server's own reason for not starting.
    pub async fn start(options: ClusterOptions) -> Result<Cluster, DemoError> {
        let account = Account::find()?;
        let initdb = options.server.program("initdb")?;
        let directory = ClusterDirectory::create(&options, account)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let password_file = directory.path.join("superuser_password");
        write_owned(&password_file, &password, account)?;
        let mut command = account.command(&initdb, "KILL");
        command.args([
            "--no-locale",
            "--encoding=UTF8",
            "--no-sync",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]);
        command.arg(format!("--username={SUPERUSER}")).arg("--pwfile").arg(&password_file);
        command.arg("-D").arg(directory.data());
        run_to_end(command, "initdb").await?;
        directory.write_authentication(&options, account)?;
        if let Some(tls) = &options.tls {
            directory.copy_tls(tls, account)?;
        }
        let server = options.server.clone();
        let mut cluster =
            Cluster { postmaster: None, directory, server, account, port: 0, password, options: options.clone() };
        cluster.start_on_a_free_port(&options).await?;
        Ok(cluster)
    }

    async fn start_on_a_free_port(&mut self, options: &ClusterOptions) -> Result<(), DemoError> {
        let data = self.directory.data();
        let initial = std::fs::read_to_string(data.join("postgresql.conf"))
            .map_err(DemoError::file("read", &data.join("postgresql.conf")))?;
        let mut attempt = 1;
        loop {
            self.port = free_port().map_err(DemoError::file("find a free port for", &data))?;
            let settings = Settings {
                port: self.port,
                socket_directory: &self.directory.sockets(),
                wal_level_logical: options.wal_level_logical,
                has_extensions: self.server.has_extensions(),
                tls: options.tls.is_some(),
                client_authority: options.tls.as_ref().is_some_and(|tls| tls.client_authority.is_some()),
                extra: &options.extra_settings,
            };
            let text = format!("{initial}\n{}", settings.text());
            write_owned(&data.join("postgresql.conf"), &text, self.account)?;
            match self.launch().await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == START_ATTEMPTS || !error.to_string().contains("could not bind") => {
                    return Err(error);
                }
                Err(_) => attempt += 1,
            }
        }
    }

    /// Starts the postmaster and waits until a connection succeeds.
    async fn launch(&mut self) -> Result<(), DemoError> {
        let log = self.log_file();
        let open_log = || std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let mut command = self.account.command(&self.server.program("postgres")?, "QUIT");
        command.arg("-D").arg(self.directory.data());
        command.stdout(open_log().map_err(DemoError::file("write", &log))?);
        command.stderr(open_log().map_err(DemoError::file("write", &log))?);
        let log_before_bytes = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let postmaster = Postmaster::start(command)
            .map_err(|error| DemoError::Program { program: "postgres".to_owned(), message: error.to_string() })?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = postmaster.ended() {
                let message = last_complaint(&log, log_before_bytes).unwrap_or(status);
                return Err(DemoError::Server { what: "ended while it started", message });
            }
            match Connection::open(&self.socket_url("postgres")).await {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(DemoError::Server { what: "does not take connections", message: error.to_string() });
                }
                Err(_) => tokio::time::sleep(READY_POLL_INTERVAL).await,
            }
        }
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password, which TCP asks for.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// URL of the superuser over TCP, password included.
    pub fn admin_url(&self, database: &str) -> String {
        format!("postgresql://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// URL of the superuser over the Unix socket, which asks for no password.
    pub fn socket_url(&self, database: &str) -> String {
        self.socket_url_of(SUPERUSER, database)
    }

    /// URL of any role over the Unix socket, which asks for no password.
    pub fn socket_url_of(&self, role: &str, database: &str) -> String {
        let sockets = self.directory.sockets().display().to_string();
        let host = percent_encoding::utf8_percent_encode(&sockets, percent_encoding::NON_ALPHANUMERIC);
        format!("postgresql://{role}@/{database}?host={host}&port={}", self.port)
    }

    /// Folder of the Unix socket; only the server's user (and root) can enter it.
    pub fn socket_directory(&self) -> PathBuf {
        self.directory.sockets()
    }

    /// The folder that everything of this cluster lives in.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// Folder of the programs of this server, `pg_recvlogical` among them.
    pub fn bin_dir(&self) -> &Path {
        self.server.bin_dir()
    }

    /// Whether pg_partman and pg_cron can be created here.
    pub fn has_extensions(&self) -> bool {
        self.server.has_extensions()
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.directory.path.join("server.log")
    }

    /// A superuser's connection.
    ///
    /// # Errors
    /// [`DemoError::Sql`] when the server refuses.
    pub async fn connect(&self, database: &str) -> Result<Connection, DemoError> {
        Connection::open(&self.socket_url(database)).await
    }

    /// Runs statements as superuser on a connection of their own; several run as one transaction unless they say otherwise.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<(), DemoError> {
        self.connect(database).await?.execute(sql).await
    }

    /// Runs statements as superuser and returns the rows of all of them as the server's text.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn query(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, DemoError> {
        self.connect(database).await?.query(sql).await
    }

    /// Ends the server as a crash would: every backend is gone at once and nothing is written. [`Cluster::restart`] recovers.
    pub async fn kill_immediately(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.kill_immediately().await;
        }
    }

    /// Stops the server if it runs, and starts it again on the same port.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub async fn restart(&mut self) -> Result<(), DemoError> {
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.stop().await;
        }
        self.launch().await
    }

    /// Stops the server and removes its folder, as dropping does, without blocking the runtime meanwhile.
    pub async fn stop(mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.stop().await;
        }
    }
}

/// The folder of a cluster; removed on drop unless it is to be kept.
#[derive(Debug)]
struct ClusterDirectory {
    path: PathBuf,
    keep: bool,
}

impl ClusterDirectory {
    fn create(options: &ClusterOptions, account: Account) -> Result<Self, DemoError> {
        let path = options.directory.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("lakebed-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]))
        });
        let path = std::path::absolute(&path).map_err(DemoError::file("find", &path))?;
        if path.as_os_str().len() > SOCKET_DIRECTORY_BYTES_MAX {
            let reason = "is too long for a Unix socket's path: name a shorter folder (TMPDIR decides where)";
            return Err(DemoError::Folder { path, reason });
        }
        if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(DemoError::Folder { path, reason: "is not empty: name a new folder" });
        }
        std::fs::create_dir_all(&path).map_err(DemoError::file("create", &path))?;
        let directory = Self { path, keep: options.keep_directory };
        account.own(&directory.path, 0o700)?;
        std::fs::create_dir(directory.sockets()).map_err(DemoError::file("create", &directory.sockets()))?;
        account.own(&directory.sockets(), 0o700)?;
        Ok(directory)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn sockets(&self) -> PathBuf {
        self.path.join("s")
    }

    fn write_authentication(&self, options: &ClusterOptions, account: Account) -> Result<(), DemoError> {
        let mut rules = options.authentication_rules.clone();
        for who in ["all", "replication"] {
            rules.push(format!("local {who} all trust"));
            rules.push(format!("host {who} all 127.0.0.1/32 scram-sha-256"));
        }
        write_owned(&self.data().join("pg_hba.conf"), &(rules.join("\n") + "\n"), account)
    }

    fn copy_tls(&self, tls: &TlsFiles, account: Account) -> Result<(), DemoError> {
        let files = [
            (Some(&tls.certificate), "server.crt"),
            (Some(&tls.key), "server.key"),
            (tls.client_authority.as_ref(), "client_authority.crt"),
        ];
        for (source, name) in files {
            if let Some(source) = source {
                let text = std::fs::read_to_string(source).map_err(DemoError::file("read", source))?;
                write_owned(&self.data().join(name), &text, account)?;
            }
        }
        Ok(())
    }
}

impl Drop for ClusterDirectory {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left to tell, and the folder is a temporary one.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn write_owned(path: &Path, text: &str, account: Account) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(DemoError::file("write", path))?;
    account.own(path, 0o600)
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The line after `from_byte` that explains best why the server ended: a cause is logged as LOG before the FATAL that ends it.
fn last_complaint(log: &Path, from_byte: u64) -> Option<String> {
    let bytes = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(bytes.get(usize::try_from(from_byte).ok()?..)?).into_owned();
    let words = ["could not bind", "unrecognized configuration parameter", "invalid value", "FATAL", "ERROR", ""];
    words.iter().find_map(|word| text.lines().rev().find(|line| line.contains(word))).map(str::to_owned)
}

#[cfg(test)]
#[path = "cluster_test.rs"]
mod tests;
