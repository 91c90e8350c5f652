//! The throw-away consumer: reads the replication stream as plainly as it can be read, and keeps nothing.
//!
//! It is the physical limit that lakebed is measured against, so it shares no code with `wal`: blocking reads of up to 1 MiB, a
//! look at each frame's header, a status update a second. `low_water` adds the receive low-water mark that `wal` uses, to
//! show which part of the time is spent being woken.

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Where and what to read.
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) end: u64,
    pub(crate) low_water: bool,
}

const BLOCK_BYTES: usize = 1 << 20;
const LOW_WATER_BYTES: libc::c_int = 256 << 10;
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Frame header, XLogData header and a COMMIT message: all that is ever looked at.
const LOOK_BYTES: usize = 5 + 25 + 26;

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// Reads until everything before `end` has been sent.
pub(crate) fn consume(target: &Target) -> io::Result<()> {
    let mut tcp = None;
    let mut socket: Box<dyn Socket> = if target.host.starts_with('/') {
        Box::new(UnixStream::connect(format!("{}/.s.PGSQL.{}", target.host, target.port))?)
    } else {
        let stream = TcpStream::connect((target.host.as_str(), target.port))?;
        stream.set_nodelay(true)?;
        tcp = Some(stream.try_clone()?);
        Box::new(stream)
    };
    start_up(&mut *socket, target)?;
    let options = format!("proto_version '1', publication_names '\"{}\"', binary 'true'", target.publication);
    query(&mut *socket, &format!("START_REPLICATION SLOT \"{}\" LOGICAL 0/0 ({options})", target.slot))?;
    while read_message(&mut *socket)?.0 != b'W' {}
    if let (true, Some(stream)) = (target.low_water, &tcp) {
        let socket = socket2::SockRef::from(stream);
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        stream.set_read_timeout(Some(Duration::from_millis(10)))?;
        low_water(stream, LOW_WATER_BYTES)?;
    }
    throw_away(&mut *socket, target.end, tcp.as_ref().filter(|_| target.low_water))
}

fn throw_away(socket: &mut dyn Socket, end: u64, low: Option<&TcpStream>) -> io::Result<()> {
    let mut block = vec![0_u8; BLOCK_BYTES];
    let (mut held, mut skip, mut told, mut lowered) = (0, 0, Instant::now(), false);
    loop {
        let read = match socket.read(&mut block[held..]) {
            Ok(0) => return Err(io::Error::other("the server closed the stream")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(stream) = low {
                    low_water(stream, 1)?;
                    lowered = true;
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if let (Some(stream), true) = (low, lowered && read > BLOCK_BYTES / 16) {
            low_water(stream, LOW_WATER_BYTES)?;
            lowered = false;
        }
        held += read;
        let mut at = 0;
        loop {
            let skipped = skip.min(held - at);
            (at, skip) = (at + skipped, skip - skipped);
            let rest = &block[at..held];
            if rest.len() < 5 || skip > 0 {
                break;
            }
            let length = 1 + number(&rest[1..5]) as usize;
            if rest.len() < length.min(LOOK_BYTES) {
                break;
            }
            if passes(&rest[5..length.min(LOOK_BYTES)], end) {
                return Ok(());
            }
            skip = length;
        }
        block.copy_within(at..held, 0);
        held -= at;
        if told.elapsed() > Duration::from_secs(1) {
            socket.write_all(&status(0))?;
            told = Instant::now();
        }
    }
}

/// Whether this frame shows that everything before `end` has been sent: a keepalive's position, or a COMMIT's end.
fn passes(frame: &[u8], end: u64) -> bool {
    match frame.first() {
        Some(b'k') if frame.len() >= 9 => number(&frame[1..9]) >= end,
        Some(b'w') if frame.len() >= 25 + 18 && frame[25] == b'C' => number(&frame[25 + 10..25 + 18]) >= end,
        _ => false,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn status(position: u64) -> Vec<u8> {
    let mut message = vec![b'd', 0, 0, 0, 38, b'r'];
    for _ in 0..3 {
        message.extend(position.to_be_bytes());
    }
    message.extend([0; 9]);
    message
}

fn start_up(socket: &mut dyn Socket, target: &Target) -> io::Result<()> {
    let mut message = bytes::BytesMut::new();
    let parameters = [("user", target.user.as_str()), ("database", &target.database), ("replication", "database")];
    frontend::startup_message(parameters, &mut message)?;
    socket.write_all(&message)?;
    let mut scram = ScramSha256::new(target.password.as_bytes(), ChannelBinding::unsupported());
    loop {
        let (tag, body) = read_message(socket)?;
        let mut answer = bytes::BytesMut::new();
        match (tag, if tag == b'R' { number(&body[..4]) } else { 0 }) {
            (b'R', 10) => frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut answer)?,
            (b'R', 11) => {
                scram.update(&body[4..])?;
                frontend::sasl_response(scram.message(), &mut answer)?;
            }
            (b'R', 12) => scram.finish(&body[4..])?,
            (b'Z', _) => return Ok(()),
            _ => {}
        }
        socket.write_all(&answer)?;
    }
}

fn query(socket: &mut dyn Socket, sql: &str) -> io::Result<()> {
    let mut message = bytes::BytesMut::new();
    frontend::query(sql, &mut message)?;
    socket.write_all(&message)
}

fn read_message(socket: &mut dyn Socket) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    socket.read_exact(&mut header)?;
    let mut body = vec![0; (number(&header[1..]) as usize).saturating_sub(4)];
    socket.read_exact(&mut body)?;
    if header[0] == b'E' {
        return Err(io::Error::other(String::from_utf8_lossy(&body).replace('\0', " ")));
    }
    Ok((header[0], body))
}

#[allow(unsafe_code)]
fn low_water(stream: &TcpStream, bytes: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the whole call, and the option's value is a c_int of the length that is named.
    let result = unsafe {
        let value = (&raw const bytes).cast();
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            value,
            size_of::<libc::c_int>() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
