//! L2 under every fault: each commit lands once, in order, whatever the store answers and whenever an old request arrives.

use super::fixtures::{Fault, Lake, PATH, Request, ScriptedStore, imaginary_file, lsn, progress, security_event};
use super::{LakeError, LakeLocation, LakeTable, Patience, table_days};
use crate::base::{Classify, RetryClass};
use futures::FutureExt;
use proptest::prelude::*;
use std::sync::Arc;
use tokio::sync::watch;

async fn create(lake: &Lake) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

async fn open(location: &LakeLocation) -> LakeTable {
    LakeTable::open(location, PATH, &security_event(), &progress()).await.unwrap()
}

/// A table through a store whose faults begin after it was opened.
async fn scripted(lake: &Lake, script: &[(Request, Fault)]) -> (LakeTable, Arc<ScriptedStore>) {
    create(lake).await;
    let (location, store) = lake.with_script(&[]);
    let table = open(&location).await;
    for (request, fault) in script {
        store.expect(*request, &[*fault]);
    }
    (table, store)
}

/// A patience that nobody ends while the sender lives.
fn patient() -> (watch::Sender<bool>, Patience) {
    let (give_up, given_up) = watch::channel(false);
    (give_up, Patience::until(given_up))
}

async fn rows(lake: &Lake) -> u64 {
    table_days(&lake.location, PATH).await.unwrap().iter().map(|day| day.rows.unwrap()).sum()
}

/// The names of files, by log entry, of entries that name any.
fn committed(lake: &Lake) -> Vec<String> {
    let mut found = Vec::new();
    let mut version = 1;
    while let Ok(text) = std::fs::read_to_string(lake.log_file(version)) {
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        found.extend(lines.filter_map(|line| line["add"]["path"].as_str().map(str::to_owned)));
        version += 1;
    }
    found
}

#[tokio::test]
async fn l2_a_commit_lands_once_through_every_kind_of_fault() {
    use Fault::{Arrive, FailAfterWrite, Late, Pass, Reject, Slow};
    use Request::{Get, List, PutEntry};
    let scripts: &[&[(Request, Fault)]] = &[
        &[(PutEntry, FailAfterWrite)],
        // The lost response, and the look at the log is lost as well: the next attempt meets its own commit.
        &[(PutEntry, FailAfterWrite), (Get, Reject)],
        &[(PutEntry, FailAfterWrite), (Get, Reject), (List, Reject), (Get, Reject)],
        &[(PutEntry, Reject), (PutEntry, Reject), (PutEntry, Reject), (PutEntry, FailAfterWrite)],
        // Failure after the log was written.
        &[(Get, Reject)],
        &[(Get, Reject), (Get, Reject), (Get, Pass), (Get, Reject)],
        &[(PutEntry, Late), (PutEntry, Late), (PutEntry, Late), (PutEntry, Slow)],
        &[(PutEntry, Slow), (Get, Slow)],
        // An earlier attempt arrives while the log is being read, or just before the next attempt.
        &[(PutEntry, Late), (Get, Arrive)],
        &[(PutEntry, Late), (PutEntry, Arrive)],
        &[(PutEntry, Late), (Get, Reject), (Get, Arrive)],
        &[(PutEntry, Late), (Get, Reject), (PutEntry, Arrive)],
    ];
    let cases = scripts.iter().map(|script| async move {
        let lake = Lake::new();
        let (mut table, store) = scripted(&lake, script).await;
        let (_owner, patience) = patient();
        let durable = table.land(&[imaginary_file(&lake, 1)], lsn(20), &patience).await.unwrap();
        assert_eq!(durable.lsn(), lsn(20), "{script:?}");
        assert_eq!(store.left(), 0, "{script:?} was not used up");
        assert_eq!(store.land_late().await, 0, "{script:?}: an old request must meet its version taken");
        table.land(&[imaginary_file(&lake, 2)], lsn(30), &patience).await.unwrap();
        assert_eq!((rows(&lake).await, table.recorded()), (2, lsn(30)), "{script:?}");
        assert_eq!(committed(&lake).len(), 2, "{script:?}");
    });
    futures::future::join_all(cases).await;
}

#[tokio::test]
async fn l2_an_earlier_attempt_that_lands_after_the_log_was_read_again_counts_once() {
    let lake = Lake::new();
    // Three attempts are under way when the commit gives up; the log is read, and then they arrive.
    let (mut table, store) = scripted(&lake, &[(Request::PutEntry, Fault::Late); 3]).await;
    let file = [imaginary_file(&lake, 1)];
    let error = table.commit(&file, lsn(20)).await.unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Transient, "{error}");
    assert_eq!(open(&lake.location).await.recorded(), lsn(1));
    assert_eq!(store.land_late().await, 1, "one of the three takes the version");
    let (_owner, patience) = patient();
    assert_eq!(table.land(&file, lsn(20), &patience).await.unwrap().lsn(), lsn(20));
    assert_eq!(rows(&lake).await, 1);
}

#[tokio::test]
async fn l2_an_attempt_that_lands_between_reading_the_log_and_the_next_attempt_counts_once() {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &[(Request::PutEntry, Fault::Late); 3]).await;
    let file = [imaginary_file(&lake, 1)];
    table.commit(&file, lsn(20)).await.unwrap_err();
    // Another handle of this process has read the log; its own attempt meets the late one at the same version.
    let mut next = open(&lake.location).await;
    store.land_late().await;
    let error = next.commit(&file, lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::InDoubt { .. }), "{error}");
    let (_owner, patience) = patient();
    next.land(&file, lsn(20), &patience).await.unwrap();
    assert_eq!(rows(&lake).await, 1);
}

