//! One rewrite or maintenance operation a table at a time, across processes (L3).
//!
//! Every store can put an object if it is absent, and some can do no more (a local disk has no conditional update). So the lock
//! is a log of small objects, `<table>/_lakebed/lock/<16 digits>.json`: the newest name says who holds the lock, or that nobody
//! does. Taking, renewing and giving back each put the next one; whoever does removes those below the newest two.
//!
//! A holder that died is told without comparing the clocks of two machines: who waits sees, on its own clock, that the newest
//! object stayed the same for a whole lease, and then puts the next one. A task beside the holder's work renews the lease well within
//! its time. When it could not, because the store was away or the machine slept, the holder finds that the next number is
//! taken ([`LakeError::LockLost`]) and gives up.
//!
//! Between that look and its commit the lock may still go to somebody else, and no lock of this kind can prevent it. Nor need
//! it: the commit is fenced by the table's version, and every file that it removes must still be active. The lock keeps two
//! processes from doing the same work twice; the version keeps the rows right.

use super::actions::PROCESS;
use super::error::LakeError;
use super::lock_entries::{LockEntries, LockEntry, Placed, State};
use super::patience::Patience;
use super::table::LakeTable;
use crate::base::Backoff;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use uuid::Uuid;

/// How long a holder is believed that says nothing new.
const LEASE: Duration = Duration::from_secs(30);

/// A lease is renewed after this part of it.
const RENEWALS_PER_LEASE: u32 = 3;

/// No holder is believed for longer, whatever it says.
const LEASE_MAX: Duration = Duration::from_secs(600);

/// Until the second look at a lock that somebody holds.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Between two looks at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Whoever waits longer says so again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Attempts to give the lock back.
const RELEASES_MAX: usize = 3;

/// Where an object cannot be read.
const UNKNOWN: &str = "an unknown process";

/// Who holds a lock in this process: another task's is told from one that was dropped.
static HELD_HERE: Mutex<BTreeSet<Uuid>> = Mutex::new(BTreeSet::new());

/// The right to rewrite files of a table, kept by a task of its own until it is given back. Dropped without [`Self::release`], it is free
/// for this process at once, and for others when its lease has passed.
pub struct TableLock {
    held: Arc<AsyncMutex<Held>>,
    /// The task that renews; it ends with this set.
    keeper: JoinSet<()>,
    _known: KnownHere,
}

/// A lock that was taken.
struct Held {
    entries: LockEntries,
    holder: Holder,
    /// The number of the newest own object.
    number: u64,
}

/// Who takes the lock, and for how long without a word.
#[derive(Debug)]
pub(super) struct Holder {
    process: Uuid,
    id: Uuid,
    /// Whose progress this process records in the table, if it follows a slot.
    feed: String,
    what: &'static str,
    lease: Duration,
}

impl Holder {
    /// `feed` is the application id of the slot's progress that this process records.
    fn of_this_process(what: &'static str, feed: String) -> Self {
        let mut holder = Self::of(*PROCESS, what, LEASE);
        holder.feed = feed;
        holder
    }

    pub(super) fn of(process: Uuid, what: &'static str, lease: Duration) -> Self {
        Self { process, id: Uuid::new_v4(), feed: String::new(), what, lease }
    }

    fn entry(&self, state: State) -> LockEntry {
        LockEntry {
            process: self.process,
            pid: std::process::id(),
            holder: self.id,
            feed: self.feed.clone(),
            what: self.what.to_owned(),
            state,
            lease_seconds: self.lease.as_secs(),
            recorded_at: String::new(),
        }
    }

    /// Whether this process knows that an object's holder is gone: its own, dropped; or who did the same for the same slot, because a slot
    /// has one consumer, and that is this process. Should the other one live on, its commit meets ours and fails.
    fn knows_as_gone(&self, entry: &LockEntry) -> bool {
        match entry.process == self.process {
            true => !held_here().contains(&entry.holder),
            false => !self.feed.is_empty() && (&self.feed, self.what) == (&entry.feed, entry.what.as_str()),
        }
    }
}

/// For as long as this lives, a holder counts as one of this process.
struct KnownHere(Uuid);

impl KnownHere {
    fn new(holder: &Holder) -> Self {
        held_here().insert(holder.id);
        Self(holder.id)
    }
}

impl Drop for KnownHere {
    fn drop(&mut self) {
        held_here().remove(&self.0);
    }
}

