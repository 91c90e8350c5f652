//! The following stage, memory: what leaves the buffers, when, and in which order (B1, B2).

use super::PipelineError;
use super::follow::{Follow, LAND_GONE};
use super::land::LandCommand;
use super::limits::BATCH_ROWS;
use crate::base::Lsn;
use crate::buffer::{Cut, PartitionBatch};

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
            while let Some(batch) = self.take_full(table)? {
                self.send(table, None, batch).await?;
            }
        }
        while self.held_bytes() > self.limits.builder_bytes {
            let held = self.tables.iter().map(|table| table.buffer.bytes()).enumerate();
            let table = held.max_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes > 0);
            let in_progress = self.in_progress.largest().map(|(xid, streamed)| (xid, streamed.held_bytes()));
            match (table, in_progress.filter(|(_, bytes)| *bytes > 0)) {
                (table, Some((xid, bytes))) if table.is_none_or(|(_, held)| held <= bytes) => self.hand_on(xid).await?,
                (Some((table, _)), _) => {
                    let Cut { ended, arriving } = self.cut(table)?;
                    for batch in ended.into_iter().chain(arriving) {
                        self.send(table, None, batch).await?;
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
            let taken = streamed.take_full(BATCH_ROWS, batch_bytes);
            let Some((table, batch)) = taken.map_err(|error| PipelineError::Row { at, error })? else { return Ok(()) };
            streamed.handed_on = true;
            self.send(table, Some(xid), batch).await?;
        }
    }

    /// Everything that a transaction in progress holds.
    async fn hand_on(&mut self, xid: u32) -> Result<(), PipelineError> {
        let at = self.progress.sent_to;
        let Some(streamed) = self.in_progress.get(xid) else { return Ok(()) };
        let batches = streamed.take_all().map_err(|error| PipelineError::Row { at, error })?;
        streamed.handed_on |= !batches.is_empty();
        for (table, batch) in batches {
            self.send(table, Some(xid), batch).await?;
        }
        Ok(())
    }

    /// Sends everything pending to `land` with the order to commit it, and behind that what the open transaction has brought so
    /// far: a commit sits on a transaction's end (B1), and yet a long transaction holds nobody else up.
    pub(super) async fn flush(&mut self) -> Result<(), PipelineError> {
        for (table, batch) in self.flush_ended().await? {
            self.send(table, None, batch).await?;
        }
        Ok(())
    }

    /// [`Self::flush`] without the open transaction's rows, which are returned.
    pub(super) async fn flush_ended(&mut self) -> Result<Vec<(usize, PartitionBatch)>, PipelineError> {
        let mut rest = Vec::new();
        if !self.progress.has_pending() {
            return Ok(rest);
        }
        for table in 0..self.tables.len() {
            let Cut { ended, arriving } = self.cut(table)?;
            rest.extend(arriving.into_iter().map(|batch| (table, batch)));
            for batch in ended {
                self.send(table, None, batch).await?;
            }
        }
        let at: Lsn = self.progress.pending_end;
        self.command(LandCommand::Commit { at }).await?;
        self.progress.flushed();
        Ok(rest)
    }

    fn held_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.buffer.bytes()).sum::<usize>() + self.in_progress.held_bytes()
    }

    fn take_full(&mut self, table: usize) -> Result<Option<PartitionBatch>, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(None) };
        following
            .buffer
            .take_full(BATCH_ROWS, self.limits.batch_bytes)
            .map_err(|error| PipelineError::Row { at, error })
    }

    /// Empties a table's own buffer.
    pub(super) fn cut(&mut self, table: usize) -> Result<Cut, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(Cut::default()) };
        following.buffer.cut().map_err(|error| PipelineError::Row { at, error })
    }

    /// Hands rows on: for the next commit, or for a transaction in progress.
    pub(super) async fn send(
        &mut self,
        table: usize,
        xid: Option<u32>,
        batch: PartitionBatch,
    ) -> Result<(), PipelineError> {
        self.command(LandCommand::Rows { table, xid, batch }).await
    }

    pub(super) async fn command(&mut self, command: LandCommand) -> Result<(), PipelineError> {
        self.land.send(command).await.map_err(|_| LAND_GONE)
    }
}
