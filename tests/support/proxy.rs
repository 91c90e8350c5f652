//! A TCP proxy in front of a real server, PostgreSQL or S3, that misbehaves on demand while connections run.
//!
//! Each direction has a [`Flow`] of its own. The proxy owns its listener and all its connections, and ends them when it is
//! dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// A delayed direction forwards this much at a time.
const BLOCK_BYTES: usize = 16 << 10;
/// Of a lost response the client sees this much: it knows that one began, and not what it says.
const LOST_AFTER_BYTES: usize = 5;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Every 16 KiB wait this long.
    Delay(Duration),
    /// They are held; the connection stays, and they flow on when the direction passes again.
    Stall,
    /// After so many further bytes, on whichever connection they are, that connection is cut; then the direction passes again.
    CutAfter(u64),
    /// The receiver sees the end of the stream; the other direction goes on.
    HalfClose,
}

/// Where bytes are going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

struct Shared {
    to_server: watch::Sender<Flow>,
    to_client: watch::Sender<Flow>,
    bytes_before_cut: AtomicI64,
    refusing: watch::Sender<bool>,
    cut_all: Notify,
    /// The next request whose first line contains all of these loses its response.
    lose_response_to: watch::Sender<Option<Vec<String>>>,
    accepted: AtomicU64,
    cut: AtomicU64,
}

/// Forwards every connection to the server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to_server: watch::Sender::new(Flow::Pass),
            to_client: watch::Sender::new(Flow::Pass),
            bytes_before_cut: AtomicI64::new(0),
            refusing: watch::Sender::new(false),
            cut_all: Notify::new(),
            lose_response_to: watch::Sender::new(None),
            accepted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server_port, Arc::clone(&shared)));
        Self { port, shared, _tasks: tasks }
    }

    /// Also for the connections that run.
    pub fn set(&self, direction: Direction, flow: Flow) {
        if let Flow::CutAfter(bytes) = flow {
            self.shared.bytes_before_cut.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
        }
        self.shared.flow(direction).send_replace(flow);
    }

    /// Everything passes, and new connections are taken.
    pub fn pass(&self) {
        self.set(Direction::ToServer, Flow::Pass);
        self.set(Direction::ToClient, Flow::Pass);
        self.refuse(false);
    }

    /// Ends every running connection.
    pub fn cut(&self) {
        self.shared.cut_all.notify_waiters();
    }

    /// New connections are refused as by a port that nobody listens on, or taken again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
    }

    /// The next request whose first line contains all of `words` reaches the server, whose response is cut after its first bytes.
    pub fn lose_response_to(&self, words: &[&str]) {
        self.shared.lose_response_to.send_replace(Some(words.iter().map(|&word| word.to_owned()).collect()));
    }

    /// Whether a response was lost since it was asked for.
    pub fn response_was_lost(&self) -> bool {
        self.shared.lose_response_to.borrow().is_none()
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that this proxy ended.
    pub fn cuts(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn flow(&self, direction: Direction) -> &watch::Sender<Flow> {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

async fn accept(listener: TcpListener, server_port: u16, shared: Arc<Shared>) {
    let address = listener.local_addr().unwrap();
    let mut refusing = shared.refusing.subscribe();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *refusing.borrow_and_update() {
            // Bound and not listening: the port stays ours, and a connection to it is refused.
            drop(listener.take());
            let socket = bound(address).await;
            refusing.wait_for(|refusing| !refusing).await.unwrap();
            listener = Some(socket.listen(1024).unwrap());
        }
        let Some(open) = &listener else { continue };
        tokio::select! {
            taken = open.accept() => if let Ok((client, _)) = taken {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(forward(client, server_port, Arc::clone(&shared)));
            },
            changed = refusing.changed() => changed.unwrap(),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn bound(address: std::net::SocketAddr) -> TcpSocket {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn forward(client: TcpStream, server_port: u16, shared: Arc<Shared>) {
    let cut = shared.cut_all.notified();
    // A server that is down refuses; so does its proxy, as well as it can after having accepted.
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let lost = watch::Sender::new(false);
    let upstream =
        Pump { shared: &shared, direction: Direction::ToServer, from: from_client, to: to_server, lost: &lost };
    let downstream =
        Pump { shared: &shared, direction: Direction::ToClient, from: from_server, to: to_client, lost: &lost };
    let ended_by_us = tokio::select! {
        ended = async { tokio::try_join!(upstream.run(), downstream.run()) } => ended.is_err_and(|end| end == End::Cut),
        () = cut => true,
    };
    if ended_by_us {
        shared.cut.fetch_add(1, Ordering::SeqCst);
    }
}

/// Why a direction stopped before its sender closed it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Cut,
    Broken,
}

struct Pump<'a> {
    shared: &'a Shared,
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// The response that is on its way is to be lost.
    lost: &'a watch::Sender<bool>,
}

impl Pump<'_> {
    async fn run(mut self) -> Result<(), End> {
        let mut flow = self.shared.flow(self.direction).subscribe();
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            let now = *flow.borrow_and_update();
            match now {
                Flow::Stall => {
                    flow.changed().await.map_err(|_| End::Broken)?;
                    continue;
                }
                Flow::HalfClose => {
                    let _ = self.to.shutdown().await;
                    return Ok(());
                }
                Flow::Pass | Flow::Delay(_) | Flow::CutAfter(_) => {}
            }
            let read = tokio::select! {
                biased;
                changed = flow.changed() => {
                    changed.map_err(|_| End::Broken)?;
                    continue;
                }
                read = self.from.read(&mut buffer) => read.map_err(|_| End::Broken)?,
            };
            if read == 0 {
                let _ = self.to.shutdown().await;
                return Ok(());
            }
            if let Flow::Delay(wait) = now {
                tokio::time::sleep(wait).await;
            }
            self.look(&buffer[..read]);
            self.pass_on(&buffer[..read], now).await?;
        }
    }

    /// Remembers a request whose response is to be lost.
    fn look(&self, bytes: &[u8]) {
        if self.direction == Direction::ToServer {
            let first_line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
            let found = self.shared.lose_response_to.send_if_modified(|words| {
                let found = words.as_ref().is_some_and(|words| words.iter().all(|word| first_line.contains(word)));
                if found {
                    *words = None;
                }
                found
            });
            if found {
                self.lost.send_replace(true);
            }
        }
    }

    async fn pass_on(&mut self, bytes: &[u8], flow: Flow) -> Result<(), End> {
        if self.direction == Direction::ToClient && *self.lost.borrow() {
            self.write(&bytes[..bytes.len().min(LOST_AFTER_BYTES)]).await?;
            return Err(End::Cut);
        }
        if let Flow::CutAfter(_) = flow {
            let count = i64::try_from(bytes.len()).unwrap();
            let left = self.shared.bytes_before_cut.fetch_sub(count, Ordering::SeqCst);
            if left < count {
                self.write(&bytes[..usize::try_from(left.max(0)).unwrap()]).await?;
                self.shared.flow(self.direction).send_replace(Flow::Pass);
                return Err(End::Cut);
            }
        }
        self.write(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.to.write_all(bytes).await.map_err(|_| End::Broken)
    }
}
