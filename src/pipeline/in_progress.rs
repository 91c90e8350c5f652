//! Transactions in progress, as the server streams them: blocks of rows of one transaction at a time, with the (sub)transaction
//! of every row, and long before anybody knows whether they commit (protocol 2, `streaming 'on'`).
//!
//! Each has buffers of its own, a description of its relations of its own (an ALTER TABLE in it is nobody else's before it
//! commits), and its own list of what cannot be taken: none of it counts before the commit, and all of it is gone with an abort.

use super::refusal::{Cause, Refusal};
use super::room::{Load, full_load, loads};
use crate::base::{TableShape, XidSet};
use crate::buffer::{BufferError, Cut, TableBuffer, Transaction};
use crate::decode::{Relation, Tuple};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Reasons kept in full: so many of its (sub)transactions were refused; of further ones only the fact is known.
const REFUSALS_MAX: usize = 10_000;

/// A RELATION of a transaction in progress.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) relation: Relation,
    /// The configured table.
    pub(super) table: Option<usize>,
    /// When it came, among all RELATIONs of the stream: the later one holds (`Follow::adopt`).
    pub(super) order: u64,
    /// The (sub)transaction that it came with.
    xid: u32,
}

/// One transaction in progress.
pub(super) struct Streamed {
    xid: u32,
    buffers: Vec<Option<TableBuffer>>,
    /// By oid.
    described: BTreeMap<u32, Described>,
    aborted: XidSet,
    /// Its subtransactions that brought rows or changes.
    subtransactions: XidSet,
    /// The last of these.
    last_xid: u32,
    /// By table, the oid of a table of the same name that this transaction made.
    origins: BTreeMap<usize, u32>,
    /// By table, the (sub)transactions that brought changes and not only new rows.
    changed: BTreeMap<usize, XidSet>,
    /// By (sub)transaction and table, the first of each: another table of the same may be refused for reasons of its own.
    refusals: BTreeMap<(u32, Option<usize>), Refusal>,
    /// Rows and changes taken, those that were rolled back since included.
    pub(super) rows: u64,
    /// On the wire.
    pub(super) bytes: u64,
    /// `land` holds rows of it.
    pub(super) handed_on: bool,
}

impl Streamed {
    fn new(xid: u32, tables: usize) -> Self {
        Self {
            xid,
            buffers: std::iter::repeat_with(|| None).take(tables).collect(),
            described: BTreeMap::new(),
            aborted: XidSet::default(),
            subtransactions: XidSet::default(),
            last_xid: xid,
            origins: BTreeMap::new(),
            changed: BTreeMap::new(),
            refusals: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            handed_on: false,
        }
    }

    /// Notes a RELATION; the rows that follow it are read by it.
    pub(super) fn describe(
        &mut self,
        xid: u32,
        relation: Relation,
        table: Option<usize>,
        order: u64,
        shape: Option<&Arc<TableShape>>,
    ) {
        if let Some((table, shape)) = table.zip(shape)
            && let Some(buffer) = self.buffers.get_mut(table)
        {
            let buffer = buffer.get_or_insert_with(|| TableBuffer::new(Arc::clone(shape)));
            if let Err(error) = buffer.bind(&relation) {
                self.refuse(xid, Refusal::row(table, error));
            }
        }
        self.described.insert(relation.oid, Described { relation, table, order, xid });
    }

    /// The top-level transaction's id.
    pub(super) fn xid(&self) -> u32 {
        self.xid
    }

    /// Whether this transaction has not brought rows of this very table of the server yet; they follow.
    pub(super) fn is_first_of(&mut self, table: usize, oid: u32) -> bool {
        self.origins.insert(table, oid) != Some(oid)
    }

    /// The columns of a table as this transaction saw them last.
    pub(super) fn shape(&self, table: usize) -> Option<&Arc<TableShape>> {
        self.buffers.get(table)?.as_ref().map(TableBuffer::shape)
    }

    /// A table has other columns from here on; the rows so far keep theirs.
    pub(super) fn reshape(&mut self, table: usize, shape: &Arc<TableShape>) -> Result<(), BufferError> {
        match self.buffers.get_mut(table) {
            Some(Some(buffer)) => buffer.reshape(Arc::clone(shape)),
            _ => Ok(()),
        }
    }

    /// The configured table of a relation, `None` when this transaction did not describe it.
    pub(super) fn find(&self, oid: u32) -> Option<&Described> {
        self.described.get(&oid)
    }

    #[inline]
    fn brings(&mut self, xid: u32) {
        if xid != self.last_xid {
            self.last_xid = xid;
            if xid != self.xid {
                self.subtransactions.insert(xid);
            }
        }
    }

    /// Subtransactions that brought something, some of which were not rolled back as far as the stream told; ranges, both ends included.
    pub(super) fn to_be_asked(&self) -> Vec<(u32, u32)> {
        let any = self.subtransactions.has_more_than(&self.aborted);
        if any { self.subtransactions.ranges().collect() } else { Vec::new() }
    }

