//! The governing stage: it watches how much WAL the server can still write before the slot is lost, says so early, and keeps an idle
//! slot moving.
//!
//! It has a connection of its own, so that neither a slow store nor a busy stream delays a look. It only looks and tells: what
//! follows from the [`Pressure`] (flushing earlier, parking) is for the stages that hold rows. Its own troubles never end the
//! pipeline, because a stream that works is worth more than a gauge.

use super::PipelineError;
use crate::base::{Backoff, Classify, MARKER_PREFIX, RetryClass, TableName};
use crate::connect::{self, ControlConnection, Settings};
use crate::lake::{LakeLocation, LakeTable};
use crate::source::Pressure;
use crate::source::{self, Headroom, SourceError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between two looks at the slot.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A look that takes longer will not come back: the line is dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Waits between attempts to connect again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Prefix and content of the heartbeat. No marker has this content, so whoever follows reads over it.
const HEARTBEAT_PREFIX: &str = MARKER_PREFIX;
const HEARTBEAT: &str = "heartbeat";
/// In percent of the limit: an alarm ends only when this much is left again, so that a slot at the edge does not fill the log.
const RECOVERED_PERCENT: u64 = 50;

/// The stage.
pub(super) struct Governor {
    pub(super) settings: Settings,
    pub(super) slot: String,
    pub(super) heartbeat_interval: Option<Duration>,
    pub(super) publication: String,
    /// Each has to stay in the publication, with its folder in the lake.
    pub(super) tables: Vec<(TableName, String)>,
    /// Where to ask whether one stands still, and may go.
    pub(super) location: LakeLocation,
    /// Whoever listens keeps the stage alive.
    pub(super) level: watch::Sender<Pressure>,
    /// Whether that level is critical, for those who wait for a store.
    pub(super) critical: watch::Sender<bool>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the server did not answer for {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// Not the connection's: nobody can follow a table that is not sent.
    #[error("{0} is not published any more")]
    NotPublished(TableName),
}

impl Governor {
    /// Governs until it is asked to stop, or nobody listens any more. Cancel-safe: it holds nothing that could be lost.
    pub(super) async fn run(self) -> Result<(), PipelineError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            // An error means that whoever could ask has gone.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.level.closed() => {}
            table = self.govern() => {
                let publication = self.publication.clone();
                return Err(PipelineError::NoLongerPublished { table, publication });
            }
        }
        Ok(())
    }

    /// Looks for ever; a lost connection is opened again. One line a spell of trouble: the first failure is left to those who stream,
    /// whose connection is mostly lost with it. Returns a table that the publication no longer has.
    async fn govern(&self) -> TableName {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut gauge = Gauge::default();
        let mut failures = 0_u32;
        loop {
            let trouble = match self.watch(&mut gauge, &mut backoff, &mut failures).await {
                Trouble::NotPublished(table) => return table,
                trouble => trouble,
            };
            failures = failures.saturating_add(1);
            if failures == 2 {
                let slot = &self.slot;
                tracing::warn!(slot, error = %trouble, "the slot's headroom cannot be watched for now; trying again");
            } else {
                tracing::debug!(error = %trouble, "the slot's headroom cannot be watched");
            }
            sleep(backoff.next(rand::random())).await;
        }
    }

    /// Connects and looks until that fails.
    async fn watch(&self, gauge: &mut Gauge, backoff: &mut Backoff, failures: &mut u32) -> Trouble {
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(trouble) => return trouble,
        };
        let mut next_look = Instant::now();
        let mut next_heartbeat = self.heartbeat_interval.map(|interval| next_look + interval);
        loop {
            let heartbeat_due = next_heartbeat.is_some_and(|at| at <= next_look);
            sleep_until(if heartbeat_due { next_heartbeat.unwrap_or(next_look) } else { next_look }).await;
            let done = if heartbeat_due {
                next_heartbeat = self.heartbeat_interval.map(|interval| Instant::now() + interval);
                let beaten = self.answered(self.beat(&connection)).await;
                if let Err(Trouble::Source(error)) = &beaten
                    && error.retry_class() == RetryClass::Definite
                {
                    tracing::warn!(slot = self.slot, %error, "no heartbeat is written any more");
                    next_heartbeat = None;
                    continue;
                }
                beaten
            } else {
                next_look = Instant::now() + LOOK_INTERVAL;
                self.answered(self.look(&connection, gauge)).await
            };
            if let Err(trouble) = done {
                return trouble;
            }
            if *failures >= 2 {
                tracing::info!(slot = self.slot, "the slot's headroom is watched again");
            }
            *failures = 0;
            backoff.reset();
        }
    }

    async fn connect(&self) -> Result<ControlConnection, Trouble> {
        let connection = connect::control(&self.settings).await?;
        self.answered(async { Ok(source::prepare_session(connection.client()).await?) }).await?;
        Ok(connection)
    }

    /// A half-dead line answers nothing, not even an error.
    async fn answered<T>(&self, asked: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        timeout(ANSWER_WITHIN, asked).await.unwrap_or(Err(Trouble::Silent))
    }

    async fn beat(&self, connection: &ControlConnection) -> Result<(), Trouble> {
        source::emit_message(connection.client(), HEARTBEAT_PREFIX, HEARTBEAT).await?;
        Ok(())
    }

    async fn look(&self, connection: &ControlConnection, gauge: &mut Gauge) -> Result<(), Trouble> {
        self.look_at_the_publication(connection).await?;
        // A slot that is gone ends the stream, with a better message than could be given here.
        let Some(headroom) = source::headroom(connection.client(), &self.slot).await? else { return Ok(()) };
        let level = headroom.pressure();
        self.critical.send_replace(level == Pressure::Critical);
        self.level.send_if_modified(|known| std::mem::replace(known, level) != level);
        if let Some(news) = gauge.observe(&headroom) {
            news.log(&self.slot, &headroom);
        }
        Ok(())
    }
}

