//! S1: leaves of another length than the lake's partitions: a month's leaf holds many days of the lake, and a month of the lake many
//! leaves. Columns of which only the text is read are copied as text.

use super::{COPIED_WITHIN, not_copied, with_admin};
use crate::support::{DATABASE, Lane, RunningRun, Site, compare_with_archive};
use chrono::{Datelike, Months, NaiveDate, Utc};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;

/// Each with a range's leaf that is detached already.
const TABLES: [&str; 2] = ["by_month", "by_day"];
const ROWS: u32 = 600;

fn create(table: &str) -> String {
    format!(
        "CREATE TABLE public.{table} (id bigint, mood mood, words text[], span int4range, spans int4multirange, pair pair,
             amount numeric(12, 2), at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE public.{table}_default PARTITION OF public.{table} DEFAULT;\n"
    )
}

fn leaf(table: &str, from: NaiveDate, to: NaiveDate) -> String {
    let name = from.format("%Y%m%d");
    format!(
        "CREATE TABLE public.{table}_p{name} PARTITION OF public.{table} FOR VALUES FROM ('{from} 00:00+00') TO ('{to} 00:00+00');\n"
    )
}

fn detached(table: &str, from: NaiveDate) -> String {
    let leaf = format!("{table}_p{}", from.format("%Y%m%d"));
    format!(
        "ALTER TABLE public.{table} DETACH PARTITION public.{leaf};
         ALTER TABLE public.{leaf} SET SCHEMA archive;\n"
    )
}

/// Rows spread over so many days from `from` on.
fn rows(table: &str, from: NaiveDate, days: u32) -> String {
    format!(
        "INSERT INTO public.{table}
         SELECT n, (enum_range(NULL::mood))[1 + n % 3], ARRAY[n::text, NULL, 'a,\"b'], int4range(n, n + 5),
                int4multirange(int4range(n, n + 2), int4range(n + 7, n + 9)), ROW(n, 'x,y')::pair, n / 7.0,
                timestamptz '{from} 00:00+00' + (n % {days}) * interval '1 day' + n * interval '1 second'
         FROM generate_series(0, {ROWS} - 1) AS n;\n"
    )
}

async fn leaves_of_another_length(server: ServerKind) {
    let site = Site::bare(server).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    // Whole months behind us: nothing depends on the day of the test.
    let month = |back: u32| Utc::now().date_naive().with_day(1).unwrap() - Months::new(back);
    let mut sql = "SET TimeZone = 'UTC'; CREATE SCHEMA archive; CREATE TYPE mood AS ENUM ('calm', 'größer', 'a,b');
                   CREATE TYPE pair AS (a int, b text);\n"
        .to_owned();
    let [by_month, by_day] = TABLES;
    sql += &TABLES.map(create).concat();
    for back in [2, 3] {
        sql += &leaf(by_month, month(back), month(back - 1));
    }
    for day in month(2).iter_days().take_while(|day| *day < month(1)) {
        sql += &leaf(by_day, day, day.succ_opt().unwrap());
    }
    // From a month with a leaf into the next, which is the default partition's.
    sql += &rows(by_month, month(3), 75);
    sql += &rows(by_day, month(2), 40);
    sql += &detached(by_month, month(3));
    sql += &detached(by_day, month(2));
    site.sql(&sql).await;

    let units = [("day", "lake_of_days"), ("month", "lake_of_months")];
    for (unit, slot) in units {
        let lane = Lane::local(&site, slot, |text| {
            text.snapshot = super::SMALL_BATCHES.to_owned();
            text.tables = TABLES.map(|table| (format!("public.{table}"), "at".to_owned(), unit)).to_vec();
        });
        let admin = site.cluster.admin_url(DATABASE);
        let copy = RunningRun::start_verb(&lane.file, &with_admin(&["init", "--snapshot"], &admin));
        copy.finished(COPIED_WITHIN).await.succeeded();
        assert_eq!(not_copied(&lane.file).await, BTreeSet::new());
        for table in TABLES {
            let (name, folder) = (format!("public.{table}"), lane.table_folder(table));
            let compared = compare_with_archive(&site.cluster, site.folder(), &folder, &name, ("at", unit)).await;
            assert_eq!(compared, Ok(u64::from(ROWS)), "{table} by {unit}");
        }
    }
}

#[tokio::test]
async fn s1_leaves_of_another_length_than_the_lakes_partitions_are_equal_on_postgresql_15() {
    leaves_of_another_length(ServerKind::Debian15).await;
}

#[tokio::test]
async fn s1_leaves_of_another_length_than_the_lakes_partitions_are_equal_on_postgresql_18() {
    leaves_of_another_length(ServerKind::postgres_18().unwrap()).await;
}
