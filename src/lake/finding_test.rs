//! Findings are kept until somebody deals with them.

use super::fixtures::{Fault, Lake, Request, lsn};
use super::{Finding, FindingKind, LakeError, Patience, findings, record_finding};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

fn finding(kind: FindingKind, table: Option<&str>, position: u64) -> Finding {
    Finding {
        kind,
        table: table.map(str::to_owned),
        lsn: lsn(position),
        reason: "an UPDATE that nobody wanted".to_owned(),
        recorded_at: DateTime::<Utc>::from_timestamp(1_767_225_600, 0).unwrap(),
        recorded_by: "operator".to_owned(),
    }
}

#[tokio::test]
async fn findings_are_read_back_by_position_and_each_once() {
    let lake = Lake::new();
    assert_eq!(findings(&lake.location, "lakebed").await.unwrap(), []);
    let skipped = finding(FindingKind::Skipped, None, 0x30);
    let parked = finding(FindingKind::Parked, Some("public.a/b"), 0x20);
    let (location, store) =
        lake.with_script(&[(Request::PutData, Fault::Reject), (Request::PutData, Fault::FailAfterWrite)]);
    let (_owner, given_up) = watch::channel(false);
    record_finding(&location, "lakebed", &skipped, &Patience::until(given_up)).await.unwrap();
    assert_eq!(store.left(), 0);
    record_finding(&lake.location, "lakebed", &parked, &Patience::none()).await.unwrap();
    let again = Finding { reason: "again".to_owned(), ..skipped.clone() };
    record_finding(&lake.location, "lakebed", &again, &Patience::none()).await.unwrap();
    assert_eq!(findings(&lake.location, "lakebed").await.unwrap(), [parked, skipped]);
    assert_eq!(findings(&lake.location, "other").await.unwrap(), []);
    let folder = lake.folder.path().join("_lakebed/findings/lakebed");
    assert!(folder.join("skipped-0000000000000030.json").exists());
}

#[tokio::test]
async fn a_reason_is_one_line_and_an_unreadable_finding_is_an_error() {
    let lake = Lake::new();
    let wordy = Finding { reason: "two\nlines".to_owned(), ..finding(FindingKind::Skipped, None, 1) };
    record_finding(&lake.location, "lakebed", &wordy, &Patience::none()).await.unwrap();
    assert_eq!(findings(&lake.location, "lakebed").await.unwrap()[0].reason, "two lines");
    let torn = lake.folder.path().join("_lakebed/findings/lakebed/skipped-0000000000000002.json");
    std::fs::write(torn, "{").unwrap();
    let error = findings(&lake.location, "lakebed").await.unwrap_err();
    assert!(matches!(error, LakeError::Record { .. }), "{error}");
    assert!(error.to_string().contains("skipped-0000000000000002.json is not a finding; restore it"), "{error}");
}
