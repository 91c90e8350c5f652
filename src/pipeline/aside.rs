//! The following stage while days of a table are copied from PostgreSQL: whose changes pass by, and whose are kept aside.
//!
//! ```text
//! marked ─▶ Begin ─▶ (slot of its own: Floor) ─▶ COPY under its snapshot ─▶ Finish, marker ─▶ one commit ─▶ as any day
//!  pass by     kept aside; those below the floor are dropped again ────────────────▶ applied to the copy
//! ```
//!
//! What is kept aside goes the way of a transaction in progress that nobody else has: it is bounded in memory like any, and each
//! transaction of the server is a subtransaction of it. Those that commit below the floor are in the snapshot, and count as rolled back.
//! Nothing of this is needed after a crash: a day whose copy has not landed is still marked.

use super::PipelineError;
use super::follow::{Follow, Leave};
use super::land::LandCommand;
use super::refusal::Refusal;
use super::transaction::OpenTransaction;
use crate::base::{DaySet, Lsn, Partition, XidSet};
use crate::buffer::{BufferError, TableBuffer};
use crate::decode::{OldTuple, Tuple};
use crate::lake::{StagedFile, TableWriter};
use tokio::sync::oneshot;

/// Stands for all that is kept aside; no transaction has this id (InvalidTransactionId).
pub(super) const ASIDE: u32 = 0;

/// Transactions whose changes were kept before the floor is known; each must be remembered until then.
const BEFORE_FLOOR_MAX: usize = 4_000_000;

/// Why every day of a table is to be copied.
const DAY_UNKNOWN: &str = "a change does not name its day";

/// What the copying stage asks of the following one.
pub(super) enum CopyOrder {
    /// Keep changes of these days aside from here on.
    Begin {
        /// By table.
        batch: Vec<(usize, DaySet)>,
        /// Told when they are: the snapshot must not be older, or changes behind it would have passed by.
        begun: oneshot::Sender<()>,
        /// Told when the copy is in the lake; dropped when it cannot be any more.
        landed: oneshot::Sender<()>,
    },
    /// The snapshot that is copied has what commits before this position.
    Floor(Lsn),
    /// Every row is staged; the copy lands where the stream brings the marker, which was not written yet.
    Finish {
        /// By table.
        copied: Vec<CopiedTable>,
        /// The marker's content.
        marker: String,
    },
    /// Nothing will come of the copy.
    GiveUp,
    /// These days are not to be copied after all: the lake keeps what it has.
    Keep {
        /// Index of the table.
        table: usize,
        /// The days.
        days: DaySet,
    },
    /// A table can be copied as a whole only: every day of it is to be copied.
    MarkWhole { table: usize },
    /// Nothing more is to be done here.
    Leave(Leave),
}

/// The copied days of a table.
pub(super) struct CopiedTable {
    pub(super) table: usize,
    pub(super) days: DaySet,
    /// Files, with the writer of each.
    pub(super) written: Vec<(TableWriter, Vec<StagedFile>)>,
    pub(super) rows: u64,
    /// Days without any row, as of a position, whose partition is gone.
    pub(super) gone: (DaySet, Lsn),
}

/// What becomes of a change, by its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes into the lake.
    Taken,
    /// It waits for the copy.
    KeptAside,
    /// The copy that is to come has it.
    PassedBy,
}

/// The days of a table whose changes are not simply taken.
#[derive(Debug, Default)]
pub(super) struct DayRules {
    /// Still to be copied.
    pub(super) marked: DaySet,
    /// Being copied.
    pub(super) copying: DaySet,
}

impl DayRules {
    /// Whether every day is like any other.
    #[inline]
    pub(super) fn are_none(&self) -> bool {
        self.marked.is_empty() && self.copying.is_empty()
    }

    pub(super) fn fate(&self, day: Partition) -> Fate {
        if self.copying.contains(day) {
            Fate::KeptAside
        } else if self.marked.contains(day) {
            Fate::PassedBy
        } else {
            Fate::Taken
        }
    }

