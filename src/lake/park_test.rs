//! Parking: a table says in its own log since when it stands still, whatever else is wrong with it.

use super::fixtures::{Fault, Lake, PATH, Request, column, imaginary_file, lsn, progress, security_event};
use super::{LakeError, LakeTable, Patience, Progress, table_days};
use crate::base::{Classify, ColumnType, RetryClass, TableShape};
use tokio::sync::watch;

async fn create(lake: &Lake) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

async fn open(lake: &Lake, shape: &TableShape) -> Result<LakeTable, LakeError> {
    LakeTable::open(&lake.location, PATH, shape, &progress()).await
}

fn other_shape() -> TableShape {
    let mut shape = security_event();
    // What was a text is a number now: no column of the lake can be both.
    shape.columns[2] = column("description", ColumnType::Int4, true);
    shape
}

#[tokio::test]
async fn a_parked_table_keeps_its_position_and_takes_no_rows() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap();
    assert_eq!(table.parked(), None);
    table.park(lsn(25), &Patience::none()).await.unwrap();
    table.park(lsn(99), &Patience::none()).await.unwrap();
    assert_eq!((table.parked(), table.recorded(), table.version()), (Some(lsn(25)), lsn(20), 2));
    let error = table.commit(&[imaginary_file(&lake, 2)], lsn(30)).await.unwrap_err();
    assert!(matches!(error, LakeError::Parked { .. }), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Definite);
    assert!(error.to_string().contains("is parked since 0/19: it takes no rows until"), "{error}");
    let table = open(&lake, &security_event()).await.unwrap();
    assert_eq!((table.parked(), table.recorded()), (Some(lsn(25)), lsn(20)));
    assert_eq!(table_days(&lake.location, PATH).await.unwrap()[0].rows, Some(1), "readers read on");
}

#[tokio::test]
async fn a_parked_table_opens_whatever_became_of_its_schema_but_not_for_another_pipeline() {
    let lake = Lake::new();
    create(&lake).await.park(lsn(1), &Patience::none()).await.unwrap();
    let other = Progress { pipeline: "second".to_owned(), ..progress() };
    let error = LakeTable::open(&lake.location, PATH, &security_event(), &other).await.err().unwrap();
    assert!(matches!(error, LakeError::ForeignProgress { .. }), "{error}");
    let upgrade = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#;
    lake.foreign_entry(2, &[upgrade]);
    assert_eq!(open(&lake, &other_shape()).await.unwrap().parked(), Some(lsn(1)));
}

#[tokio::test]
async fn version_0_says_that_a_table_is_not_parked_any_more() {
    let lake = Lake::new();
    create(&lake).await.park(lsn(5), &Patience::none()).await.unwrap();
    let back = format!(r#"{{"txn":{{"appId":"{}","version":0}}}}"#, progress().parked_app_id());
    lake.foreign_entry(2, &[&back]);
    let mut table = open(&lake, &security_event()).await.unwrap();
    assert_eq!(table.parked(), None);
    table.commit(&[], lsn(20)).await.unwrap();
    assert!(matches!(open(&lake, &other_shape()).await, Err(LakeError::SchemaDiffers { .. })));
}

#[tokio::test]
async fn a_table_that_the_source_does_not_fit_is_opened_to_be_parked_and_for_nothing_else() {
    let lake = Lake::new();
    create(&lake).await;
    assert!(matches!(open(&lake, &other_shape()).await, Err(LakeError::SchemaDiffers { .. })));
    let mut table = LakeTable::open_to_park(&lake.location, PATH, &progress()).await.unwrap();
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::Batch { .. }), "{error}");
    table.park(lsn(9), &Patience::none()).await.unwrap();
    assert_eq!(open(&lake, &other_shape()).await.unwrap().parked(), Some(lsn(9)));
    assert!(matches!(
        LakeTable::open_to_park(&Lake::new().location, PATH, &progress()).await,
        Err(LakeError::Missing { .. })
    ));
}

#[tokio::test]
async fn a_table_whose_landing_failed_is_parked_and_a_late_attempt_does_not_pass_it() {
    let lake = Lake::new();
    create(&lake).await;
    let (location, store) = lake.with_script(&[]);
    let mut table = LakeTable::open(&location, PATH, &security_event(), &progress()).await.unwrap();
    store.expect(Request::PutEntry, &[Fault::Late, Fault::Late, Fault::Deny]);
    table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    store.expect(Request::PutEntry, &[Fault::Reject, Fault::FailAfterWrite]);
    store.expect(Request::Get, &[Fault::Reject, Fault::Pass, Fault::Reject]);
    let (_owner, given_up) = watch::channel(false);
    table.park(lsn(20), &Patience::until(given_up)).await.unwrap();
    assert_eq!(store.land_late().await, 0);
    assert_eq!((table.parked(), table.version()), (Some(lsn(20)), 1));
}

#[tokio::test]
async fn a_table_that_was_parked_meanwhile_takes_no_rows() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    LakeTable::open_to_park(&lake.location, PATH, &progress())
        .await
        .unwrap()
        .park(lsn(7), &Patience::none())
        .await
        .unwrap();
    let error = table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::Parked { since, .. } if since == lsn(7)), "{error}");
}
