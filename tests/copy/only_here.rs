//! S3: what the lake alone has is never copied over, however its day came to be marked.

use super::repair::{changed, files_of, leaf_of};
use super::{Amount, COPIED_WITHIN, EVENTS, Old, init_snapshot, let_go, load, not_copied, with_admin};
use crate::support::{DATABASE, RunningRun, Site};
use chrono::NaiveDate;
use lakebed::base::{DaySet, Partition, TableName};
use lakebed::demo::ServerKind;
use lakebed::lake::{LakeLocation, Patience, mark_uncopied};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const AMOUNT: Amount = Amount { days: 3, events: 20, hook_results: 1, detached_after: 0 };

/// As a repair marks it.
async fn mark(site: &Site, day: NaiveDate) {
    let url = format!("file://{}", site.lake().display()).parse().unwrap();
    let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
    let days: DaySet = [day.to_string().parse::<Partition>().unwrap()].into_iter().collect();
    let table = TableName::new("public", "security_event");
    mark_uncopied(&location, "security_event", "lakebed", &table, &days, &Patience::none()).await.unwrap();
}

/// The reasons of the lake's findings of a kind.
async fn findings(site: &Site, kind: &str) -> Vec<String> {
    let status = site.lakebed(&["status", "--json"]).await;
    let report: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|_| panic!("{}", status.stderr));
    let findings = report["findings"].as_array().unwrap().iter().filter(|one| one["kind"] == kind);
    findings.map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
}

/// Another job drops a partition before its turn comes.
#[tokio::test]
async fn s1_a_day_that_is_dropped_before_it_was_copied_is_told() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let (site, admin) = (&old.site, old.site.cluster.admin_url(DATABASE));
    let pipeline = site.pipeline_file();
    let arguments = with_admin(&["init", "--snapshot"], &admin);
    let dying = RunningRun::start_verb_dying_at(&pipeline, &arguments, "copy.before_snapshot");
    dying.finished(COPIED_WITHIN).await.killed();
    let_go(site, "lakebed").await;
    let (day, late) = (old.day(2), old.day(3));
    for day in [day, late] {
        let leaf = leaf_of(site, day).await;
        site.sql(&format!("ALTER TABLE {EVENTS} DETACH PARTITION {leaf}; DROP TABLE {leaf}")).await;
    }
    site.sql(&load::events(&[late], 1)).await;
    let copied = site.lakebed(&["snapshot"]).await.allowing(&["neither rows of these days"]);
    copied.succeeded();
    let gone = findings(site, "gone").await;
    assert!(matches!(&gone[..], [reason] if reason.starts_with(&format!("{day} had rows"))), "{gone:?}");
    site.run_until_caught_up().await;
    old.assert_equal(&site.lake()).await;
}

#[tokio::test]
async fn s3_a_day_that_postgresql_has_no_partition_of_keeps_what_the_lake_has() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    // Its leaf goes without a receipt, and a late row comes for it.
    let day = old.day(2);
    let leaf = leaf_of(site, day).await;
    site.sql(&format!("ALTER TABLE {EVENTS} DETACH PARTITION {leaf}; DROP TABLE {leaf}")).await;
    site.sql(&load::events(&[day], 1)).await;
    site.run_until_caught_up().await;
    let before = files_of(site);
    let nothing = Vec::<String>::new();
    let finished = site.lakebed(&["repair", "--execute", "--json"]).await;
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr));
    let days = report["tables"][0]["days"].as_array().unwrap();
    let outcome = days.iter().find(|found| found["day"] == day.to_string()).map(|found| found["outcome"].clone());
    assert_eq!(outcome, Some("no_partition".into()), "{report}");
    assert_eq!(changed(&before, &files_of(site), 0), nothing);
    // It may have been marked before its leaf went.
    mark(site, day).await;
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::from([format!("{EVENTS} {day}")]));
    let kept = site.lakebed(&["snapshot"]).await.allowing(&["has no partition for these days"]);
    assert!(kept.stderr.contains("the lake keeps what it has of them"), "{}", kept.stderr);
    kept.succeeded();
    let kept = findings(site, "kept").await;
    assert!(matches!(&kept[..], [reason] if reason.starts_with(&format!("{day} was to be copied"))), "{kept:?}");
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::new());
    assert_eq!(changed(&before, &files_of(site), 0), nothing);
}