    /// Of a change whose day is not known: only where all days are the same.
    fn fate_of_any(&self) -> Option<Fate> {
        match (self.copying.is_whole(), self.marked.is_whole()) {
            (true, _) => Some(Fate::KeptAside),
            (false, true) => Some(Fate::PassedBy),
            (false, false) => self.are_none().then_some(Fate::Taken),
        }
    }
}

/// A copy on its way.
pub(super) struct Aside {
    batch: Vec<(usize, DaySet)>,
    landed: oneshot::Sender<()>,
    floor: Option<Lsn>,
    /// Where the transactions commit that have something here, as long as the floor is not known; ascending.
    before_floor: Vec<Lsn>,
    /// Numbers them, from 1 on.
    last: u32,
    /// The number of the open one, once it has something here.
    open: Option<u32>,
    finished: Option<(Vec<CopiedTable>, String)>,
}

impl Aside {
    fn new(batch: Vec<(usize, DaySet)>, landed: oneshot::Sender<()>) -> Self {
        Self { batch, landed, floor: None, before_floor: Vec::new(), last: 0, open: None, finished: None }
    }

    pub(super) fn transaction_begins(&mut self) {
        self.open = None;
    }

    /// The number of a transaction that has something here; None for one below the floor.
    fn number_of(&mut self, open: OpenTransaction) -> Option<u32> {
        if self.floor.is_some_and(|floor| open.commit_lsn < floor) {
            return None;
        }
        let number = *self.open.get_or_insert_with(|| {
            self.last += 1;
            if self.floor.is_none() {
                self.before_floor.push(open.commit_lsn);
            }
            self.last
        });
        Some(number)
    }

    /// Those that are in the snapshot.
    fn below(&mut self, floor: Lsn) -> XidSet {
        self.floor = Some(floor);
        let below = std::mem::take(&mut self.before_floor).partition_point(|commit_lsn| *commit_lsn < floor);
        XidSet::up_to(u32::try_from(below).unwrap_or(u32::MAX))
    }
}

impl Follow {
    /// Does what the copying stage asks for.
    pub(super) async fn obey(&mut self, order: CopyOrder) -> Result<Option<Leave>, PipelineError> {
        match order {
            CopyOrder::Begin { batch, begun, landed } => {
                self.give_up_copy("another one begins").await?;
                self.begin_copy(batch, landed)?;
                // Who has gone meanwhile takes no snapshot.
                let _ = begun.send(());
            }
            CopyOrder::Floor(floor) => {
                if let Some(aside) = &mut self.aside {
                    let below = aside.below(floor);
                    self.in_progress.leave_out(ASIDE, below);
                }
            }
            CopyOrder::Finish { copied, marker } => match &mut self.aside {
                Some(aside) => aside.finished = Some((copied, marker)),
                None => self.command(LandCommand::Abandon { copied }).await?,
            },
            CopyOrder::GiveUp => self.give_up_copy("the copy failed").await?,
            CopyOrder::Keep { table, days } => {
                if let Some(following) = self.tables.get_mut(table) {
                    following.days.marked.subtract(&days);
                }
                // What passed by of an open transaction commits there.
                let at = self.progress.open.map_or(self.progress.sent_to, |open| open.commit_lsn);
                self.command(LandCommand::Keep { table, days, at }).await?;
            }
            CopyOrder::MarkWhole { table } => {
                self.mark(table, DaySet::whole(), "its changes do not name their day").await?
            }
            CopyOrder::Leave(leave) => return Ok(Some(leave)),
        }
        Ok(None)
    }

