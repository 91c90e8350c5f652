//! Every definite error that a person can bring about says what to do and ends `run` with code 1, and refuses before it harms
//! anything: what is put right is followed on. Cases share a server. That every error has a remedy at all is tested beside them.

use crate::support::s3::{self, BUCKET, S3};
use crate::support::{DATABASE, PipelineText, Site, assert_lake_equals_source, lakebed_under_permissions};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const RUN: [&str; 2] = ["run", "--until-caught-up"];
const DROP_SLOT: &str = "SELECT pg_drop_replication_slot('lakebed')";
const CREATE_SLOT: &str = "SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput')";

async fn refused(site: &Site, words: &[&str]) {
    site.lakebed(&RUN).await.refused(1, words);
}

async fn no_slot(site: &Site) {
    site.wait_for("SELECT count(*) = 0 FROM pg_replication_slots").await;
}

#[tokio::test]
async fn a_source_that_changed_is_refused_with_its_remedy() {
    let site = Site::small().await;
    site.init().await;
    a_column_becomes_what_no_lake_column_can_be(&site).await;
    a_slot_of_another_kind(&site).await;
    a_slot_that_was_made_again(&site).await;
    a_slot_that_was_lost(&site).await;
    site.sql("DROP TABLE public.security_event_hook_results CASCADE").await;
    refused(&site, &["public.security_event_hook_results", "does not exist", "correct name in [[table]]"]).await;
    site.cluster.stop().await;
}

/// Under a running pipeline, and before the next start.
async fn a_column_becomes_what_no_lake_column_can_be(site: &Site) {
    let run = site.start_run();
    site.insert_events(2, 1).await;
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    site.sql("ALTER TABLE public.security_event ALTER COLUMN user_agent TYPE bytea USING NULL").await;
    site.insert_events(2, 1).await;
    let differs = ["differs from public.security_event in user_agent (string instead of binary)", "lake_columns = {"];
    run.ended().await.refused(1, &differs);
    refused(site, &[differs[0], differs[1], "move the Delta table away or choose another [lake].url"]).await;
    site.sql("ALTER TABLE public.security_event ALTER COLUMN user_agent TYPE text USING NULL").await;
}

async fn a_slot_of_another_kind(site: &Site) {
    let remedy = "or remove it: SELECT pg_drop_replication_slot('lakebed')";
    site.sql(DROP_SLOT).await;
    for (database, create, what) in [
        ("postgres", CREATE_SLOT, "belongs to database postgres, not idpserver"),
        (DATABASE, "SELECT pg_create_physical_replication_slot('lakebed')", "is a physical slot"),
        (
            DATABASE,
            "SELECT pg_create_logical_replication_slot('lakebed', 'test_decoding')",
            "uses plugin test_decoding",
        ),
        (
            DATABASE,
            "SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput', false, true)",
            "has two_phase on, which lakebed does not follow",
        ),
    ] {
        site.cluster.execute(database, create).await.unwrap();
        refused(site, &["slot lakebed", what, "choose another name in [source] slot", remedy]).await;
        site.sql(DROP_SLOT).await;
    }
    let session = site.cluster.connect(DATABASE).await.unwrap();
    session.execute("SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput', true)").await.unwrap();
    refused(site, &["slot lakebed is temporary and ends with its session", remedy]).await;
    drop(session);
    no_slot(site).await;
}

async fn a_slot_that_was_made_again(site: &Site) {
    site.insert_events(2, 1).await;
    site.sql(CREATE_SLOT).await;
    let confirmed = site.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
    let words = ["replication slot \"lakebed\" stands at", &confirmed, "dropped and made again by hand"];
    refused(site, &[words[0], words[1], words[2], "accept that gap with `lakebed init --from-now`"]).await;
}

async fn a_slot_that_was_lost(site: &Site) {
    lose_the_slot(site).await;
    let words = ["slot lakebed is lost", "gone from the server", "SELECT pg_drop_replication_slot('lakebed')"];
    refused(site, &[words[0], words[1], words[2], "accept the gap with lakebed init --from-now"]).await;
}

