//! S1: what stands against some days does not keep the others from being copied, and is told to whoever waits.

use super::{Amount, EVENTS, Old, TABLES, init_snapshot, load, not_copied};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;

const AMOUNT: Amount = Amount { days: 5, events: 20, hook_results: 2, detached_after: 3 };

/// A table of the archive whose columns are others now, on a day of which late rows are in the default partition: a copy of that day would
/// not be whole.
#[tokio::test]
async fn s1_a_day_whose_archived_table_has_other_columns_waits_and_the_others_are_copied() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let site = &old.site;
    let day = old.day(5);
    let archived = format!("archive.{}_p{}", TABLES[0], day.format("%Y_%m_%d"));
    site.sql(&format!("ALTER TABLE {archived} ADD COLUMN noted text")).await;
    site.sql(&load::events(&[day], 3)).await;
    let copied = init_snapshot(site, &site.pipeline_file()).await.allowing(&["these days cannot be copied"]);
    assert_eq!(copied.code, Some(1), "{}{}", copied.stdout, copied.stderr);
    assert!(
        copied.stderr.contains(&archived) && copied.stderr.contains("its columns are not those"),
        "{}",
        copied.stderr
    );
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::from([format!("{EVENTS} {day}")]));
    site.sql(&format!("ALTER TABLE {archived} DROP COLUMN noted")).await;
    // The table is one of ours again, and may be read.
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::new());
    old.assert_equal(&site.lake()).await;
}
