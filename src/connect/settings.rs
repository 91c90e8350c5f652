//! The resolved connection settings: URL over service file over environment over default, as libpq ranks them.

use super::connection_url;
use super::environment::{Environment, ProcessEnvironment};
use super::error::SettingsError;
use super::parameter::{self, PARAMETERS, Parameters};
use super::password::Password;
use super::password_file::{self, Wanted};
use super::service_file;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PostgreSQL's registered port.
const DEFAULT_PORT: u16 = 5432;
/// Where Debian and Red Hat build libpq to look, and where it looks as released; the first that has a socket is used.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// libpq waits for ever; a pipeline that cannot say why it hangs helps nobody.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How far TLS is insisted on (section 34.19 of PostgreSQL's manual).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses without.
    Allow,
    /// If the server has it.
    Prefer,
    /// Always; the certificate is checked only if there is a root certificate.
    Require,
    /// Always, signed by a known authority.
    VerifyCa,
    /// Always, and for the very name that was dialled.
    VerifyFull,
}

/// Whether authentication is bound to the TLS channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Or no connection.
    Require,
}

/// Where the authorities come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificate {
    /// The operating system's store (`sslrootcert=system`).
    System,
    /// A PEM file.
    File(PathBuf),
}

/// TCP keepalive: it ends a session whose server vanished while a statement was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub count: u32,
}

/// Shorter than most systems' two hours.
const DEFAULT_KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 };

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `host` is what the certificate must name, `dial` what is connected to.
    Tcp { host: String, dial: String },
    /// The directory that holds `.s.PGSQL.<port>`.
    Unix { directory: PathBuf },
}

/// Everything that one connection needs, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) address: Address,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<Password>,
    pub(super) ssl_mode: SslMode,
    pub(super) root_certificate: Option<RootCertificate>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) channel_binding: ChannelBinding,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tcp_user_timeout: Option<Duration>,
    pub(super) keepalive: Option<Keepalive>,
    pub(super) application_name: String,
    pub(super) options: Option<String>,
    warnings: Vec<String>,
}

impl Settings {
    /// Reads a URL against the process's environment; warnings go to the log.
    pub fn from_url(url: &str) -> Result<Self, SettingsError> {
        let settings = Self::from_url_with(url, &ProcessEnvironment)?;
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        Ok(settings)
    }

    /// Reads a URL against a given environment; logs nothing.
    pub fn from_url_with(url: &str, environment: &dyn Environment) -> Result<Self, SettingsError> {
        let mut parameters = connection_url::parse(url)?;
        let service = parameters.get("service").cloned().or_else(|| environment.variable("PGSERVICE"));
        if let Some(service) = service {
            parameter::fill(&mut parameters, service_file::load(&service, environment)?);
        }
        let variables =
            PARAMETERS.iter().filter_map(|(name, variable)| Some((*name, environment.variable((*variable)?)?)));
        parameter::fill(&mut parameters, variables.collect());
        // An empty value, wherever it stands, means the default.
        parameters.retain(|_, value| !value.is_empty());
        resolve(&parameters, environment)
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The server as a person would look for it: `127.0.0.1:5432`, `[::1]:5432` or the socket's path.
    pub fn endpoint(&self) -> String {
        match &self.address {
            Address::Tcp { host, .. } if host.contains(':') => format!("[{host}]:{}", self.port),
            Address::Tcp { host, .. } => format!("{host}:{}", self.port),
            Address::Unix { .. } => self.socket_path().unwrap_or_default().display().to_string(),
        }
    }

    /// The password, from the URL, the service, `PGPASSWORD` or the password file.
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// `sslmode`.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// `channel_binding`.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// The bound of one connection attempt; `None` only where the user asked for it with `connect_timeout=0`.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// `application_name`.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// `options`: server settings in command-line form.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// What was ignored for safety's sake, such as a password file that others may read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same server and role, another database.
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// The Unix socket's file.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Unix { directory } => Some(directory.join(format!(".s.PGSQL.{}", self.port))),
            Address::Tcp { .. } => None,
        }
    }
}

