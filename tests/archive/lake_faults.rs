//! R1, R4: what somebody did to the lake's files or to its log is noticed, before the drop and years after it.

use super::{EVENTS, archived, audit, audited, detached, folder, is_there, only_file, outcomes, reconcile};
use crate::support::Site;
use deltalake::arrow::array::{ArrayRef, RecordBatch, StringArray};
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The entries of the events' log, by version.
fn entries(site: &Site) -> Vec<PathBuf> {
    entries_of(&site.lake().join("security_event"))
}

fn last_entry(table: &Path) -> PathBuf {
    entries_of(table).pop().unwrap()
}

fn entries_of(table: &Path) -> Vec<PathBuf> {
    let log = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<PathBuf> =
        log.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    entries.sort();
    entries
}

/// The add action of a file, and the entry that has it.
pub fn add_of(site: &Site, file: &Path) -> (PathBuf, Value) {
    let name = file.file_name().unwrap().to_str().unwrap();
    for entry in entries(site) {
        for line in std::fs::read_to_string(&entry).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["add"]["path"].as_str().is_some_and(|path| path.ends_with(name)) {
                return (entry, line["add"].clone());
            }
        }
    }
    panic!("no entry names {name}")
}

/// One more entry, by a program that is not ours.
pub fn commit(site: &Site, action: &Value) {
    commit_to(&site.lake().join("security_event"), action);
}

fn commit_to(table: &Path, action: &Value) {
    let last = last_entry(table);
    let version: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let info = json!({ "commitInfo": { "timestamp": 0, "operation": "WRITE", "engineInfo": "somebody else" } });
    std::fs::write(last.with_file_name(format!("{:020}.json", version + 1)), format!("{info}\n{action}\n")).unwrap();
}

/// Another description in the first row of a file, with the log's size made to fit.
pub fn tamper(site: &Site, file: &Path) {
    let (entry, add) = add_of(site, file);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let rows = &batches[0];
    let (index, field) =
        rows.schema().column_with_name("description").map(|(index, field)| (index, field.clone())).unwrap();
    let texts = (0..rows.num_rows()).map(|row| if row == 0 { "tampered" } else { "made by a test" });
    let mut columns = rows.columns().to_vec();
    columns[index] = Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
    assert_eq!(field.name(), "description");
    let changed = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), rows.schema(), None).unwrap();
    writer.write(&changed).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(file).unwrap().len();
    let text = std::fs::read_to_string(&entry).unwrap();
    let old = add["size"].as_u64().unwrap();
    let lines = text.lines().map(|line| match line.contains(file.file_name().unwrap().to_str().unwrap()) {
        true => line.replace(&format!("\"size\":{old}"), &format!("\"size\":{size}")),
        false => line.to_owned(),
    });
    std::fs::write(&entry, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn r1_rows_that_were_changed_doubled_or_added_in_the_lake_keep_the_table() {
    let (site, run) = archived().await;
    let run = run.allowing(&["another program removed rows"]);
    // Everything is in the lake once a cut was taken.
    reconcile(&site, &["--dry-run", "--table", EVENTS]).await.0.succeeded();
    let [changed, doubled, strange] = [7, 8, 9].map(|day| detached(&site, day));
    let (changed, doubled, strange) = (changed.await, doubled.await, strange.await);
    tamper(&site, &only_file(&folder(&site, 7).await));
    let file = only_file(&folder(&site, 8).await);
    let copy = file.with_file_name("part-copy.parquet");
    std::fs::copy(&file, &copy).unwrap();
    let (_, mut add) = add_of(&site, &file);
    add["path"] =
        json!(add["path"].as_str().unwrap().replace(file.file_name().unwrap().to_str().unwrap(), "part-copy.parquet"));
    commit(&site, &json!({ "add": add }));
    // A day's file that is also said to be another day's.
    let other = only_file(&folder(&site, 9).await).with_file_name("part-other.parquet");
    std::fs::copy(&file, &other).unwrap();
    let (_, mut moved) = add_of(&site, &only_file_beside(&folder(&site, 9).await, &other));
    moved["path"] =
        json!(moved["path"].as_str().unwrap().rsplit_once('/').unwrap().0.to_owned() + "/part-other.parquet");
    moved["size"] = json!(std::fs::metadata(&other).unwrap().len());
    commit(&site, &json!({ "add": moved }));

    let (finished, report) = reconcile(&site, &["--table", EVENTS]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    let mut differing = outcomes(&report, "differs");
    differing.sort_unstable();
    let mut expected = [changed.as_str(), &doubled, &strange];
    expected.sort_unstable();
    assert_eq!(differing, expected, "{report}");
    let narrowed = |table: &str| {
        let mut partitions = report["partitions"].as_array().unwrap().iter();
        partitions.find(|partition| partition["partition"] == table).unwrap()["narrowed"].clone()
    };
    assert_eq!(narrowed(&changed)["different"]["total"], 1, "{report}");
    assert_eq!(narrowed(&changed)["columns"], json!(["description"]), "{report}");
    assert_eq!(narrowed(&doubled)["doubled"]["total"], 20, "{report}");
    assert_eq!(narrowed(&strange)["extra"]["total"], 20, "{report}");
    assert!(!report.to_string().contains("tampered"), "no value of a row is told");

    // What is mended is dropped.
    let (_, add) = add_of(&site, &copy);
    commit(&site, &json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 0 } }));
    let (finished, report) = reconcile(&site, &["--table", &doubled]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [doubled.as_str()], "{report}");
    assert!(is_there(&site, &changed).await && is_there(&site, &strange).await);
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

