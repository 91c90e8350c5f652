//! One connected socket, whatever it is made of.

use super::channel_binding::tls_server_end_point;
use socket2::SockRef;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// See [`limit_receive_window`].
const RECEIVE_WINDOW_BYTES_MAX: libc::c_int = (1 << 20) - 1;

/// A connection to the server, encrypted as the settings want it, before the startup message.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    channel_binding: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self { transport: Transport::Tcp(stream), channel_binding: None }
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { transport: Transport::Unix(stream), channel_binding: None }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let channel_binding = certificate.and_then(|certificate| tls_server_end_point(certificate));
        Self { transport: Transport::Tls(Box::new(stream)), channel_binding }
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.transport, Transport::Unix(_))
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// `tls-server-end-point` of this connection, where TLS and the certificate provide it.
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        self.channel_binding.clone()
    }

    /// SO_RCVLOWAT: how many bytes must have arrived before a sleeping reader is woken. A data stream that fills large reads
    /// costs a tenth of the kernel time; the caller takes it back to 1 when the stream idles. Unix sockets ignore it.
    pub fn set_receive_low_water(&self, bytes: u32) -> io::Result<()> {
        match self.tcp_stream() {
            Some(stream) => set_receive_low_water(stream.as_raw_fd(), bytes),
            None => Ok(()),
        }
    }

    /// SO_RCVBUF, if the kernel allows that much (`net.core.rmem_max`); else the kernel goes on tuning it by itself, because a
    /// fixed buffer below its own limit would only slow a long link down. Unix sockets ignore it.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        match self.tcp_stream() {
            Some(stream) if bytes <= receive_buffer_bytes_max() => SockRef::from(stream).set_recv_buffer_size(bytes),
            _ => Ok(()),
        }
    }

    fn tcp_stream(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Tcp(stream) => Some(stream),
            Transport::Tls(stream) => Some(stream.get_ref().0),
            Transport::Unix(_) => None,
        }
    }
}

fn receive_buffer_bytes_max() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
    limit.trim().parse().unwrap_or(0)
}

/// TCP_WINDOW_CLAMP (tcp(7)), before the connection is made: the window of a connection whose bytes nobody reads for a while.
///
/// Linux 6.17 and later discard a segment beyond the window together with what it acknowledges. Once a full buffer had to drop the
/// last message, shorter than the unit in which the window is told, every acknowledgement of the peer lies beyond the window;
/// then nothing that we answer arrives, and the server gives us up (W3). The unit follows from the largest window at the handshake:
/// 16 bytes for less than a mebibyte, shorter than any message; 1,024 bytes where the kernel may tune the buffer up to 32 MiB.
pub(super) fn limit_receive_window(descriptor: RawFd) -> io::Result<()> {
    set_option(descriptor, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, RECEIVE_WINDOW_BYTES_MAX)
}

fn set_receive_low_water(descriptor: RawFd, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_option(descriptor, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value)
}

/// socket2 does not have these options, so this is the one call into libc.
#[allow(unsafe_code)]
fn set_option(descriptor: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length: libc::socklen_t = libc::c_int::BITS / u8::BITS;
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel checks the descriptor.
    let status = unsafe { libc::setsockopt(descriptor, level, option, (&raw const value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
