//! Tables named and detached as partman 5 does it, months among them, on a server that has no partman of ours.

use super::{assert_chain, audit, outcomes, reconcile};
use crate::support::{DATABASE, Site};
use lakebed::demo::ServerKind;

/// Two tables by hand: one by day with the name of a leaf that was detached (no key left), one by month of a date column.
const TABLES: &str = "
    CREATE SCHEMA archive;
    CREATE TABLE public.event (id bigint, name text, at timestamp NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE public.event_p20250905 PARTITION OF public.event FOR VALUES FROM ('2025-09-05') TO ('2025-09-06');
    CREATE TABLE public.event_p20250906 PARTITION OF public.event FOR VALUES FROM ('2025-09-06') TO ('2025-09-07');
    CREATE TABLE public.event_default PARTITION OF public.event DEFAULT;
    CREATE TABLE public.monthly (stat_month date NOT NULL, who int, total numeric(12, 2), PRIMARY KEY (stat_month, who)) PARTITION BY RANGE (stat_month);
    CREATE TABLE public.monthly_p20250801 PARTITION OF public.monthly FOR VALUES FROM ('2025-08-01') TO ('2025-09-01');
    CREATE TABLE public.monthly_p20250901 PARTITION OF public.monthly FOR VALUES FROM ('2025-09-01') TO ('2025-10-01');
    CREATE TABLE public.monthly_default PARTITION OF public.monthly DEFAULT";

/// What partman 5 does at retention with `retention_keep_index = false`: no index and no key is left.
const RETAINED: &str = "
    ALTER TABLE public.event DETACH PARTITION public.event_p20250905;
    ALTER TABLE public.event_p20250905 DROP CONSTRAINT event_p20250905_pkey;
    ALTER TABLE public.event_p20250905 SET SCHEMA archive;
    ALTER TABLE public.monthly DETACH PARTITION public.monthly_p20250801;
    ALTER TABLE public.monthly_p20250801 DROP CONSTRAINT monthly_p20250801_pkey;
    ALTER TABLE public.monthly_p20250801 SET SCHEMA archive";

#[tokio::test]
async fn r5_partman_5s_names_keyless_and_by_month_on_postgresql_18() {
    let site = Site::bare(ServerKind::postgres_18().unwrap()).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    site.sql(TABLES).await;
    let mut text = site.pipeline_text();
    text.tables = vec![
        ("public.event".to_owned(), "at".to_owned(), "day"),
        ("public.monthly".to_owned(), "stat_month".to_owned(), "month"),
    ];
    site.write_pipeline(&text);
    site.init().await;
    site.sql("INSERT INTO public.event SELECT n, 'é' || n, timestamp '2025-09-05' + n * interval '1 hour' FROM generate_series(0, 23) n")
        .await;
    site.sql("INSERT INTO public.monthly SELECT '2025-08-01'::date + n, n, n / 7.0 FROM generate_series(0, 30) n")
        .await;
    let run = site.start_run();
    site.sql(RETAINED).await;
    let (finished, report) = reconcile(&site, &[]).await;
    finished.succeeded();
    let mut dropped = outcomes(&report, "dropped");
    dropped.sort_unstable();
    assert_eq!(dropped, ["archive.event_p20250905", "archive.monthly_p20250801"], "{report}");
    assert_eq!(
        site.value("SELECT string_agg(rows || ' ' || lower_bound || ' ' || upper_bound, ', ' ORDER BY rows) FROM archive.receipt").await,
        "24 2025-09-05 2025-09-06, 31 2025-08-01 2025-09-01"
    );
    assert_chain(&site).await;
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["days"][1]["days"], "2025-08-01 to 2025-08-31", "{report}");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
