//! Files of dead processes: found by their intents, removed once, and never one that a commit names or that is somebody else's.

use super::actions::PROCESS;
use super::failing_store::Script;
use super::fixtures::{Lake, PATH, day, events, lsn, progress, security_event};
use super::{
    LakeError, LakeTable, OrphanReport, Patience, Progress, StagedFile, TableWriter, WriterOptions, open_for_query,
    remove_orphans, table_days,
};
use crate::base::{PartitionBy, Runs, TableShape, XidSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

async fn create(lake: &Lake, shape: &TableShape) -> LakeTable {
    LakeTable::create(&lake.location, PATH, shape, &progress(), lsn(1)).await.unwrap()
}

async fn open(lake: &Lake) -> LakeTable {
    LakeTable::open(&lake.location, PATH, &security_event(), &progress()).await.unwrap()
}

/// A writer whose every batch becomes a file at once.
fn writer(table: &LakeTable) -> TableWriter {
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    TableWriter::new(table, options, Patience::none()).unwrap()
}

fn intents(lake: &Lake) -> Vec<PathBuf> {
    let folder = lake.folder.path().join(PATH).join("_lakebed/staging");
    std::fs::read_dir(folder).map(|found| found.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// Makes every intent and every commit that of another process.
fn kill(lake: &Lake) {
    let another = Uuid::new_v4().to_string();
    for version in (0..).take_while(|version| lake.log_file(*version).exists()) {
        let entry = std::fs::read_to_string(lake.log_file(version)).unwrap();
        std::fs::write(lake.log_file(version), entry.replace(&PROCESS.to_string(), &another)).unwrap();
    }
    for path in intents(lake) {
        let mut intent: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        intent["process"] = another.clone().into();
        std::fs::write(path, intent.to_string()).unwrap();
    }
}

async fn rows(lake: &Lake) -> u64 {
    table_days(&lake.location, PATH).await.unwrap().iter().map(|day| day.rows.unwrap()).sum()
}

#[tokio::test]
async fn files_of_a_killed_process_are_removed_after_the_first_commit_of_the_next() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut main = writer(&table);
    main.write(events(day(1), 0, 5)).await.unwrap();
    let files = main.finish().await.unwrap();
    table.commit(&files, lsn(2)).await.unwrap();
    main.committed(&table).await;
    // The flush after it, and a transaction in progress: neither is committed.
    main.write(events(day(1), 5, 5)).await.unwrap();
    main.write(events(day(2), 10, 5)).await.unwrap();
    let mut in_progress = main.another();
    in_progress.write(events(day(3), 15, 5)).await.unwrap();
    drop((main, in_progress, table));
    assert_eq!((lake.data_files(), intents(&lake).len()), (4, 2));
    kill(&lake);

    let mut table = open(&lake).await;
    assert!(matches!(remove_orphans(&table).await, Err(LakeError::NotFenced { .. })), "before the first own commit");
    assert_eq!(lake.data_files(), 4);
    table.commit(&[], lsn(3)).await.unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files, report.left.len()), (2, 3, 0));
    assert!(report.bytes > 0);
    assert_eq!((lake.data_files(), intents(&lake).len(), rows(&lake).await), (1, 0, 5));
    assert!(remove_orphans(&table).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_committed_file_is_never_removed() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    // Killed between a commit and the intent's removal, again and again; one file of each is not committed.
    for round in 0..3_u32 {
        let mut writer = writer(&table);
        writer.write(events(day(1 + round), 0, 7)).await.unwrap();
        let files = writer.finish().await.unwrap();
        table.commit(&files, lsn(10 + u64::from(round))).await.unwrap();
        writer.write(events(day(1 + round), 7, 7)).await.unwrap();
        lake.foreign_entry(table.version() + 1, &[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#]);
    }
    kill(&lake);
    let mut table = open(&lake).await;
    table.commit(&[], lsn(100)).await.unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files), (3, 3));
    assert_eq!((lake.data_files(), rows(&lake).await), (3, 21));
}

#[tokio::test]
async fn a_foreign_file_and_a_live_process_are_left_alone() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut dead = writer(&table);
    dead.write(events(day(1), 0, 5)).await.unwrap();
    drop(dead);
    kill(&lake);
    let token = intents(&lake)[0].file_stem().unwrap().to_str().unwrap().to_owned();
    let folder = lake.folder.path().join(PATH).join(day(1).path());
    let foreign = [
        format!("part-00000-{}.zstd.parquet", Uuid::new_v4()),
        format!("part-00000-{token}-c000.snappy.parquet"),
        format!("{token}.parquet"),
        format!("part-00000-{token}.zstd.parquet.crc"),
    ];
    foreign.iter().for_each(|name| std::fs::write(folder.join(name), b"x").unwrap());
    // An intent of another pipeline's, one that is torn, and something that is no intent.
    let mut live = writer(&table);
    live.write(events(day(2), 5, 5)).await.unwrap();
    let staging = lake.folder.path().join(PATH).join("_lakebed/staging");
    let (other, torn) = (Uuid::new_v4(), Uuid::new_v4());
    let elsewhere = Progress { pipeline: "second".to_owned(), ..progress() }.app_id();
    let intent = format!(r#"{{"process":"{}","app_id":"{elsewhere}","version":0}}"#, Uuid::new_v4());
    std::fs::write(staging.join(format!("{other}.json")), intent).unwrap();
    std::fs::write(staging.join(format!("{torn}.json")), b"").unwrap();
    std::fs::write(staging.join("README"), b"").unwrap();
    for name in [other, torn] {
        std::fs::write(folder.join(format!("part-00000-{name}.zstd.parquet")), b"x").unwrap();
    }

    table.commit(&[], lsn(2)).await.unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files), (1, 1));
    assert_eq!(report.left, [format!("{torn}: its intent is not readable")]);
    assert!(foreign.iter().all(|name| folder.join(name).exists()));
    assert!([other, torn].iter().all(|name| folder.join(format!("part-00000-{name}.zstd.parquet")).exists()));
    assert_eq!(intents(&lake).len(), 4);
    let files = live.finish().await.unwrap();
    table.commit(&files, lsn(3)).await.unwrap();
    assert_eq!(rows(&lake).await, 5);
    std::fs::read(lake.folder.path().join(PATH).join(files[0].path())).unwrap();
}

