//! Message by message: the connection before WAL flows, where speed does not matter and every answer is small.

use super::error::WalError;
use super::frame::{FrameError, HEADER_BYTES, message_length};
use crate::connect::{ConnectError, Socket};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No answer to startup or a command comes near this; it bounds what a stranger on the port can make us hold.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 8 << 10;

/// One backend message.
#[derive(Debug)]
pub(super) struct BackendMessage {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("unexpected end")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl SessionFault {
    pub(super) fn during_startup(self, endpoint: &str) -> ConnectError {
        let endpoint = endpoint.to_owned();
        match self {
            Self::Io(error) => ConnectError::from_io(&error, endpoint),
            Self::Closed => ConnectError::Lost { endpoint, reason: self.to_string() },
            Self::Frame(error) => ConnectError::Protocol { endpoint, what: error.to_string() },
        }
    }

    pub(super) fn during_command(self, endpoint: &str) -> WalError {
        match self {
            Self::Io(error) => WalError::io(error, endpoint),
            Self::Closed => WalError::Closed { endpoint: endpoint.to_owned() },
            Self::Frame(error) => WalError::protocol(error.to_string(), endpoint),
        }
    }
}

/// The socket with its receive buffer.
#[derive(Debug)]
pub(super) struct Session {
    socket: Socket,
    received: BytesMut,
}

impl Session {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, received: BytesMut::new() }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, and what was received behind the last message.
    pub(super) fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.received)
    }

    /// Sends what `encode` writes.
    pub(super) async fn send(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), SessionFault> {
        let mut message = BytesMut::new();
        encode(&mut message)?;
        self.socket.write_all(&message).await?;
        Ok(self.socket.flush().await?)
    }

    /// The next message; cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<BackendMessage, SessionFault> {
        loop {
            if let Some((tag, length)) = message_length(&self.received)? {
                if length > MESSAGE_BYTES_MAX {
                    return Err(FrameError::Length { length: u32::try_from(length).unwrap_or(u32::MAX) }.into());
                }
                if self.received.len() >= length {
                    let mut message = self.received.split_to(length).freeze();
                    return Ok(BackendMessage { tag, body: message.split_off(HEADER_BYTES) });
                }
            }
            self.received.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(SessionFault::Closed);
            }
        }
    }
}
