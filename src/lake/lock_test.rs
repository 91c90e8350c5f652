//! L3: one operation a table at a time, whoever dies, whatever the store loses.

use super::fixtures::{Fault, Lake, PATH, Request, day, events, lsn, progress, security_event};
use super::lock::Holder;
use super::{
    LakeError, LakeLocation, LakeTable, Patience, TableLock, TableWriter, WriterOptions, open_for_query, remove_orphans,
};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(600);

async fn table(location: &LakeLocation) -> LakeTable {
    LakeTable::create(location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

/// A process of its own, with a lease that no test outlives.
fn process() -> Holder {
    Holder::of(Uuid::new_v4(), "rewrite", LONG)
}

/// One that is followed as soon as it is looked at.
fn fleeting() -> Holder {
    Holder::of(Uuid::new_v4(), "rewrite", Duration::ZERO)
}

/// The numbers of the lock's objects, and what the newest says.
fn objects(lake: &Lake) -> (Vec<String>, String) {
    let folder = lake.folder.path().join(PATH).join("_lakebed/lock");
    // Whoever renews the lock beside us may have removed the newest of a moment ago.
    let (names, newest) = loop {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        match std::fs::read_to_string(folder.join(names.last().unwrap())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            newest => break (names, newest.unwrap()),
        }
    };
    let content: serde_json::Value = serde_json::from_str(&newest).unwrap();
    (names, content["state"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn l3_two_processes_never_hold_the_lock_at_once() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let first = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    let refused = TableLock::acquire_as(&table, process(), &Patience::none()).await.err().unwrap();
    assert!(matches!(&refused, LakeError::LockHeld { what, .. } if what == "rewrite"), "{refused}");
    let here = format!("process {}", std::process::id());
    assert!(refused.to_string().contains(&here), "{refused}");
    first.release().await;
    assert_eq!(
        objects(&lake),
        (vec!["0000000000000001.json".to_owned(), "0000000000000002.json".to_owned()], "released".to_owned())
    );
    let second = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    second.still_held(&Patience::none()).await.unwrap();
}

#[tokio::test]
async fn tasks_of_one_process_exclude_each_other_and_a_dropped_lock_is_free_for_them() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let rewriting = TableLock::acquire(&table, "rewrite", &Patience::none()).await.unwrap();
    assert!(TableLock::acquire(&table, "compact", &Patience::none()).await.is_err());
    drop(rewriting);
    let refused = TableLock::acquire_as(&table, process(), &Patience::none()).await;
    assert!(refused.is_err(), "another process cannot know before the lease has passed");
    TableLock::acquire(&table, "compact", &Patience::none()).await.unwrap();
}

#[tokio::test]
async fn a_dead_holder_is_followed_when_its_lease_has_passed() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    std::mem::forget(TableLock::acquire_as(&table, fleeting(), &Patience::none()).await.unwrap());
    TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap().release().await;
}

#[tokio::test]
async fn a_holder_that_was_followed_is_told_before_its_commit() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let slow = TableLock::acquire_as(&table, fleeting(), &Patience::none()).await.unwrap();
    slow.renew(&Patience::none()).await.unwrap();
    let next = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    assert!(matches!(slow.renew(&Patience::none()).await, Err(LakeError::LockLost { .. })));
    assert!(matches!(slow.still_held(&Patience::none()).await, Err(LakeError::LockLost { .. })));
    slow.release().await;
    next.still_held(&Patience::none()).await.unwrap();
}

/// Its number was free again, because the objects of those that followed were removed.
#[tokio::test]
async fn an_object_below_the_newest_counts_for_nothing() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let slow = TableLock::acquire_as(&table, fleeting(), &Patience::none()).await.unwrap();
    for _ in 0..3 {
        TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap().release().await;
    }
    let last = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    assert_eq!(objects(&lake).0, ["0000000000000007.json", "0000000000000008.json"]);
    assert!(matches!(slow.renew(&Patience::none()).await, Err(LakeError::LockLost { .. })));
    assert_eq!(objects(&lake).0, ["0000000000000007.json", "0000000000000008.json"]);
    last.still_held(&Patience::none()).await.unwrap();
}

#[tokio::test]
async fn of_those_who_race_exactly_one_wins() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let patience = Patience::none();
    for _ in 0..20 {
        let racers = (0..8).map(|_| TableLock::acquire_as(&table, process(), &patience));
        let outcomes = futures::future::join_all(racers).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for lock in won.into_iter().flatten() {
            lock.release().await;
        }
    }
}

