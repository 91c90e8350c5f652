//! A TCP proxy that can fall silent or cut the line, in front of a real server.

use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to the server's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Open,
    /// They are swallowed; the connection stays.
    Silent,
    /// The connection ends.
    Cut,
}

/// Forwards every connection to the server; ends when it is dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    line: Arc<watch::Sender<Line>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(watch::Sender::new(Line::Open));
        let mut tasks = JoinSet::new();
        let state = Arc::clone(&line);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                connections.spawn(forward(client, server, state.subscribe()));
            }
        });
        Self { port, line, _tasks: tasks }
    }

    pub(super) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn forward(client: TcpStream, server: TcpStream, line: watch::Receiver<Line>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upstream = tokio::io::copy(&mut from_client, &mut to_server);
    let downstream = async {
        let mut buffer = vec![0; 4096];
        loop {
            let bytes = from_server.read(&mut buffer).await?;
            if bytes == 0 {
                return to_client.flush().await;
            }
            if *line.borrow() == Line::Open {
                to_client.write_all(&buffer[..bytes]).await?;
            }
        }
    };
    let mut cut = line.clone();
    tokio::select! {
        _ = upstream => {}
        _ = downstream => {}
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}