    /// Takes a row of a configured table.
    pub(super) fn insert(&mut self, table: usize, xid: u32, bytes: usize, new: &Tuple<'_>) {
        self.brings(xid);
        // After a refusal the relation may not be bound; the first reason is the one to tell.
        if !self.refusals.is_empty() && self.refusals.contains_key(&(xid, Some(table))) {
            return;
        }
        let Some(Some(buffer)) = self.buffers.get_mut(table) else { return };
        match buffer.append(new, Some(xid)) {
            Ok(()) => {
                self.rows += 1;
                self.bytes += bytes as u64;
            }
            Err(error) => self.refuse(xid, Refusal::row(table, error)),
        }
    }

    /// Takes an UPDATE, DELETE or TRUNCATE of a configured table.
    pub(super) fn change(
        &mut self,
        table: usize,
        xid: u32,
        bytes: usize,
        take: impl FnOnce(&mut TableBuffer, &Transaction, Option<u32>) -> Result<(), BufferError>,
    ) {
        self.brings(xid);
        if self.refusals.contains_key(&(xid, Some(table))) {
            return;
        }
        let Some(Some(buffer)) = self.buffers.get_mut(table) else { return };
        match take(buffer, &Transaction::in_progress(self.xid), Some(xid)) {
            Ok(()) => {
                self.rows += 1;
                self.bytes += bytes as u64;
                self.changed.entry(table).or_default().insert(xid);
            }
            Err(error) => self.refuse(xid, Refusal::row(table, error)),
        }
    }

    /// Makes room for a table without a RELATION of its own: what is known of the table's holds.
    pub(super) fn open_table(
        &mut self,
        table: usize,
        shape: &Arc<TableShape>,
        relation: Option<&Relation>,
    ) -> Result<(), BufferError> {
        let Some(buffer) = self.buffers.get_mut(table) else { return Ok(()) };
        let buffer = buffer.get_or_insert_with(|| TableBuffer::new(Arc::clone(shape)));
        relation.map_or(Ok(()), |relation| buffer.bind(relation))
    }

    /// The relation of a table that has room here was described again.
    pub(super) fn bind_table(&mut self, table: usize, relation: &Relation) -> Result<(), BufferError> {
        match self.buffers.get_mut(table) {
            Some(Some(buffer)) => buffer.bind(relation),
            _ => Ok(()),
        }
    }

    /// Takes what belongs to a whole transaction of the server, which `take` names; nothing of a table without room.
    pub(super) fn keep(
        &mut self,
        table: usize,
        bytes: usize,
        take: impl FnOnce(&mut TableBuffer) -> Result<(), BufferError>,
    ) -> Result<(), BufferError> {
        let Some(Some(buffer)) = self.buffers.get_mut(table) else { return Ok(()) };
        take(buffer)?;
        self.rows += 1;
        self.bytes += bytes as u64;
        Ok(())
    }

    /// The whole transaction has ended that something was [kept](Self::keep) of.
    fn end_transaction(&mut self) {
        self.buffers.iter_mut().flatten().for_each(TableBuffer::end_transaction);
    }

    /// Whether a change was neither rolled back nor forgotten.
    pub(super) fn has_changes(&self) -> bool {
        self.changed.values().any(|xids| xids.has_more_than(&self.aborted))
    }

    /// Notes what cannot be taken; it counts if `xid` commits.
    pub(super) fn refuse(&mut self, xid: u32, refusal: Refusal) {
        let table = refusal.table;
        let many = self.refusals.len() >= REFUSALS_MAX;
        self.refusals.entry((xid, table)).or_insert(if many {
            Refusal { table, cause: Cause::Further }
        } else {
            refusal
        });
    }

    /// Notes what cannot be taken and belongs to no part of the transaction: it counts if any of it commits.
    pub(super) fn refuse_whole(&mut self, refusal: Refusal) {
        self.refuse(self.xid, refusal);
    }