impl Governor {
    /// A table that is taken out of the publication goes silent in the stream, which no row can tell.
    async fn look_at_the_publication(&self, connection: &ControlConnection) -> Result<(), Trouble> {
        // One that is gone altogether ends the stream at its next row, with a better message than could be given here.
        let found = source::publication(connection.client(), &self.publication).await?;
        let Some(found) = found else { return Ok(()) };
        for (table, path) in self.tables.iter().filter(|(table, _)| found.find(table).is_none()) {
            let stands_still = LakeTable::stands_still(&self.location, path, &self.slot, table).await;
            if !stands_still.unwrap_or(true) {
                return Err(Trouble::NotPublished(table.clone()));
            }
        }
        Ok(())
    }
}

/// What is worth a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Worsened,
    /// Of what was left when it was last said, half is gone.
    Halved,
    Recovered,
}

/// What was last said about the slot's headroom.
#[derive(Debug, Default)]
struct Gauge {
    said: Pressure,
    said_safe_bytes: u64,
}

impl Gauge {
    fn observe(&mut self, headroom: &Headroom) -> Option<News> {
        let level = headroom.pressure();
        let safe = headroom.safe_wal_bytes.unwrap_or(0);
        let news = if level > self.said {
            News::Worsened
        } else if level == Pressure::Ample {
            let recovered = headroom.safe_percent().is_none_or(|percent| percent >= RECOVERED_PERCENT);
            if self.said == Pressure::Ample || !recovered {
                return None;
            }
            News::Recovered
        } else if safe <= self.said_safe_bytes / 2 && safe < self.said_safe_bytes {
            News::Halved
        } else {
            return None;
        };
        self.said = if news == News::Halved { self.said } else { level };
        self.said_safe_bytes = safe;
        Some(news)
    }
}

impl News {
    fn log(self, slot: &str, headroom: &Headroom) {
        let Headroom { wal_status, safe_wal_bytes, retained_bytes, limit_bytes } = headroom;
        let wal_status = wal_status.as_deref().unwrap_or("unknown");
        let level = headroom.pressure().name();
        match self {
            Self::Worsened | Self::Halved => tracing::warn!(
                slot,
                headroom = level,
                wal_status,
                safe_wal_bytes,
                retained_bytes,
                limit_bytes,
                "the slot comes near its loss: look at what keeps the lake from following, or raise max_slot_wal_keep_size"
            ),
            Self::Recovered => tracing::info!(
                slot,
                headroom = level,
                wal_status,
                safe_wal_bytes,
                retained_bytes,
                limit_bytes,
                "the slot has headroom again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(percent: u64) -> Headroom {
        let wal_status = Some("extended".to_owned());
        Headroom { wal_status, safe_wal_bytes: Some(percent), retained_bytes: Some(1), limit_bytes: Some(100) }
    }

    #[test]
    fn each_worsening_is_said_once_and_again_when_half_of_the_rest_is_gone() {
        let mut gauge = Gauge::default();
        let said: Vec<Option<News>> = [90, 41, 39, 38, 41, 39, 20, 19, 14, 13, 20, 14, 7, 6, 3]
            .map(|percent| gauge.observe(&left(percent)))
            .into();
        let (worsened, halved) = (Some(News::Worsened), Some(News::Halved));
        let mut expected =
            vec![None, None, worsened, None, None, None, None, halved, worsened, None, None, None, halved];
        expected.extend([None, halved]);
        assert_eq!(said, expected);
    }

    #[test]
    fn an_alarm_ends_when_there_is_room_for_good() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.observe(&left(10)), Some(News::Worsened));
        assert_eq!(gauge.observe(&left(45)), None, "an ample level at the edge is no news");
        assert_eq!(gauge.observe(&left(50)), Some(News::Recovered));
        assert_eq!(gauge.observe(&left(50)), None);
        let lost = Headroom { wal_status: Some("unreserved".to_owned()), safe_wal_bytes: None, ..left(0) };
        assert_eq!(gauge.observe(&lost), Some(News::Worsened));
        assert_eq!(gauge.observe(&lost), None, "nothing is left to halve");
        assert_eq!(
            gauge.observe(&Headroom { limit_bytes: None, safe_wal_bytes: None, ..left(0) }),
            Some(News::Recovered)
        );
    }
}
