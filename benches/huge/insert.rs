//! The one transaction inserts.

use super::{DATABASE, FIRST_ROWS, Huge, LOOK_INTERVAL, MEMORY_LIMIT_MIB, insert_rows};
use std::time::Instant;

pub(crate) async fn measure(mut huge: Huge, rows: u64) {
    // Its index would cost the writer more than everything else together, and logical decoding never sees it.
    let drop_key = "ALTER TABLE public.security_event DROP CONSTRAINT security_event_pkey";
    huge.site.cluster.execute(DATABASE, drop_key).await.unwrap();
    let before = huge.value("SELECT pg_current_wal_insert_lsn()").await;
    let started = Instant::now();
    huge.site.cluster.execute(DATABASE, &insert_rows(1, rows)).await.unwrap();
    let written_seconds = started.elapsed().as_secs_f64();
    let committed = Instant::now();
    let wal = format!("SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn");
    let wal_bytes: f64 = huge.value(&wal).await.parse().unwrap();
    let mut looks = 0;
    loop {
        looks += 1;
        let seen: u64 = huge.seen("SELECT count(*) AS n FROM security_event").parse().unwrap();
        if seen == rows + FIRST_ROWS {
            break;
        }
        assert_eq!(seen, FIRST_ROWS, "a part of the transaction is visible");
        huge.assert_runs();
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let visible_seconds = committed.elapsed().as_secs_f64();
    let peak_mib = huge.peak_mib();
    let commits = std::fs::read_dir(huge.table("security_event").join("_delta_log")).unwrap().count();
    huge.stop().await;
    println!("| one transaction | |\n|---|---|");
    println!("| rows | {rows} |");
    println!("| WAL | {:.2} GB |", wal_bytes / 1e9);
    println!("| PostgreSQL wrote it in | {written_seconds:.0} s |");
    println!("| visible after its commit | {visible_seconds:.0} s ({looks} looks saw nothing or everything) |");
    println!("| log entries | {commits} |");
    println!("| most resident memory of `run` | {peak_mib} MiB |");
    println!(
        "{{\"bench\": \"huge\", \"rows\": {rows}, \"wal_bytes\": {wal_bytes}, \"written_seconds\": {written_seconds:.1}, \
         \"visible_seconds\": {visible_seconds:.1}, \"peak_mib\": {peak_mib}}}"
    );
    assert!(peak_mib <= MEMORY_LIMIT_MIB, "{peak_mib} MiB is over the limit");
}
