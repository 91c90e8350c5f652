//! B1, B2: arbitrary interleavings of transactions, in progress and whole, against a plain list of what they did.

use super::catalog::{Catalog, Catalogued};
use super::follow::{Follow, Following};
use super::in_progress::InProgress;
use super::lake_model_test::{Lake, Op, Row};
use super::land::LandCommand;
use super::limits::Limits;
use super::routes::Routes;
use super::skips::Skips;
use super::transaction::Progress;
use crate::base::{ColumnType, Lsn, PartitionBy, SourceColumn, TableName, TableShape};
use crate::buffer::TableBuffer;
use crate::config::BufferSection;
use crate::decode::{Datum, Message, Relation, RelationColumn, ReplicaIdentity, encode};
use crate::lake::SourceRelation;
use crate::source::{Pressure, PublicationFacts, PublishedTable, TableRules};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const OID: u32 = 4711;

fn columns() -> Vec<(&'static str, u32, ColumnType)> {
    vec![("id", 23, ColumnType::Int4), ("note", 25, ColumnType::Text), ("created_at", 1114, ColumnType::Timestamp)]
}

fn shape() -> Arc<TableShape> {
    let column = |(name, type_oid, column_type): (&str, u32, ColumnType)| SourceColumn {
        name: name.to_owned(),
        lake_name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        column_type,
        nullable: false,
    };
    Arc::new(TableShape {
        table: TableName::new("public", "events"),
        columns: columns().into_iter().map(column).collect(),
        partition_column: 2,
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

pub(super) fn publication() -> PublicationFacts {
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

/// One statement, as proptest draws it: its kind, and which of a few rows it is about.
type Statement = (Kind, i32);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Insert,
    Update,
    /// An UPDATE that makes it another row.
    Rename,
    Touch,
    Delete,
    Truncate,
}

/// One step of the server, as proptest draws it; indexes are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Statements of a transaction in progress, each in one of its subtransactions; 0 is the transaction itself.
    Block {
        transaction: u8,
        statements: Vec<(u8, Statement)>,
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
        statements: Vec<Statement>,
    },
    Flush,
    /// Room is made, as between two batches of frames.
    Room,
}

/// Steps whose statements bring so many changes among ten new rows.
fn steps(changes: u32) -> impl Strategy<Value = Vec<Step>> {
    let transaction = || 0_u8..4;
    let statement = move || {
        let kind = prop_oneof![
            10 => Just(Kind::Insert),
            changes => Just(Kind::Update),
            changes => Just(Kind::Rename),
            changes => Just(Kind::Touch),
            changes => Just(Kind::Delete),
            changes / 3 => Just(Kind::Truncate),
        ];
        (kind, 0..6)
    };
    let block = (transaction(), proptest::collection::vec((0_u8..4, statement()), 0..12));
    let step = prop_oneof![
        6 => block.prop_map(|(transaction, statements)| Step::Block { transaction, statements }),
        1 => transaction().prop_map(|transaction| Step::AlterAndRollBack { transaction }),
        2 => (transaction(), 1_u8..4).prop_map(|(transaction, subtransaction)| Step::AbortSub { transaction, subtransaction }),
        1 => transaction().prop_map(|transaction| Step::Abort { transaction }),
        2 => transaction().prop_map(|transaction| Step::Commit { transaction }),
        3 => proptest::collection::vec(statement(), 0..20).prop_map(|statements| Step::Whole { statements }),
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
    ops: Vec<(u32, Op)>,
    aborted: BTreeSet<u32>,
}

/// The server, and what its rows should look like in the lake.
struct Server {
    follow: Follow,
    lsn: u64,
    xid: u32,
    version: i32,
    open: HashMap<u8, Open>,
    /// End LSN of every committed transaction, and what it did.
    committed: Vec<(Lsn, Vec<Op>)>,
    described: bool,
}

impl Server {
    async fn send(&mut self, message: &Message<'_>) {
        self.lsn += 8;
        let bytes = encode::message(message);
        assert_eq!(self.follow.data(Lsn(self.lsn), &bytes).await.unwrap(), None);
    }

    /// Runs a statement. The day of what it writes depends on its version, so that a transaction spreads over partitions.
    async fn statement(&mut self, xid: Option<u32>, (kind, id): Statement, more: Option<&[u8]>) -> Op {
        self.version += 1;
        let version = self.version;
        let row = |id| Row { id, note: version, version };
        let (op, old) = match kind {
            Kind::Insert => (Op::Insert(row(id)), None),
            Kind::Update => (Op::Update(id, row(id)), None),
            Kind::Rename => (Op::Update(id, row(id + 1)), Some(id)),
            Kind::Touch => (Op::Touch { id, version }, None),
            Kind::Delete => (Op::Delete(id), Some(id)),
            Kind::Truncate => (Op::Truncate, None),
        };
        let new_id = if matches!(kind, Kind::Rename) { id + 1 } else { id };
        let (id_text, note) = (new_id.to_string(), version.to_string());
        let at = (i64::from(version % 3) * 86_400_000_000 + i64::from(version)).to_be_bytes();
        let note = if matches!(kind, Kind::Touch) { Datum::Unchanged } else { Datum::Text(note.as_bytes()) };
        let mut columns = vec![Datum::Text(id_text.as_bytes()), note, Datum::Binary(&at)];
        columns.extend(more.map(Datum::Text));
        let old = old.map(|id: i32| id.to_string());
        let key = old.as_ref().map(|id| [Datum::Text(id.as_bytes()), Datum::Null, Datum::Null]);
        let mut bytes = match (kind, &key) {
            (Kind::Insert, _) => encode::insert(OID, &columns),
            (Kind::Delete, Some(key)) => encode::delete(OID, (b'K', key)),
            (Kind::Truncate, _) => encode::message(&Message::Truncate {
                xid: None,
                relation_oids: vec![OID],
                cascade: false,
                restart_identity: false,
            }),
            (_, key) => encode::update(OID, key.as_ref().map(|key| (b'K', &key[..])), &columns),
        };
        if let Some(xid) = xid {
            bytes.splice(1..1, xid.to_be_bytes());
        }
        self.lsn += 8;
        assert_eq!(self.follow.data(Lsn(self.lsn), &bytes).await.unwrap(), None);
        op
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

    async fn block(&mut self, index: u8, statements: &[(u8, Statement)]) {
        let mut open = self.start_block(index).await;
        for (subtransaction, statement) in statements {
            let xid = match subtransaction {
                0 => open.xid,
                other => *open.subtransactions.entry(*other).or_insert_with(|| self.next_xid()),
            };
            let op = self.statement(Some(xid), *statement, None).await;
            open.ops.push((xid, op));
        }
        self.send(&Message::StreamStop).await;
        self.open.insert(index, open);
    }

    async fn alter_and_roll_back(&mut self, index: u8) {
        let mut open = self.start_block(index).await;
        let xid = self.next_xid();
        self.send(&Message::Relation { xid: Some(xid), relation: relation(Some("added")) }).await;
        self.statement(Some(xid), (Kind::Insert, 0), Some(b"new")).await;
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
        let live = open.ops.into_iter().filter(|(xid, _)| !open.aborted.contains(xid));
        self.committed.push((end_lsn, live.map(|(_, op)| op).collect()));
        self.send(&Message::StreamCommit { xid: open.xid, commit_lsn, end_lsn, commit_time_micros: 0 }).await;
        self.lsn = end_lsn.0;
    }

    async fn whole(&mut self, statements: &[Statement]) {
        let xid = self.next_xid();
        let commit_lsn = Lsn(self.lsn + 8 * (statements.len() as u64 + 4));
        self.send(&Message::Begin { final_lsn: commit_lsn, commit_time_micros: 0, xid }).await;
        if !self.described {
            self.send(&Message::Relation { xid: None, relation: relation(None) }).await;
            self.described = true;
        }
        let mut ops = Vec::new();
        for statement in statements {
            ops.push(self.statement(None, *statement, None).await);
            if ops.len() % 5 == 0 {
                self.follow.make_room_inside_a_transaction().await.unwrap();
            }
        }
        let end_lsn = Lsn(commit_lsn.0 + 8);
        self.committed.push((end_lsn, ops));
        self.send(&Message::Commit { commit_lsn, end_lsn, commit_time_micros: 0 }).await;
        self.lsn = end_lsn.0;
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Block { transaction, statements } => self.block(*transaction, statements).await,
            Step::AlterAndRollBack { transaction } => self.alter_and_roll_back(*transaction).await,
            Step::AbortSub { transaction, subtransaction } => self.abort_sub(*transaction, *subtransaction).await,
            Step::Abort { transaction } => self.abort(*transaction).await,
            Step::Commit { transaction } => self.commit(*transaction).await,
            Step::Whole { statements } => self.whole(statements).await,
            Step::Flush => self.follow.flush().await.unwrap(),
            Step::Room => self.follow.make_room_inside_a_transaction().await.unwrap(),
        }
    }
}

pub(super) fn catalogued() -> Catalogued {
    let rules = TableRules {
        table: TableName::new("public", "events"),
        partition_column: "at".to_owned(),
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        text_columns: Vec::new(),
        lake_columns: Default::default(),
    };
    Catalogued { rules, found: shape(), is_partitioned: true }
}

fn follow(land: mpsc::Sender<LandCommand>, limits: Limits) -> Follow {
    let shape = shape();
    let table = Following {
        shape: Arc::clone(&shape),
        buffer: TableBuffer::new(Arc::clone(&shape)),
        recorded: Lsn::ZERO,
        parked: false,
        may_park: false,
        may_be_emptied: true,
        source: Some(SourceRelation { oid: OID, since_xid: None }),
        emptied_by: None,
        described: 0,
        relation: None,
        days: Default::default(),
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
        catalog: Catalog { settings: None, tables: vec![catalogued()], binary: true },
        orders: mpsc::channel(1).1,
        aside: None,
        again: Default::default(),
        relations: 0,
    }
}

/// Runs the steps, then commits what is open and flushes; returns the commits and what they should have been.
async fn run(steps: &[Step], builder_bytes: usize, batch_bytes: usize) -> (Lake, Vec<(Lsn, Vec<Op>)>) {
    let buffer = BufferSection { max_age: Duration::from_secs(3600), max_bytes: 700, memory_limit_bytes: 256 << 20 };
    let limits = Limits { builder_bytes, batch_bytes, ..Limits::new(&buffer) };
    let (land, mut commands) = mpsc::channel(3);
    let follow = follow(land, limits);
    let mut server = Server {
        follow,
        lsn: 100,
        xid: 700,
        version: 0,
        open: HashMap::new(),
        committed: Vec::new(),
        described: false,
    };
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

/// The steps, and what the lake showed at each commit, against what the transactions did that end at or before it.
fn check(steps: &[Step], builder_bytes: usize, batch_bytes: usize) -> Lake {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (lake, committed) = runtime.block_on(run(steps, builder_bytes, batch_bytes));
    let expected = |at: Lsn| {
        let mut rows = Vec::new();
        committed.iter().filter(|(end, _)| *end <= at).flat_map(|(_, ops)| ops).for_each(|op| op.apply(&mut rows));
        rows.sort_unstable();
        rows
    };
    for (at, visible) in &lake.commits {
        let mut visible = visible.clone();
        visible.sort_unstable();
        assert_eq!(visible, expected(*at), "at {at}");
    }
    let mut visible = lake.visible.clone();
    visible.sort_unstable();
    assert_eq!(visible, expected(Lsn(u64::MAX)));
    assert!(lake.is_done());
    lake
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every commit shows exactly the transactions that end at or before it, each whole, without what was rolled back.
    #[test]
    fn b1_b2_every_interleaving_shows_whole_transactions_and_nothing_that_was_rolled_back(
        steps in prop_oneof![steps(0), steps(1), steps(6)],
        builder_bytes in prop_oneof![Just(0_usize), Just(400), Just(1 << 20)],
        batch_bytes in prop_oneof![Just(120_usize), Just(1 << 20)],
    ) {
        check(&steps, builder_bytes, batch_bytes);
    }

    #[test]
    fn a_stream_that_only_grows_has_no_eras(steps in steps(0)) {
        prop_assert_eq!(check(&steps, 400, 120).eras, 0);
    }
}

/// A set of one, for the readability of the failures above.
#[test]
fn an_abort_of_one_subtransaction_keeps_the_others() {
    let insert = |subtransaction, id| (subtransaction, (Kind::Insert, id));
    let steps = [
        Step::Block { transaction: 0, statements: vec![insert(0, 1), insert(1, 2), insert(2, 3)] },
        Step::Room,
        Step::AbortSub { transaction: 0, subtransaction: 1 },
        Step::Commit { transaction: 0 },
    ];
    let mut visible: Vec<i32> = check(&steps, 0, 1 << 20).visible.iter().map(|row| row.id).collect();
    visible.sort_unstable();
    assert_eq!(visible, [1, 3]);
}

/// What a streamed transaction brought, and the changes of others, are committed apart, whichever comes first.
#[test]
fn b1_a_streamed_transaction_with_changes_has_a_commit_of_its_own() {
    let whole = |kind| Step::Whole { statements: vec![(kind, 1)] };
    let streamed =
        |kind| [Step::Block { transaction: 0, statements: vec![(0, (kind, 1))] }, Step::Commit { transaction: 0 }];
    let commits = |first: Kind, second: Kind, third: Kind| {
        let mut steps = vec![whole(first)];
        steps.extend(streamed(second));
        steps.push(whole(third));
        check(&steps, 1 << 20, 1 << 20).commits.len()
    };
    assert_eq!(commits(Kind::Insert, Kind::Insert, Kind::Insert), 1);
    assert_eq!(commits(Kind::Insert, Kind::Insert, Kind::Delete), 2);
    assert_eq!(commits(Kind::Delete, Kind::Insert, Kind::Insert), 2);
    assert_eq!(commits(Kind::Insert, Kind::Delete, Kind::Insert), 3);
    assert_eq!(commits(Kind::Delete, Kind::Touch, Kind::Update), 3);
}

/// Changes that were rolled back are no reason for a commit of its own.
#[test]
fn changes_that_were_rolled_back_force_no_commit() {
    let steps = [
        Step::Whole { statements: vec![(Kind::Insert, 1)] },
        Step::Block { transaction: 0, statements: vec![(0, (Kind::Insert, 2)), (1, (Kind::Delete, 1))] },
        Step::Room,
        Step::AbortSub { transaction: 0, subtransaction: 1 },
        Step::Commit { transaction: 0 },
        Step::Whole { statements: vec![(Kind::Insert, 3)] },
    ];
    for builder_bytes in [0, 1 << 20] {
        assert_eq!(check(&steps, builder_bytes, 1 << 20).commits.len(), 1);
    }
}