    fn begin_copy(&mut self, batch: Vec<(usize, DaySet)>, landed: oneshot::Sender<()>) -> Result<(), PipelineError> {
        let at = self.progress.sent_to;
        self.in_progress.open(ASIDE, self.tables.len());
        for (table, days) in &batch {
            let Some(following) = self.tables.get_mut(*table) else { continue };
            following.days.marked.extend(days);
            following.days.copying.extend(days);
            let Some(streamed) = self.in_progress.get(ASIDE) else { continue };
            let bound = streamed.open_table(*table, &following.shape, following.relation.as_ref());
            bound.map_err(|error| PipelineError::Row { at, error })?;
        }
        self.aside = Some(Aside::new(batch, landed));
        Ok(())
    }

    /// Nothing will come of a copy; its days stay marked, and their changes pass by.
    pub(super) async fn give_up_copy(&mut self, reason: &str) -> Result<(), PipelineError> {
        let Some(aside) = self.aside.take() else { return Ok(()) };
        tracing::debug!(reason, "a copy of days is given up");
        for (table, _) in &aside.batch {
            if let Some(following) = self.tables.get_mut(*table) {
                following.days.copying = DaySet::default();
            }
        }
        if let Some((copied, _)) = aside.finished {
            self.command(LandCommand::Abandon { copied }).await?;
        }
        match self.in_progress.take(ASIDE) {
            Some(streamed) if streamed.handed_on => self.command(LandCommand::Forget { xid: ASIDE }).await,
            _ => Ok(()),
        }
    }

    /// A copy of a table whose columns are others from here on cannot land.
    pub(super) async fn columns_changed(&mut self, table: usize) -> Result<(), PipelineError> {
        let is_of_it = |aside: &Aside| aside.batch.iter().any(|(copied, _)| *copied == table);
        if self.aside.as_ref().is_some_and(is_of_it) {
            self.give_up_copy("the table's columns have changed").await?;
        }
        Ok(())
    }

