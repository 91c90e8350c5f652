//! Everything that a soak owns: the servers, the pipelines, the writers, and the loop in which faults strike.

use crate::changes;
use crate::chaos::Fault;
use crate::keeper::Keeper;
use crate::options::Options;
use crate::report::Figures;
use crate::support::dice::Dice;
use crate::support::s3::S3;
use crate::support::{DATABASE, Site, load};
use crate::writers::Writers;
use lakebed::base::Lsn;
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, Connection};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(200);
const STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// Transactions above 1 MB are streamed; a pause of lakebed can be longer than the server waits for it.
const SETTINGS: [(&str, &str); 4] = [
    ("logical_decoding_work_mem", "1MB"),
    ("wal_sender_timeout", "5s"),
    ("max_wal_size", "1GB"),
    ("shared_buffers", "256MB"),
];

/// What the sessions of the load call themselves.
const WRITERS: &str = "soak_writers";
/// By which the load finds the rows of the last minute among millions.
const INDEXES: &str = "CREATE INDEX ON public.security_event (created_at);
    CREATE INDEX ON public.security_event_hook_results (created_at)";

pub(crate) struct World {
    site: Site,
    s3: Option<S3>,
    keepers: Vec<Keeper>,
    writers: Writers,
    started: Instant,
    faults: BTreeMap<Fault, u64>,
    first_lsn: u64,
    last_lsn: u64,
    rows: Option<[u64; 2]>,
}

