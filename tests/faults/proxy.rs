//! The fault proxy itself: a test that relies on a fault must be able to rely on the proxy.

use crate::support::proxy::{Direction, Flow, Proxy};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Sends back what it receives.
async fn echo() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    (port, tasks)
}

async fn said(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.write_all(text.as_bytes()).await?;
    let mut heard = vec![0; text.len()];
    socket.read_exact(&mut heard).await?;
    Ok(String::from_utf8(heard).unwrap())
}

#[tokio::test]
async fn every_fault_does_what_its_name_says() {
    let (port, _server) = echo().await;
    let proxy = Proxy::start(port).await;
    let open = || TcpStream::connect(("127.0.0.1", proxy.port));
    let mut socket = open().await.unwrap();
    assert_eq!(said(&mut socket, "hello").await.unwrap(), "hello");

    proxy.set(Direction::ToClient, Flow::Delay(Duration::from_millis(1)));
    assert_eq!(said(&mut socket, "delayed").await.unwrap(), "delayed");

    proxy.set(Direction::ToServer, Flow::Stall);
    assert!(tokio::time::timeout(Duration::from_millis(50), said(&mut socket, "held")).await.is_err());
    proxy.pass();
    let mut held = [0; 4];
    socket.read_exact(&mut held).await.unwrap();
    assert_eq!(&held, b"held");

    // Two of five bytes arrive; the next connection is whole again.
    proxy.set(Direction::ToClient, Flow::CutAfter(2));
    assert!(said(&mut socket, "frame").await.is_err());
    let mut socket = open().await.unwrap();
    assert_eq!(said(&mut socket, "again").await.unwrap(), "again");
    assert_eq!((proxy.cuts(), proxy.connections()), (1, 2));

    proxy.set(Direction::ToClient, Flow::HalfClose);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    proxy.pass();

    let mut socket = open().await.unwrap();
    said(&mut socket, "x").await.unwrap();
    proxy.refuse(true);
    let refused = async {
        while open().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    refused.await;
    assert_eq!(said(&mut socket, "still here").await.unwrap(), "still here");
    proxy.refuse(false);
    while open().await.is_err() {
        tokio::task::yield_now().await;
    }
    proxy.cut();
    assert!(said(&mut socket, "gone").await.is_err());

    let mut socket = open().await.unwrap();
    proxy.lose_response_to(&["PUT ", "/a"]);
    assert_eq!(said(&mut socket, "GET /a is answered").await.unwrap(), "GET /a is answered");
    assert!(!proxy.response_was_lost());
    assert!(said(&mut socket, "PUT /a is not").await.is_err());
    assert!(proxy.response_was_lost());
}
