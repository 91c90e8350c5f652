//! What `run` does by itself: it hears the guide's functions, keeps its schedule, and proves complete days before anybody asks.

use super::{EVENTS, OLD_DAYS, assert_chain, day, detached, insert, is_there, old_site};
use crate::support::{DATABASE, PipelineText, RunningRun, Site, until};
use lakebed::demo::ServerKind;
use serde_json::Value;

/// A site whose run proves days every second, and does a round whenever the schedule says.
async fn scheduled(site: Site, schedule: &str) -> Site {
    let archive = format!("schedule = \"{schedule}\"\nproof_interval = \"1s\"");
    site.write_pipeline(&PipelineText { archive, ..site.pipeline_text() });
    site.init().await;
    site
}

async fn ended(run: RunningRun) {
    run.signal("TERM").await;
    run.ended().await.succeeded();
}

#[tokio::test]
async fn the_guides_job_asks_and_the_pipeline_balances_and_drops() {
    let site = scheduled(old_site().await, "0 0 1 1 *").await;
    for day in OLD_DAYS {
        insert(&site, day, 20).await;
    }
    site.sql("CALL partman.run_maintenance_proc()").await;
    let waiting = "SELECT count(*) FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '^security_event_p2'";
    let before = site.value(waiting).await;
    let run = site.start_run();
    // The dry run of the guide asks for nothing.
    site.sql("SELECT * FROM archive.process_archived_partitions(true)").await;
    assert_eq!(site.value("SELECT count(*) FROM archive.queue").await, "0");
    let table = detached(&site, 8).await;
    let name = table.split('.').nth(1).unwrap().to_owned();
    let export = format!("SELECT archive.export_partition_to_external_storage('archive', '{name}')");
    assert_eq!(site.value(&export).await, "f", "nothing is exported while it is there");
    site.wait_for(&format!("SELECT to_regclass('{table}') IS NULL")).await;
    assert_eq!(site.value(&export).await, "t", "a receipt says that it is dropped");
    site.sql("SELECT * FROM archive.process_archived_partitions()").await;
    site.wait_for(&format!("SELECT ({waiting}) = 0")).await;
    site.wait_for("SELECT count(*) = 0 FROM archive.queue").await;
    let reported = "SELECT count(*) FROM archive.process_archived_partitions(true) WHERE exported AND dropped AND table_name LIKE 'archive.security_event_p%'";
    assert_eq!(site.value(reported).await, before);
    assert_chain(&site).await;
    // A lake that lost its copy of the receipts gets it back, and nobody need ask.
    std::fs::remove_dir_all(site.lake().join("_lakebed/receipts")).unwrap();
    let log = site.lake().join("_lakebed/receipts/_delta_log/00000000000000000001.json");
    until("the receipts are back", || log.exists()).await;
    ended(run).await;
    site.cluster.stop().await;
}

#[tokio::test]
async fn the_schedule_does_a_round_and_a_lock_held_by_another_is_waited_out() {
    let site = scheduled(old_site().await, "* * * * *").await;
    insert(&site, 8, 20).await;
    site.sql("CALL partman.run_maintenance_proc()").await;
    let table = detached(&site, 8).await;
    let reader = site.cluster.connect(DATABASE).await.unwrap();
    reader.execute(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")).await.unwrap();
    let run = site.start_run().allowing(&["SQLSTATE 55P03"]);
    let others = format!(
        "SELECT count(*) = 1 FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '^security_event_p2' AND to_regclass('{table}') IS NOT NULL"
    );
    let round = async {
        while site.value(&others).await != "t" {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(150), round).await.expect("a round within a minute");
    reader.execute("COMMIT").await.unwrap();
    let gone = async {
        while is_there(&site, &table).await {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(150), gone).await.expect("the next round takes it");
    assert_chain(&site).await;
    ended(run).await;
    site.cluster.stop().await;
}

#[tokio::test]
async fn r1_complete_days_are_proved_early_and_again_when_they_are_touched() {
    // Few days, because all of them are proved before one is looked at again.
    let site = scheduled(Site::with_history(ServerKind::Debian15, 7).await, "0 0 1 1 *").await;
    site.init_with(&["--retention", "91 days"]).await.succeeded();
    let retention = "SELECT retention || ' ' || retention_schema FROM partman.part_config WHERE parent_table = 'public.security_event'";
    assert_eq!(site.value(retention).await, "91 days archive");
    let again = site.init_with(&["--retention", "91 days"]).await.succeeded();
    assert!(!again.stdout.contains("done"), "{}", again.stdout);
    insert(&site, 5, 20).await;
    insert(&site, 7, 10).await;
    site.run_until_caught_up().await;
    // TRUNCATE of a partition alone is not in the stream, so only looking at both sides can tell.
    let leaf = site
        .value(&format!(
            "SELECT tableoid::regclass FROM {EVENTS} WHERE created_at::date = '{}' LIMIT 1",
            day(&site, 7).await
        ))
        .await;
    site.sql(&format!("TRUNCATE {leaf}")).await;
    let run = site.start_run().allowing(&["these days do not balance"]);
    let proof = async |days: i32| {
        let day = day(&site, days).await;
        format!("FROM archive.proof WHERE table_name = '{EVENTS}' AND lower_bound = '{day}'")
    };
    let (good, bad) = (proof(5).await, proof(7).await);
    site.wait_for(&format!("SELECT EXISTS (SELECT {good} AND balanced AND rows = 20 AND lake_rows = 20)")).await;
    site.wait_for(&format!("SELECT EXISTS (SELECT {bad} AND NOT balanced AND rows = 0 AND lake_rows = 10)")).await;
    let finding = format!(
        "SELECT reason FROM archive.finding WHERE kind = 'early_proof' AND partition_name = '{}'",
        day(&site, 7).await
    );
    assert!(site.value(&finding).await.contains("the lake has 10 rows"));
    // A late row is proved again; a day that nobody touches is not.
    let untouched = proof(6).await;
    let when = site.value(&format!("SELECT proved_at {untouched}")).await;
    insert(&site, 5, 1).await;
    site.wait_for(&format!("SELECT EXISTS (SELECT {good} AND balanced AND rows = 21)")).await;
    assert_eq!(site.value(&format!("SELECT proved_at {untouched}")).await, when);

    let finished = site.lakebed(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&finished.stdout).unwrap();
    let state = async |days: i32| {
        let day = day(&site, days).await;
        let mut all = status["tables"][0]["days"].as_array().unwrap().iter();
        all.find(|found| found["day"] == day.as_str()).unwrap_or_else(|| panic!("no {day}: {status}")).clone()
    };
    assert!(state(5).await["proved_at"].is_string() && state(5).await["complete"] == true, "{status}");
    assert!(state(7).await["differs"] == true && state(7).await["proved_at"].is_null(), "{status}");
    assert_eq!(status["archive_findings"][0]["kind"], "early_proof", "{status}");
    ended(run).await;
    site.cluster.stop().await;
}