#[tokio::test]
async fn without_the_log_entries_since_an_intent_nothing_is_removed() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut early = writer(&table);
    early.write(events(day(1), 0, 5)).await.unwrap();
    let files = early.finish().await.unwrap();
    table.commit(&files, lsn(2)).await.unwrap();
    early.write(events(day(1), 5, 5)).await.unwrap();
    let mut late = writer(&table);
    late.write(events(day(1), 10, 5)).await.unwrap();
    drop((early, late));
    kill(&lake);
    table.commit(&[], lsn(3)).await.unwrap();
    std::fs::remove_file(lake.log_file(1)).unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files), (1, 1), "the later intent needs later entries only");
    assert!(report.left[0].ends_with(": the log entries since its version 0 were cleaned up"), "{report:?}");
    assert_eq!((report.left.len(), lake.data_files(), intents(&lake).len()), (1, 2, 1));
}

#[tokio::test]
async fn a_table_of_months_has_its_orphans_removed() {
    let lake = Lake::new();
    let mut shape = security_event();
    shape.partition_by = PartitionBy::Month;
    let mut table = create(&lake, &shape).await;
    let mut dead = writer(&table);
    let mut batch = events(day(17), 0, 4);
    batch.partition = PartitionBy::Month.partition_of(day(17).first_day());
    dead.write(batch).await.unwrap();
    drop(dead);
    kill(&lake);
    table.commit(&[], lsn(2)).await.unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files, lake.data_files()), (1, 1, 0));
}

#[tokio::test]
async fn an_intent_is_in_the_store_before_the_first_file_and_goes_with_the_last() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    drop(create(&lake, &security_event()).await);
    let table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let mut aborted = writer(&table);
    assert!(intents(&lake).is_empty(), "a writer without files says nothing");
    aborted.write(events(day(1), 0, 5)).await.unwrap();
    aborted.write(events(day(2), 5, 5)).await.unwrap();
    aborted.discard().await.unwrap();
    let asked = script.asked();
    assert!(asked[0].starts_with("PUT ") && asked[0].ends_with(".json"), "{asked:?}");
    assert!(asked.last().unwrap().starts_with("DELETE ") && asked.last().unwrap().ends_with(".json"), "{asked:?}");
    assert_eq!((lake.data_files(), intents(&lake).len()), (0, 0));

    // A commit with an unknown outcome: the files are not the writer's to remove, and the intent stays.
    let mut in_doubt = writer(&table);
    in_doubt.write(events(day(1), 0, 5)).await.unwrap();
    let files = in_doubt.finish().await.unwrap();
    in_doubt.discard().await.unwrap();
    assert_eq!((files.len(), lake.data_files(), intents(&lake).len()), (1, 1, 1));

    // A file that cannot be removed keeps its intent.
    let mut stuck = writer(&table);
    stuck.write(events(day(2), 0, 5)).await.unwrap();
    script.failed_deletes.store(1, Ordering::Release);
    assert!(stuck.discard().await.is_err());
    assert_eq!((lake.data_files(), intents(&lake).len()), (2, 2));
}

