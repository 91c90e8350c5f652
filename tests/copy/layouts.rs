//! S1 and S3: partitions that are no plain row of days: an open first one, some that are cut again by something else, and the default
//! partition where no leaf was made yet. All of them are copied, and repaired, like days.

use super::{init_snapshot, not_copied};
use crate::support::{DATABASE, NAME, Site, assert_lake_equals_source};
use chrono::{Days, NaiveDate, Utc};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;

const TABLE: &str = "public.visit";
const ROWS: u32 = 10;
/// Days back.
const FIRST: u64 = 6;

fn create(today: NaiveDate) -> String {
    let [history, by_tenant, by_moment, end] = [4, 3, 2, 1].map(|ago| today - Days::new(ago));
    format!(
        "CREATE TABLE {TABLE} (id bigint, tenant text, seen timestamp, at timestamp, note text, PRIMARY KEY (id, tenant, seen, at))
             PARTITION BY RANGE (at);
         CREATE TABLE public.visit_history PARTITION OF {TABLE} FOR VALUES FROM (MINVALUE) TO ('{by_tenant}');
         CREATE TABLE public.visit_tenants PARTITION OF {TABLE} FOR VALUES FROM ('{by_tenant}') TO ('{by_moment}')
             PARTITION BY LIST (tenant);
         CREATE TABLE public.visit_a PARTITION OF public.visit_tenants FOR VALUES IN ('a');
         CREATE TABLE public.visit_others PARTITION OF public.visit_tenants DEFAULT;
         CREATE TABLE public.visit_seen PARTITION OF {TABLE} FOR VALUES FROM ('{by_moment}') TO ('{end}')
             PARTITION BY RANGE (seen);
         -- Its bounds are no days of its rows.
         CREATE TABLE public.visit_long_ago PARTITION OF public.visit_seen FOR VALUES FROM ('2001-01-01') TO ('{history}');
         CREATE TABLE public.visit_lately PARTITION OF public.visit_seen FOR VALUES FROM ('{history}') TO (MAXVALUE);
         CREATE TABLE public.visit_default PARTITION OF {TABLE} DEFAULT;\n"
    )
}

/// On every day from the first to today's, for which there is no leaf, and neither for yesterday.
fn rows(today: NaiveDate, from: u32) -> String {
    format!(
        "INSERT INTO {TABLE}
         SELECT n, (ARRAY['a', 'b', 'c'])[1 + n % 3], CASE n % 2 WHEN 0 THEN '2001-01-01' ELSE timestamp '{today}' END,
                day + n * interval '1 minute', 'note ' || n
         FROM generate_series(timestamp '{}', timestamp '{today}', '1 day') AS day, generate_series({from}, {from} + {ROWS} - 1) AS n;\n",
        today - Days::new(FIRST)
    )
}

#[tokio::test]
async fn s3_days_of_every_layout_are_copied_and_after_a_lost_slot_repaired() {
    let site = Site::bare(ServerKind::Debian15).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    let today = Utc::now().date_naive();
    site.sql(&create(today)).await;
    site.sql(&rows(today, 1)).await;
    let mut text = site.pipeline_text();
    text.tables = vec![(TABLE.to_owned(), "at".to_owned(), "day")];
    site.write_pipeline(&text);
    init_snapshot(&site, &site.pipeline_file()).await.succeeded();
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::new());
    site.sql(&rows(today, 101)).await;
    site.run_until_caught_up().await;
    let before = assert_lake_equals_source(&site, TABLE, "at", "day").await;
    assert_eq!(before, 2 * u64::from(ROWS) * (FIRST + 1));

    site.wait_for(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{NAME}'")).await;
    site.sql(&format!("SELECT pg_drop_replication_slot('{NAME}')")).await;
    site.sql(&rows(today, 201)).await;
    site.sql(&format!("DELETE FROM {TABLE} WHERE id % 5 = 0; UPDATE {TABLE} SET note = 'changed' WHERE id % 7 = 0"))
        .await;
    site.init_with(&["--from-now"]).await.succeeded();
    let repaired = site.lakebed(&["repair", "--execute"]).await.succeeded();
    assert!(repaired.stdout.contains("0 left alone"), "{}", repaired.stdout);
    site.run_until_caught_up().await;
    assert!(assert_lake_equals_source(&site, TABLE, "at", "day").await > before);
}
