//! D3, L1: the lake equals the source, row by row and column by column, as a reader that is not ours sees it.

use crate::support::{Site, assert_lake_equals_source, lake_rows};
use lakebed::demo::ServerKind;

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";

async fn history_equals(server: ServerKind, days: u32, rows: u64) {
    let site = Site::with_history(server, days).await;
    site.init().await;
    let written = site.load_history(20_251_123, days, rows, 1_000).await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, written.events);
    assert_eq!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await, written.hook_results);
    assert_eq!(written.total(), rows);

    // Nothing is taken twice: the same run again finds nothing to do, and what comes later is added once.
    site.run_until_caught_up().await;
    site.insert_events(100, 2).await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, written.events + 100);
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_two_hundred_thousand_rows_over_120_days_are_equal_on_postgresql_15() {
    history_equals(ServerKind::Debian15, 120, 200_000).await;
}

#[tokio::test]
async fn d3_a_history_is_equal_on_postgresql_18() {
    history_equals(ServerKind::postgres_18().unwrap(), 20, 20_000).await;
}

/// One column of every type in the type table, and rows with the awkward values of each. Without the placeholder's columns every
/// type has a binary form that is understood; with them the stream is text.
const TYPES: &str = include_str!("support/everything.sql");
const TEXT_ONLY_COLUMNS: &str =
    ", iv interval, bits bit(5), words text[], p pair, r int4range, tt timetz, o oid, pt point";
const TEXT_ONLY_VALUES: &str = r#", '1 year -2 days 03:04:05.000006', B'10101', '{"a,b",NULL,""}', '(1,"x,y")', '[1,5)',
    '24:00:00+09', 4294967295, '(1.5,-0)'"#;

async fn every_type_is_equal(server: &ServerKind, text_only: bool) {
    let site = Site::with_history(server.clone(), 1).await;
    let (columns, values) = if text_only { (TEXT_ONLY_COLUMNS, TEXT_ONLY_VALUES) } else { ("", "") };
    let sql = TYPES.replace("{text_only_columns}", columns).replace("{text_only_values}", values);
    let (create, insert) = sql.split_once("-- rows").unwrap();
    site.sql(create).await;
    let mut text = site.pipeline_text();
    text.tables = vec![("public.everything".to_owned(), "happened".to_owned(), "day")];
    site.write_pipeline(&text);
    site.init().await;
    site.sql(insert).await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, "public.everything", "happened", "day").await, 6);
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_every_type_is_equal_in_binary_and_in_text_on_postgresql_15() {
    every_type_is_equal(&ServerKind::Debian15, false).await;
    every_type_is_equal(&ServerKind::Debian15, true).await;
}

#[tokio::test]
async fn d3_every_type_is_equal_in_binary_and_in_text_on_postgresql_18() {
    let server = ServerKind::postgres_18().unwrap();
    every_type_is_equal(&server, false).await;
    every_type_is_equal(&server, true).await;
}

#[tokio::test]
async fn l4_a_month_table_and_a_date_column_are_equal() {
    let site = Site::with_history(ServerKind::Debian15, 70).await;
    let mut text = site.pipeline_text();
    text.tables = vec![
        ("public.statistics_daily_users".to_owned(), "stat_date".to_owned(), "day"),
        ("public.statistics_monthly_users".to_owned(), "stat_month".to_owned(), "month"),
    ];
    site.write_pipeline(&text);
    site.init().await;
    site.sql(
        "INSERT INTO public.statistics_daily_users
         SELECT gen_random_uuid(), current_date - n, gen_random_uuid(), CASE WHEN n % 2 = 0 THEN '' ELSE '利用者' END, now() FROM generate_series(0, 60) n;
         INSERT INTO public.statistics_monthly_users
         SELECT gen_random_uuid(), date_trunc('month', current_date - n * 10)::date, gen_random_uuid(), 'u', now() FROM generate_series(0, 6) n",
    )
    .await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, "public.statistics_daily_users", "stat_date", "day").await, 61);
    assert_eq!(assert_lake_equals_source(&site, "public.statistics_monthly_users", "stat_month", "month").await, 7);
    assert_eq!(lake_rows(&site, "statistics_monthly_users").await, 7);
    site.cluster.stop().await;
}