#[tokio::test]
async fn an_ordinary_flush_asks_for_nothing_but_its_files() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    drop(create(&lake, &security_event()).await);
    let mut table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let mut writer = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for round in 0..250_u64 {
        writer.write(events(day(1), 0, 1)).await.unwrap();
        let files = writer.finish().await.unwrap();
        names.extend(files.iter().map(|file: &StagedFile| file.path().to_owned()));
        table.commit(&files, lsn(10 + round)).await.unwrap();
        writer.committed(&table).await;
        assert!(intents(&lake).len() <= 1);
    }
    assert_eq!(names.len(), 250, "a name is given once");
    let asked = script.asked();
    assert_eq!(asked.iter().filter(|asked| asked.ends_with(".json")).count(), 3 + 2, "three tokens, two of them spent");
    assert_eq!(asked.len(), 250 + 5);
    writer.discard().await.unwrap();
    assert!(intents(&lake).is_empty());
    assert_eq!(lake.data_files(), 250);
    table.close().await;
}

#[tokio::test]
async fn a_spent_intent_that_cannot_be_removed_is_removed_later() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    drop(create(&lake, &security_event()).await);
    let mut table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let mut writer = writer(&table);
    let mut seen = Vec::new();
    for round in 0..102_u64 {
        writer.write(events(day(1), 0, 1)).await.unwrap();
        let files = writer.finish().await.unwrap();
        table.commit(&files, lsn(10 + round)).await.unwrap();
        script.failed_deletes.store(usize::from(round == 99), Ordering::Release);
        writer.committed(&table).await;
        if round >= 98 {
            seen.push(intents(&lake).len());
        }
    }
    // In use; spent; the next in use and the spent one gone.
    assert_eq!(seen, [1, 1, 1, 1]);
    let asked = script.asked();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("DELETE ")).count(), 2, "{asked:?}");
    table.close().await;
}

#[tokio::test]
async fn a_superseded_file_that_was_not_removed_is_an_orphan() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    drop(create(&lake, &security_event()).await);
    let mut table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let mut writer = writer(&table);
    let mut batch = events(day(1), 0, 5);
    let (mut xids, mut aborted) = (Runs::default(), XidSet::default());
    xids.push(7, 4);
    xids.push(8, 1);
    batch.xids = Some(xids);
    aborted.insert(8);
    writer.write(batch).await.unwrap();
    script.failed_deletes.store(usize::MAX, Ordering::Release);
    let files = writer.finish_without(&aborted).await.unwrap();
    table.commit(&files, lsn(2)).await.unwrap();
    writer.committed(&table).await;
    assert_eq!(lake.data_files(), 2);
    drop(writer);
    kill(&lake);
    let mut table = open(&lake).await;
    table.commit(&[], lsn(3)).await.unwrap();
    let report = remove_orphans(&table).await.unwrap();
    assert_eq!((report.resolved, report.files), (1, 1));
    assert_eq!((lake.data_files(), rows(&lake).await), (1, 4));
}

#[tokio::test]
async fn intents_are_invisible_to_readers_of_the_table() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut writer = writer(&table);
    writer.write(events(day(1), 0, 5)).await.unwrap();
    let files = writer.finish().await.unwrap();
    table.commit(&files, lsn(2)).await.unwrap();
    writer.write(events(day(1), 5, 5)).await.unwrap();
    assert_eq!((intents(&lake).len(), rows(&lake).await), (1, 5));
    let handle = open_for_query(&lake.location, PATH).await.unwrap();
    let files: Vec<_> = handle.snapshot().unwrap().log_data().iter().map(|file| file.path().to_string()).collect();
    assert_eq!(files.len(), 1);
    assert!(!files[0].contains("_lakebed"));
    let (_, metrics) = handle
        .vacuum()
        .with_mode(deltalake::operations::vacuum::VacuumMode::Full)
        .with_retention_period(chrono::Duration::zero())
        .with_enforce_retention_duration(false)
        .with_dry_run(true)
        .await
        .unwrap();
    assert!(metrics.files_deleted.iter().all(|path| !path.contains("_lakebed")), "{:?}", metrics.files_deleted);
    assert_eq!(remove_orphans(&table).await.unwrap(), OrphanReport::default(), "this process is alive");
}
