//! B1, B2: arbitrary interleavings of transactions, in progress and whole, against a plain list of rows.

use super::follow::{Follow, Following};
use super::in_progress::InProgress;
use super::land::LandCommand;
use super::limits::Limits;
use super::routes::Routes;
use super::skips::Skips;
use super::transaction::Progress;
use crate::base::{ColumnType, Lsn, PartitionBy, SourceColumn, TableName, TableShape, XidSet};
use crate::buffer::{PartitionBatch, TableBuffer};
use crate::config::BufferSection;
use crate::decode::{Datum, Message, Relation, RelationColumn, ReplicaIdentity, encode};
use crate::source::{Pressure, PublicationFacts, PublishedTable};
use deltalake::arrow::array::{AsArray, types::Int32Type};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const OID: u32 = 4711;

fn columns() -> Vec<(&'static str, u32, ColumnType)> {
    vec![("id", 23, ColumnType::Int4), ("created_at", 1114, ColumnType::Timestamp)]
}

fn shape() -> Arc<TableShape> {
    let column = |(name, type_oid, column_type): (&str, u32, ColumnType)| SourceColumn {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        column_type,
        nullable: false,
    };
    Arc::new(TableShape {
        table: TableName::new("public", "events"),
        columns: columns().into_iter().map(column).collect(),
        partition_column: 1,
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        key: vec![0],
        identity: vec![0],
        identity_is_ambiguous: false,
    })
}

fn relation(extra: Option<&str>) -> Relation {
    let column = |(name, type_oid, _)| RelationColumn {
        name: String::from(name),
        type_oid,
        type_modifier: -1,
        is_key: name == "id",
    };
    let mut described: Vec<RelationColumn> = columns().into_iter().map(column).collect();
    described.extend(extra.map(|name| column((name, 25, ColumnType::Text))));
    let (schema, name) = ("public".to_owned(), "events".to_owned());
    Relation { oid: OID, schema, name, replica_identity: ReplicaIdentity::Default, columns: described }
}

fn publication() -> PublicationFacts {
    let table = TableName::new("public", "events");
    PublicationFacts {
        name: "lakebed".to_owned(),
        owner: "idp".to_owned(),
        all_tables: false,
        schemas: Vec::new(),
        via_root: true,
        inserts: true,
        updates: true,
        deletes: true,
        truncates: true,
        generated_stored: false,
        tables: vec![PublishedTable { table, has_column_list: false, has_row_filter: false }],
    }
}