    /// A subtransaction was rolled back.
    pub(super) fn abort(&mut self, subtransaction: u32) {
        self.aborted.insert(subtransaction);
        let of_it = self.refusals.range((subtransaction, None)..=(subtransaction, Some(usize::MAX)));
        for key in of_it.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.refusals.remove(&key);
        }
        self.described.retain(|_, described| described.xid != subtransaction);
    }

    /// Whether rows of the table are of no interest any more.
    pub(super) fn forget_table(&mut self, table: usize) {
        if let Some(buffer) = self.buffers.get_mut(table) {
            *buffer = None;
        }
        self.changed.remove(&table);
    }

    /// Memory held by its rows.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffers.iter().flatten().map(TableBuffer::bytes).sum()
    }

    /// What is worth a batch of its own, without what was rolled back.
    pub(super) fn take_full(&mut self, bytes: usize) -> Result<Option<(usize, Load)>, BufferError> {
        for (table, buffer) in self.buffers.iter_mut().enumerate() {
            if let Some(buffer) = buffer
                && let Some(load) = full_load(buffer, bytes)?
            {
                return Ok(Some((table, live(buffer, load, &self.aborted)?)));
            }
        }
        Ok(None)
    }

    /// Everything that is buffered, without what was rolled back.
    pub(super) fn take_all(&mut self) -> Result<Vec<(usize, Load)>, BufferError> {
        let mut taken = Vec::new();
        for (table, buffer) in self.buffers.iter_mut().enumerate() {
            let Some(buffer) = buffer else { continue };
            let Cut { ended, arriving, ended_changes, arriving_changes } = buffer.cut()?;
            for load in loads(ended, ended_changes).chain(loads(arriving, arriving_changes)) {
                let load = live(buffer, load, &self.aborted)?;
                if !load.is_empty() {
                    taken.push((table, load));
                }
            }
        }
        Ok(taken)
    }

    /// What was refused and not rolled back.
    pub(super) fn take_refusals(&mut self) -> impl Iterator<Item = Refusal> + use<> {
        std::mem::take(&mut self.refusals).into_values()
    }

    /// At its end: the relations that it described, and the subtransactions that were rolled back.
    pub(super) fn into_parts(self) -> (Vec<Described>, XidSet) {
        (self.described.into_values().collect(), self.aborted)
    }
}

fn live(buffer: &TableBuffer, load: Load, aborted: &XidSet) -> Result<Load, BufferError> {
    Ok(match load {
        Load::Rows(batch) => Load::Rows(buffer.live(batch, aborted)?),
        Load::Changes(batch) => Load::Changes(buffer.live_changes(batch, aborted)?),
    })
}

/// All transactions in progress.
#[derive(Default)]
pub(super) struct InProgress {
    open: HashMap<u32, Streamed>,
    /// The transaction whose block is being sent.
    current: Option<u32>,
}

impl InProgress {
    /// Whether a block is being sent: its messages carry the (sub)transaction's id.
    #[inline]
    pub(super) fn in_block(&self) -> bool {
        self.current.is_some()
    }

    /// A block starts; an error says which rule the server broke.
    pub(super) fn start_block(&mut self, xid: u32, first: bool, tables: usize) -> Result<(), &'static str> {
        if self.current.is_some() {
            return Err("STREAM START inside a block");
        }
        match (first, self.open.contains_key(&xid)) {
            (true, true) => return Err("a second first block of a transaction in progress"),
            (false, false) => return Err("a block of a transaction in progress whose first block was not sent"),
            (true, false) => {
                self.open.insert(xid, Streamed::new(xid, tables));
            }
            (false, true) => {}
        }
        self.current = Some(xid);
        Ok(())
    }

    /// One that the server knows nothing of, for what several of its transactions bring.
    pub(super) fn open(&mut self, xid: u32, tables: usize) {
        self.open.insert(xid, Streamed::new(xid, tables));
    }

    /// Subtransactions count as rolled back.
    pub(super) fn leave_out(&mut self, xid: u32, subtransactions: XidSet) {
        if let Some(streamed) = self.open.get_mut(&xid) {
            streamed.aborted = subtransactions;
        }
    }

    /// A whole transaction of the server has ended.
    pub(super) fn end_transaction(&mut self, xid: u32) {
        if let Some(streamed) = self.open.get_mut(&xid) {
            streamed.end_transaction();
        }
    }

    /// The block ends.
    pub(super) fn stop_block(&mut self) -> Result<(), &'static str> {
        self.current.take().map(drop).ok_or("STREAM STOP outside a block")
    }

    /// The transaction whose block is being sent.
    #[inline]
    pub(super) fn current(&mut self) -> Option<&mut Streamed> {
        self.open.get_mut(&self.current?)
    }

    /// One of them, for an abort of a part of it.
    pub(super) fn get(&mut self, xid: u32) -> Option<&mut Streamed> {
        self.open.get_mut(&xid)
    }

    /// Ends one of them; `None` when it is not known.
    pub(super) fn take(&mut self, xid: u32) -> Option<Streamed> {
        self.open.remove(&xid)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Memory held by the rows of all.
    pub(super) fn held_bytes(&self) -> usize {
        self.open.values().map(Streamed::held_bytes).sum()
    }

    /// The one that holds most, and how much.
    pub(super) fn largest(&mut self) -> Option<(u32, &mut Streamed)> {
        let largest = self.open.values_mut().max_by_key(|streamed| streamed.held_bytes())?;
        Some((largest.xid, largest))
    }

    /// Rows of a table are of no interest any more.
    pub(super) fn forget_table(&mut self, table: usize) {
        self.open.values_mut().for_each(|streamed| streamed.forget_table(table));
    }
}
