//! A server, its tables, the sessions that write, and the pipelines that follow.

use super::follower::{Fate, Follower};
use super::generate::{End, Generator};
use super::model::{Committed, Draft, State, TABLES};
use super::row::{self, EXTRAS, KINDS, MICROS_PER_DAY, PLAIN, extra_name, uuid_of};
use crate::support::{DATABASE, Lane, PipelineText, Site};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, Connection, ServerKind};
use std::collections::BTreeSet;

/// Beside these the process may be killed at any transaction.
const FAIL_POINTS: [&str; 11] = [
    "apply.after_scan",
    "apply.before_rewrite",
    "apply.after_rewrite",
    "journal.before_log_write",
    "journal.after_log_write",
    "apply.before_log_write",
    "apply.after_log_write",
    "apply.before_cleanup",
    "lock.after_acquire",
    "lake.after_log_write",
    "land.before_acknowledgement",
];

pub struct World {
    site: Site,
    /// Each writes one half of the rows.
    sessions: [Connection; 2],
    state: State,
    generator: Generator,
    history: Vec<Committed>,
    followers: Vec<Follower>,
    /// Names of each table's leaves, in the server's order.
    leaves: [Vec<String>; TABLES],
    /// A column was added, and no row came since.
    unfilled: [bool; TABLES],
    steps: u64,
}

impl World {
    /// One pipeline for each protocol.
    pub async fn start(server: ServerKind, seed: u64, work_mem: &str) -> Self {
        let settings = [("logical_decoding_work_mem", work_mem), ("track_commit_timestamp", "on")];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let site = Site::with_options(ClusterOptions { server, extra_settings, ..ClusterOptions::default() }).await;
        let options = CustomerOptions { premake_days: 3, ..CustomerOptions::with_history(4) };
        customer::create(&site.cluster, &options).await.unwrap();
        row::create(&site.cluster, DATABASE).await;
        let today = chrono::Utc::now().timestamp_micros().div_euclid(MICROS_PER_DAY);
        let mut followers = Vec::new();
        for (slot, streaming) in [("streamed", true), ("whole", false)] {
            let lane = Lane::local(&site, slot, with_plain);
            if !streaming {
                let text =
                    std::fs::read_to_string(&lane.file).unwrap().replace("\n[lake]", "streaming = false\n\n[lake]");
                std::fs::write(&lane.file, text).unwrap();
            }
            followers.push(Follower::start(&site, lane).await);
        }
        let sessions = [site.cluster.connect(DATABASE).await.unwrap(), site.cluster.connect(DATABASE).await.unwrap()];
        let (state, generator) = (State::new(), Generator::new(seed, today));
        let (history, leaves, unfilled, steps) = (Vec::new(), Default::default(), Default::default(), 0);
        let mut world = Self { site, sessions, state, generator, history, followers, leaves, unfilled, steps };
        world.look_at_leaves().await;
        world
    }

    /// Writes so many transactions while the pipelines meet their fates, waits until they have all, and compares everything. Whoever
    /// follows without streaming comes along every third time.
    pub async fn step(&mut self, transactions: u64) {
        self.steps += 1;
        self.generator.moves = true;
        let fates = [self.fate(transactions), self.fate(transactions)];
        for (follower, fate) in self.followers.iter_mut().zip(fates) {
            follower.begin(fate).await;
        }
        let mut dropped = false;
        for written in 0..transactions {
            dropped |= self.write().await;
            for follower in &mut self.followers {
                follower.written(written).await;
            }
        }
        // A lake learns of a new column with the first row that could have a value there.
        while self.unfilled.contains(&true) {
            let draft = self.generator.transaction(&self.state, 0, 1);
            self.run(draft, 0).await;
        }
        self.check_source().await;
        let all = dropped || self.steps.is_multiple_of(3);
        self.judge(if all { 2 } else { 1 }).await;
    }

    /// The first so many followers have everything, and are equal to the source.
    async fn judge(&mut self, followers: usize) {
        for follower in &mut self.followers[..followers] {
            follower.catch_up(&self.site).await;
            let judged = follower.judge(&self.site, &self.state, &self.history).await;
            judged.unwrap_or_else(|difference| panic!("step {}, {:?}: {difference}", self.steps, follower.fate));
        }
    }