fn held_here() -> MutexGuard<'static, BTreeSet<Uuid>> {
    // Whatever a panic left, an id in the set belongs to a holder.
    HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TableLock {
    /// Takes the lock of a table for `what`, waiting for whoever holds it for as long as `patience` lasts. Tasks of this process
    /// exclude each other like processes.
    ///
    /// # Errors
    /// [`LakeError::LockHeld`] when nobody waits any more, and what the store says.
    pub async fn acquire(table: &LakeTable, what: &'static str, patience: &Patience) -> Result<TableLock, LakeError> {
        // Two processes that follow no slot are nobody's successors.
        let feed = if table.rules.maintains { String::new() } else { table.rules.progress.app_id() };
        let holder = Holder::of_this_process(what, feed);
        Ok(Self::acquire_as(table, holder, patience).await?.kept())
    }

    pub(super) fn kept(mut self) -> Self {
        self.keeper.spawn(keep(Arc::clone(&self.held)));
        self
    }

    /// For somebody else, and without a keeper.
    pub(super) async fn acquire_as(
        table: &LakeTable,
        holder: Holder,
        patience: &Patience,
    ) -> Result<TableLock, LakeError> {
        let entries = LockEntries::of(table.log.store.clone(), table.location().to_owned());
        let (mut vigil, known) = (Vigil::new(), KnownHere::new(&holder));
        loop {
            let newest = entries.newest(patience).await?;
            if newest != vigil.number {
                // One that was removed since, or is torn, is believed like any other.
                vigil.see(newest, entries.read(newest, patience).await?, Instant::now());
            }
            if !vigil.is_free(&holder, Instant::now()) {
                vigil.wait(&entries.location, patience).await?;
                continue;
            }
            let number = newest.saturating_add(1);
            if entries.put(number, &holder.entry(State::Held), patience).await? == Placed::Newest {
                vigil.ended(&entries.location);
                let held = Held { entries, holder, number };
                return Ok(Self { held: Arc::new(AsyncMutex::new(held)), keeper: JoinSet::new(), _known: known });
            }
        }
    }

    /// Whether nobody else follows, asked of the store: right before a commit.
    ///
    /// # Errors
    /// [`LakeError::LockLost`] when somebody else follows: the work is to be given up. And what the store says.
    pub async fn still_held(&self, patience: &Patience) -> Result<(), LakeError> {
        self.held.lock().await.look(patience).await
    }

    /// Gives the lock back. An attempt: what cannot be said now is told by the lease.
    pub async fn release(mut self) {
        self.keeper.shutdown().await;
        if let Err(error) = self.held.lock().await.release().await {
            tracing::debug!(%error, "the lock ends with its lease");
        }
    }

    #[cfg(test)]
    pub(super) async fn renew(&self, patience: &Patience) -> Result<(), LakeError> {
        self.held.lock().await.renew(patience).await
    }
}

/// Renews a lock's lease until somebody else has it. An outage is waited out here and not in a request, so that the holder's own
/// questions come through.
async fn keep(held: Arc<AsyncMutex<Held>>) {
    let mut wait = held.lock().await.holder.lease / RENEWALS_PER_LEASE;
    loop {
        tokio::time::sleep(wait).await;
        let mut held = held.lock().await;
        wait = held.holder.lease / RENEWALS_PER_LEASE;
        match held.renew(&Patience::none()).await {
            Ok(()) => {}
            // The holder learns it when it asks.
            Err(LakeError::LockLost { .. }) => return,
            Err(error) => {
                tracing::debug!(%error, "the lock is renewed a little later");
                wait = LONGEST_WAIT.min(wait);
            }
        }
    }
}

impl Held {
    async fn renew(&mut self, patience: &Patience) -> Result<(), LakeError> {
        let number = self.number.saturating_add(1);
        match self.entries.put(number, &self.holder.entry(State::Held), patience).await? {
            Placed::Newest => self.number = number,
            Placed::Late => self.look(patience).await?,
        }
        Ok(())
    }

    /// The newest object is this holder's, whether or not it knows of having put it: an answer may have been lost.
    async fn look(&mut self, patience: &Patience) -> Result<(), LakeError> {
        let newest = self.entries.newest(patience).await?;
        if newest == self.number {
            return Ok(());
        }
        let found = self.entries.read(newest, patience).await?;
        if found.as_ref().is_some_and(|found| found.holder == self.holder.id && found.state == State::Held) {
            self.number = newest;
            return Ok(());
        }
        let by = found.map_or_else(|| UNKNOWN.to_owned(), |found| found.who());
        Err(LakeError::LockLost { location: self.entries.location.clone(), by })
    }

    async fn release(&mut self) -> Result<(), LakeError> {
        let (released, patience) = (self.holder.entry(State::Released), Patience::none());
        // A renewal that was cut off may arrive in between.
        for _ in 0..RELEASES_MAX {
            self.look(&patience).await?;
            if self.entries.put(self.number.saturating_add(1), &released, &patience).await? == Placed::Newest {
                break;
            }
        }
        Ok(())
    }
}

/// What somebody who waits has seen, on its own clock.
struct Vigil {
    /// The newest number; 0 when nobody ever took the lock.
    number: u64,
    entry: Option<LockEntry>,
    /// Since when it is the newest one here.
    since: Option<Instant>,
    /// Since when is waited, for whomever.
    waiting: Option<Instant>,
    reported: Option<Instant>,
    backoff: Backoff,
}