#[tokio::test]
async fn a_waiting_process_gets_the_lock_when_it_is_given_back() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let (_give_up, given_up) = watch::channel(false);
    let first = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    let patience = Patience::until(given_up);
    let (second, ()) = futures::join!(TableLock::acquire_as(&table, process(), &patience), first.release());
    second.unwrap().still_held(&Patience::none()).await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_when_its_owner_gives_up() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let _first = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    let (give_up, given_up) = watch::channel(false);
    let patience = Patience::until(given_up.clone());
    let (second, ()) = futures::join!(TableLock::acquire_as(&table, process(), &patience), async {
        give_up.send_replace(true);
    });
    assert!(matches!(second, Err(LakeError::LockHeld { .. })));
    give_up.send_replace(false);
    let bounded = Patience::until(given_up).at_most(Duration::ZERO);
    assert!(matches!(TableLock::acquire_as(&table, process(), &bounded).await, Err(LakeError::LockHeld { .. })));
}

#[tokio::test]
async fn an_outage_is_waited_out_and_a_lost_answer_is_no_other_holder() {
    let lake = Lake::new();
    drop(table(&lake.location).await);
    let (location, store) = lake.with_script(&[]);
    let table = LakeTable::open(&location, PATH, &security_event(), &progress()).await.unwrap();
    let (_give_up, given_up) = watch::channel(false);
    let patience = Patience::until(given_up);
    store.expect(Request::List, &[Fault::Reject]);
    store.expect(Request::PutData, &[Fault::Reject, Fault::FailAfterWrite]);
    let lock = TableLock::acquire_as(&table, fleeting(), &patience).await.unwrap();
    assert_eq!(store.left(), 0);
    store.expect(Request::PutData, &[Fault::FailAfterWrite]);
    store.expect(Request::List, &[Fault::Reject]);
    lock.renew(&patience).await.unwrap();
    lock.still_held(&patience).await.unwrap();
    assert_eq!(store.left(), 0);
    store.expect(Request::PutData, &[Fault::Deny]);
    assert!(matches!(lock.renew(&patience).await, Err(LakeError::Store { .. })), "a definite error is not waited for");
}

#[tokio::test]
async fn tables_readers_and_the_search_for_orphans_pass_over_the_lock() {
    let lake = Lake::new();
    let mut table = table(&lake.location).await;
    let lock = TableLock::acquire(&table, "rewrite", &Patience::none()).await.unwrap();
    let mut writer = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
    writer.write(events(day(1), 0, 5)).await.unwrap();
    let files = writer.finish().await.unwrap();
    table.commit(&files, lsn(2)).await.unwrap();
    assert!(remove_orphans(&table).await.unwrap().is_empty());
    let handle = open_for_query(&lake.location, PATH).await.unwrap();
    let (_, metrics) = handle
        .vacuum()
        .with_mode(deltalake::operations::vacuum::VacuumMode::Full)
        .with_retention_period(chrono::Duration::zero())
        .with_enforce_retention_duration(false)
        .with_dry_run(true)
        .await
        .unwrap();
    assert!(metrics.files_deleted.iter().all(|path| !path.contains("_lakebed")), "{:?}", metrics.files_deleted);
    assert_eq!(objects(&lake).1, "held");
    lock.release().await;
}

/// A renewal whose answer was lost is the holder's own, and one that was cut off does not stand in the way of giving back.
#[tokio::test]
async fn a_renewal_that_nobody_knows_of_is_the_holders_own() {
    let lake = Lake::new();
    drop(table(&lake.location).await);
    let (location, store) = lake.with_script(&[]);
    let table = LakeTable::open(&location, PATH, &security_event(), &progress()).await.unwrap();
    let lock = TableLock::acquire_as(&table, process(), &Patience::none()).await.unwrap();
    store.expect(Request::PutData, &[Fault::FailAfterWrite]);
    assert!(lock.renew(&Patience::none()).await.is_err());
    lock.still_held(&Patience::none()).await.unwrap();
    store.expect(Request::PutData, &[Fault::FailAfterWrite]);
    assert!(lock.renew(&Patience::none()).await.is_err());
    lock.release().await;
    assert_eq!(
        objects(&lake),
        (vec!["0000000000000003.json".to_owned(), "0000000000000004.json".to_owned()], "released".to_owned())
    );
}

#[tokio::test]
async fn a_lock_is_renewed_beside_the_work_under_it() {
    let lake = Lake::new();
    let table = table(&lake.location).await;
    let brief = Holder::of(Uuid::new_v4(), "rewrite", Duration::from_millis(30));
    let lock = TableLock::acquire_as(&table, brief, &Patience::none()).await.unwrap().kept();
    let renewed = async {
        while objects(&lake).0.last().unwrap() < &"0000000000000004.json".to_owned() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap();
    lock.still_held(&Patience::none()).await.unwrap();
    lock.release().await;
    assert_eq!(objects(&lake).1, "released");
}
