//! The task that owns the socket while WAL flows. It does one thing at a time and waits for all of them at once: queued
//! status updates leave, bytes come in, a full channel gets room, time passes.

use super::budget::{Disconnected, Outlet};
use super::error::WalError;
use super::feedback::{Feedback, put_status_update};
use super::intake::{Cut, Intake};
use super::pace::{LOW_WATER_BYTES, PATIENCE, Pace};
use super::stream::StreamOptions;
use crate::connect::{ServerError, Socket, sqlstate};
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{
    COMMAND_COMPLETE_TAG, COPY_DONE_TAG, ERROR_RESPONSE_TAG, NOTICE_RESPONSE_TAG, PARAMETER_STATUS_TAG,
    READY_FOR_QUERY_TAG,
};
use postgres_protocol::message::frontend;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// SO_RCVBUF of a TCP connection, where the kernel allows it, which doubles it to 8 MiB (socket(7)): room for the server while
/// a batch is handed over.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// One read's room, if the budget is not smaller.
const CHUNK_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// For the server's farewell; it may be in the middle of a transaction, and nothing is lost if it does not come.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A timer that is never due.
const FAR_FUTURE: Duration = Duration::from_secs(86_400);

/// See the module.
#[derive(Debug)]
pub(super) struct StreamTask {
    link: Link,
    intake: Intake,
    outlet: Outlet,
    feedback: Feedback,
    stop: Arc<Notify>,
    options: StreamOptions,
    endpoint: String,
    pace: Pace,
    clock: Clock,
}

#[derive(Debug)]
struct Clock {
    /// The last byte of the server, or the moment when reading was taken up again.
    heard: Instant,
    /// An answer has been asked for since.
    asked: bool,
    next_feedback: Instant,
    /// A Unix socket is left alone until then, or until the consumer has taken everything.
    read_again: Instant,
    /// Status updates wait for the one before to leave; several become one.
    status_due: bool,
}

enum Event {
    Stop,
    Acknowledged,
    Time,
    Delivered,
    Hungry,
    Link(Progress),
}

