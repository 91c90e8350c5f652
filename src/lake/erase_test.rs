//! Erasing: exactly the rows asked for go, with every trace of them, beside a living writer of the same table.

use super::actions::PROCESS;
use super::active::Wanted;
use super::fixtures::{Lake, PATH, column, day, events, lsn, progress, security_event};
use super::{
    Condition, EraseOrder, Erased, Eraser, Journal, JournalEntry, LakeError, LakeTable, Patience, TableWriter,
    WriterOptions, journal_path, open_for_query, remove_orphans, table_days,
};
use crate::base::{ColumnType, Partition, PartitionBy};
use crate::buffer::{Operation, PartitionBatch};
use deltalake::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use deltalake::arrow::util::display::array_value_to_string;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The subject: every tenth row is its own, and it is the greatest value of each file that has it.
const TENANT: &str = "tenant 9";

/// A table with three files: two of the first day, of which one has nothing of the subject, and one of the second.
async fn three_files(lake: &Lake) -> LakeTable {
    let mut table = LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap();
    land(&mut table, vec![events(day(1), 0, 10), events(day(2), 10, 10)], 2).await;
    land(&mut table, vec![events(day(1), 100, 3)], 3).await;
    table
}

async fn land(table: &mut LakeTable, batches: Vec<PartitionBatch>, at: u64) {
    let mut writer = TableWriter::new(table, WriterOptions::default(), Patience::none()).unwrap();
    for batch in batches {
        writer.write(batch).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    table.land(&files, lsn(at), &Patience::none()).await.unwrap();
    writer.committed(table).await;
    writer.discard().await.unwrap();
}

async fn eraser(lake: &Lake) -> Eraser {
    Eraser::open(&lake.location, PATH, Patience::none()).await.unwrap()
}

fn where_tenant(tenant: &'static str) -> Condition {
    Arc::new(move |_: Partition, rows: &RecordBatch| {
        let names = rows.column_by_name("tenant_name").ok_or("no such column")?.as_string::<i32>();
        Ok(names.iter().map(|name| name.map(|name| name == tenant)).collect::<BooleanArray>())
    })
}

fn order(days: &[u32], condition: Condition) -> EraseOrder {
    EraseOrder { partitions: days.iter().map(|number| day(*number)).collect(), condition }
}

fn note(ids: &mut Vec<String>, _: Partition, rows: &RecordBatch) -> Result<(), String> {
    let found = rows.column_by_name("id").ok_or("no such column")?.as_string::<i32>();
    ids.extend(found.iter().flatten().map(str::to_owned));
    Ok(())
}

fn ignore(_: &mut (), _: Partition, _: &RecordBatch) -> Result<(), String> {
    Ok(())
}

/// Plans and commits.
async fn erase(eraser: &mut Eraser, order: &EraseOrder) -> Erased {
    let (plan, ()) = eraser.plan(order, (), ignore).await.unwrap();
    eraser.commit(plan, Uuid::new_v4()).await.unwrap()
}

async fn rows(lake: &Lake, path: &str) -> Vec<u64> {
    table_days(&lake.location, path).await.unwrap().iter().map(|day| day.rows.unwrap()).collect()
}

/// Every file below a folder.
fn all_files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { BTreeSet::from([path]) }).collect()
}

fn folder(lake: &Lake) -> PathBuf {
    lake.folder.path().join(PATH)
}

