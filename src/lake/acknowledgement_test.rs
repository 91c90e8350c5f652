//! The record of what a slot was told: the newest name counts, and nothing older can hide it.

use super::fixtures::{Fault, Lake, Request, lsn};
use super::{Acknowledgement, Acknowledgements, LakeError, Patience};
use crate::base::{Classify, RetryClass};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use tokio::sync::watch;

fn record(position: u64) -> Acknowledgement {
    Acknowledgement {
        system_identifier: "7412".to_owned(),
        timeline: 3,
        acknowledged: lsn(position),
        tables: BTreeMap::from([("public.security_event".to_owned(), lsn(position + 1))]),
        recorded_at: DateTime::<Utc>::from_timestamp(1_767_225_600, 250_000_000).unwrap(),
    }
}

fn names(lake: &Lake, slot: &str) -> Vec<String> {
    let folder = lake.folder.path().join("_lakebed/acknowledged").join(slot);
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    names
}

async fn newest(lake: &Lake) -> Option<Acknowledgement> {
    Acknowledgements::open(&lake.location, "lakebed").await.unwrap().1
}

#[tokio::test]
async fn the_newest_record_is_read_back_whole_and_stands_alone() {
    let lake = Lake::new();
    let (mut records, found) = Acknowledgements::open(&lake.location, "lakebed").await.unwrap();
    assert_eq!(found, None);
    for position in [0x10, 0x20, 0xABC] {
        records.write(&record(position), &Patience::none()).await.unwrap();
        assert_eq!(newest(&lake).await, Some(record(position)));
    }
    assert_eq!(names(&lake, "lakebed"), ["0000000000000ABC.json"]);
    let again = Acknowledgement { timeline: 4, ..record(0xABC) };
    records.write(&again, &Patience::none()).await.unwrap();
    assert_eq!(newest(&lake).await, Some(again));
}

#[tokio::test]
async fn a_lower_position_counts_for_nothing_whoever_writes_it() {
    let lake = Lake::new();
    let (mut zombie, _) = Acknowledgements::open(&lake.location, "lakebed").await.unwrap();
    let (mut records, _) = Acknowledgements::open(&lake.location, "lakebed").await.unwrap();
    records.write(&record(0x20), &Patience::none()).await.unwrap();
    records.write(&record(0x10), &Patience::none()).await.unwrap();
    assert_eq!(names(&lake, "lakebed"), ["0000000000000020.json"], "the lower one was not written");
    zombie.write(&record(0x18), &Patience::none()).await.unwrap();
    assert_eq!(newest(&lake).await, Some(record(0x20)));
    // Whoever writes next takes the zombie's away.
    let (mut records, _) = Acknowledgements::open(&lake.location, "lakebed").await.unwrap();
    records.write(&record(0x30), &Patience::none()).await.unwrap();
    assert_eq!(names(&lake, "lakebed"), ["0000000000000030.json"]);
}

#[tokio::test]
async fn an_unreadable_newest_record_is_a_definite_error_and_no_reason_to_take_an_older_one() {
    let lake = Lake::new();
    let (mut records, _) = Acknowledgements::open(&lake.location, "lakebed").await.unwrap();
    records.write(&record(0x10), &Patience::none()).await.unwrap();
    let folder = lake.folder.path().join("_lakebed/acknowledged/lakebed");
    let whole = std::fs::read_to_string(folder.join("0000000000000010.json")).unwrap();
    for torn in ["", "{", "{}", &whole] {
        std::fs::write(folder.join("0000000000000020.json"), torn).unwrap();
        let error = Acknowledgements::open(&lake.location, "lakebed").await.err().unwrap();
        assert_eq!(error.retry_class(), RetryClass::Definite);
        let text = error.to_string();
        assert!(text.contains("0000000000000020.json is not a record of 0/20; restore it"), "{text}");
    }
    std::fs::remove_file(folder.join("0000000000000020.json")).unwrap();
    // What is not a record's name is not a record.
    std::fs::write(folder.join("FFFF.json"), "").unwrap();
    std::fs::write(folder.join("ffffffffffffffff.json"), "").unwrap();
    assert_eq!(newest(&lake).await, Some(record(0x10)));
}

#[tokio::test]
async fn slots_are_kept_apart_whatever_their_names_are() {
    let lake = Lake::new();
    for (number, slot) in (1..).zip(["a", "a/b", "..", "a b%2F"]) {
        let (mut records, found) = Acknowledgements::open(&lake.location, slot).await.unwrap();
        assert_eq!(found, None, "{slot}");
        records.write(&record(number), &Patience::none()).await.unwrap();
    }
    for (number, slot) in (1..).zip(["a", "a/b", "..", "a b%2F"]) {
        let (_, found) = Acknowledgements::open(&lake.location, slot).await.unwrap();
        assert_eq!(found, Some(record(number)), "{slot}");
    }
    assert_eq!(std::fs::read_dir(lake.folder.path().join("_lakebed/acknowledged")).unwrap().count(), 4);
}

#[tokio::test]
async fn a_record_is_written_once_the_store_works_again() {
    let lake = Lake::new();
    let (location, store) =
        lake.with_script(&[(Request::PutData, Fault::Reject), (Request::PutData, Fault::FailAfterWrite)]);
    let (mut records, _) = Acknowledgements::open(&location, "lakebed").await.unwrap();
    let (_owner, given_up) = watch::channel(false);
    records.write(&record(0x10), &Patience::until(given_up)).await.unwrap();
    assert_eq!((newest(&lake).await, store.left()), (Some(record(0x10)), 0));
    store.expect(Request::PutData, &[Fault::Reject]);
    let error = records.write(&record(0x20), &Patience::none()).await.unwrap_err();
    assert!(matches!(error, LakeError::Store { .. }), "{error}");
    assert_eq!(newest(&lake).await, Some(record(0x10)));
    records.write(&record(0x20), &Patience::none()).await.unwrap();
}