fn resolve(parameters: &Parameters, environment: &dyn Environment) -> Result<Settings, SettingsError> {
    let text = |name: &str| parameters.get(name).cloned();
    let port = number(parameters, "port", "one port from 1 to 65535")?.unwrap_or(DEFAULT_PORT);
    if port == 0 {
        return Err(bad("port", "0", "one port from 1 to 65535"));
    }
    let user = text("user").or_else(|| environment.user()).ok_or(SettingsError::NoUser)?;
    let root_certificate = root_certificate(parameters, environment);
    let mut settings = Settings {
        address: address(parameters, port, environment)?,
        port,
        database: text("dbname").unwrap_or_else(|| user.clone()),
        user,
        password: text("password").map(Password::new),
        ssl_mode: ssl_mode(parameters, root_certificate.as_ref())?,
        root_certificate,
        client_certificate: client_certificate(parameters, environment),
        channel_binding: channel_binding(parameters)?,
        connect_timeout: connect_timeout(parameters)?,
        tcp_user_timeout: number(parameters, "tcp_user_timeout", "milliseconds")?
            .filter(|timeout| *timeout > 0)
            .map(Duration::from_millis),
        keepalive: keepalive(parameters)?,
        application_name: text("application_name").unwrap_or_else(|| "lakebed".to_owned()),
        options: text("options"),
        warnings: Vec::new(),
    };
    if settings.password.is_none() {
        look_up_password(&mut settings, parameters, environment);
    }
    Ok(settings)
}

fn address(parameters: &Parameters, port: u16, environment: &dyn Environment) -> Result<Address, SettingsError> {
    let host = parameters.get("host").cloned();
    if let Some(dial) = parameters.get("hostaddr") {
        let valid = dial.parse::<IpAddr>().is_ok();
        let dial = if valid { dial.clone() } else { return Err(bad("hostaddr", dial, "an IP address")) };
        return Ok(Address::Tcp { host: host.unwrap_or_else(|| dial.clone()), dial });
    }
    match host {
        Some(host) if host.contains(',') => Err(bad("host", &host, "one server: a slot lives on one")),
        Some(host) if host.starts_with('@') => Err(bad("host", &host, "a name, an address or a socket directory")),
        Some(host) if host.starts_with('/') => Ok(Address::Unix { directory: PathBuf::from(host) }),
        Some(host) => Ok(Address::Tcp { dial: host.clone(), host }),
        None => {
            let has_socket = |folder: &&str| environment.exists(&Path::new(folder).join(format!(".s.PGSQL.{port}")));
            let folder = SOCKET_DIRECTORIES.iter().find(|folder| has_socket(folder)).unwrap_or(&SOCKET_DIRECTORIES[0]);
            Ok(Address::Unix { directory: PathBuf::from(folder) })
        }
    }
}

/// `~/.postgresql/root.crt` counts where it exists.
fn root_certificate(parameters: &Parameters, environment: &dyn Environment) -> Option<RootCertificate> {
    match parameters.get("sslrootcert") {
        Some(value) if value == "system" => Some(RootCertificate::System),
        Some(path) => Some(RootCertificate::File(PathBuf::from(path))),
        None => home_file(environment, "root.crt").filter(|path| environment.exists(path)).map(RootCertificate::File),
    }
}

fn home_file(environment: &dyn Environment, name: &str) -> Option<PathBuf> {
    environment.home().map(|home| Path::new(&home).join(".postgresql").join(name))
}

fn ssl_mode(parameters: &Parameters, root: Option<&RootCertificate>) -> Result<SslMode, SettingsError> {
    let system = root == Some(&RootCertificate::System);
    let Some(value) = parameters.get("sslmode") else {
        return Ok(if system { SslMode::VerifyFull } else { SslMode::Prefer });
    };
    let mode = match value.as_str() {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return Err(bad("sslmode", value, "disable, allow, prefer, require, verify-ca or verify-full")),
    };
    // Anybody can get a certificate that the system's store trusts, so the name is all that counts (libpq 16).
    if system && mode != SslMode::VerifyFull {
        return Err(bad("sslmode", value, "verify-full together with sslrootcert=system"));
    }
    Ok(mode)
}