/// One step of the server, as proptest draws it; indexes are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Rows of a transaction in progress, each in one of its subtransactions; 0 is the transaction itself.
    Block {
        transaction: u8,
        rows: Vec<(u8, u8)>,
    },
    /// An ALTER TABLE in a subtransaction that is rolled back in the same step, with a row in the new form.
    AlterAndRollBack {
        transaction: u8,
    },
    AbortSub {
        transaction: u8,
        subtransaction: u8,
    },
    Abort {
        transaction: u8,
    },
    Commit {
        transaction: u8,
    },
    /// A whole transaction.
    Whole {
        rows: u8,
    },
    Flush,
    /// Room is made, as between two batches of frames.
    Room,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let transaction = || 0_u8..4;
    let step = prop_oneof![
        6 => (transaction(), proptest::collection::vec((0_u8..4, 0_u8..5), 0..6))
            .prop_map(|(transaction, rows)| Step::Block { transaction, rows }),
        1 => transaction().prop_map(|transaction| Step::AlterAndRollBack { transaction }),
        2 => (transaction(), 1_u8..4).prop_map(|(transaction, subtransaction)| Step::AbortSub { transaction, subtransaction }),
        1 => transaction().prop_map(|transaction| Step::Abort { transaction }),
        2 => transaction().prop_map(|transaction| Step::Commit { transaction }),
        3 => (0_u8..20).prop_map(|rows| Step::Whole { rows }),
        1 => Just(Step::Flush),
        2 => Just(Step::Room),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A transaction of the model.
#[derive(Default)]
struct Open {
    xid: u32,
    started: bool,
    described: bool,
    /// The present xid of each subtransaction.
    subtransactions: BTreeMap<u8, u32>,
    rows: Vec<(u32, i32)>,
    aborted: BTreeSet<u32>,
}

/// The server, and what its rows should look like in the lake.
struct Server {
    follow: Follow,
    lsn: u64,
    xid: u32,
    id: i32,
    open: HashMap<u8, Open>,
    /// End LSN and ids of every committed transaction.
    committed: Vec<(Lsn, Vec<i32>)>,
    described: bool,
}

impl Server {
    async fn send(&mut self, message: &Message<'_>) {
        self.lsn += 8;
        let bytes = encode::message(message);
        assert_eq!(self.follow.data(Lsn(self.lsn), &bytes).await.unwrap(), None);
    }

    /// A row whose day depends on its id, so that a transaction spreads over partitions.
    async fn row(&mut self, xid: Option<u32>, more: Option<&[u8]>) -> i32 {
        self.id += 1;
        let (id, at) = (self.id.to_string(), format!("2026-01-{:02} 00:00:00", 1 + self.id % 3));
        let mut columns = vec![Datum::Text(id.as_bytes()), Datum::Text(at.as_bytes())];
        columns.extend(more.map(Datum::Text));
        let mut bytes = encode::insert(OID, &columns);
        if let Some(xid) = xid {
            bytes.splice(1..1, xid.to_be_bytes());
        }
        self.lsn += 8;
        assert_eq!(self.follow.data(Lsn(self.lsn), &bytes).await.unwrap(), None);
        self.id
    }

    fn next_xid(&mut self) -> u32 {
        self.xid += 1;
        self.xid
    }

    /// Starts a block of the transaction; the caller ends it.
    async fn start_block(&mut self, index: u8) -> Open {
        let mut open = self.open.remove(&index).unwrap_or_default();
        if !open.started {
            open.xid = self.next_xid();
        }
        self.send(&Message::StreamStart { xid: open.xid, first_segment: !open.started }).await;
        open.started = true;
        if !open.described {
            self.send(&Message::Relation { xid: Some(open.xid), relation: relation(None) }).await;
            open.described = true;
        }
        open
    }

    async fn block(&mut self, index: u8, rows: &[(u8, u8)]) {
        let mut open = self.start_block(index).await;
        for (subtransaction, count) in rows {
            let xid = match subtransaction {
                0 => open.xid,
                other => *open.subtransactions.entry(*other).or_insert_with(|| self.next_xid()),
            };
            for _ in 0..*count {
                let id = self.row(Some(xid), None).await;
                open.rows.push((xid, id));
            }
        }
        self.send(&Message::StreamStop).await;
        self.open.insert(index, open);
    }

    async fn alter_and_roll_back(&mut self, index: u8) {
        let mut open = self.start_block(index).await;
        let xid = self.next_xid();
        self.send(&Message::Relation { xid: Some(xid), relation: relation(Some("added")) }).await;
        self.row(Some(xid), Some(b"new")).await;
        self.send(&Message::StreamStop).await;
        self.send(&Message::StreamAbort { xid: open.xid, subtransaction_xid: xid, abort: None }).await;
        // The server describes the table again before the next row.
        open.described = false;
        self.open.insert(index, open);
    }

    async fn abort_sub(&mut self, index: u8, subtransaction: u8) {
        let Some(open) = self.open.get_mut(&index) else { return };
        let Some(xid) = open.subtransactions.remove(&subtransaction) else { return };
        open.aborted.insert(xid);
        let message = Message::StreamAbort { xid: open.xid, subtransaction_xid: xid, abort: None };
        self.send(&message).await;
    }

    async fn abort(&mut self, index: u8) {
        let Some(open) = self.open.remove(&index) else { return };
        self.send(&Message::StreamAbort { xid: open.xid, subtransaction_xid: open.xid, abort: None }).await;
    }

    async fn commit(&mut self, index: u8) {
        let Some(open) = self.open.remove(&index) else { return };
        let (commit_lsn, end_lsn) = (Lsn(self.lsn + 8), Lsn(self.lsn + 16));
        let rows = open.rows.iter().filter(|(xid, _)| !open.aborted.contains(xid)).map(|(_, id)| *id).collect();
        self.committed.push((end_lsn, rows));
        self.send(&Message::StreamCommit { xid: open.xid, commit_lsn, end_lsn, commit_time_micros: 0 }).await;
        self.lsn = end_lsn.0;
    }

    async fn whole(&mut self, rows: u8) {
        let xid = self.next_xid();
        let commit_lsn = Lsn(self.lsn + 8 * (u64::from(rows) + 4));
        self.send(&Message::Begin { final_lsn: commit_lsn, commit_time_micros: 0, xid }).await;
        if !self.described {
            self.send(&Message::Relation { xid: None, relation: relation(None) }).await;
            self.described = true;
        }
        let mut ids = Vec::new();
        for _ in 0..rows {
            ids.push(self.row(None, None).await);
            if ids.len() % 5 == 0 {
                self.follow.make_room_inside_a_transaction().await.unwrap();
            }
        }
        let end_lsn = Lsn(commit_lsn.0 + 8);
        self.committed.push((end_lsn, ids));
        self.send(&Message::Commit { commit_lsn, end_lsn, commit_time_micros: 0 }).await;
        self.lsn = end_lsn.0;
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Block { transaction, rows } => self.block(*transaction, rows).await,
            Step::AlterAndRollBack { transaction } => self.alter_and_roll_back(*transaction).await,
            Step::AbortSub { transaction, subtransaction } => self.abort_sub(*transaction, *subtransaction).await,
            Step::Abort { transaction } => self.abort(*transaction).await,
            Step::Commit { transaction } => self.commit(*transaction).await,
            Step::Whole { rows } => self.whole(*rows).await,
            Step::Flush => self.follow.flush().await.unwrap(),
            Step::Room => self.follow.make_room_inside_a_transaction().await.unwrap(),
        }
    }
}