#[tokio::test]
async fn l2_rows_that_an_abandoned_attempt_brought_are_not_committed_under_a_later_position() {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &[(Request::PutEntry, Fault::Late); 3]).await;
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    let mut next = open(&lake.location).await;
    store.land_late().await;
    // The new handle holds the same rows again, and more: the log now stands between.
    let (_owner, patience) = patient();
    let error = next.land(&[imaginary_file(&lake, 2)], lsn(30), &patience).await.unwrap_err();
    assert!(matches!(error, LakeError::Overtaken { version: 1, .. }), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Transient);
    assert_eq!((rows(&lake).await, open(&lake.location).await.recorded()), (1, lsn(20)));
}

#[tokio::test]
async fn l2_what_a_dead_process_left_under_way_starts_the_stream_again_and_a_live_one_is_an_error() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    let other = format!(
        r#"{{"commitInfo":{{"lakebedProcess":"x"}}}}
{{"txn":{{"appId":"{}","version":15}}}}"#,
        progress().app_id()
    );
    lake.foreign_entry(1, &[&other]);
    let (_owner, patience) = patient();
    let error = table.land(&[imaginary_file(&lake, 1)], lsn(20), &patience).await.unwrap_err();
    assert!(matches!(error, LakeError::Overtaken { version: 1, .. }), "{error}");
    // From its first own entry on, a process can only be followed by one that is alive.
    let mut table = open(&lake.location).await;
    assert_eq!(table.recorded(), lsn(15));
    table.land(&[imaginary_file(&lake, 1)], lsn(20), &patience).await.unwrap();
    lake.foreign_entry(3, &[&other.replace("15", "25")]);
    let error = table.land(&[imaginary_file(&lake, 2)], lsn(30), &patience).await.unwrap_err();
    assert!(matches!(error, LakeError::SecondWriter { version: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_dropped_call_is_settled_by_the_next_one() {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &[(Request::PutEntry, Fault::Hold)]).await;
    let file = [imaginary_file(&lake, 1)];
    let (_owner, patience) = patient();
    assert!(table.land(&file, lsn(20), &patience).now_or_never().is_none());
    store.release();
    table.land(&file, lsn(20), &patience).await.unwrap();
    assert_eq!(committed(&lake).len(), 1);
}

#[tokio::test]
async fn landing_ends_with_the_stores_error_when_nobody_waits_any_more() {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &[(Request::PutEntry, Fault::Late); 3]).await;
    let error = table.land(&[imaginary_file(&lake, 1)], lsn(20), &Patience::none()).await.unwrap_err();
    assert!(matches!(error, LakeError::Store { .. }), "{error}");
    // What was held lands after all: the next start finds it in the log.
    assert_eq!(store.land_late().await, 1);
    assert_eq!((open(&lake.location).await.recorded(), rows(&lake).await), (lsn(20), 1));
}

#[tokio::test]
async fn a_definite_error_is_not_waited_for() {
    let lake = Lake::new();
    let (mut table, _store) = scripted(&lake, &[(Request::PutEntry, Fault::Deny)]).await;
    let (_owner, patience) = patient();
    let error = table.land(&[], lsn(20), &patience).await.unwrap_err();
    assert!(error.to_string().contains("permission denied; give lakebed's user"), "{error}");
}

#[tokio::test]
async fn a_table_that_goes_back_while_it_is_written_is_refused() {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &[]).await;
    let (_owner, patience) = patient();
    table.land(&[imaginary_file(&lake, 1)], lsn(20), &patience).await.unwrap();
    std::fs::remove_file(lake.log_file(1)).unwrap();
    store.expect(Request::PutEntry, &[Fault::Reject; 3]);
    let error = table.land(&[imaginary_file(&lake, 2)], lsn(30), &patience).await.unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Definite, "{error}");
    assert!(error.to_string().contains("it went back from version 1 and 0/14 to version 0 and 0/1"), "{error}");
}

fn fault() -> impl Strategy<Value = (Request, Fault)> {
    let request = prop_oneof![
        3 => Just(Request::PutEntry),
        2 => Just(Request::Get),
        1 => Just(Request::List),
    ];
    let fault = prop_oneof![
        2 => Just(Fault::Pass),
        2 => Just(Fault::Reject),
        2 => Just(Fault::FailAfterWrite),
        2 => Just(Fault::Late),
        2 => Just(Fault::Arrive),
        1 => Just(Fault::Slow),
    ];
    (request, fault)
}

/// Lands four commits; old requests arrive between them. Waits are real, so many scripts run beside each other.
async fn run_script(script: Vec<(Request, Fault)>) {
    let lake = Lake::new();
    let (mut table, store) = scripted(&lake, &script).await;
    let (_owner, patience) = patient();
    for number in 1..=4 {
        let at = lsn(u64::from(number) * 10);
        table.land(&[imaginary_file(&lake, number)], at, &patience).await.unwrap();
        assert_eq!(store.land_late().await, 0, "{script:?}: a request that was given up landed beside its successor");
    }
    let expected: Vec<String> = (1..=4).map(|number| imaginary_file(&lake, number).path().to_owned()).collect();
    assert_eq!(committed(&lake), expected, "{script:?}");
    assert_eq!(open(&lake.location).await.recorded(), lsn(40), "{script:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l2_any_faults_leave_each_commit_exactly_once_and_in_order(
        scripts in prop::collection::vec(prop::collection::vec(fault(), 0..16), 24)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(futures::future::join_all(scripts.into_iter().map(run_script)));
    }
}