/// Both files default to `~/.postgresql`; a certificate that is not there is none.
fn client_certificate(parameters: &Parameters, environment: &dyn Environment) -> Option<(PathBuf, PathBuf)> {
    let certificate = match parameters.get("sslcert") {
        Some(path) => PathBuf::from(path),
        None => home_file(environment, "postgresql.crt").filter(|path| environment.exists(path))?,
    };
    let key = parameters.get("sslkey").map(PathBuf::from).or_else(|| home_file(environment, "postgresql.key"))?;
    Some((certificate, key))
}

fn channel_binding(parameters: &Parameters) -> Result<ChannelBinding, SettingsError> {
    match parameters.get("channel_binding").map(String::as_str) {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(value) => Err(bad("channel_binding", value, "disable, prefer or require")),
    }
}

/// Zero and less mean no limit, as in libpq.
fn connect_timeout(parameters: &Parameters) -> Result<Option<Duration>, SettingsError> {
    let seconds: Option<i32> = number(parameters, "connect_timeout", "seconds")?;
    Ok(match seconds {
        None => Some(DEFAULT_CONNECT_TIMEOUT),
        Some(seconds) => u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs),
    })
}

fn keepalive(parameters: &Parameters) -> Result<Option<Keepalive>, SettingsError> {
    let positive = |name| Ok(number::<u32>(parameters, name, "a whole number")?.filter(|value| *value > 0));
    let on = number::<i32>(parameters, "keepalives", "0 or 1")?.unwrap_or(1) != 0;
    let seconds = |value: Option<u32>, default| value.map_or(default, |value| Duration::from_secs(u64::from(value)));
    let keepalive = Keepalive {
        idle: seconds(positive("keepalives_idle")?, DEFAULT_KEEPALIVE.idle),
        interval: seconds(positive("keepalives_interval")?, DEFAULT_KEEPALIVE.interval),
        count: positive("keepalives_count")?.unwrap_or(DEFAULT_KEEPALIVE.count),
    };
    Ok(on.then_some(keepalive))
}

fn number<T: std::str::FromStr>(
    parameters: &Parameters,
    name: &'static str,
    allowed: &'static str,
) -> Result<Option<T>, SettingsError> {
    let parse = |value: &String| value.trim().parse().map_err(|_| bad(name, value, allowed));
    parameters.get(name).map(parse).transpose()
}

fn bad(name: &'static str, value: &str, allowed: &'static str) -> SettingsError {
    SettingsError::BadValue { name, value: value.to_owned(), allowed }
}

/// A missing or unusable password file is no error: the server may not ask.
fn look_up_password(settings: &mut Settings, parameters: &Parameters, environment: &dyn Environment) {
    let path = parameters.get("passfile").map(PathBuf::from);
    let Some(path) = path.or_else(|| environment.home().map(|home| Path::new(&home).join(".pgpass"))) else { return };
    let host = match &settings.address {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix { directory } if SOCKET_DIRECTORIES.iter().any(|known| directory == Path::new(known)) => {
            "localhost".to_owned()
        }
        Address::Unix { directory } => directory.display().to_string(),
    };
    match environment.file(&path) {
        Ok(file) if password_file::is_private(&file) => {
            let wanted =
                Wanted { host: &host, port: settings.port, database: &settings.database, user: &settings.user };
            settings.password = password_file::find(&file.text, &wanted);
        }
        Ok(_) => settings.warnings.push(format!(
            "password file {} is ignored, because group or others may read it: chmod 600 it",
            path.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            settings.warnings.push(format!("password file {} is ignored ({error}): correct the path", path.display()));
        }
    }
}
