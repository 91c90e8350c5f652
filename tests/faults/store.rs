//! The store, or the line to it, fails under a running pipeline: rows wait in bounded memory, and nothing is missing or double.

use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::s3::S3;
use crate::support::{DATABASE, Lane, RunningRun, Site, load, until};
use lakebed::demo::ClusterOptions;
use lakebed::demo::customer::{self, CustomerOptions};
use std::time::Duration;

/// What may be logged about an outage of the store.
const OUTAGE: [&str; 1] = ["the store fails for now; everything is kept and tried again"];
const MEMORY_LIMIT_MIB: u64 = 160;
/// What the limit does not count: the binary's own pages, beside what `memory_limit` promises.
const MEMORY_SLACK_MIB: u64 = 64;

/// An S3 server behind a proxy, and a pipeline into it.
struct Faulty {
    site: Site,
    s3: S3,
    proxy: Proxy,
    lane: Lane,
}

impl Faulty {
    async fn start() -> Self {
        let settings = [("logical_decoding_work_mem", "64kB"), ("wal_sender_timeout", "3s")];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
        let options = CustomerOptions { premake_days: 2, ..CustomerOptions::with_history(3) };
        customer::create(&site.cluster, &options).await.unwrap();
        load::drop_indexes(&site.cluster, DATABASE).await;
        let s3 = S3::start(&site.folder().join("s3")).await;
        let proxy = Proxy::start(s3.port()).await;
        let lane = Lane::on_s3(&site, "faulty", proxy.port, |text| text.memory_limit = Some("160MiB"));
        lane.init(&site).await;
        Self { site, s3, proxy, lane }
    }

    async fn load(&self) {
        self.site.cluster.execute(DATABASE, &load::around_a_streamed_one()).await.unwrap();
    }

    /// The backend that feeds the pipeline.
    async fn walsender(&self) -> String {
        self.site.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'faulty'").await
    }

    /// Whatever happened is over: the same process brings everything into the lake, and ends in order.
    async fn comes_together(self, run: RunningRun) {
        self.proxy.pass();
        self.load().await;
        self.lane.wait_until_acknowledged(&self.site).await;
        run.signal("TERM").await;
        run.allowing(&OUTAGE).ended().await.succeeded();
        self.lane.assert_balanced(&self.site, Some(&self.s3)).await;
        self.lane.assert_nothing_left_behind();
        self.site.cluster.stop().await;
    }
}

#[tokio::test]
async fn a_lake_on_s3_equals_its_source() {
    let site = Site::small().await;
    let mut s3 = S3::start(&site.folder().join("s3")).await;
    let lane = Lane::on_s3(&site, "on_s3", s3.port(), |_| {});
    lane.init(&site).await;
    site.load_history(7, 2, 2_000, 100).await;
    lane.run_until_caught_up().await.succeeded();
    assert_eq!(lane.assert_balanced(&site, Some(&s3)).await.iter().sum::<u64>(), 2_000);
    // Killed and started again, the server still has everything.
    s3.restart().await;
    site.insert_events(10, 1).await;
    lane.run_until_caught_up().await.succeeded();
    assert_eq!(lane.assert_balanced(&site, Some(&s3)).await.iter().sum::<u64>(), 2_010);
    lane.assert_nothing_left_behind();
    site.cluster.stop().await;
}

#[tokio::test]
async fn w3_b2_an_absent_store_is_waited_for_in_bounded_memory_on_a_living_connection() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    faulty.load().await;
    faulty.lane.wait_until_acknowledged(&faulty.site).await;
    let walsender = faulty.walsender().await;

    faulty.proxy.refuse(true);
    faulty.proxy.cut();
    // Far more than the process may hold.
    for _ in 0..4 {
        faulty.site.sql(&load::events(150_000, 3)).await;
    }
    // Three of the server's timeouts later it still hears from us.
    let since = faulty.site.value("SELECT clock_timestamp()").await;
    let heard = format!("SELECT reply_time > '{since}'::timestamptz + interval '9s' FROM pg_stat_replication");
    faulty.site.wait_for(&heard).await;
    assert_eq!(faulty.walsender().await, walsender, "the connection lived on");

    faulty.proxy.refuse(false);
    faulty.lane.wait_until_acknowledged(&faulty.site).await;
    assert_eq!(faulty.walsender().await, walsender, "it resumed by itself");
    let peak_mib = run.peak_mib();
    assert!(peak_mib < MEMORY_LIMIT_MIB + MEMORY_SLACK_MIB, "{peak_mib} MiB were resident");
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn l2_a_lost_response_doubles_nothing_and_drops_nothing() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    // An upload, a Delta commit, an acknowledgement; each twice in a row.
    for request in [".parquet", "_delta_log/0", "_lakebed/acknowledged"] {
        for _ in 0..2 {
            faulty.proxy.lose_response_to(&["PUT ", request]);
            faulty.load().await;
            until(&format!("the response to a PUT of {request} is lost"), || faulty.proxy.response_was_lost()).await;
            faulty.lane.wait_until_acknowledged(&faulty.site).await;
        }
    }
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn b2_a_slow_store_only_takes_longer() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    faulty.lane.wait_until_active(&faulty.site).await;
    let walsender = faulty.walsender().await;
    faulty.proxy.set(Direction::ToServer, Flow::Delay(Duration::from_millis(20)));
    faulty.load().await;
    faulty.lane.wait_until_acknowledged(&faulty.site).await;
    assert_eq!(faulty.walsender().await, walsender);
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn l2_a_store_that_is_killed_and_comes_back_is_written_on() {
    let mut faulty = Faulty::start().await;
    let run = faulty.lane.start();
    for _ in 0..3 {
        faulty.lane.wait_until_active(&faulty.site).await;
        faulty.load().await;
        faulty.s3.kill().await;
        faulty.load().await;
        faulty.s3.restart().await;
    }
    faulty.comes_together(run).await;
}

/// Two pipelines that are told to stop while their store is away: one is hurried by a second signal, one waits out its time.
#[tokio::test]
async fn w1_a_stop_that_cannot_land_ends_with_code_1_and_loses_nothing() {
    let faulty = Faulty::start().await;
    let other = Lane::on_s3(&faulty.site, "other", faulty.proxy.port, |_| {});
    other.init(&faulty.site).await;
    let runs = [faulty.lane.start(), other.start()];
    for lane in [&faulty.lane, &other] {
        lane.wait_until_active(&faulty.site).await;
    }
    faulty.proxy.refuse(true);
    faulty.proxy.cut();
    faulty.site.sql(&load::events(100, 3)).await;
    for run in &runs {
        until("the outage is felt", || run.log().contains(OUTAGE[0])).await;
        run.signal("TERM").await;
        until("the signal is heard", || run.log().contains("flushing and acknowledging before the end")).await;
    }
    let [hurried, patient] = runs;
    hurried.signal("TERM").await;
    let hurried = hurried.ended().await.allowing(&OUTAGE);
    hurried.refused(1, &["stopped at once by a second SIGTERM", "sent again at the next start"]);
    let patient = patient.ended().await.allowing(&OUTAGE);
    patient.refused(
        1,
        &["not done 25 s after the signal", "is the store or PostgreSQL not answering", "at the next start"],
    );

    faulty.proxy.refuse(false);
    for lane in [&faulty.lane, &other] {
        lane.run_until_caught_up().await.succeeded();
        assert_eq!(lane.assert_balanced(&faulty.site, Some(&faulty.s3)).await, [100, 0]);
    }
    faulty.site.cluster.stop().await;
}
