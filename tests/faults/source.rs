//! PostgreSQL, or the line to it, fails under a running pipeline: it goes on by itself, and nothing is missing or double.

use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{DATABASE, Lane, NAME, PASSWORD, RunningRun, Site, load, until};
use lakebed::demo::ClusterOptions;
use lakebed::demo::customer::{self, CustomerOptions};
use std::time::Duration;

/// What may be logged about a lost line: that it was lost.
const LOST: [&str; 2] = ["PostgreSQL", "the connection to the server was lost"];
/// The server, and therefore lakebed, gives a silent peer up after this long.
const WAL_SENDER_TIMEOUT: &str = "3s";

/// A server behind a proxy, and a pipeline through it.
struct Faulty {
    site: Site,
    proxy: Proxy,
    lane: Lane,
}

impl Faulty {
    async fn start() -> Self {
        let settings = [("logical_decoding_work_mem", "64kB"), ("wal_sender_timeout", WAL_SENDER_TIMEOUT)];
        let extra_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
        let options = CustomerOptions { premake_days: 2, ..CustomerOptions::with_history(3) };
        customer::create(&site.cluster, &options).await.unwrap();
        load::drop_indexes(&site.cluster, DATABASE).await;
        let proxy = Proxy::start(site.cluster.port()).await;
        let url = format!("postgresql://{NAME}:{PASSWORD}@127.0.0.1:{}/{DATABASE}?sslmode=disable", proxy.port);
        let lane = Lane::local(&site, NAME, |text| text.url = url);
        lane.init(&site).await;
        Self { site, proxy, lane }
    }

    async fn load(&self) {
        self.site.cluster.execute(DATABASE, &load::around_a_streamed_one()).await.unwrap();
    }

    /// Whatever happened is over: the same process brings everything into the lake, and ends in order.
    async fn comes_together(self, run: RunningRun) {
        self.proxy.pass();
        self.load().await;
        self.lane.wait_until_acknowledged(&self.site).await;
        run.signal("TERM").await;
        run.allowing(&LOST).ended().await.succeeded();
        self.lane.assert_balanced(&self.site, None).await;
        self.site.cluster.stop().await;
    }
}

#[tokio::test]
async fn w1_a_line_that_is_cut_inside_a_frame_is_taken_up_again() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    faulty.lane.wait_until_active(&faulty.site).await;
    // Inside the handshake, inside small and large messages, and inside what we send.
    for (direction, bytes) in [
        (Direction::ToClient, 70_001),
        (Direction::ToClient, 1_500_007),
        (Direction::ToClient, 13),
        (Direction::ToServer, 21),
    ] {
        let cuts = faulty.proxy.cuts();
        faulty.proxy.set(direction, Flow::CutAfter(bytes));
        // How much of what was rolled back the server sends depends on when it looks, so more comes until it is enough.
        let loaded = async {
            while faulty.proxy.cuts() == cuts {
                faulty.load().await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), loaded).await.expect("the line is never cut");
    }
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn w1_a_line_that_falls_silent_is_given_up_and_taken_up_again() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    faulty.lane.wait_until_active(&faulty.site).await;
    for direction in [Direction::ToClient, Direction::ToServer] {
        let connections = faulty.proxy.connections();
        faulty.proxy.set(direction, Flow::Stall);
        faulty.load().await;
        // The side that hears nothing ends the connection, and another one is tried.
        until("another connection is tried", || faulty.proxy.connections() > connections).await;
        faulty.proxy.pass();
        faulty.lane.wait_until_acknowledged(&faulty.site).await;
    }
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn w1_a_half_closed_line_is_taken_up_again() {
    let faulty = Faulty::start().await;
    let run = faulty.lane.start();
    for direction in [Direction::ToClient, Direction::ToServer] {
        faulty.lane.wait_until_active(&faulty.site).await;
        let connections = faulty.proxy.connections();
        faulty.proxy.set(direction, Flow::HalfClose);
        faulty.load().await;
        until("another connection is tried", || faulty.proxy.connections() > connections).await;
        faulty.proxy.pass();
        faulty.lane.wait_until_acknowledged(&faulty.site).await;
    }
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn w1_a_slow_line_loses_nothing() {
    let faulty = Faulty::start().await;
    faulty.proxy.set(Direction::ToClient, Flow::Delay(Duration::from_millis(2)));
    let run = faulty.lane.start();
    faulty.load().await;
    faulty.lane.wait_until_acknowledged(&faulty.site).await;
    assert_eq!(faulty.proxy.cuts(), 0);
    faulty.comes_together(run).await;
}

#[tokio::test]
async fn w1_a_server_that_is_killed_and_comes_back_is_followed_on() {
    let mut faulty = Faulty::start().await;
    let run = faulty.lane.start();
    for _ in 0..3 {
        faulty.lane.wait_until_active(&faulty.site).await;
        faulty.load().await;
        faulty.site.cluster.kill_immediately().await;
        faulty.site.cluster.restart().await.unwrap();
    }
    faulty.comes_together(run).await;
}