async fn lose_the_slot(site: &Site) {
    for (name, value) in [("max_slot_wal_keep_size", "1MB"), ("wal_keep_size", "0")] {
        site.sql(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    site.sql("SELECT pg_reload_conf()").await;
    for _ in 0..4 {
        site.sql("SELECT pg_logical_emit_message(false, 'noise', 'x'), pg_switch_wal()").await;
    }
    site.sql("CHECKPOINT").await;
    site.wait_for("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
}

/// A row that waits for its hour pins the WAL; the server ends the connection when it takes the slot's WAL away.
#[tokio::test]
async fn a_slot_that_is_lost_under_a_running_pipeline_ends_it_with_its_remedy() {
    let site = Site::small().await;
    site.write_pipeline(&PipelineText { max_age: "1h", ..site.pipeline_text() });
    site.init().await;
    let run = site.start_run();
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    site.insert_events(1, 1).await;
    site.wait_for("SELECT sent_lsn >= pg_current_wal_lsn() FROM pg_stat_replication").await;
    lose_the_slot(&site).await;
    let run = run.ended().await.allowing(&["not following for now", "comes near its loss"]);
    run.refused(1, &["slot lakebed is lost", "accept the gap with lakebed init --from-now"]);
    site.cluster.stop().await;
}

/// A lake, as it is and as it was.
struct Copies {
    lake: PathBuf,
    good: PathBuf,
    old: PathBuf,
}

impl Copies {
    /// Puts a folder of a copy, or all of it, in the place of the lake's own.
    fn put(&self, copy: &Path, folder: &str) {
        std::fs::remove_dir_all(self.lake.join(folder)).unwrap();
        copy_folder(&copy.join(folder), &self.lake.join(folder));
    }

    fn put_right(&self) {
        self.put(&self.good, "");
    }

    fn log(&self) -> PathBuf {
        self.lake.join("security_event/_delta_log")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_lake_that_is_not_as_it_was_left_is_refused_with_its_remedy() {
    let site = Site::small().await;
    site.init().await;
    let beside = |name: &str| site.folder().join(name);
    let copies = Copies { lake: site.lake(), good: beside("good"), old: beside("old") };
    for copy in [&copies.old, &copies.good] {
        site.insert_events(3, 1).await;
        site.run_until_caught_up().await;
        copy_folder(&copies.lake, copy);
    }
    older_copies(&site, &copies).await;
    changed_tables(&site, &copies).await;
    changed_logs(&site, &copies).await;
    unusable_folders(&site, &copies).await;
    another_pipeline(&site).await;
    another_system(&site).await;
    unusable_buckets(&site).await;
    site.write_pipeline(&site.pipeline_text());
    site.insert_events(3, 1).await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, "public.security_event", "created_at", "day").await, 9);
    site.cluster.stop().await;
}

async fn older_copies(site: &Site, copies: &Copies) {
    let accept = "accept that gap with `lakebed init --from-now`";
    copies.put(&copies.old, "security_event");
    let words = ["the lake table of public.security_event is recorded", "restored from an older copy"];
    refused(site, &[words[0], words[1], "put the newer copy back", accept]).await;
    copies.put(&copies.old, "");
    let words = ["replication slot \"lakebed\" stands at", "the lake was restored from an older copy"];
    refused(site, &[words[0], words[1], "put the newer copy of the lake back", accept]).await;
    copies.put_right();
    let records = copies.lake.join("_lakebed/acknowledged/lakebed");
    for entry in std::fs::read_dir(&records).unwrap() {
        std::fs::write(entry.unwrap().path(), "{\"acknowl").unwrap();
    }
    refused(site, &["the record at", "_lakebed/acknowledged", "cannot be read", "restore it"]).await;
    std::fs::remove_dir_all(&records).unwrap();
    refused(site, &["no record of what slot \"lakebed\" has acknowledged", "run `lakebed init`"]).await;
    copies.put_right();
}

/// What another program put on top of the log.
async fn changed_tables(site: &Site, copies: &Copies) {
    let features = json!(["deletionVectors"]);
    let protocol = json!({"protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features,
    }});
    let mut expiring = action(&copies.log(), "metaData");
    expiring["metaData"]["configuration"]["delta.setTransactionRetentionDuration"] = json!("interval 7 days");
    let cases: [(Value, [&str; 3]); 2] = [
        (protocol, ["reader version 3", "deletionVectors", "move the table away or choose another [lake].url"]),
        (
            expiring,
            [
                "security_event sets delta.setTransactionRetentionDuration",
                "would be written twice",
                "UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')",
            ],
        ),
    ];
    for (action, words) in cases {
        let next = std::fs::read_dir(copies.log()).unwrap().count();
        std::fs::write(copies.log().join(format!("{next:020}.json")), format!("{action}\n")).unwrap();
        refused(site, &words).await;
        copies.put_right();
    }
}

/// The first action of the kind in version 0.
fn action(log: &Path, kind: &str) -> Value {
    let text = std::fs::read_to_string(log.join(format!("{:020}.json", 0))).unwrap();
    let mut actions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    actions.find(|action| !action[kind].is_null()).unwrap()
}

async fn changed_logs(site: &Site, copies: &Copies) {
    let entries = std::fs::read_dir(copies.log()).unwrap().map(|entry| entry.unwrap().path());
    for entry in entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let text = std::fs::read_to_string(&entry).unwrap();
        let kept: String =
            text.lines().filter(|line| !line.starts_with("{\"txn\"")).map(|line| line.to_owned() + "\n").collect();
        assert!(kept != text || text.contains("{\"metaData\""), "every commit of rows records a position");
        std::fs::write(&entry, kept).unwrap();
    }
    refused(site, &["security_event was not written by lakebed", "choose another [lake].url or move it away"]).await;
    copies.put_right();

    std::fs::remove_file(copies.log().join(format!("{:020}.json", 1))).unwrap();
    refused(site, &["the Delta log at", "security_event", "cannot be read", "restore it or move the table away"]).await;
    std::fs::remove_dir_all(copies.lake.join("security_event")).unwrap();
    refused(site, &["there is no Delta table at", "security_event", "`lakebed init --snapshot` creates it"]).await;
    copies.put_right();
}

async fn unusable_folders(site: &Site, copies: &Copies) {
    let table = copies.log();
    let denied = ["permission denied", "give lakebed's user read, write and delete rights there"];
    std::fs::set_permissions(&copies.lake, Permissions::from_mode(0o555)).unwrap();
    lakebed_under_permissions(&site.pipeline_file(), &RUN).await.refused(1, &["/lake", denied[0], denied[1]]);
    std::fs::set_permissions(&copies.lake, Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&table, Permissions::from_mode(0o000)).unwrap();
    let words = ["security_event", denied[0], denied[1]];
    lakebed_under_permissions(&site.pipeline_file(), &RUN).await.refused(1, &words);
    std::fs::set_permissions(&table, Permissions::from_mode(0o755)).unwrap();
}

async fn another_pipeline(site: &Site) {
    site.sql(&CREATE_SLOT.replace("lakebed", "other")).await;
    site.write_pipeline(&PipelineText { slot: "other".to_owned(), ..site.pipeline_text() });
    let words = ["security_event is fed by", "/lakebed/", "not by", "/other/"];
    refused(site, &[words[0], words[1], words[2], words[3], "give every pipeline its own [lake].url"]).await;
    site.sql(&DROP_SLOT.replace("lakebed", "other")).await;
}

async fn another_system(site: &Site) {
    const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";
    let other = Site::small().await;
    other.init().await;
    other.write_pipeline(&PipelineText { lake: site.pipeline_text().lake, ..other.pipeline_text() });
    let (here, there) = (site.value(SYSTEM).await, other.value(SYSTEM).await);
    let words = [&format!("the lake follows system {here}"), &format!("the server is system {there}")];
    let remedy = "connect [source].url to the server that goes with this lake";
    refused(&other, &[words[0], words[1], remedy, "or begin another lake with a slot of its own"]).await;
    let checked = other.lakebed(&["check"]).await;
    assert!(checked.code == Some(1) && checked.stdout.contains(words[0]), "{}", checked.stdout);
    other.cluster.stop().await;
}

async fn unusable_buckets(site: &Site) {
    let server = S3::start(&site.folder().join("s3")).await;
    let with = |name: &str, value: &str| {
        let mut options = s3::options(server.port());
        options.retain(|(option, _)| option != name);
        options.push((name.to_owned(), value.to_owned()));
        PipelineText { lake: format!("s3://{BUCKET}/lake"), options, ..site.pipeline_text() }
    };
    let (nowhere, _nowhere) = store_that_answers(NO_BUCKET).await;
    let (careless, _careless) = store_that_answers(TAKEN).await;
    let at = |port: u16| with("aws_endpoint", &format!("http://127.0.0.1:{port}"));
    for (text, code, remedy) in [
        (with("aws_secret_access_key", "canary-wrong"), 1, "give lakebed's user read, write and delete rights there"),
        (with("aws_access_key_id", "nobody"), 1, "give lakebed's user read, write and delete rights there"),
        (at(nowhere), 1, "it does not exist; create the bucket or folder, or correct [lake].url"),
        (at(careless), 1, "use a store with conditional writes"),
        (with("aws_conditional_put", "perhaps"), 2, "correct [lake].url or [lake.options]"),
    ] {
        site.write_pipeline(&text);
        let finished = site.lakebed(&RUN).await;
        assert!(!finished.stderr.contains("canary"), "{}", finished.stderr);
        finished.refused(code, &["s3://lake1/lake", remedy]);
    }
}

/// What S3 says of a bucket that is not there; SeaweedFS makes it instead.
const NO_BUCKET: (&str, &str) =
    ("404 Not Found", "<Error><Code>NoSuchBucket</Code><Message>no bucket</Message></Error>");
/// A store that knows nothing of conditions says this to every PUT.
const TAKEN: (&str, &str) = ("200 OK", "");

/// A store that gives every request the same answer, and its port.
async fn store_that_answers((status, body): (&'static str, &'static str)) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            read_request(&mut socket).await;
            let headers = "Connection: close\r\nETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT";
            let length = body.len();
            let response = format!("HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = socket.write_all(response.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    (port, answering)
}

async fn read_request(socket: &mut TcpStream) {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return;
            }
        }
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