fn only_file_beside(folder: &Path, other: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|file| file != other).unwrap()
}

#[tokio::test]
async fn r4_an_audit_years_later_names_each_file_that_is_missing_or_altered() {
    let (site, run) = archived().await;
    reconcile(&site, &[]).await.0.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    // The lake proves itself: PostgreSQL is gone.
    let elsewhere = site.pipeline_text().render().replace(&format!(":{}/", site.cluster.port()), ":1/");
    std::fs::write(site.pipeline_file(), elsewhere).unwrap();
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], Value::Null, "{report}");
    for more in [&["--cold"][..], &["--sample", "2"]] {
        let (finished, report) = audit(&site, more).await;
        finished.succeeded();
        let days = report["days"].as_array().unwrap();
        assert!(
            if more.len() == 2 { days.len() == 2 } else { days.iter().all(|day| day["lake"].is_null()) },
            "{report}"
        );
    }
    let [missing, altered, tampered] = [7, 8, 9].map(|day| folder(&site, day));
    let (missing, altered) = (only_file(&missing.await), only_file(&altered.await));
    let kept = std::fs::read(&altered).unwrap();
    std::fs::remove_file(&missing).unwrap();
    let mut bytes = kept.clone();
    // A byte that no reader looks at, in the magic number at the beginning.
    bytes[3] = b'2';
    std::fs::write(&altered, &bytes).unwrap();
    tamper(&site, &only_file(&tampered.await));
    let (finished, report) = audit(&site, &["--table", EVENTS]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert!(wrong(&site, &report, 7).await.contains("is missing"), "{report}");
    let altered = wrong(&site, &report, 8).await;
    assert!(altered.contains("was altered: it has another SHA-256 than its receipt says"), "{report}");
    assert!(wrong(&site, &report, 9).await.contains("was altered"), "{report}");
    let (finished, report) = audit(&site, &["--cold"]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert!(wrong(&site, &report, 7).await.contains("is missing"), "{report}");
    // Rows that somebody took out of the log are not missed by their files.
    let (_, add) = add_of(&site, &only_file(&folder(&site, 9).await));
    commit(&site, &json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 0 } }));
    let (_, report) = audit(&site, &["--cold"]).await;
    assert_eq!(audited(&site, &report, 9).await["outcome"], "unknown", "{report}");
    // A lake that is gone, and a chain whose end was taken out, are told.
    let receipts = site.lake().join("_lakebed/receipts");
    let newest = last_entry(&receipts);
    let text = std::fs::read_to_string(&newest).unwrap();
    let path = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["add"]["path"].as_str().map(str::to_owned))
        .next()
        .unwrap();
    commit_to(&receipts, &json!({ "remove": { "path": path, "dataChange": true, "deletionTimestamp": 0 } }));
    let (finished, report) = audit(&site, &["--sample", "1"]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert!(report["chain"]["faults"].to_string().contains("were there and are gone"), "{report}");
    std::fs::remove_dir_all(site.lake().join("security_event")).unwrap();
    let (finished, report) = audit(&site, &["--cold"]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    site.cluster.stop().await;
}

/// Why the events of so many days ago are not good.
async fn wrong(site: &Site, report: &Value, days_ago: i32) -> String {
    let found = audited(site, report, days_ago).await;
    assert_eq!(found["outcome"], "differs", "{found}");
    found["reasons"].to_string()
}