impl Vigil {
    fn new() -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        Self { number: 0, entry: None, since: None, waiting: None, reported: None, backoff }
    }

    fn see(&mut self, number: u64, entry: Option<LockEntry>, now: Instant) {
        (self.number, self.entry, self.since) = (number, entry, Some(now));
    }

    fn is_free(&self, holder: &Holder, now: Instant) -> bool {
        match &self.entry {
            _ if self.number == 0 => true,
            Some(entry) if entry.state == State::Released || holder.knows_as_gone(entry) => true,
            _ => self.since.is_some_and(|since| now.duration_since(since) >= self.lease()),
        }
    }

    fn lease(&self) -> Duration {
        self.entry.as_ref().map_or(LEASE, |entry| Duration::from_secs(entry.lease_seconds).min(LEASE_MAX))
    }

    /// Waits until the next look.
    async fn wait(&mut self, location: &str, patience: &Patience) -> Result<(), LakeError> {
        let now = Instant::now();
        let since = *self.waiting.get_or_insert(now);
        let (by, what) = match &self.entry {
            Some(entry) => (entry.who(), entry.what.clone()),
            None => (UNKNOWN.to_owned(), "unknown".to_owned()),
        };
        let said_before = self.reported.map(|reported| now.duration_since(reported));
        if said_before.is_none_or(|passed| passed >= REPORT_INTERVAL) {
            self.reported = Some(now);
            let waited_seconds = now.duration_since(since).as_secs();
            match said_before {
                None => tracing::info!(location, by, what, "somebody else works on the table; waiting for its lock"),
                Some(_) => {
                    tracing::warn!(location, by, what, waited_seconds, "somebody else still works on the table");
                }
            }
        }
        let wait = self.backoff.next(rand::random()).min(self.lease());
        let waits = patience.pause(since, wait).await;
        if waits { Ok(()) } else { Err(LakeError::LockHeld { location: location.to_owned(), by, what }) }
    }

    fn ended(&self, location: &str) {
        if let Some(since) = self.waiting {
            tracing::info!(location, waited_seconds = since.elapsed().as_secs_f64(), "has the lock");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(process: Uuid, state: State, lease_seconds: u64) -> LockEntry {
        let (what, recorded_at) = ("rewrite".to_owned(), String::new());
        let feed = "lakebed/1/slot/public.event/0".to_owned();
        LockEntry { process, pid: 7, holder: Uuid::new_v4(), feed, what, state, lease_seconds, recorded_at }
    }

    #[test]
    fn a_holder_is_believed_for_its_lease_since_it_was_seen_here() {
        let (ours, another) = (Holder::of(*PROCESS, "rewrite", LEASE), Uuid::new_v4());
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut vigil = Vigil::new();
        assert!(vigil.is_free(&ours, began), "nobody ever took it");
        vigil.see(3, Some(entry(another, State::Held, 30)), began);
        assert!(!vigil.is_free(&ours, after(29)));
        assert!(vigil.is_free(&ours, after(30)));
        // It was renewed.
        vigil.see(4, Some(entry(another, State::Held, 30)), after(29));
        assert!(!vigil.is_free(&ours, after(58)));
        vigil.see(5, Some(entry(another, State::Released, 30)), after(58));
        assert!(vigil.is_free(&ours, after(58)));
        // Who says nothing readable, or too much, is not believed for ever.
        vigil.see(6, None, began);
        assert!(!vigil.is_free(&ours, after(29)) && vigil.is_free(&ours, after(30)));
        vigil.see(7, Some(entry(another, State::Held, u64::MAX)), began);
        assert!(!vigil.is_free(&ours, after(599)) && vigil.is_free(&ours, after(600)));
    }

    #[test]
    fn who_follows_a_slot_follows_its_former_consumer_at_once_in_the_same_work() {
        let held = entry(Uuid::new_v4(), State::Held, 30);
        let (now, mut vigil) = (Instant::now(), Vigil::new());
        vigil.see(1, Some(held.clone()), now);
        let free = |what, feed: &str| vigil.is_free(&Holder::of_this_process(what, feed.to_owned()), now);
        assert!(free("rewrite", &held.feed));
        assert!(!free("compact", &held.feed) && !free("rewrite", "lakebed/1/other/public.event/0"));
    }

    #[test]
    fn a_lock_that_this_process_dropped_is_free_and_one_that_it_holds_is_not() {
        let feed = "lakebed/1/slot/public.event/0";
        let (ours, other) =
            (Holder::of_this_process("rewrite", feed.to_owned()), Holder::of_this_process("rewrite", feed.to_owned()));
        let known = KnownHere::new(&other);
        let mut vigil = Vigil::new();
        vigil.see(1, Some(other.entry(State::Held)), Instant::now());
        assert!(!vigil.is_free(&ours, Instant::now()));
        drop(known);
        assert!(vigil.is_free(&ours, Instant::now()));
    }
}
