//! The control session: a tokio-postgres client over the same socket as the stream, with a driver task that it owns.

use super::attempt::attempt;
use super::error::ConnectError;
use super::server_error::ServerError;
use super::settings::{self, Settings};
use super::socket::Socket;
use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, poll_fn, ready};
use std::io;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::{self, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config};

/// A client and the task that drives its socket; dropping it ends both.
#[derive(Debug)]
pub struct ControlConnection {
    client: Client,
    endpoint: String,
    notified: Arc<Notify>,
    // Aborts the driver when it is dropped.
    _driver: JoinSet<()>,
}

impl ControlConnection {
    /// The client, for statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client, for transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits for the next NOTIFY of a channel that the session listens to; one that came since the last call counts. Cancel-safe. Never
    /// ends on a session that is lost.
    pub async fn notified(&self) {
        self.notified.notified().await;
    }

    /// Where it is connected to, for messages.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// Opens a control session.
pub async fn control(settings: &Settings) -> Result<ControlConnection, ConnectError> {
    let configuration = configuration(settings);
    let connect = |socket: Socket| {
        let configuration = configuration.clone();
        async move {
            let session = configuration.connect_raw(socket, AlreadyNegotiated).await;
            session.map_err(|error| classify(&error, settings))
        }
    };
    let (client, mut connection) = attempt(settings, connect).await?;
    let endpoint = settings.endpoint();
    let place = endpoint.clone();
    let notified = Arc::new(Notify::new());
    let notify = Arc::clone(&notified);
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(_))) => notify.notify_one(),
                Some(Ok(_)) => {}
                // Every pending statement fails with the same reason, so its caller reports it.
                Some(Err(error)) => {
                    tracing::debug!(endpoint = place, %error, "control session ended");
                    break;
                }
                None => break,
            }
        }
    });
    Ok(ControlConnection { client, endpoint, notified, _driver: driver })
}

fn configuration(settings: &Settings) -> Config {
    let mut configuration = Config::new();
    configuration
        .user(settings.user())
        .dbname(settings.database())
        .application_name(settings.application_name())
        // TLS is done already; "direct" makes tokio-postgres call the connector without asking the server again.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .channel_binding(match settings.channel_binding() {
            settings::ChannelBinding::Disable => ChannelBinding::Disable,
            settings::ChannelBinding::Prefer => ChannelBinding::Prefer,
            settings::ChannelBinding::Require => ChannelBinding::Require,
        });
    if let Some(password) = settings.password() {
        configuration.password(password.expose());
    }
    if let Some(options) = settings.options() {
        configuration.options(options);
    }
    configuration
}

/// Hands the socket through.
struct AlreadyNegotiated;

impl TlsConnect<Socket> for AlreadyNegotiated {
    type Stream = Socket;
    type Error = Infallible;
    type Future = Ready<Result<Socket, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(socket))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> tls::ChannelBinding {
        match Socket::channel_binding(self) {
            Some(hash) => tls::ChannelBinding::tls_server_end_point(hash),
            None => tls::ChannelBinding::none(),
        }
    }
}

/// tokio-postgres keeps the kind of its errors private, so the chain of causes tells them apart.
fn classify(error: &tokio_postgres::Error, settings: &Settings) -> ConnectError {
    let endpoint = settings.endpoint();
    if let Some(server) = error.as_db_error() {
        return ConnectError::from_server(ServerError::from(server), endpoint, settings.user(), settings.database());
    }
    if error.is_closed() {
        return ConnectError::Lost { endpoint, reason: "unexpected end".to_owned() };
    }
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        // SCRAM's own verdicts are IO errors of this kind; no system call fails with it.
        Some(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
            ConnectError::failed_exchange(endpoint, &cause.to_string())
        }
        // The line was cut inside a message: the codec has no kind of its own for that.
        Some(cause) if cause.kind() == io::ErrorKind::Other => {
            ConnectError::Lost { endpoint, reason: "cut inside a message".to_owned() }
        }
        Some(cause) => ConnectError::from_io(cause, endpoint),
        None if settings.channel_binding() == settings::ChannelBinding::Require => {
            ConnectError::without_channel_binding(endpoint)
        }
        None if settings.password().is_none() => {
            ConnectError::PasswordMissing { endpoint, user: settings.user().to_owned() }
        }
        None => ConnectError::failed_exchange(endpoint, &error.to_string()),
    }
}
