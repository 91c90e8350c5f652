//! S3: the documented way back from a lost slot, on both server versions: a new slot from now on, and a repair that copies the days that
//! were written to meanwhile, and no other.

use super::repair::{changed, files_of, sorted};
use super::{Amount, EVENTS, HOOKS, Old, init_snapshot, load};
use crate::support::{NAME, Site};
use chrono::NaiveDate;
use lakebed::demo::ServerKind;

const AMOUNT: Amount = Amount { days: 9, events: 40, hook_results: 4, detached_after: 7 };

/// What happens to a day without anybody following: rows come, change and go, of both tables, and payloads that do not change.
async fn written_to(site: &Site, day: NaiveDate) {
    let of = |column: &str| format!("created_at::date = '{day}' AND get_byte(uuid_send(id), 15) % 2 = {column}");
    site.sql(&load::events(&[day], 5)).await;
    site.sql(&format!("UPDATE {EVENTS} SET description = 'written meanwhile' WHERE {}", of("0"))).await;
    site.sql(&format!("DELETE FROM {EVENTS} WHERE id = (SELECT min(id::text)::uuid FROM {EVENTS} WHERE {})", of("1")))
        .await;
    site.sql(&format!("UPDATE {HOOKS} SET status = 'written meanwhile' WHERE created_at::date = '{day}'")).await;
}

async fn lose(site: &Site) {
    for (name, value) in [("max_slot_wal_keep_size", "1MB"), ("wal_keep_size", "0")] {
        site.sql(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    site.sql("SELECT pg_reload_conf()").await;
    for _ in 0..4 {
        site.sql("SELECT pg_logical_emit_message(false, 'noise', 'x'), pg_switch_wal()").await;
    }
    site.sql("CHECKPOINT").await;
    site.wait_for(&format!("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{NAME}'")).await;
}

async fn drop_slot(site: &Site) {
    site.wait_for(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{NAME}'")).await;
    site.sql(&format!("SELECT pg_drop_replication_slot('{NAME}')")).await;
}

/// `dropped`: by hand; otherwise the server gives it up. `beside`: a pipeline follows while the days are repaired.
async fn the_way_back(server: ServerKind, dropped: bool, beside: bool) {
    let old = Old::new(server, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    let run = site.start_run();
    let all = [old.day(0), old.day(1), old.day(4)];
    site.sql(&load::events(&all, 3)).await;
    let lsn = site.value("SELECT pg_current_wal_insert_lsn()").await;
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots")).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();

    let affected = [old.day(3), old.day(6)];
    if dropped {
        drop_slot(site).await;
    }
    for day in affected {
        written_to(site, day).await;
    }
    if dropped {
        site.lakebed(&["run"]).await.refused(1, &["slot", "does not exist"]);
    } else {
        lose(site).await;
        site.lakebed(&["run"]).await.refused(1, &["slot lakebed is lost", "--from-now"]);
        drop_slot(site).await;
        site.sql("ALTER SYSTEM RESET ALL").await;
        site.sql("SELECT pg_reload_conf()").await;
    }
    site.init_with(&["--from-now"]).await.succeeded();
    let run = beside.then(|| site.start_run());
    let before = files_of(site);
    // The stream goes on, also on those days, whose other changes are still missing.
    site.sql(&load::events(&affected, 2)).await;
    site.sql(&format!("UPDATE {HOOKS} SET status = 'written again' WHERE created_at::date = '{}'", affected[1])).await;
    let rehearsal = site.lakebed(&["repair"]).await;
    assert_eq!(rehearsal.code, Some(3), "{}{}", rehearsal.stdout, rehearsal.stderr);
    for day in affected {
        assert!(rehearsal.stdout.contains(&day.to_string()), "{day}: {}", rehearsal.stdout);
    }
    site.lakebed(&["repair", "--execute"]).await.succeeded();
    let after = files_of(site);
    assert_eq!(changed(&before, &after, 0), sorted(&affected));
    assert_eq!(changed(&before, &after, 1), sorted(&affected));
    site.lakebed(&["repair"]).await.succeeded();
    // What comes now is followed as ever.
    written_to(site, affected[0]).await;
    written_to(site, old.day(1)).await;
    if let Some(run) = run {
        run.signal("TERM").await;
        run.ended().await.succeeded();
    }
    site.run_until_caught_up().await;
    old.assert_equal(&site.lake()).await;
}

#[tokio::test]
async fn s3_a_slot_that_was_dropped_is_made_up_for_by_a_repair_of_the_affected_days_on_postgresql_15() {
    the_way_back(ServerKind::Debian15, true, true).await;
}

#[tokio::test]
async fn s3_a_slot_that_was_lost_is_made_up_for_by_a_repair_of_the_affected_days_on_postgresql_18() {
    the_way_back(ServerKind::postgres_18().unwrap(), false, false).await;
}