/// All that the log says, checkpoints included, as text.
fn log_text(lake: &Lake) -> String {
    let mut text = String::new();
    for path in all_files(&folder(lake).join("_delta_log")) {
        if path.extension().is_some_and(|extension| extension == "parquet") {
            let file = std::fs::File::open(path).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                for (column, row) in batch.columns().iter().flat_map(|c| (0..batch.num_rows()).map(move |row| (c, row)))
                {
                    text.push_str(&array_value_to_string(column, row).unwrap());
                }
            }
        } else {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}

fn remove_line(path: &str) -> String {
    format!(r#"{{"remove":{{"path":"{path}","deletionTimestamp":0,"dataChange":true}}}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subjects_rows_go_from_two_days_and_a_living_writer_goes_on() {
    let lake = Lake::new();
    let mut table = three_files(&lake).await;
    let before = all_files(&folder(&lake).join("year=2026"));
    assert!(log_text(&lake).contains(TENANT), "the statistics tell it");
    let mut eraser = eraser(&lake).await;
    assert_eq!((eraser.partition_by(), eraser.schema().fields().len()), (PartitionBy::Day, 14));
    let (plan, ids) = eraser.plan(&order(&[1, 2], where_tenant(TENANT)), Vec::new(), note).await.unwrap();
    assert_eq!(ids.len(), 2, "each row is said once");
    let found: Vec<_> = plan.found().values().map(|found| (found.rows, found.erased, found.files)).collect();
    assert_eq!((plan.version(), found), (2, vec![(13, 1, 1), (10, 1, 1)]));
    let named: BTreeSet<PathBuf> = plan.files().map(|path| folder(&lake).join(path)).collect();
    assert!(named.len() == 2 && named.is_subset(&before));
    assert_eq!(rows(&lake, PATH).await, [13, 10], "nothing is visible yet");

    let id = Uuid::new_v4();
    let erased = eraser.commit(plan, id).await.unwrap();
    assert_eq!((erased.version, erased.removed.len(), erased.added.len()), (3, 2, 2));
    assert_eq!(erased.partitions, BTreeSet::from([day(1), day(2)]));
    assert_eq!(eraser.find(id, 2).await.unwrap(), Some(erased.clone()));
    assert_eq!(eraser.find(Uuid::new_v4(), 0).await.unwrap(), None);
    assert_eq!(rows(&lake, PATH).await, [12, 9]);
    assert!(eraser.delete_files(&erased).await.unwrap().is_empty());
    let after = all_files(&folder(&lake).join("year=2026"));
    let gone: BTreeSet<PathBuf> = before.difference(&after).cloned().collect();
    assert_eq!((gone, after.len()), (named, 3), "exactly those, and the third file is the one that it was");

    assert_eq!(eraser.expire_log(erased.version).await.unwrap(), 3);
    assert!(!lake.log_file(2).exists() && lake.log_file(3).exists());
    assert!(!log_text(&lake).contains(TENANT));
    assert_eq!(eraser.expire_log(erased.version).await.unwrap(), 0);
    assert_eq!(open_for_query(&lake.location, PATH).await.unwrap().version(), Some(3));
    // Its handle stands on a version whose entry is gone.
    land(&mut table, vec![events(day(3), 200, 5)], 4).await;
    assert_eq!((table.version(), rows(&lake, PATH).await), (4, vec![12, 9, 5]));
    let table = LakeTable::open(&lake.location, PATH, &security_event(), &progress()).await.unwrap();
    assert_eq!(table.recorded(), lsn(4));
}

/// The name of its next version is free again, and whatever is put there is read by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_writer_whose_next_version_has_expired_loses_no_row() {
    let lake = Lake::new();
    let mut table = three_files(&lake).await;
    let mut eraser = eraser(&lake).await;
    let first = erase(&mut eraser, &order(&[1], where_tenant(TENANT))).await;
    let second = erase(&mut eraser, &order(&[2], where_tenant(TENANT))).await;
    assert_eq!((first.version, second.version, table.version()), (3, 4, 2));
    eraser.expire_log(second.version).await.unwrap();
    assert!(!lake.log_file(3).exists());
    assert!(matches!(table.catch_up().await, Err(LakeError::Expired { version: 2, .. })));
    let read = table.log.active_files(2, PartitionBy::Day, &Wanted::All).await;
    assert!(matches!(read, Err(LakeError::Expired { version: 2, .. })), "{read:?}");
    land(&mut table, vec![events(day(3), 200, 5)], 4).await;
    assert_eq!((table.version(), table.recorded()), (5, lsn(4)));
    assert!(!lake.log_file(3).exists(), "what was put there is taken back");
    assert_eq!(rows(&lake, PATH).await, [12, 9, 5]);
    table.catch_up().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subjects_rows_go_from_the_journal_and_it_goes_on() {
    let lake = Lake::new();
    let table = three_files(&lake).await;
    let path = journal_path(PATH);
    let missing = Eraser::open(&lake.location, &path, Patience::none()).await;
    assert!(matches!(missing, Err(LakeError::Missing { .. })), "a table without changes has none");
    let mut journal = Journal::beside(&table, WriterOptions::default(), Patience::none()).await.unwrap();
    write_old(&mut journal, &events(day(1), 0, 10), 4).await;
    let mut eraser = Eraser::open(&lake.location, &path, Patience::none()).await.unwrap();
    let erased = erase(&mut eraser, &order(&[1], where_tenant(TENANT))).await;
    assert!(eraser.delete_files(&erased).await.unwrap().is_empty());
    eraser.expire_log(erased.version).await.unwrap();
    assert_eq!(rows(&lake, &path).await, [9]);
    assert_eq!(journal.files_of(day(1)).await.unwrap().len(), 1, "as it is now");
    write_old(&mut journal, &events(day(1), 20, 2), 8).await;
    assert_eq!((rows(&lake, &path).await, journal.recorded()), (vec![11], lsn(8)));
}

async fn write_old(journal: &mut Journal, old: &PartitionBatch, at: u64) {
    let (operation, commit_lsn) = (Operation::Delete, lsn(at - 1));
    let entry = JournalEntry { operation, commit_lsn, commit_time_micros: 0, xid: 7 };
    let rows = journal.rows(&old.rows, &vec![entry; old.rows.num_rows()]).unwrap();
    journal.write(PartitionBatch { partition: old.partition, rows, xids: None, eras: None }).await.unwrap();
    journal.land(lsn(at), &Patience::none()).await.unwrap();
}

#[tokio::test]
async fn a_rehearsal_writes_nothing() {
    let lake = Lake::new();
    three_files(&lake).await;
    let before = all_files(&folder(&lake));
    let (found, ids) =
        eraser(&lake).await.rehearse(&order(&[1, 2, 3], where_tenant(TENANT)), Vec::new(), note).await.unwrap();
    assert_eq!(found.values().map(|found| (found.files, found.erased)).collect::<Vec<_>>(), [(1, 1), (1, 1)]);
    assert!(found.values().all(|found| found.bytes > 0));
    assert_eq!((ids.len(), all_files(&folder(&lake))), (2, before));
}

#[tokio::test]
async fn where_nothing_goes_nothing_is_committed() {
    let lake = Lake::new();
    let table = three_files(&lake).await;
    let erased = erase(&mut eraser(&lake).await, &order(&[1, 2], where_tenant("nobody"))).await;
    assert_eq!((erased.version, erased.removed.len()), (table.version(), 0));
    assert!(!lake.log_file(3).exists());
}

#[tokio::test]
async fn a_file_of_which_nothing_stays_gets_no_successor() {
    let lake = Lake::new();
    three_files(&lake).await;
    let all: Condition =
        Arc::new(|_: Partition, rows: &RecordBatch| Ok(BooleanArray::from(vec![true; rows.num_rows()])));
    let erased = erase(&mut eraser(&lake).await, &order(&[2], all)).await;
    assert_eq!((erased.removed.len(), erased.added.len()), (1, 0));
    assert_eq!(rows(&lake, PATH).await, [13]);
}

#[tokio::test]
async fn a_file_without_a_newer_column_is_judged_and_written_with_it() {
    let lake = Lake::new();
    let mut table = three_files(&lake).await;
    let mut shape = security_event();
    shape.columns.push(column("note", ColumnType::Text, true));
    table.evolve(&shape, &Patience::none()).await.unwrap();
    let condition: Condition = Arc::new(|partition: Partition, rows: &RecordBatch| {
        let notes = rows.column_by_name("note").ok_or("no such column")?;
        let ten = rows.num_rows() == 10 && notes.null_count() == 10;
        Ok((0..rows.num_rows()).map(|row| if row == 9 && ten { Some(partition == day(1)) } else { None }).collect())
    });
    let erased = erase(&mut eraser(&lake).await, &order(&[1, 2], condition)).await;
    assert_eq!((erased.removed.len(), rows(&lake, PATH).await), (1, vec![12, 10]), "NULL is no");
}

#[tokio::test]
async fn l2_a_file_that_somebody_moved_is_planned_again_and_an_append_is_passed_over() {
    let lake = Lake::new();
    let mut table = three_files(&lake).await;
    let mut eraser = eraser(&lake).await;
    let order = order(&[1, 2], where_tenant(TENANT));
    let (plan, ()) = eraser.plan(&order, (), ignore).await.unwrap();
    let moved = plan.files().next().unwrap();
    let files = lake.data_files();
    lake.foreign_entry(3, &[&remove_line(&moved)]);
    // Looking at the table in between must not hide what came behind the plan.
    eraser.rehearse(&order, (), ignore).await.unwrap();
    let error = eraser.commit(plan, Uuid::new_v4()).await.unwrap_err();
    assert!(matches!(error, LakeError::FilesMoved { version: 3, .. }), "{error}");
    assert_eq!(lake.data_files(), files - 2, "what was planned is gone");

    let (plan, ()) = eraser.plan(&order, (), ignore).await.unwrap();
    assert_eq!(plan.files().count(), 1);
    land(&mut table, vec![events(day(2), 30, 1)], 4).await;
    let erased = eraser.commit(plan, Uuid::new_v4()).await.unwrap();
    assert_eq!((erased.version, rows(&lake, PATH).await), (5, vec![3, 10]));
}

#[tokio::test]
async fn two_erasers_do_not_work_at_once_and_one_that_was_overtaken_gives_up() {
    let lake = Lake::new();
    three_files(&lake).await;
    let (mut one, mut two) = (eraser(&lake).await, eraser(&lake).await);
    let (plan, ()) = one.plan(&order(&[1], where_tenant(TENANT)), (), ignore).await.unwrap();
    let held = two.plan(&order(&[2], where_tenant(TENANT)), (), ignore).await;
    assert!(matches!(held.err(), Some(LakeError::LockHeld { .. })));
    // Its files may have been tidied away by whoever came after it.
    lake.foreign_entry(3, &[r#"{"txn":{"appId":"lakebed-erase","version":2}}"#]);
    let error = one.commit(plan, Uuid::new_v4()).await.unwrap_err();
    assert!(matches!(error, LakeError::FilesMoved { version: 3, .. }), "{error}");
    let (plan, ()) = two.plan(&order(&[2], where_tenant(TENANT)), (), ignore).await.unwrap();
    plan.abandon().await;
    erase(&mut one, &order(&[1, 2], where_tenant(TENANT))).await;
    assert_eq!(rows(&lake, PATH).await, [12, 9]);
}

#[tokio::test]
async fn what_an_eraser_died_over_is_removed_by_the_next_and_by_nobody_else() {
    let lake = Lake::new();
    let mut table = three_files(&lake).await;
    let committed = lake.data_files();
    let (plan, ()) = eraser(&lake).await.plan(&order(&[1, 2], where_tenant(TENANT)), (), ignore).await.unwrap();
    drop(plan);
    let staging = folder(&lake).join("_lakebed/staging");
    for intent in all_files(&staging) {
        let text = std::fs::read_to_string(&intent).unwrap();
        std::fs::write(intent, text.replace(&PROCESS.to_string(), "another")).unwrap();
    }
    table.commit(&[], lsn(9)).await.unwrap();
    assert!(remove_orphans(&table).await.unwrap().is_empty(), "they are not this pipeline's");
    assert_eq!(lake.data_files(), committed + 2);
    let mut next = eraser(&lake).await;
    let erased = erase(&mut next, &order(&[1, 2], where_tenant(TENANT))).await;
    next.delete_files(&erased).await.unwrap();
    assert_eq!((lake.data_files(), all_files(&staging).len()), (committed, 0));
    assert_eq!(rows(&lake, PATH).await, [12, 9]);
}

#[tokio::test]
async fn a_file_that_was_restored_is_not_deleted() {
    let lake = Lake::new();
    three_files(&lake).await;
    let mut eraser = eraser(&lake).await;
    let erased = erase(&mut eraser, &order(&[2], where_tenant(TENANT))).await;
    let values = r#"{"year":"2026","month":"01","day":"02"}"#;
    let add = format!(
        r#"{{"add":{{"path":"{}","partitionValues":{values},"size":1,"modificationTime":0,"dataChange":true}}}}"#,
        erased.removed[0]
    );
    lake.foreign_entry(4, &[&add]);
    assert_eq!(eraser.delete_files(&erased).await.unwrap(), erased.removed);
    assert!(folder(&lake).join(&erased.removed[0]).exists());
}

#[tokio::test]
async fn what_cannot_be_judged_and_who_is_not_lakebeds_is_refused() {
    let lake = Lake::new();
    three_files(&lake).await;
    let mut eraser = eraser(&lake).await;
    let files = all_files(&folder(&lake));
    let short: Condition = Arc::new(|_: Partition, _: &RecordBatch| Ok(BooleanArray::from(vec![true])));
    let refusing: Condition = Arc::new(|_: Partition, _: &RecordBatch| Err("no column x".to_owned()));
    for (condition, expected) in [(short, "1 answers for 10 rows"), (refusing, "no column x; correct --where")] {
        let error = eraser.rehearse(&order(&[2], condition), (), ignore).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let months = EraseOrder {
        partitions: BTreeSet::from([PartitionBy::Month.partition_of(day(1).first_day())]),
        condition: where_tenant(TENANT),
    };
    assert!(matches!(eraser.rehearse(&months, (), ignore).await, Err(LakeError::Batch { .. })));
    assert_eq!(all_files(&folder(&lake)), files);

    let without = std::fs::read_to_string(lake.log_file(0)).unwrap();
    let without: Vec<&str> = without.lines().filter(|line| !line.contains("\"txn\":")).collect();
    for version in 1..3 {
        std::fs::remove_file(lake.log_file(version)).unwrap();
    }
    std::fs::write(lake.log_file(0), without.join("\n")).unwrap();
    let error = Eraser::open(&lake.location, PATH, Patience::none()).await.err().unwrap();
    assert!(matches!(error, LakeError::NotLakebed { .. }), "{error}");
}
