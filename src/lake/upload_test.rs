//! Uploads during an outage of the store: waited out with the same name and bytes, or given up.

use super::failing_store::Script;
use super::fixtures::{Lake, PATH, day, events, lsn, progress, security_event};
use super::{LakeTable, Patience, TableWriter, WriterOptions};
use crate::base::{Classify, RetryClass};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

async fn table(script: &Arc<Script>, lake: &Lake) -> LakeTable {
    LakeTable::create(&script.on(lake), PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

#[tokio::test]
async fn an_upload_waits_out_an_outage_under_one_name() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    let mut table = table(&script, &lake).await;
    let (_give_up, given_up) = watch::channel(false);
    let mut writer = TableWriter::new(&table, WriterOptions::default(), Patience::until(given_up)).unwrap();
    writer.write(events(day(1), 0, 100)).await.unwrap();
    script.rejected_puts.store(2, Ordering::Release);
    script.unanswered_puts.store(1, Ordering::Release);
    let files = writer.finish().await.unwrap();
    assert_eq!((files.len(), lake.data_files()), (1, 1));
    let name = files[0].path().rsplit('/').next().unwrap().to_owned();
    let puts = script.asked();
    assert!(puts.iter().filter(|asked| asked.starts_with("PUT part-")).all(|asked| asked.ends_with(&name)), "{puts:?}");
    assert!(puts.len() >= 4, "{puts:?}");
    table.commit(&files, lsn(2)).await.unwrap();
}

#[tokio::test]
async fn an_upload_ends_when_the_owner_gives_up() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    let table = table(&script, &lake).await;
    let (give_up, given_up) = watch::channel(false);
    let mut writer = TableWriter::new(&table, WriterOptions::default(), Patience::until(given_up)).unwrap();
    writer.write(events(day(1), 0, 100)).await.unwrap();
    script.rejected_puts.store(usize::MAX, Ordering::Release);
    let (outcome, ()) = futures::join!(writer.finish(), async {
        while script.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        give_up.send_replace(true);
    });
    assert_eq!(outcome.unwrap_err().retry_class(), RetryClass::Transient);
    assert!(writer.finish().await.is_err(), "a writer is broken after a failed call");
    writer.discard().await.unwrap();
}

#[tokio::test]
async fn another_writer_of_the_table_holds_nothing_of_the_first() {
    let (lake, script) = (Lake::new(), Arc::new(Script::default()));
    let table = table(&script, &lake).await;
    let mut first = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
    first.write(events(day(1), 0, 100)).await.unwrap();
    let mut second = first.another();
    assert_eq!(second.memory_bytes(), 0);
    assert!(second.finish().await.unwrap().is_empty());
    second.write(events(day(1), 100, 5)).await.unwrap();
    let (first, second) = (first.finish().await.unwrap(), second.finish().await.unwrap());
    assert_eq!((first[0].rows(), second[0].rows()), (100, 5));
    assert_ne!(first[0].path(), second[0].path());
}
