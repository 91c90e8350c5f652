//! The postmaster process and the thread that keeps it.
//!
//! One thread starts the process, is the only one to wait for it, and therefore the only one that may signal it: a process id
//! can never be somebody else's. It also has to outlive the server, because the kernel's parent-death signal follows the
//! starting *thread*, and threads of an async runtime come and go.

use super::signal;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a running server is looked at; its end is only news to whoever waits for readiness.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Shutdown modes of the postmaster, mildest first (section "Shutting Down the Server" of PostgreSQL's manual), and how
/// long each is given. A fast shutdown waits for walsenders whose consumer is stuck, hence the second.
const ENDINGS: [(libc::c_int, Duration); 3] = [
    (libc::SIGINT, Duration::from_secs(5)),
    (libc::SIGQUIT, Duration::from_secs(5)),
    (libc::SIGKILL, Duration::from_secs(5)),
];

/// A running postmaster. Dropping it stops it and waits until it is gone.
#[derive(Debug)]
pub(super) struct Postmaster {
    orders: Option<SyncSender<Order>>,
    ended: watch::Receiver<Option<String>>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    /// End as a crash would.
    Immediate,
}

impl Postmaster {
    /// Starts the process.
    pub(super) fn start(command: Command) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(1);
        let (started, outcome) = sync_channel(1);
        let (end, ended) = watch::channel(None);
        let keeper = std::thread::Builder::new()
            .name("postmaster".to_owned())
            .spawn(move || keep(command, &inbox, &started, &end))?;
        match outcome.recv() {
            Ok(Ok(())) => Ok(Self { orders: Some(orders), ended, keeper: Some(keeper) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(std::io::Error::other("the keeper thread ended")),
        }
    }

    /// How the process ended, once it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Immediate shutdown: no checkpoint, so that the next start recovers from the WAL.
    pub(super) async fn kill_immediately(mut self) {
        if let Some(orders) = &self.orders {
            // Full or closed means that the same order was given, or that the process is gone.
            let _ = orders.try_send(Order::Immediate);
        }
        // An error means that the keeper has gone, and it leaves only after the process.
        let _ = self.ended.wait_for(Option::is_some).await;
    }

    /// Fast shutdown.
    pub(super) async fn stop(mut self) {
        self.orders = None;
        let _ = self.ended.wait_for(Option::is_some).await;
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn keep(
    mut command: Command,
    inbox: &Receiver<Order>,
    started: &SyncSender<std::io::Result<()>>,
    end: &watch::Sender<Option<String>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    let status = loop {
        match inbox.recv_timeout(LOOK_INTERVAL) {
            Ok(Order::Immediate) => break stop(&mut child, ENDINGS.get(1..).unwrap_or_default()),
            Err(RecvTimeoutError::Disconnected) => break stop(&mut child, &ENDINGS),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => break status.to_string(),
            Err(error) => break error.to_string(),
        }
    };
    end.send_replace(Some(status));
}

/// Ends the child by the mildest means that works, in bounded time.
fn stop(child: &mut Child, endings: &[(libc::c_int, Duration)]) -> String {
    for (signal, patience) in endings {
        signal::send(child.id(), *signal);
        let deadline = Instant::now() + *patience;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(None) => std::thread::park_timeout(Duration::from_millis(5)),
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
    }
    "it could not be ended".to_owned()
}
