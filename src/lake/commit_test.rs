//! L1 and L2: progress lands with the files, once, whatever the store answers and whoever else commits.

use super::fixtures::{Fault, Lake, PATH, imaginary_file, lsn, progress, security_event};
use super::{LakeError, LakeLocation, LakeTable, table_days};
use crate::base::{Classify, RetryClass};

async fn create(lake: &Lake) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

async fn open(location: &LakeLocation) -> LakeTable {
    LakeTable::open(location, PATH, &security_event(), &progress()).await.unwrap()
}

async fn rows(lake: &Lake) -> u64 {
    table_days(&lake.location, PATH).await.unwrap().iter().map(|day| day.rows.unwrap()).sum()
}

const FOREIGN_APPEND: [&str; 2] = [
    r#"{"commitInfo":{"timestamp":0,"operation":"WRITE","engineInfo":"Apache-Spark/4.0"}}"#,
    r#"{"add":{"path":"x.parquet","partitionValues":{"year":"2026","month":"01","day":"01"},"size":1,"modificationTime":0,"dataChange":true,"stats":"{\"numRecords\":5}"}}"#,
];

#[tokio::test]
async fn l1_a_repeated_or_lower_position_is_refused() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap();
    for position in [20, 19, 1, 0] {
        let error = table.commit(&[imaginary_file(&lake, 2)], lsn(position)).await.unwrap_err();
        assert!(matches!(error, LakeError::AlreadyRecorded { .. }), "{error}");
    }
    assert!(matches!(table.commit(&[], lsn(u64::MAX)).await, Err(LakeError::PositionTooLarge { .. })));
    table.commit(&[], lsn(21)).await.unwrap();
    assert_eq!(rows(&lake).await, 1);
}

#[tokio::test]
async fn l2_a_commit_whose_answer_was_lost_counts_once() {
    let lake = Lake::new();
    create(&lake).await;
    let mut table = open(&lake.with_faults(&[Fault::FailAfterWrite, Fault::Reject, Fault::FailAfterWrite])).await;
    assert_eq!(table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap().lsn(), lsn(20));
    assert_eq!(table.commit(&[imaginary_file(&lake, 2)], lsn(30)).await.unwrap().lsn(), lsn(30));
    assert_eq!((table.version(), rows(&lake).await), (2, 2));
    assert!(!lake.log_file(3).exists());
}

#[tokio::test]
async fn a_table_created_with_a_lost_answer_is_opened() {
    let lake = Lake::new();
    let location = lake.with_faults(&[Fault::FailAfterWrite]);
    let table = LakeTable::create(&location, PATH, &security_event(), &progress(), lsn(7)).await.unwrap();
    assert_eq!(table.recorded(), lsn(7));
}

#[tokio::test]
async fn l2_after_an_error_only_opening_again_tells() {
    let lake = Lake::new();
    create(&lake).await;
    let mut table = open(&lake.with_faults(&[Fault::Reject; 3])).await;
    let error = table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Transient, "{error}");
    let error = table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::InDoubt { .. }), "{error}");
    let mut table = open(&lake.location).await;
    assert_eq!(table.recorded(), lsn(1));
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap();
    assert_eq!(rows(&lake).await, 1);
}

#[tokio::test]
async fn a_file_of_another_table_is_refused() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    let error = table.commit(&[imaginary_file(&Lake::new(), 1)], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::Batch { .. }), "{error}");
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_of_the_store_is_definite_and_not_repeated() {
    let lake = Lake::new();
    create(&lake).await;
    let mut table = open(&lake.with_faults(&[Fault::Deny])).await;
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::Definite);
    assert!(error.to_string().contains("permission denied; give lakebed's user"), "{error}");
}

#[tokio::test]
async fn l2_a_foreign_append_in_between_is_passed_over() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    lake.foreign_entry(1, &FOREIGN_APPEND);
    lake.foreign_entry(2, &[FOREIGN_APPEND[0]]);
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap();
    assert_eq!((table.version(), rows(&lake).await), (3, 6));
    lake.foreign_entry(4, &[FOREIGN_APPEND[0]]);
    let mut table = open(&lake.with_faults(&[Fault::Pass, Fault::FailAfterWrite])).await;
    lake.foreign_entry(5, &[FOREIGN_APPEND[0]]);
    table.commit(&[imaginary_file(&lake, 2)], lsn(30)).await.unwrap();
    assert_eq!((table.version(), rows(&lake).await), (6, 7));
}

#[tokio::test]
async fn a_second_writer_is_refused() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    table.commit(&[], lsn(10)).await.unwrap();
    let mut same_process = open(&lake.location).await;
    let transaction = format!(r#"{{"txn":{{"appId":"{}","version":15}}}}"#, progress().app_id());
    lake.foreign_entry(2, &[&transaction]);
    let error = table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::SecondWriter { version: 2, .. }), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Definite);
    assert!(error.to_string().contains("stop the other one, then start again"), "{error}");
    // A handle of this process is not another process: its entry may be an attempt that landed late.
    let mut table = open(&lake.location).await;
    table.commit(&[], lsn(16)).await.unwrap();
    std::fs::remove_file(lake.log_file(2)).unwrap();
    std::fs::rename(lake.log_file(3), lake.log_file(2)).unwrap();
    let error = same_process.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::InDoubt { .. }), "{error}");
}

#[tokio::test]
async fn a_change_of_the_table_in_between_is_checked_again() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    lake.foreign_entry(1, &[r#"{"txn":{"appId":"lakebed/1/other/public.security_event/0","version":15}}"#]);
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::ForeignProgress { .. }), "{error}");

    let lake = Lake::new();
    let mut table = create(&lake).await;
    lake.foreign_entry(1, &[r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":4}}"#]);
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::UnsupportedProtocol { .. }), "{error}");

    let lake = Lake::new();
    let mut table = create(&lake).await;
    let created = std::fs::read_to_string(lake.log_file(0)).unwrap();
    let metadata = created.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    lake.foreign_entry(1, &[metadata]);
    table.commit(&[], lsn(20)).await.unwrap();
    lake.foreign_entry(3, &[&metadata.replace("user_agent", "browser")]);
    let error = table.commit(&[], lsn(30)).await.unwrap_err();
    assert!(matches!(error, LakeError::SchemaDiffers { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_progress_survives_checkpoints_and_the_loss_of_older_entries() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    table.checkpoint_every(3);
    for number in 1..=8 {
        table.commit(&[imaginary_file(&lake, number)], lsn(u64::from(number) * 10)).await.unwrap();
    }
    table.close().await;
    let folder = lake.log_file(0).parent().unwrap().to_owned();
    let hint = std::fs::read_to_string(folder.join("_last_checkpoint")).unwrap();
    let version: serde_json::Value = serde_json::from_str(&hint).unwrap();
    let version = version["version"].as_u64().unwrap();
    assert!((3..=8).contains(&version));
    for old in 0..=version {
        std::fs::remove_file(lake.log_file(old)).unwrap();
    }
    let mut table = open(&lake.location).await;
    assert_eq!((table.recorded(), table.version(), rows(&lake).await), (lsn(80), 8, 8));
    table.commit(&[imaginary_file(&lake, 9)], lsn(90)).await.unwrap();
    // The hint may be lost or name a checkpoint that is not there.
    for hint in [None, Some("{\"version\":9000}"), Some("torn")] {
        std::fs::remove_file(folder.join("_last_checkpoint")).unwrap();
        std::fs::write(folder.join("_last_checkpoint"), hint.unwrap_or_default()).unwrap();
        assert_eq!(open(&lake.location).await.recorded(), lsn(90), "{hint:?}");
    }
}
