//! From settings to a socket: resolve, connect, negotiate TLS, and try the other kind of encryption where `sslmode` allows.

use super::error::ConnectError;
use super::settings::{Address, Settings, SslMode};
use super::socket::{Socket, limit_receive_window};
use super::tls;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

/// What one attempt asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Plain,
    TlsIfOffered,
    Tls,
}

/// A socket with TLS negotiated, nothing sent on it yet.
pub async fn open(settings: &Settings) -> Result<Socket, ConnectError> {
    attempt(settings, |socket| std::future::ready(Ok(socket))).await
}

/// Opens a socket and authenticates on it within `connect_timeout`.
///
/// With `sslmode` `allow` and `prefer` the server's refusal on the first kind of encryption leads to a second attempt on the
/// other, as in libpq; therefore `authenticate` may be called twice.
pub async fn attempt<T, F, A>(settings: &Settings, mut authenticate: F) -> Result<T, ConnectError>
where
    F: FnMut(Socket) -> A,
    A: Future<Output = Result<T, ConnectError>>,
{
    let (first, second) = plan(settings);
    let mut encrypted = false;
    let outcome = bounded(settings, async {
        let socket = connect(settings, first).await?;
        encrypted = socket.is_tls();
        authenticate(socket).await
    })
    .await;
    let (Err(refusal), Some(second)) = (&outcome, second) else { return outcome };
    // A server without TLS was already asked in plain text.
    let asked_both =
        first == Encryption::TlsIfOffered && !encrypted && !matches!(refusal, ConnectError::Certificate { .. });
    if asked_both || !refusal.may_depend_on_encryption() {
        return outcome;
    }
    tracing::debug!(%refusal, ?second, "trying the other kind of encryption");
    let other = bounded(settings, async { authenticate(connect(settings, second).await?).await }).await;
    match other {
        // Both were refused for reasons of the same kind: the first names what the user asked for.
        Err(error) if error.may_depend_on_encryption() => outcome,
        other => other,
    }
}

/// TLS does not exist on a Unix socket; libpq ignores `sslmode` there.
fn plan(settings: &Settings) -> (Encryption, Option<Encryption>) {
    if matches!(settings.address, Address::Unix { .. }) {
        return (Encryption::Plain, None);
    }
    match settings.ssl_mode {
        SslMode::Disable => (Encryption::Plain, None),
        SslMode::Allow => (Encryption::Plain, Some(Encryption::Tls)),
        SslMode::Prefer => (Encryption::TlsIfOffered, Some(Encryption::Plain)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Tls, None),
    }
}

async fn bounded<T>(
    settings: &Settings,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    // Boxed because the TLS and authentication states would make every caller's future large.
    let work = Box::pin(work);
    match settings.connect_timeout {
        None => work.await,
        Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut { endpoint: settings.endpoint(), seconds: limit.as_secs() })
        }),
    }
}

async fn connect(settings: &Settings, encryption: Encryption) -> Result<Socket, ConnectError> {
    let unreachable =
        |error: io::Error| ConnectError::Unreachable { endpoint: settings.endpoint(), reason: reason(&error) };
    let dial = match (&settings.address, settings.socket_path()) {
        (Address::Tcp { dial, .. }, _) => dial,
        (Address::Unix { .. }, path) => {
            let stream = UnixStream::connect(path.as_deref().unwrap_or(Path::new(""))).await;
            return stream.map(Socket::unix).map_err(unreachable);
        }
    };
    let stream = dial_tcp(dial, settings).await.map_err(unreachable)?;
    match encryption {
        Encryption::Plain => Ok(Socket::tcp(stream)),
        Encryption::Tls | Encryption::TlsIfOffered => negotiate(settings, stream, encryption).await,
    }
}

/// Every address of the name gets its share of the time, so that one dead address does not use up all of it.
async fn dial_tcp(host: &str, settings: &Settings) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host, settings.port)).await?.collect();
    let shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let share = settings.connect_timeout.map(|limit| limit / shares);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let connecting = connect_tcp(address);
        let outcome = match share {
            Some(share) => timeout(share, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            None => connecting.await,
        };
        match outcome {
            Ok(stream) => return set_options(&stream, settings).map(|()| stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    limit_receive_window(socket.as_raw_fd())?;
    socket.connect(address).await
}

fn set_options(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = settings.keepalive {
        let whole_seconds = |duration: Duration| duration.max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(whole_seconds(keepalive.idle))
            .with_interval(whole_seconds(keepalive.interval))
            .with_retries(keepalive.count);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    match settings.tcp_user_timeout {
        Some(limit) => socket.set_tcp_user_timeout(Some(limit)),
        None => Ok(()),
    }
}

/// SSLRequest (section 55.2.10 of PostgreSQL's manual). Exactly one byte is read before the handshake: what an attacker
/// might have sent in plain text behind it stays in the socket and breaks the handshake (CVE-2021-23222).
async fn negotiate(settings: &Settings, mut stream: TcpStream, encryption: Encryption) -> Result<Socket, ConnectError> {
    let lost = |error: io::Error| ConnectError::from_io(&error, settings.endpoint());
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(lost)?;
    match stream.read_u8().await.map_err(lost)? {
        b'S' => Ok(Socket::tls(tls::handshake(settings, stream).await?)),
        b'N' if encryption == Encryption::TlsIfOffered => Ok(Socket::tcp(stream)),
        b'N' => Err(ConnectError::TlsRefused { endpoint: settings.endpoint() }),
        // The server could not even fork; an error text before TLS is not to be trusted (CVE-2024-10977).
        b'E' => Err(ConnectError::Lost {
            endpoint: settings.endpoint(),
            reason: "an error instead of an answer to the TLS request".to_owned(),
        }),
        byte => Err(ConnectError::Protocol {
            endpoint: settings.endpoint(),
            what: format!("byte {byte:#04x} answered the TLS request"),
        }),
    }
}

/// Without the operating system's number, which says nothing that the words do not.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if error.raw_os_error().is_some() => "no such socket".to_owned(),
        _ if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => error.to_string(),
    }
}