    fn fate(&mut self, transactions: u64) -> Fate {
        let dice = &mut self.generator.dice;
        match dice.below(10) {
            0..3 => Fate::Follow,
            3..6 => Fate::Away,
            6..8 => Fate::Killed(dice.below(transactions)),
            _ => Fate::Dies(FAIL_POINTS[dice.index(FAIL_POINTS.len())], 1 + dice.below(4)),
        }
    }

    /// One transaction, or two sessions' interleaved, or a change of the tables; whether a column was dropped.
    async fn write(&mut self) -> bool {
        let half = self.generator.dice.index(2);
        match self.generator.dice.below(100) {
            0..4 => return self.change_tables().await,
            4..10 => self.interleave(half).await,
            10..14 => {
                let draft = self.generator.transaction(&self.state, half, 60);
                self.run(draft, half).await;
            }
            _ => {
                let acts = 1 + self.generator.dice.below(6);
                let draft = self.generator.transaction(&self.state, half, acts);
                self.run(draft, half).await;
            }
        }
        false
    }

    fn trail(&self, xid: u32, sql: &str) {
        if let Ok(path) = std::env::var("LAKEBED_MIXED_TRAIL") {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "-- step {} transaction {xid}\n{sql}", self.steps).unwrap();
        }
    }

    /// A transaction in one piece.
    async fn run(&mut self, draft: Draft, half: usize) {
        let xid = begin(&self.sessions[half]).await;
        self.end_transaction(draft, half, xid).await;
    }

    async fn end_transaction(&mut self, mut draft: Draft, half: usize, xid: u32) {
        let (end, sql) = (self.generator.end(), std::mem::take(&mut draft.sql));
        self.trail(xid, &format!("{sql}{end:?}"));
        match end {
            End::Rollback => self.sessions[half].execute(&format!("{sql}ROLLBACK;")).await.unwrap(),
            End::Commit => {
                self.sessions[half].execute(&format!("{sql}COMMIT;")).await.unwrap();
                let (rows, committed) = draft.end(xid);
                self.state.halves[half] = rows;
                for (table, _) in &committed.born {
                    self.unfilled[*table] = false;
                }
                self.history.push(committed);
            }
        }
    }

    /// A large transaction of one session, between whose parts the other's commit.
    async fn interleave(&mut self, half: usize) {
        let xid = begin(&self.sessions[half]).await;
        let mut draft = self.generator.transaction(&self.state, half, 25);
        for _ in 0..2 + self.generator.dice.below(3) {
            let sql = std::mem::take(&mut draft.sql);
            self.trail(xid, &sql);
            self.sessions[half].execute(&sql).await.unwrap();
            let acts = 1 + self.generator.dice.below(5);
            let other = self.generator.transaction(&self.state, 1 - half, acts);
            self.run(other, 1 - half).await;
            self.generator.acts(&mut draft, half, 15);
        }
        self.end_transaction(draft, half, xid).await;
    }

    async fn change_tables(&mut self) -> bool {
        let table = self.generator.dice.index(TABLES);
        match self.generator.dice.below(4) {
            0 => self.change_columns(table).await,
            1 => self.empty_default(table).await,
            _ => self.change_identity(table).await,
        }
    }

    /// Adds a column, or drops one; no name is used twice.
    async fn change_columns(&mut self, table: usize) -> bool {
        let live: Vec<usize> = (0..EXTRAS).filter(|extra| self.state.live[table][*extra]).collect();
        let name = KINDS[table].name();
        if let (Some(extra), true) = (live.first(), live.len() > 1 || self.state.made[table] == EXTRAS) {
            self.site.sql(&format!("ALTER TABLE {name} DROP COLUMN {}", extra_name(*extra))).await;
            self.state.live[table][*extra] = false;
            self.generator.moves = false;
            return true;
        }
        let extra = self.state.made[table];
        if extra < EXTRAS {
            self.site.sql(&format!("ALTER TABLE {name} ADD COLUMN {} text", extra_name(extra))).await;
            self.state.live[table][extra] = true;
            self.unfilled[table] = true;
            self.state.made[table] += 1;
        }
        false
    }

    async fn change_identity(&mut self, table: usize) -> bool {
        let index = ["FULL", "USING INDEX plain_code"];
        let (name, identity) = if KINDS[table].table == PLAIN {
            (PLAIN.to_owned(), index[self.generator.dice.index(2)])
        } else {
            // The root's own reaches none of them, but decides what the stream calls an old row.
            let leaves = &self.leaves[table];
            let leaf = leaves.get(self.generator.dice.index(leaves.len() + 1));
            let leaf = leaf.map_or(KINDS[table].table, String::as_str).to_owned();
            (leaf, ["FULL", "DEFAULT"][self.generator.dice.index(2)])
        };
        self.site.sql(&format!("ALTER TABLE public.{name} REPLICA IDENTITY {identity}")).await;
        false
    }

    /// Rows of the default partition move into leaves of their own: nothing happens to them.
    async fn empty_default(&mut self, table: usize) -> bool {
        let name = KINDS[table].table;
        if name == PLAIN || !self.generator.moves {
            return false;
        }
        if self.site.cluster.has_extensions() {
            self.site
                .sql(&format!("CALL partman.partition_data_proc('public.{name}', p_wait := 0, p_quiet := true)"))
                .await;
        } else {
            let days = self.state.rows(table).map(|image| image.at.div_euclid(MICROS_PER_DAY));
            let days: BTreeSet<i64> = days.filter(|day| !self.state.leaves[table].contains(day)).collect();
            for day in days {
                self.site.sql(&move_day(name, day)).await;
            }
        }
        self.look_at_leaves().await;
        self.generator.further_back += 3;
        false
    }

    async fn look_at_leaves(&mut self) {
        for (table, kind) in KINDS.iter().enumerate() {
            let sql = format!(
                "SELECT c.relname, (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(\\d{{4}}-\\d\\d-\\d\\d)'))[1]::date - '1970-01-01'
                 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{}'::regclass ORDER BY 1",
                kind.name()
            );
            let rows = self.site.cluster.query(DATABASE, &sql).await.unwrap();
            self.leaves[table] = rows.iter().filter_map(|row| row[0].clone()).collect();
            self.state.leaves[table] = rows.iter().filter_map(|row| row[1].as_ref()?.parse().ok()).collect();
        }
    }

    /// The model itself is right.
    async fn check_source(&self) {
        for (table, kind) in KINDS.iter().enumerate() {
            let rows = self.site.cluster.query(DATABASE, &kind.select()).await.unwrap();
            let found: BTreeSet<Vec<String>> =
                rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
            let expected = self.state.rows(table).map(|image| {
                let id = if kind.table == PLAIN { image.id.to_string() } else { uuid_of(image.id) };
                vec![id, image.at.to_string(), format!("v{}", image.label)]
            });
            let expected: BTreeSet<Vec<String>> = expected.collect();
            let differing: Vec<_> = found.symmetric_difference(&expected).take(4).collect();
            assert!(differing.is_empty(), "step {}: the model of {} is wrong: {differing:?}", self.steps, kind.table);
        }
    }

    pub async fn end(mut self) {
        self.judge(2).await;
        // What a dead process left beside a table or a journal is removed behind the next commit there.
        for kind in &KINDS {
            let name = kind.name();
            let one = format!("(SELECT tableoid, ctid FROM {name} LIMIT 1)");
            self.site.sql(&format!("DELETE FROM {name} WHERE (tableoid, ctid) IN {one}")).await;
        }
        for follower in self.followers {
            follower.end().await;
        }
        self.site.cluster.stop().await;
    }
}

fn with_plain(text: &mut PipelineText) {
    text.tables.push((format!("public.{PLAIN}"), "happened_at".to_owned(), "month"));
}

async fn begin(session: &Connection) -> u32 {
    let rows = session.query("BEGIN; SELECT pg_current_xact_id()::text").await.unwrap();
    rows[0][0].as_ref().unwrap().parse().unwrap()
}

/// As partman does it, for a server without: one transaction.
fn move_day(name: &str, day: i64) -> String {
    let date = |day: i64| chrono::DateTime::from_timestamp(day * 86_400, 0).unwrap().date_naive();
    let (from, to) = (date(day), date(day + 1));
    let rows = format!("public.{name}_default WHERE created_at >= '{from}' AND created_at < '{to}'");
    format!(
        "BEGIN;
         CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM {rows};
         DELETE FROM {rows};
         CREATE TABLE public.{name}_p{} PARTITION OF public.{name} FOR VALUES FROM ('{from}') TO ('{to}');
         INSERT INTO public.{name} SELECT * FROM moved;
         COMMIT;",
        from.format("%Y%m%d")
    )
}
