//! One pipeline that follows the mixed transactions: stopped, killed and started again between and during the steps, and judged after
//! each.

use super::journal::{Judged, Stretch};
use super::model::{Committed, State, TABLES};
use super::row::{EXTRAS, KINDS, extra_name};
use crate::support::{DATABASE, Lane, RunningRun, Site, Value, compare_without, delta_rows, files};
use futures::future::try_join_all;
use lakebed::base::Lsn;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(120);

/// What happens to the process during a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It follows.
    Follow,
    /// It is not there; everything is made up for at the end of the step.
    Away,
    /// It is killed after so many transactions.
    Killed(u64),
    /// It kills itself at a fail point, if it comes there so often.
    Dies(&'static str, u64),
}

pub struct Follower {
    pub lane: Lane,
    run: Option<RunningRun>,
    pub fate: Fate,
    /// Transactions that were judged.
    judged: usize,
    judged_until: Lsn,
    journals: [Judged; TABLES],
}

impl Follower {
    pub async fn start(site: &Site, lane: Lane) -> Self {
        lane.init(site).await;
        let journals = Default::default();
        Self { lane, run: None, fate: Fate::Follow, judged: 0, judged_until: Lsn::ZERO, journals }
    }

    pub async fn begin(&mut self, fate: Fate) {
        self.end_of_the_dying().await;
        self.fate = fate;
        match fate {
            Fate::Follow | Fate::Killed(_) if self.run.is_none() => self.run = Some(self.lane.start()),
            Fate::Follow | Fate::Killed(_) => {}
            Fate::Away => self.stop().await,
            Fate::Dies(point, visit) => {
                self.stop().await;
                self.run = Some(RunningRun::start_dying_at(&self.lane.file, &format!("{point}={visit}")));
            }
        }
    }

    /// So many transactions of the step are written.
    pub async fn written(&mut self, transactions: u64) {
        if self.fate == Fate::Killed(transactions)
            && let Some(run) = self.run.take()
        {
            run.signal("KILL").await;
            run.ended().await.killed();
        }
    }

    /// Everything that was written is in the lake.
    pub async fn catch_up(&mut self, site: &Site) {
        match self.fate {
            Fate::Away => {
                self.lane.run_until_caught_up().await.succeeded();
                return;
            }
            Fate::Dies(..) => self.end_of_the_dying().await,
            Fate::Follow | Fate::Killed(_) => {}
        }
        let run = self.run.get_or_insert_with(|| self.lane.start());
        let lsn = site.value("SELECT pg_current_wal_insert_lsn()").await;
        let slot = &self.lane.slot;
        let sql = format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
        let started = Instant::now();
        while site.value(&sql).await != "t" {
            assert!(!run.has_ended(), "{slot} ended:\n{}", run.log());
            assert!(started.elapsed() < ACKNOWLEDGED_WITHIN, "{slot} does not get there:\n{}", run.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// It came to its fail point, or ends in order, or comes there on its way to that.
    async fn end_of_the_dying(&mut self) {
        if let Fate::Dies(..) = self.fate
            && let Some(mut run) = self.run.take()
        {
            if !run.has_ended() {
                run.signal("TERM").await;
            }
            let finished = run.ended().await;
            assert!(finished.signal == Some(libc::SIGKILL) || finished.code == Some(0), "{}", finished.stderr);
        }
    }

    pub async fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            run.signal("TERM").await;
            run.ended().await.succeeded();
        }
    }

    /// Lake and source are equal, row by row, and the journals hold what the transactions since the last time did, exactly once.
    pub async fn judge(&mut self, site: &Site, state: &State, history: &[Committed]) -> Result<(), String> {
        let lake = &self.lane.folder;
        let tables = (0..TABLES).map(|table| compare_table(site, &self.lane, state, table));
        let retired = (0..TABLES).map(|table| retired_values_stay(&self.lane, state, table));
        let until: Lsn = site.value("SELECT pg_current_wal_insert_lsn()").await.parse().unwrap();
        let transactions = &history[self.judged..];
        let times = commit_times(site, transactions).await;
        let stretch = Stretch { transactions, after: self.judged_until, until, times: &times };
        let journals = self.journals.iter_mut().enumerate();
        let journals = journals.map(|(table, journal)| journal.judge(lake, table, &stretch));
        let judged = futures::try_join!(try_join_all(tables), try_join_all(retired), try_join_all(journals));
        judged.map_err(|difference| format!("{}: {difference}", self.lane.slot))?;
        (self.judged, self.judged_until) = (history.len(), until);
        Ok(())
    }

    /// Stops in order; nothing is left that nobody will ever read or remove.
    pub async fn end(mut self) {
        self.stop().await;
        self.lane.run_until_caught_up().await.succeeded();
        for kind in &KINDS {
            for table in [kind.table.to_owned(), format!("{}__changes", kind.table)] {
                let folder = self.lane.folder.join(&table);
                if folder.exists() {
                    assert_eq!(files::left_behind(&folder), Vec::<String>::new(), "{}: {table}", self.lane.slot);
                    assert_eq!(files::missing(&folder), Vec::<String>::new(), "{}: {table}", self.lane.slot);
                }
            }
        }
    }
}

async fn compare_table(site: &Site, lane: &Lane, state: &State, table: usize) -> Result<(), String> {
    let kind = &KINDS[table];
    let folder = lane.folder.join(kind.table);
    let retired = retired(state, table);
    let partition = (kind.at, kind.by);
    let compared = compare_without(&retired, &site.cluster, site.folder(), &folder, &kind.name(), partition).await;
    compared.map(|_| ()).map_err(|difference| format!("{}: {difference}", kind.table))
}

fn retired(state: &State, table: usize) -> Vec<String> {
    (0..state.made[table]).filter(|extra| !state.live[table][*extra]).map(extra_name).collect()
}

/// What a row had in a column that was dropped stays as it was until the row changes.
async fn retired_values_stay(lane: &Lane, state: &State, table: usize) -> Result<(), String> {
    if retired(state, table).is_empty() {
        return Ok(());
    }
    let kind = &KINDS[table];
    let names: Vec<String> = (0..EXTRAS).map(extra_name).collect();
    let mut columns = vec![("id", Value::Text)];
    columns.extend(names.iter().map(|name| (name.as_str(), Value::Text)));
    let mut found = delta_rows(&lane.folder.join(kind.table), &columns).await;
    let mut expected: Vec<Vec<Option<String>>> = state
        .rows(table)
        .map(|image| {
            let mut shown = kind.shown(image);
            let extras = shown.split_off(shown.len() - EXTRAS);
            [vec![shown.remove(0)], extras].concat()
        })
        .collect();
    found.sort();
    expected.sort();
    let differing = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    match differing {
        Some((found, expected)) => Err(format!("{}: {expected:?} is expected, {found:?} is in the lake", kind.table)),
        None => Ok(()),
    }
}

/// When each of the transactions committed, in microseconds since 1970.
async fn commit_times(site: &Site, transactions: &[Committed]) -> BTreeMap<u32, i64> {
    let xids: Vec<String> = transactions.iter().map(|committed| committed.xid.to_string()).collect();
    let sql = format!(
        "SELECT x::text, (extract(epoch FROM pg_xact_commit_timestamp(x::text::xid)) * 1000000)::int8::text
         FROM unnest(ARRAY[{}]::int8[]) AS x",
        xids.join(", ")
    );
    let rows = site.cluster.query(DATABASE, &sql).await.unwrap();
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
    rows.iter().map(|row| (u32::try_from(number(&row[0])).unwrap(), number(&row[1]))).collect()
}