/// `land` as a plain list: what each commit made visible.
#[derive(Default)]
struct Lake {
    waiting: Vec<i32>,
    in_progress: HashMap<u32, Vec<PartitionBatch>>,
    visible: Vec<i32>,
    commits: Vec<(Lsn, Vec<i32>)>,
}

impl Lake {
    fn take(&mut self, command: LandCommand) {
        match command {
            LandCommand::Rows { xid: None, batch, .. } => self.waiting.extend(ids(&batch)),
            LandCommand::Rows { xid: Some(xid), batch, .. } => self.in_progress.entry(xid).or_default().push(batch),
            LandCommand::Join { xid, aborted, .. } => {
                for batch in self.in_progress.remove(&xid).unwrap_or_default() {
                    self.waiting.extend(ids(&batch.without(&aborted).unwrap()));
                }
            }
            LandCommand::Forget { xid } => drop(self.in_progress.remove(&xid)),
            LandCommand::Commit { at } => {
                self.visible.append(&mut self.waiting);
                self.commits.push((at, self.visible.clone()));
            }
            LandCommand::Idle { .. } => {}
            LandCommand::Park { .. } => panic!("nothing parks here"),
        }
    }
}

fn ids(batch: &PartitionBatch) -> Vec<i32> {
    batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec()
}

fn follow(land: mpsc::Sender<LandCommand>, limits: Limits) -> Follow {
    let shape = shape();
    let table = Following {
        shape: Arc::clone(&shape),
        buffer: TableBuffer::new(Arc::clone(&shape)),
        recorded: Lsn::ZERO,
        parked: false,
        may_park: false,
        described: 0,
    };
    Follow {
        tables: vec![table],
        routes: Routes::new(vec![(OID, shape.table.clone())], &publication()),
        land,
        durable: watch::channel(Lsn::ZERO).1,
        stop: watch::channel(false).1,
        pressure: watch::channel(Pressure::Ample).1,
        limits,
        marker: None,
        progress: Progress::default(),
        in_progress: InProgress::default(),
        skips: Skips::default(),
        relations: 0,
    }
}

/// Runs the steps, then commits what is open and flushes; returns the commits and what they should have been.
async fn run(steps: &[Step], builder_bytes: usize, batch_bytes: usize) -> (Lake, Vec<(Lsn, Vec<i32>)>) {
    let buffer = BufferSection { max_age: Duration::from_secs(3600), max_bytes: 700, memory_limit_bytes: 256 << 20 };
    let limits = Limits { builder_bytes, batch_bytes, ..Limits::new(&buffer) };
    let (land, mut commands) = mpsc::channel(3);
    let follow = follow(land, limits);
    let mut server =
        Server { follow, lsn: 100, xid: 700, id: 0, open: HashMap::new(), committed: Vec::new(), described: false };
    let driven = async {
        for step in steps {
            server.step(step).await;
        }
        for transaction in 0..4 {
            server.commit(transaction).await;
        }
        server.follow.flush().await.unwrap();
        server.committed
    };
    let landed = async {
        let mut lake = Lake::default();
        while let Some(command) = commands.recv().await {
            lake.take(command);
        }
        lake
    };
    let (committed, lake) = futures::join!(driven, landed);
    (lake, committed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every commit shows exactly the transactions that end at or before it, each whole, without what was rolled back.
    #[test]
    fn b1_b2_every_interleaving_shows_whole_transactions_and_nothing_that_was_rolled_back(
        steps in steps(),
        builder_bytes in prop_oneof![Just(0_usize), Just(400), Just(1 << 20)],
        batch_bytes in prop_oneof![Just(120_usize), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (lake, committed) = runtime.block_on(run(&steps, builder_bytes, batch_bytes));
        for (at, mut visible) in lake.commits {
            let mut expected: Vec<i32> =
                committed.iter().filter(|(end, _)| *end <= at).flat_map(|(_, ids)| ids.iter().copied()).collect();
            expected.sort_unstable();
            visible.sort_unstable();
            prop_assert_eq!(visible, expected, "at {}", at);
        }
        let mut all: Vec<i32> = committed.into_iter().flat_map(|(_, ids)| ids).collect();
        let mut visible = lake.visible;
        all.sort_unstable();
        visible.sort_unstable();
        prop_assert_eq!(visible, all);
        prop_assert!(lake.in_progress.is_empty() && lake.waiting.is_empty());
    }
}

/// A set of one, for the readability of the failures above.
#[test]
fn an_abort_of_one_subtransaction_keeps_the_others() {
    let steps = [
        Step::Block { transaction: 0, rows: vec![(0, 2), (1, 2), (2, 2)] },
        Step::Room,
        Step::AbortSub { transaction: 0, subtransaction: 1 },
        Step::Commit { transaction: 0 },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (lake, _) = runtime.block_on(run(&steps, 0, 1 << 20));
    let mut visible = lake.visible;
    visible.sort_unstable();
    assert_eq!(visible, [1, 2, 5, 6]);
    assert!(XidSet::default().is_empty());
}
