//! The following stage, memory: what leaves the buffers, when, and in which order (B1, B2).

use super::PipelineError;
use super::follow::{Follow, LAND_GONE};
use super::land::LandCommand;
use super::limits::BATCH_ROWS;
use crate::base::Lsn;
use crate::buffer::{BufferError, ChangeBatch, Cut, PartitionBatch, TableBuffer};

/// What is handed on at once. Rows and changes of one table may leave in any order: each knows its place among the others.
pub(super) enum Load {
    Rows(PartitionBatch),
    Changes(ChangeBatch),
}

impl Load {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Load::Rows(batch) => batch.rows.num_rows() == 0,
            Load::Changes(batch) => batch.is_empty(),
        }
    }
}

/// Rows and changes, as what is handed on.
pub(super) fn loads(rows: Vec<PartitionBatch>, changes: Vec<ChangeBatch>) -> impl Iterator<Item = Load> {
    rows.into_iter().map(Load::Rows).chain(changes.into_iter().map(Load::Changes))
}

/// What of a buffer is worth a batch of its own.
pub(super) fn full_load(buffer: &mut TableBuffer, batch_bytes: usize) -> Result<Option<Load>, BufferError> {
    if let Some(batch) = buffer.take_full(BATCH_ROWS, batch_bytes)? {
        return Ok(Some(Load::Rows(batch)));
    }
    Ok(buffer.take_full_changes(batch_bytes)?.map(Load::Changes))
}

impl Follow {
    /// Between batches of frames, where a transaction may be open: rows of transactions in progress may leave at any time, those
    /// of an open whole one only behind the commit of those before it, which is hurried only for want of room.
    pub(super) async fn make_room_inside_a_transaction(&mut self) -> Result<(), PipelineError> {
        self.hand_on_full_blocks().await?;
        if self.progress.open.is_none() {
            return self.make_room().await;
        }
        if self.progress.has_pending() && self.held_bytes() > self.limits.builder_bytes {
            self.flush().await?;
        }
        if !self.progress.has_pending() {
            self.make_room().await?;
        }
        Ok(())
    }

    /// Hands full partitions on, and then the largest holder while the builders hold more than their share. Called where every
    /// row in the tables' own builders may follow the last commit order: at a transaction's end, or behind a flush.
    pub(super) async fn make_room(&mut self) -> Result<(), PipelineError> {
        for table in 0..self.tables.len() {
            while let Some(load) = self.take_full(table)? {
                self.send(table, None, load).await?;
            }
        }
        while self.held_bytes() > self.limits.builder_bytes {
            let held = self.tables.iter().map(|table| table.buffer.bytes()).enumerate();
            let table = held.max_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes > 0);
            let in_progress = self.in_progress.largest().map(|(xid, streamed)| (xid, streamed.held_bytes()));
            match (table, in_progress.filter(|(_, bytes)| *bytes > 0)) {
                (table, Some((xid, bytes))) if table.is_none_or(|(_, held)| held <= bytes) => self.hand_on(xid).await?,
                (Some((table, _)), _) => {
                    let Cut { ended, arriving, ended_changes, arriving_changes } = self.cut(table)?;
                    for load in loads(ended, ended_changes).chain(loads(arriving, arriving_changes)) {
                        self.send(table, None, load).await?;
                    }
                }
                (None, _) => break,
            }
        }
        Ok(())
    }

    /// The block that was just sent may have filled partitions of its transaction.
    async fn hand_on_full_blocks(&mut self) -> Result<(), PipelineError> {
        let (batch_bytes, at) = (self.limits.batch_bytes, self.progress.sent_to);
        let Some((xid, _)) = self.in_progress.largest() else { return Ok(()) };
        loop {
            let Some(streamed) = self.in_progress.get(xid) else { return Ok(()) };
            let taken = streamed.take_full(batch_bytes);
            let Some((table, load)) = taken.map_err(|error| PipelineError::Row { at, error })? else { return Ok(()) };
            streamed.handed_on = true;
            self.send(table, Some(xid), load).await?;
        }
    }

    /// Everything that a transaction in progress holds.
    async fn hand_on(&mut self, xid: u32) -> Result<(), PipelineError> {
        let at = self.progress.sent_to;
        let Some(streamed) = self.in_progress.get(xid) else { return Ok(()) };
        let taken = streamed.take_all().map_err(|error| PipelineError::Row { at, error })?;
        streamed.handed_on |= !taken.is_empty();
        for (table, load) in taken {
            self.send(table, Some(xid), load).await?;
        }
        Ok(())
    }

    /// Sends everything pending to `land` with the order to commit it, and behind that what the open transaction has brought so
    /// far: a commit sits on a transaction's end (B1), and yet a long transaction holds nobody else up.
    pub(super) async fn flush(&mut self) -> Result<(), PipelineError> {
        for (table, load) in self.flush_ended().await? {
            self.send(table, None, load).await?;
        }
        Ok(())
    }

    /// [`Self::flush`] without what the open transaction has brought, which is returned.
    pub(super) async fn flush_ended(&mut self) -> Result<Vec<(usize, Load)>, PipelineError> {
        let mut rest = Vec::new();
        if !self.progress.has_pending() {
            return Ok(rest);
        }
        for table in 0..self.tables.len() {
            let Cut { ended, arriving, ended_changes, arriving_changes } = self.cut_for_a_commit(table)?;
            rest.extend(loads(arriving, arriving_changes).map(|load| (table, load)));
            for load in loads(ended, ended_changes) {
                self.send(table, None, load).await?;
            }
        }
        let at: Lsn = self.progress.pending_end;
        self.command(LandCommand::Commit { at }).await?;
        self.progress.flushed();
        self.confirm_origins().await?;
        Ok(rest)
    }

    fn held_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.buffer.bytes()).sum::<usize>() + self.in_progress.held_bytes()
    }

    fn take_full(&mut self, table: usize) -> Result<Option<Load>, PipelineError> {
        let (at, batch_bytes) = (self.progress.sent_to, self.limits.batch_bytes);
        let Some(following) = self.tables.get_mut(table) else { return Ok(None) };
        full_load(&mut following.buffer, batch_bytes).map_err(|error| PipelineError::Row { at, error })
    }

    /// Empties a table's own buffer.
    pub(super) fn cut(&mut self, table: usize) -> Result<Cut, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(Cut::default()) };
        following.buffer.cut().map_err(|error| PipelineError::Row { at, error })
    }

    fn cut_for_a_commit(&mut self, table: usize) -> Result<Cut, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(Cut::default()) };
        following.buffer.cut_for_a_commit().map_err(|error| PipelineError::Row { at, error })
    }

    /// Hands rows or changes on: for the next commit, or for a transaction in progress.
    pub(super) async fn send(&mut self, table: usize, xid: Option<u32>, load: Load) -> Result<(), PipelineError> {
        let command = match load {
            Load::Rows(batch) => LandCommand::Rows { table, xid, batch },
            Load::Changes(batch) => LandCommand::Changes { table, xid, batch },
        };
        self.command(command).await
    }

    pub(super) async fn command(&mut self, command: LandCommand) -> Result<(), PipelineError> {
        self.land.send(command).await.map_err(|_| LAND_GONE)
    }
}