impl World {
    pub(crate) async fn start(options: &Options) -> Self {
        let mut folder = tempfile::Builder::new().prefix("lakebed-soak-").tempdir().unwrap();
        // It is removed by hand when everything balanced. The server's user has to pass through it.
        folder.disable_cleanup(true);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let cluster_options = ClusterOptions {
            extra_settings: SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            directory: Some(folder.path().join("pg")),
            keep_directory: true,
            ..ClusterOptions::default()
        };
        let site = Site::in_folder(cluster_options, folder).await;
        let customer_options = CustomerOptions { premake_days: 3, ..CustomerOptions::with_history(4) };
        customer::create(&site.cluster, &customer_options).await.unwrap();
        load::drop_indexes(&site.cluster, DATABASE).await;
        site.sql(INDEXES).await;
        let s3 = if options.s3 { Some(S3::start(&site.folder().join("weed")).await) } else { None };
        let mut keepers = Vec::new();
        if options.local {
            keepers.push(Keeper::start(&site, "soak_local", None).await);
        }
        if let Some(s3) = &s3 {
            keepers.push(Keeper::start(&site, "soak_s3", Some(s3)).await);
        }
        let first_lsn = site.value("SELECT pg_current_wal_insert_lsn()").await.parse::<Lsn>().unwrap().0;
        let url = format!("{}&application_name={WRITERS}", site.cluster.socket_url(DATABASE));
        let writers = Writers::start(&url, options.seed, options.duration(), options.rows_max);
        let (started, faults) = (Instant::now(), BTreeMap::new());
        Self { site, s3, keepers, writers, started, faults, first_lsn, last_lsn: first_lsn, rows: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// Faults until the time is over, or until something fails that must not.
    pub(crate) async fn suffer(&mut self, options: &Options) -> Result<(), String> {
        let mut dice = Dice::new(options.seed);
        let possible: Vec<Fault> = Fault::ALL
            .into_iter()
            .filter(|fault| options.faults.is_empty() || options.faults.iter().any(|name| name == fault.name()))
            .filter(|fault| *fault != Fault::Store || self.s3.is_some())
            .collect();
        let mut next_fault = Instant::now() + dice.until_next_fault();
        let mut next_status = Instant::now() + STATUS_INTERVAL;
        while self.started.elapsed() < options.duration() {
            tokio::time::sleep(TICK).await;
            for keeper in &mut self.keepers {
                keeper.look().await?;
            }
            self.observe().await;
            if Instant::now() >= next_fault {
                let fault = dice.fault(&possible);
                self.strike(fault, &mut dice).await?;
                *self.faults.entry(fault).or_default() += 1;
                next_fault = Instant::now() + dice.until_next_fault();
            }
            if Instant::now() >= next_status {
                next_status += STATUS_INTERVAL;
                let rows = self.writers.done.rows.load(Ordering::Relaxed);
                println!("{}", self.figures().status(rows, &self.keepers));
            }
        }
        Ok(())
    }

    async fn strike(&mut self, fault: Fault, dice: &mut Dice) -> Result<(), String> {
        let whom = dice.below(self.keepers.len() as u64) as usize;
        let keeper = &mut self.keepers[whom];
        match fault {
            Fault::Kill => {
                keeper.kill().await?;
                keeper.go_on();
            }
            Fault::Stop => {
                keeper.stop().await?;
                keeper.go_on();
            }
            Fault::Pause => keeper.pause(dice.millis(500, 9_000)).await,
            Fault::Cut => keeper.cut(dice.below(1 << 30)),
            Fault::PostgreSql => {
                self.site.cluster.kill_immediately().await;
                tokio::time::sleep(dice.millis(0, 4_000)).await;
                self.site.cluster.restart().await.map_err(|error| error.to_string())?;
            }
            Fault::Store => {
                if let Some(s3) = &mut self.s3 {
                    s3.kill().await;
                    tokio::time::sleep(dice.millis(0, 6_000)).await;
                    s3.restart().await;
                }
            }
        }
        Ok(())
    }

    /// How far the slots are. A server that is just coming up is asked again at the next tick.
    async fn observe(&mut self) {
        let Ok(connection) = Connection::open(&self.site.cluster.socket_url(DATABASE)).await else { return };
        let sql = "SELECT slot_name, confirmed_flush_lsn, pg_current_wal_insert_lsn() FROM pg_replication_slots";
        for row in connection.query(sql).await.unwrap_or_default() {
            let text = |column: usize| row[column].clone().unwrap_or_default();
            let position = |column: usize| text(column).parse::<Lsn>().map_or(0, |lsn| lsn.0);
            self.last_lsn = self.last_lsn.max(position(2));
            if let Some(keeper) = self.keepers.iter_mut().find(|keeper| keeper.lane.slot == text(0)) {
                keeper.observe(position(2), position(1));
            }
        }
    }

    /// Lets everything come to its end, and compares every lake with the source.
    pub(crate) async fn judge(&mut self) -> Result<(), String> {
        println!("soak: the faults are over, the lakes catch up");
        self.end_of_writing().await;
        let refused = self.writers.done.refused.load(Ordering::Relaxed);
        if refused > 0 {
            return Err(format!("the server refused {refused} transactions of the load; its log says why"));
        }
        for keeper in &mut self.keepers {
            keeper.stop().await?;
            keeper.run_until_caught_up().await?;
        }
        // What a process that died has left is removed by the next one that commits to the same table or journal.
        self.site.sql(&changes::closing()).await;
        for keeper in &mut self.keepers {
            keeper.run_until_caught_up().await?;
        }
        self.observe().await;
        for keeper in &mut self.keepers {
            let s3 = self.s3.as_ref();
            let rows =
                keeper.lane.balance(&self.site, s3).await.map_err(|text| format!("{}: {text}", keeper.lane.slot))?;
            if self.rows.is_some_and(|others| others != rows) {
                return Err(format!("{} has {rows:?} rows, the other lake {:?}", keeper.lane.slot, self.rows));
            }
            self.rows = Some(rows);
            keeper.count_old_images();
            let left_behind = keeper.lane.left_behind();
            if !left_behind.is_empty() {
                return Err(format!(
                    "{}: {} files are left behind: {left_behind:?}",
                    keeper.lane.slot,
                    left_behind.len()
                ));
            }
        }
        Ok(())
    }

    /// A server goes on with what it was told after the session is gone, to the COMMIT. None may come after the lakes' last run.
    async fn end_of_writing(&mut self) {
        self.writers.stop().await;
        let sessions = format!("FROM pg_stat_activity WHERE application_name = '{WRITERS}'");
        self.site.sql(&format!("SELECT pg_terminate_backend(pid) {sessions}")).await;
        self.site.wait_for(&format!("SELECT NOT EXISTS (SELECT {sessions})")).await;
    }

    fn figures(&self) -> Figures {
        let done = &self.writers.done;
        Figures {
            elapsed: self.started.elapsed(),
            faults: self.faults.clone(),
            transactions: done.transactions.load(Ordering::Relaxed),
            changes: done.changes.load(Ordering::Relaxed),
            lost: done.lost.load(Ordering::Relaxed),
            rows: self.rows,
            wal_bytes: self.last_lsn - self.first_lsn,
        }
    }

    pub(crate) fn report(&self) -> String {
        self.figures().closing(&self.keepers)
    }

    pub(crate) async fn stop(mut self) {
        self.writers.stop().await;
        drop(self.keepers);
        self.site.cluster.stop().await;
    }

    /// Stops everything and removes its folder.
    pub(crate) async fn remove(self) {
        let folder = self.folder().to_owned();
        self.stop().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
