//! A subject's rows are erased from dropped days, to the last copy that a program can reach, and the ledger stays balanced.

use super::{
    EVENTS, assert_chain, audit, audited, detached, folder, insert, is_there, landed, only_file, outcomes, reconcile,
};
use crate::support::{Finished, RunningRun, Site, lake_rows};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const SUBJECT: &str = "0badc0de-0000-4000-8000-000000000001";

/// Rows of a subject so many days ago; one of them is changed afterwards, so that the journal has an old image.
async fn insert_subject(site: &Site, days_ago: i32) {
    site.sql(&format!(
        "INSERT INTO {EVENTS} SELECT gen_random_uuid(), 'login_success', 'made by a test', gen_random_uuid(), 'tenant', 'client', 'x',
             '{SUBJECT}', 'subject', NULL, NULL, 'agent', '{{}}', date_trunc('day', timezone('UTC', now())) - {days_ago} * interval '1 day'
             + n * interval '1 minute' FROM generate_series(1, 3) AS n"
    ))
    .await;
}

async fn erase(site: &Site, more: &[&str]) -> (Finished, Value) {
    let condition = format!("user_id = '{SUBJECT}'");
    let fixed = ["erase", "--json", "--table", EVENTS, "--where", &condition, "--reason", "request 17"];
    let finished = site.lakebed(&[&fixed[..], more].concat()).await;
    let report = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|_| panic!("code {:?}: {}{}", finished.code, finished.stdout, finished.stderr));
    (finished, report)
}

/// Whether any file below a folder holds the text. Parquet's pages are compressed, so this finds statistics and names.
fn anywhere(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(anywhere(&entry, text));
        } else {
            let bytes = std::fs::read(&entry).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.display().to_string());
            }
        }
    }
    found
}

/// A site whose days of 7 to 9 days ago are dropped, with a subject's rows in two of them and in a day that lives.
async fn dropped() -> (Site, RunningRun) {
    let site = super::old_site().await;
    site.init().await;
    for day in super::OLD_DAYS {
        insert(&site, day, 20).await;
    }
    for day in [7, 8, 1] {
        insert_subject(&site, day).await;
    }
    let run = site.start_run();
    landed(&site).await;
    // A file that the stream has replaced before stays until VACUUM, so only one of the days has such a change.
    let changed = super::day(&site, 8).await;
    site.sql(&format!(
        "UPDATE {EVENTS} SET user_agent = 'changed' WHERE user_id = '{SUBJECT}' AND created_at = '{changed} 00:01'"
    ))
    .await;
    site.sql("CALL partman.run_maintenance_proc()").await;
    let (finished, report) = reconcile(&site, &[]).await;
    finished.succeeded();
    assert!(outcomes(&report, "dropped").contains(&detached(&site, 7).await.as_str()), "{report}");
    (site, run)
}

#[tokio::test]
async fn a_subjects_rows_are_erased_from_dropped_days_and_the_ledger_balances() {
    let (site, run) = dropped().await;
    let untouched = only_file(&folder(&site, 9).await);
    let (finished, report) = erase(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["executed"], false, "{report}");
    let days = report["days"].as_array().unwrap();
    assert_eq!(days.len(), 2, "only what is dropped: {report}");
    assert!(days.iter().all(|day| day["rows"] == 3), "{report}");
    assert_eq!((&days[0]["old_images"], &days[1]["old_images"]), (&1.into(), &0.into()), "{report}");
    assert_eq!(lake_rows(&site, "security_event").await, 69, "a rehearsal changes nothing");

    let (finished, report) = erase(&site, &["--execute"]).await;
    finished.succeeded();
    assert_eq!(report["erased_rows"], 6, "{report}");
    assert_eq!(lake_rows(&site, "security_event").await, 63);
    assert!(untouched.exists());
    // Entries whose statistics had the subject are gone; a checkpoint has those of files that are there.
    let told = anywhere(&site.lake().join("security_event/_delta_log"), SUBJECT);
    assert!(told.iter().all(|path| !path.ends_with(".json")), "{told:?}");
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(audited(&site, &report, 8).await["expected"]["rows"], 20, "{report}");
    assert_chain(&site).await;
    let receipt = "SELECT string_agg(rows || ' ' || (content::jsonb ->> 'reason'), ', ') FROM archive.receipt WHERE kind = 'erased'";
    assert_eq!(site.value(receipt).await, "-3 request 17, -3 request 17");
    assert!(!is_there(&site, &detached(&site, 8).await).await);

    // The stream goes on over the shortened log, and a second erasure finds nothing.
    insert(&site, 0, 5).await;
    let (finished, report) = erase(&site, &["--execute"]).await;
    finished.succeeded();
    assert_eq!(report["days"], serde_json::json!([]), "{report}");
    // The day that lives is the database's business, and the subject's rows there are all that is left.
    site.sql(&format!("DELETE FROM {EVENTS} WHERE user_id = '{SUBJECT}'")).await;
    let (finished, _) = reconcile(&site, &["--dry-run"]).await;
    finished.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(lake_rows(&site, "security_event").await, 65);
    assert_eq!(anywhere(&folder(&site, 7).await, SUBJECT), Vec::<String>::new());
    site.cluster.stop().await;
}

#[tokio::test]
async fn an_erasure_that_dies_at_any_step_is_carried_on() {
    let (site, run) = dropped().await;
    let condition = format!("user_id = '{SUBJECT}'");
    let arguments = ["erase", "--execute", "--table", EVENTS, "--where", &condition, "--reason", "request 17", "--to"];
    for (point, day, is_erased) in
        [("erase.after_note", 8, false), ("erase.after_commit", 8, true), ("erase.after_receipt", 7, true)]
    {
        let last = super::day(&site, day).await;
        let arguments = [&arguments[..], &[&last]].concat();
        let dying = RunningRun::start_verb_dying_at(&site.pipeline_file(), &arguments, point);
        dying.finished(Duration::from_secs(60)).await.killed();
        // Whoever works on the archive next carries on; the lock of the dead one is waited out.
        let (finished, _) = reconcile(&site, &[]).await;
        finished.succeeded();
        let (finished, report) = audit(&site, &[]).await;
        finished.succeeded();
        let rows = &audited(&site, &report, day).await["expected"]["rows"];
        assert_eq!(*rows, if is_erased { 20 } else { 23 }, "{point}: {report}");
        assert!(
            !site.lake().join("_lakebed/erasures/lakebed").read_dir().is_ok_and(|mut notes| notes.next().is_some()),
            "{point}"
        );
    }
    let (finished, report) = erase(&site, &["--execute"]).await;
    finished.succeeded();
    let journal = report["days"].as_array().unwrap().iter().map(|day| day["old_images"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(journal, 1, "what the dead ones left in the journal: {report}");
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], "the same", "{report}");
    assert_chain(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