/// Whether the stream goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl StreamTask {
    pub(super) fn new(
        socket: Socket,
        received: BytesMut,
        options: StreamOptions,
        endpoint: String,
        outlet: Outlet,
        feedback: Feedback,
        stop: Arc<Notify>,
    ) -> Self {
        if let Err(error) = socket.set_receive_buffer(RECEIVE_BUFFER_BYTES) {
            tracing::debug!(%error, "the receive buffer keeps its size");
        }
        let now = Instant::now();
        let chunk = (options.buffer_bytes / 4).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        Self {
            link: Link { socket, outgoing: BytesMut::new(), unflushed: false },
            intake: Intake::new(received, chunk),
            outlet,
            feedback,
            stop,
            pace: Pace::new(now),
            clock: Clock { heard: now, asked: false, next_feedback: now, read_again: now, status_due: false },
            options,
            endpoint,
        }
    }

    /// Runs until the server ends the stream, the consumer leaves, or something breaks.
    pub(super) async fn run(mut self) -> Result<(), WalError> {
        let mut waiting: Option<Bytes> = None;
        loop {
            if waiting.is_none() {
                match self.intake.cut().map_err(|error| WalError::protocol(error.to_string(), &self.endpoint))? {
                    Cut::Incomplete => {}
                    Cut::Run(run) => {
                        self.clock.status_due |= run.reply_requested;
                        waiting = Some(run.bytes);
                    }
                    Cut::Message { tag, body } => match self.other_message(tag, &body)? {
                        Flow::On => continue,
                        Flow::End => return Ok(()),
                    },
                }
            }
            self.look_at_the_clock(waiting.is_none())?;
            let event = self.wait(&mut waiting).await?;
            if self.handle(event)? == Flow::End {
                return self.say_goodbye().await;
            }
        }
    }

    /// Everything that is not CopyData (section 55.2.7 of PostgreSQL's manual).
    fn other_message(&self, tag: u8, body: &[u8]) -> Result<Flow, WalError> {
        match tag {
            NOTICE_RESPONSE_TAG => missing_publication(body, &self.options.publication).map_or(Ok(Flow::On), Err),
            PARAMETER_STATUS_TAG => Ok(Flow::On),
            // A server that shuts down sends CommandComplete without CopyDone.
            COPY_DONE_TAG | COMMAND_COMPLETE_TAG => Ok(Flow::End),
            ERROR_RESPONSE_TAG => Err(WalError::from_stream(ServerError::from_fields(body), &self.options.publication)),
            tag => Err(WalError::protocol(format!("message {tag:#04x} within the stream"), &self.endpoint)),
        }
    }

    /// What is due by now: a status update, a question to a silent peer, the end of patience.
    fn look_at_the_clock(&mut self, reading: bool) -> Result<(), WalError> {
        let now = Instant::now();
        let silent = now.duration_since(self.clock.heard);
        let limit = self.options.receive_timeout;
        let mut ask = false;
        if reading && !limit.is_zero() {
            if silent >= limit {
                return Err(WalError::Silent { endpoint: self.endpoint.clone(), seconds: limit.as_secs() });
            }
            ask = !self.clock.asked && silent >= limit / 2;
        }
        if reading && self.pace.is_backlog() && silent >= PATIENCE {
            self.pace.silence();
            self.set_low_water(1);
        }
        if now >= self.clock.next_feedback {
            self.clock.status_due = true;
        }
        if (ask || self.clock.status_due) && self.link.outgoing.is_empty() {
            put_status_update(self.feedback.acknowledged(), ask, &mut self.link.outgoing);
            self.clock.asked |= ask;
            self.clock.status_due = false;
            self.clock.next_feedback = now + self.options.feedback_interval.max(Duration::from_millis(10));
        }
        Ok(())
    }

    /// When to look at the clock again.
    fn deadline(&self, reading: bool) -> Instant {
        // While an update is on its way the next one waits for the socket, not for the clock.
        let written = self.link.outgoing.is_empty();
        let mut deadline = Instant::now() + FAR_FUTURE;
        if written {
            deadline = deadline.min(self.clock.next_feedback);
        }
        if reading {
            let limit = self.options.receive_timeout;
            if !limit.is_zero() {
                let question = written && !self.clock.asked;
                deadline = deadline.min(self.clock.heard + if question { limit / 2 } else { limit });
            }
            if self.pace.is_backlog() {
                deadline = deadline.min(self.clock.heard + PATIENCE);
            }
            if self.clock.read_again > Instant::now() {
                deadline = deadline.min(self.clock.read_again);
            }
        }
        deadline
    }

    /// Waits for the first of everything. Each branch may be dropped at any await without losing a byte.
    async fn wait(&mut self, waiting: &mut Option<Bytes>) -> Result<Event, WalError> {
        let reading = waiting.is_none();
        let deadline = self.deadline(reading);
        let pausing = reading && self.clock.read_again > Instant::now();
        let may_read = reading && !pausing;
        let Self { link, intake, outlet, feedback, stop, endpoint, .. } = self;
        let room = async {
            match waiting.as_ref() {
                Some(bytes) => outlet.room(bytes.len()).await,
                None => pending().await,
            }
        };
        let hungry = async { if pausing { outlet.emptied().await } else { pending().await } };
        let mut space = may_read.then(|| intake.space());
        tokio::select! {
            () = stop.notified() => Ok(Event::Stop),
            () = feedback.moved() => Ok(Event::Acknowledged),
            () = sleep_until(deadline) => Ok(Event::Time),
            () = hungry => Ok(Event::Hungry),
            room = room => match room {
                Err(Disconnected) => Ok(Event::Stop),
                Ok(room) => {
                    room.send(waiting.take().unwrap_or_default());
                    Ok(Event::Delivered)
                }
            },
            progress = poll_fn(|cx| link.poll(cx, space.as_deref_mut())) => {
                progress.map(Event::Link).map_err(|error| WalError::io(error, endpoint))
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<Flow, WalError> {
        let now = Instant::now();
        match event {
            Event::Stop => return Ok(Flow::End),
            Event::Acknowledged => self.clock.status_due = true,
            Event::Time | Event::Link(Progress::Written) => {}
            // The server's silence counts from when it is listened to again.
            Event::Delivered => self.heard(now),
            Event::Hungry => self.clock.read_again = now,
            Event::Link(Progress::Read(0)) => return Err(WalError::Closed { endpoint: self.endpoint.clone() }),
            Event::Link(Progress::Read(bytes)) => {
                self.heard(now);
                if self.pace.read(now, bytes) {
                    self.set_low_water(LOW_WATER_BYTES);
                }
                if self.link.socket.is_unix()
                    && let Some(pause) = self.pace.unix_pause(bytes, self.outlet.has_waiting())
                {
                    self.clock.read_again = now + pause;
                }
            }
        }
        Ok(Flow::On)
    }

    fn heard(&mut self, now: Instant) {
        self.clock.heard = now;
        self.clock.asked = false;
    }

    fn set_low_water(&self, bytes: u32) {
        if let Err(error) = self.link.socket.set_receive_low_water(bytes) {
            tracing::debug!(%error, "the low-water mark keeps its value");
        }
    }

    /// The last position, CopyDone, and the server's own end; what it still sends is dropped, it sends that again next time.
    async fn say_goodbye(mut self) -> Result<(), WalError> {
        self.set_low_water(1);
        put_status_update(self.feedback.acknowledged(), false, &mut self.link.outgoing);
        frontend::copy_done(&mut self.link.outgoing);
        match timeout(FINISH_TIMEOUT, self.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the replication stream ended out of order"),
            Err(_) => tracing::warn!("PostgreSQL did not end the replication stream in time; the connection is cut"),
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), WalError> {
        loop {
            match self.intake.cut().map_err(|error| WalError::protocol(error.to_string(), &self.endpoint))? {
                Cut::Run(_) => continue,
                Cut::Message { tag: READY_FOR_QUERY_TAG, .. } => {
                    frontend::terminate(&mut self.link.outgoing);
                    let done = poll_fn(|cx| self.link.poll(cx, None)).await;
                    return done.map(|_| ()).map_err(|error| WalError::io(error, &self.endpoint));
                }
                Cut::Message { tag: ERROR_RESPONSE_TAG, body } => {
                    return Err(WalError::from_stream(ServerError::from_fields(&body), &self.options.publication));
                }
                Cut::Message { .. } => continue,
                Cut::Incomplete => {}
            }
            let (link, space) = (&mut self.link, self.intake.space());
            if let Progress::Read(0) = poll_fn(|cx| link.poll(cx, Some(&mut *space)))
                .await
                .map_err(|error| WalError::io(error, &self.endpoint))?
            {
                return Err(WalError::Closed { endpoint: self.endpoint.clone() });
            }
        }
    }
}

/// PostgreSQL 18 warns that it skips a publication which does not exist yet at this point of the WAL, and goes on without its
/// rows; older servers end the stream.
fn missing_publication(notice: &[u8], publication: &str) -> Option<WalError> {
    let server = ServerError::from_warning(notice)?;
    let skipped = server.is(sqlstate::WRONG_STATE) && server.message.contains(publication);
    skipped.then(|| WalError::PublicationMissing { publication: publication.to_owned(), server })
}

/// What the socket did.
enum Progress {
    /// Everything queued has left.
    Written,
    /// So many bytes came; zero is the end.
    Read(usize),
}

/// The socket and what is queued for it. Written by polling: a half-written message stays queued, whoever drops the future.
#[derive(Debug)]
struct Link {
    socket: Socket,
    outgoing: BytesMut,
    unflushed: bool,
}

impl Link {
    fn poll(&mut self, cx: &mut Context<'_>, space: Option<&mut BytesMut>) -> Poll<io::Result<Progress>> {
        if let Poll::Ready(written) = self.poll_write_queued(cx) {
            return Poll::Ready(written.map(|()| Progress::Written));
        }
        match space {
            // The future of read_buf holds no state of its own, so it may be made anew for each poll.
            Some(space) => pin!(self.socket.read_buf(space)).poll(cx).map_ok(Progress::Read),
            None => Poll::Pending,
        }
    }

    /// Ready once for a queue that has become empty, pending while there is nothing to do.
    fn poll_write_queued(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.outgoing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => self.outgoing.advance(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            self.unflushed = true;
        }
        if !self.unflushed {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        if flushed.is_ready() {
            self.unflushed = false;
        }
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify, RetryClass};

    #[test]
    fn a_skipped_publication_ends_the_stream_and_other_notices_do_not() {
        let notice = |severity: &str, code: &str| {
            let message = "skipped loading publication \"lakebed\"";
            format!("S{severity}\0V{severity}\0C{code}\0M{message}\0Dit does not exist\0\0").into_bytes()
        };
        let error = missing_publication(&notice("WARNING", "55000"), "lakebed").unwrap();
        assert!(matches!(error, WalError::PublicationMissing { .. }) && error.retry_class() == RetryClass::Definite);
        assert!(missing_publication(&notice("NOTICE", "55000"), "lakebed").is_none());
        assert!(missing_publication(&notice("WARNING", "01000"), "lakebed").is_none());
        assert!(missing_publication(&notice("WARNING", "55000"), "other").is_none());
        assert!(missing_publication(b"", "lakebed").is_none());
    }
}
