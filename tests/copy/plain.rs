//! S1: a table whose key does not hold the date. Its changes do not name the day that a row leaves, so it is copied as one.

use super::load::{Load, PAUSE};
use super::{COPIED_WITHIN, let_go, not_copied, with_admin};
use crate::support::dice::{Dice, seed};
use crate::support::{DATABASE, RunningRun, Site, assert_lake_equals_source};
use chrono::{Days, NaiveDate, Utc};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;

const TABLE: &str = "public.note";
const ROWS: u64 = 4_000;
const DAYS: u64 = 8;

/// The identity is `id` alone, and the body is stored out of line.
const CREATE: &str = "
    CREATE TABLE public.note (id bigint PRIMARY KEY, label text NOT NULL, body text NOT NULL, created_at timestamp NOT NULL);
    ALTER TABLE public.note ALTER COLUMN body SET STORAGE EXTERNAL";

fn insert(today: NaiveDate, from: u64, rows: u64) -> String {
    format!(
        "INSERT INTO {TABLE} SELECT n, 'there before', repeat(md5(n::text), CASE WHEN n % 50 = 0 THEN 90 ELSE 3 END),
             timestamp '{today}' - n % {DAYS} * interval '1 day' + random() * interval '23 hours'
         FROM generate_series({from}, {from} + {rows} - 1) AS n ON CONFLICT DO NOTHING;\n"
    )
}

/// Rows go from day to day, and their key never says so.
fn transaction(dice: &mut Dice, today: NaiveDate) -> String {
    let some = format!("id % 97 = {}", dice.below(97));
    let to = today - Days::new(dice.below(DAYS));
    let statement = match dice.below(6) {
        0 | 1 => format!("UPDATE {TABLE} SET created_at = timestamp '{to}' + created_at::time WHERE {some};\n"),
        2 => format!("UPDATE {TABLE} SET label = md5(random()::text) WHERE {some};\n"),
        3 => format!("UPDATE {TABLE} SET body = md5(random()::text) WHERE {some};\n"),
        4 => format!("DELETE FROM {TABLE} WHERE id % 389 = {};\n", dice.below(389)),
        // Deleted ones come again with their old keys, and new ones.
        _ => insert(today, dice.below(2 * ROWS), 40),
    };
    format!("BEGIN;\n{statement}{};\n", if dice.percent(6) { "ROLLBACK" } else { "COMMIT" })
}

async fn with_rows(server: ServerKind, today: NaiveDate) -> Site {
    let site = Site::bare(server).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    site.sql(CREATE).await;
    site.sql(&insert(today, 1, ROWS)).await;
    let mut text = site.pipeline_text();
    text.tables = vec![(TABLE.to_owned(), "created_at".to_owned(), "day")];
    site.write_pipeline(&text);
    site
}

async fn copied_as_one(server: ServerKind) {
    let (seed, today) = (seed(), Utc::now().date_naive());
    let site = with_rows(server, today).await;
    let (pipeline, admin) = (site.pipeline_file(), site.cluster.admin_url(DATABASE));
    let (mut load, mut dice) = (Load::none(), Dice::new(seed));
    load.session(site.cluster.socket_url(DATABASE), PAUSE, move || transaction(&mut dice, today));

    // Dead before its only landing, and once more behind the first look.
    for (verb, point) in [(&["init", "--snapshot"][..], "copy.before_landing"), (&["snapshot"], "copy.mid_range")] {
        let dying = RunningRun::start_verb_dying_at(&pipeline, &with_admin(verb, &admin), point);
        dying.finished(COPIED_WITHIN).await.killed();
        let_go(&site, "lakebed").await;
        assert_eq!(not_copied(&pipeline).await, BTreeSet::from([format!("{TABLE} all")]));
        load.goes_on_for(5).await;
    }
    // Rows move while it knows what it will see.
    let copy =
        RunningRun::start_verb_stopping_at(&pipeline, &with_admin(&["snapshot"], &admin), "copy.after_snapshot=1");
    copy.wait_until_stopped().await;
    load.goes_on_for(30).await;
    copy.signal("CONT").await;
    copy.finished(COPIED_WITHIN).await.succeeded();
    assert_eq!(not_copied(&pipeline).await, BTreeSet::new());
    load.goes_on_for(10).await;
    load.end().await;
    site.run_until_caught_up().await;
    assert!(assert_lake_equals_source(&site, TABLE, "created_at", "day").await > ROWS / 2);
}

#[tokio::test]
async fn s1_a_table_whose_key_does_not_hold_the_date_is_copied_as_one_on_postgresql_15() {
    copied_as_one(ServerKind::Debian15).await;
}

#[tokio::test]
async fn s1_a_table_whose_key_does_not_hold_the_date_is_copied_as_one_on_postgresql_18() {
    copied_as_one(ServerKind::postgres_18().unwrap()).await;
}

/// Its changes name their day until the copy is half done. From then on each may be of any day, copied or not, and the lake has to know that
/// before the first one passes by.
#[tokio::test]
async fn s1_a_table_whose_changes_do_not_name_their_day_any_more_is_marked_as_one_before_it_is_copied_so() {
    let (seed, today) = (seed(), Utc::now().date_naive());
    let site = with_rows(ServerKind::Debian15, today).await;
    site.sql(&format!("ALTER TABLE {TABLE} ADD UNIQUE (id, created_at)")).await;
    site.sql(&format!("ALTER TABLE {TABLE} REPLICA IDENTITY USING INDEX note_id_created_at_key")).await;
    let (pipeline, admin) = (site.pipeline_file(), site.cluster.admin_url(DATABASE));
    let dying =
        |verb: &[&str], point: &str| RunningRun::start_verb_dying_at(&pipeline, &with_admin(verb, &admin), point);
    dying(&["init", "--snapshot"], "copy.before_landing").finished(COPIED_WITHIN).await.killed();
    let_go(&site, "lakebed").await;
    assert_eq!(not_copied(&pipeline).await.len(), usize::try_from(DAYS).unwrap());
    site.sql(&format!("ALTER TABLE {TABLE} REPLICA IDENTITY DEFAULT")).await;
    let (mut load, mut dice) = (Load::none(), Dice::new(seed));
    load.session(site.cluster.socket_url(DATABASE), PAUSE, move || transaction(&mut dice, today));
    load.goes_on_for(5).await;
    dying(&["snapshot"], "copy.mid_range").finished(COPIED_WITHIN).await.killed();
    let_go(&site, "lakebed").await;
    assert_eq!(not_copied(&pipeline).await, BTreeSet::from([format!("{TABLE} all")]));
    super::finish_copy(&site, &pipeline).await;
    load.goes_on_for(5).await;
    load.end().await;
    site.run_until_caught_up().await;
    assert!(assert_lake_equals_source(&site, TABLE, "created_at", "day").await > ROWS / 2);
}