    /// The stream has come to the end of a copy: with what was kept aside it becomes one commit a table, at the marker's own position.
    pub(super) async fn land_copy(&mut self, at: Lsn, marker: &[u8]) -> Result<Option<Leave>, PipelineError> {
        // The order was given before the marker was written.
        while let Ok(order) = self.orders.try_recv() {
            if let Some(leave) = self.obey(order).await? {
                return Ok(Some(leave));
            }
        }
        let is_this = |aside: &mut Aside| {
            aside.finished.as_ref().is_some_and(|(_, expected)| expected.as_bytes() == marker) && aside.floor.is_some()
        };
        let Some(Aside { batch, landed, finished: Some((copied, _)), .. }) = self.aside.take_if(is_this) else {
            return Ok(None);
        };
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "a message outside transactions inside one" });
        }
        self.flush().await?;
        let Some(mut streamed) = self.in_progress.take(ASIDE) else { return Ok(None) };
        let taken = streamed.take_all().map_err(|error| PipelineError::Row { at, error })?;
        let (bytes, (_, below)) = (streamed.bytes, streamed.into_parts());
        for (table, load) in taken {
            self.send(table, Some(ASIDE), load).await?;
        }
        let rows: u64 = copied.iter().map(|copied| copied.rows).sum();
        for copied in copied {
            self.command(LandCommand::Copied { copied, below: below.clone() }).await?;
        }
        for (table, days) in batch {
            let Some(following) = self.tables.get_mut(table) else { continue };
            following.days.marked.subtract(&days);
            following.days.copying = DaySet::default();
        }
        self.progress.streamed_ended(at, rows.max(1), bytes);
        self.progress.sent(at);
        self.flush().await?;
        self.command(LandCommand::CopyLanded { landed }).await?;
        Ok(None)
    }

    /// A new row of a table some days of which are copied, or are to be.
    pub(super) fn insert_by_day(
        &mut self,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        new: &Tuple<'_>,
    ) -> Result<(), Refusal> {
        let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
        let day = following.buffer.day_of(new).map_err(|error| Refusal::row(table, error))?;
        match following.days.fate(day) {
            Fate::PassedBy => Ok(()),
            Fate::KeptAside => self.keep_aside(table, open, bytes, |buffer, number| buffer.append(new, Some(number))),
            Fate::Taken => {
                following.buffer.append(new, None).map_err(|error| Refusal::row(table, error))?;
                self.progress.row(bytes);
                Ok(())
            }
        }
    }

    /// The same for a row that was deleted.
    pub(super) async fn delete_by_day(
        &mut self,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        old: &OldTuple<'_>,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let Some(following) = self.tables.get(table) else { return Ok(Ok(())) };
        let day = match following.buffer.day_of_old(old) {
            Ok(day) => day,
            Err(error) => return Ok(Err(Refusal::row(table, error))),
        };
        let fate = match day {
            Some(day) => Some(following.days.fate(day)),
            None => following.days.fate_of_any(),
        };
        match fate {
            Some(fate) => Ok(self.delete_as(fate, table, open, bytes, old)),
            None => self.mark(table, DaySet::whole(), DAY_UNKNOWN).await.map(Ok),
        }
    }

    fn delete_as(
        &mut self,
        fate: Fate,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        old: &OldTuple<'_>,
    ) -> Result<(), Refusal> {
        self.change_as(fate, table, open, bytes, |buffer, number| buffer.delete(old, &open.origin(), number))
    }

    /// The same for a row that became another. Each half follows the rule of its own day.
    pub(super) async fn update_by_day(
        &mut self,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        (old, new): (Option<&OldTuple<'_>>, &Tuple<'_>),
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let Some(following) = self.tables.get(table) else { return Ok(Ok(())) };
        let (old_day, new_day) = match following.buffer.days_of_update(old, new) {
            Ok(days) => days,
            Err(error) => return Ok(Err(Refusal::row(table, error))),
        };
        let fates = match old_day {
            Some(old_day) => Some((following.days.fate(old_day), following.days.fate(new_day))),
            None => following.days.fate_of_any().map(|fate| (fate, fate)),
        };
        match (fates, old) {
            (None, _) => self.mark(table, DaySet::whole(), DAY_UNKNOWN).await.map(Ok),
            (Some((from, to)), Some(old)) if from != to => {
                if let Err(refusal) = self.delete_as(from, table, open, bytes, old) {
                    return Ok(Err(refusal));
                }
                self.arrive(to, table, open, (old, new, new_day)).await
            }
            (Some((fate, _)), old) => Ok(self
                .change_as(fate, table, open, bytes, |buffer, number| buffer.update(old, new, &open.origin(), number))),
        }
    }

    /// A row comes from a day of another fate. What the server left out of it is in that day, where nobody may have it: its own day is copied
    /// again then.
    async fn arrive(
        &mut self,
        fate: Fate,
        table: usize,
        open: OpenTransaction,
        (old, new, day): (&OldTuple<'_>, &Tuple<'_>, Partition),
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let mut complete = true;
        let arrived = self.change_as(fate, table, open, new.len_bytes(), |buffer, number| {
            complete = buffer.append_updated(Some(old), new, number)?;
            Ok(())
        });
        if !complete {
            self.mark(table, DaySet::from_iter([day]), "a row came into them whose values are not all known").await?;
        }
        Ok(arrived)
    }

    /// A change goes where its fate says.
    fn change_as(
        &mut self,
        fate: Fate,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        take: impl FnOnce(&mut TableBuffer, Option<u32>) -> Result<(), BufferError>,
    ) -> Result<(), Refusal> {
        match fate {
            Fate::PassedBy => Ok(()),
            Fate::KeptAside => self.keep_aside(table, open, bytes, |buffer, number| take(buffer, Some(number))),
            Fate::Taken => {
                let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
                take(&mut following.buffer, None).map_err(|error| Refusal::row(table, error))?;
                self.progress.change(bytes);
                Ok(())
            }
        }
    }

    /// Something of the open transaction waits for the copy.
    pub(super) fn keep_aside(
        &mut self,
        table: usize,
        open: OpenTransaction,
        bytes: usize,
        take: impl FnOnce(&mut TableBuffer, u32) -> Result<(), BufferError>,
    ) -> Result<(), Refusal> {
        let Some(number) = self.aside.as_mut().and_then(|aside| aside.number_of(open)) else { return Ok(()) };
        let Some(streamed) = self.in_progress.get(ASIDE) else { return Ok(()) };
        streamed.keep(table, bytes, |buffer| take(buffer, number)).map_err(|error| Refusal::row(table, error))
    }

    /// Whether so much waits for the floor that it should be given up.
    pub(super) async fn bound_what_waits_for_the_floor(&mut self) -> Result<(), PipelineError> {
        if self.aside.as_ref().is_some_and(|aside| aside.before_floor.len() > BEFORE_FLOOR_MAX) {
            tracing::warn!(
                "a copy's snapshot is so long in coming that too many changes wait for it: it is given up, and tried again"
            );
            self.give_up_copy("its snapshot does not come").await?;
        }
        Ok(())
    }

    /// What the lake has of these days cannot be kept up: they are to be copied (again).
    async fn mark(&mut self, table: usize, days: DaySet, reason: &str) -> Result<(), PipelineError> {
        let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
        following.days.marked.extend(&days);
        tracing::info!(table = %following.shape.table, %days, reason, "these days are to be copied again");
        if following.days.copying.days().any(|day| days.contains(day)) || days.is_whole() {
            self.give_up_copy("a day is to be copied anew").await?;
        }
        self.command(LandCommand::Mark { table, days }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Partition {
        text.parse().unwrap()
    }

    fn open(commit_lsn: u64) -> OpenTransaction {
        OpenTransaction { commit_lsn: Lsn(commit_lsn), commit_time_micros: 0, xid: 7, skipped: false }
    }

    #[test]
    fn s1_each_day_has_its_own_fate() {
        let rules = DayRules {
            marked: DaySet::from_iter([day("2026-01-01"), day("2026-01-02")]),
            copying: DaySet::from_iter([day("2026-01-02")]),
        };
        let fates = ["2026-01-01", "2026-01-02", "2026-01-03"].map(|text| rules.fate(day(text)));
        assert_eq!(fates, [Fate::PassedBy, Fate::KeptAside, Fate::Taken]);
        assert_eq!(rules.fate_of_any(), None, "a change that could be of any of them");
        let whole = DayRules { marked: DaySet::whole(), copying: DaySet::default() };
        assert_eq!(whole.fate_of_any(), Some(Fate::PassedBy));
        let copying = DayRules { marked: DaySet::whole(), copying: DaySet::whole() };
        assert_eq!((copying.fate_of_any(), copying.fate(day("2026-01-03"))), (Some(Fate::KeptAside), Fate::KeptAside));
        assert_eq!(DayRules::default().fate_of_any(), Some(Fate::Taken));
    }

    #[test]
    fn s1_what_commits_below_the_floor_is_in_the_snapshot() {
        let (landed, _) = oneshot::channel();
        let mut aside = Aside::new(Vec::new(), landed);
        let number = |aside: &mut Aside, lsn| {
            aside.transaction_begins();
            aside.number_of(open(lsn))
        };
        assert_eq!(number(&mut aside, 10), Some(1));
        assert_eq!(aside.number_of(open(10)), Some(1), "the same transaction");
        assert_eq!(number(&mut aside, 20), Some(2));
        assert_eq!(number(&mut aside, 30), Some(3));
        let below = aside.below(Lsn(20));
        assert!(
            below.contains(1) && !below.contains(2) && !below.contains(3),
            "a commit record at the floor is not in it"
        );
        assert_eq!(number(&mut aside, 19), None);
        assert_eq!(number(&mut aside, 20), Some(4));
    }
}
