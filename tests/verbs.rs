//! The verbs as a person runs them: the real binary against a real PostgreSQL, judged by exit code, by what is printed,
//! and by what stands in catalogs and lake afterwards. Here are those that only look; `init` has a file of its own.

use crate::support::{DATABASE, Finished, NAME, PASSWORD, PipelineText, Site, lakebed};
use lakebed::demo::ClusterOptions;
use serde_json::{Value, json};

mod init;

/// Flushes everything into the lake, and waits until the server has noticed that the run is over.
async fn follow(site: &Site) {
    site.run_until_caught_up().await;
    site.wait_for(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{NAME}'")).await;
}

async fn query(site: &Site, arguments: &[&str]) -> Finished {
    site.lakebed(&[&["query"][..], arguments].concat()).await
}

/// The one value that the lake answers with.
async fn lake_value(site: &Site, sql: &str) -> String {
    let printed = query(site, &["--format", "csv", "-c", sql]).await.succeeded().stdout;
    printed.lines().nth(1).unwrap().to_owned()
}

/// Every run is searched for the pipeline's password; the administrator's has as little business in what is printed.
#[track_caller]
fn assert_no_secret(site: &Site, finished: &Finished) {
    for printed in [&finished.stdout, &finished.stderr] {
        assert!(!printed.contains(site.cluster.password()), "the administrator's password was printed");
    }
}

fn parsed(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
}

#[tokio::test]
async fn check_finds_nothing_wrong_with_a_healthy_site() {
    let site = Site::small().await;
    site.init().await;
    let cron = site.cluster.admin_url("postgres");
    let text = site.lakebed(&["check", "--cron-url", &cron]).await.succeeded();
    assert_no_secret(&site, &text);
    for beginning in [
        "ok       server       wal_level is logical",
        "ok       login        login lakebed may replicate",
        "ok       publication  publication lakebed sends every operation on 2 configured tables",
        "warning  slot         nobody follows slot lakebed",
        "ok       table        public.security_event: root, leaves and detached tables are readable for lakebed",
        "ok       partman      pg_partman ",
        "ok       lake         lake table of public.security_event_hook_results is recorded up to ",
        "ok       cron         partman's maintenance runs at \"0 2 * * *\" as idp",
        "0 errors, ",
    ] {
        let found = text.stdout.lines().any(|line| line.starts_with(beginning));
        assert!(found, "{beginning:?} is not in:\n{}", text.stdout);
    }

    let json = site.lakebed(&["check", "--json", "--cron-url", &cron]).await.succeeded();
    assert_no_secret(&site, &json);
    let report = parsed(&json);
    assert_eq!((&report["ok"], &report["errors"]), (&json!(true), &json!(0)));
    let findings = report["findings"].as_array().unwrap();
    for area in ["server", "login", "table", "publication", "slot", "lake", "partman", "cron"] {
        assert!(findings.iter().any(|finding| finding["area"] == area), "{area}");
    }
    assert_remedies(findings);
}

/// A remedy for everything that is not right, and for nothing else.
#[track_caller]
fn assert_remedies(findings: &[Value]) {
    for finding in findings {
        let right = finding["severity"] == "ok";
        assert!(finding["what"].is_string() && finding["remedy"].is_null() == right, "{finding}");
    }
}

#[tokio::test]
async fn check_names_the_remedy_and_never_the_password() {
    let options = ClusterOptions { wal_level_logical: false, ..ClusterOptions::default() };
    let site = Site::with_options(options).await;
    site.write_pipeline(&site.pipeline_text());
    let login = format!("CREATE ROLE {NAME} LOGIN PASSWORD '{PASSWORD}'");
    for sql in [format!("CREATE DATABASE {DATABASE}"), login] {
        site.cluster.execute("postgres", &sql).await.unwrap();
    }

    let text = site.lakebed(&["check"]).await;
    assert_eq!(text.code, Some(1), "{}", text.stdout);
    let error = "error    server       wal_level is replica\n";
    let remedy = format!("{:22}→ ALTER SYSTEM SET wal_level = 'logical', then restart the server\n", "");
    assert!(text.stdout.contains(&format!("{error}{remedy}")), "{}", text.stdout);
    let json = site.lakebed(&["check", "--json"]).await;
    assert_eq!(json.code, Some(1));
    let report = parsed(&json);
    let findings = report["findings"].as_array().unwrap();
    let errors = findings.iter().filter(|finding| finding["severity"] == "error").count();
    assert_eq!((&report["ok"], &report["errors"]), (&json!(false), &json!(errors)));
    assert_remedies(findings);
    let remedy = "ALTER SYSTEM SET wal_level = 'logical'";
    site.init_with(&[]).await.refused(1, &["wal_level is replica", remedy]);

    site.cluster.execute("postgres", &format!("ALTER ROLE {NAME} PASSWORD 'another'")).await.unwrap();
    for arguments in [&["check"][..], &["check", "--json"]] {
        let refused = site.lakebed(arguments).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.stdout.contains("refused the password of role"), "{}", refused.stdout);
    }
    let url = site.url().replace("sslmode=disable", "sslmode=sometimes");
    site.write_pipeline(&PipelineText { url, ..site.pipeline_text() });
    site.lakebed(&["check"]).await.refused(2, &["[source].url", "sslmode"]);
}

#[tokio::test]
async fn status_and_query_work_with_and_without_the_server() {
    let mut site = Site::small().await;
    site.init().await;
    site.insert_events(7, 2).await;
    follow(&site).await;
    let days = days_at_the_source(&site).await;
    assert_eq!(days.len(), 2);

    let text = site.lakebed(&["status"]).await.succeeded().stdout;
    assert!(text.contains("slot      lakebed, not in use\n"), "{text}");
    assert_one_line_a_day(&text, &days);
    let report = parsed(&site.lakebed(&["status", "--json"]).await.succeeded());
    let (server, slot, table) = (&report["server"], &report["slot"], &report["tables"][0]);
    assert_eq!((&server["reachable"], &server["error"]), (&json!(true), &Value::Null));
    assert_eq!((&slot["exists"], &slot["active"], &slot["holder"]), (&json!(true), &json!(false), &Value::Null));
    assert!(slot["lag_bytes"].is_u64() && slot["retained_bytes"].is_u64(), "{slot}");
    assert!(table["recorded_lsn"].is_string() && table["error"].is_null(), "{table}");
    assert_eq!((&table["rows"], days_of(table)), (&json!(7), days.clone()));
    assert_eq!((&report["tables"][1]["rows"], &report["tables"][1]["days"]), (&json!(0), &json!([])));

    site.cluster.kill_immediately().await;
    let text = site.lakebed(&["status"]).await;
    assert_eq!(text.code, Some(1));
    assert!(text.stdout.contains("slot      lakebed: unknown\n"), "{}", text.stdout);
    assert_one_line_a_day(&text.stdout, &days);
    let json = site.lakebed(&["status", "--json"]).await;
    assert_eq!(json.code, Some(1));
    let report = parsed(&json);
    let (server, table) = (&report["server"], &report["tables"][0]);
    assert_eq!((&server["reachable"], &report["slot"]["exists"]), (&json!(false), &Value::Null));
    assert!(server["error"].is_string() && table["recorded_lsn"].is_null() && table["error"].is_null(), "{report}");
    assert_eq!((&table["rows"], days_of(table)), (&json!(7), days));

    questions_are_answered(&site).await;
    what_is_no_question_is_refused(&site).await;
}

/// TRUNCATE of a single partition is not in the stream; the tables themselves tell. What is deleted through the root is gone from both.
#[tokio::test]
async fn d3_a_partition_that_was_emptied_alone_is_noticed_by_status() {
    let site = Site::small().await;
    site.init().await;
    site.insert_events(9, 3).await;
    follow(&site).await;
    let days = days_at_the_source(&site).await;
    let (emptied, deleted) = (&days[0].0, &days[1].0);
    site.sql(&format!("DELETE FROM public.security_event WHERE created_at::date = '{deleted}'")).await;
    follow(&site).await;
    let report = parsed(&site.lakebed(&["status", "--json"]).await.succeeded());
    assert_eq!((&report["tables"][0]["emptied"], &report["tables"][1]["journal"]), (&json!([]), &Value::Null));
    assert_eq!(report["tables"][0]["journal"]["rows"], json!(days[1].1));

    let of_the_day = format!("FROM public.security_event WHERE created_at::date = '{emptied}' LIMIT 1");
    let leaf = site.value(&format!("SELECT tableoid::regclass {of_the_day}")).await;
    site.sql(&format!("TRUNCATE {leaf}")).await;
    follow(&site).await;
    let status = site.lakebed(&["status", "--json"]).await;
    assert_eq!(parsed(&status.succeeded())["tables"][0]["emptied"], json!([emptied]));
    let text = site.lakebed(&["status"]).await.succeeded().stdout;
    assert!(text.contains(&format!("{emptied} holds rows here, and its partition in PostgreSQL none")), "{text}");
    assert!(text.contains(&format!("security_event__changes: {} old images in ", days[1].1)), "{text}");
    site.cluster.stop().await;
}

async fn days_at_the_source(site: &Site) -> Vec<(String, u64)> {
    let sql = "SELECT created_at::date, count(*) FROM public.security_event GROUP BY 1 ORDER BY 1";
    let rows = site.cluster.query(DATABASE, sql).await.unwrap();
    let text = |row: &[Option<String>], column: usize| row[column].clone().unwrap();
    rows.iter().map(|row| (text(row, 0), text(row, 1).parse().unwrap())).collect()
}

fn days_of(table: &Value) -> Vec<(String, u64)> {
    let day = |day: &Value| (day["day"].as_str().unwrap().to_owned(), day["rows"].as_u64().unwrap());
    table["days"].as_array().unwrap().iter().map(day).collect()
}

#[track_caller]
fn assert_one_line_a_day(text: &str, days: &[(String, u64)]) {
    for (day, rows) in days {
        let rows = rows.to_string();
        let of_day = |line: &&str| line.split_whitespace().take(2).eq([day.as_str(), rows.as_str()]);
        assert_eq!(text.lines().filter(of_day).count(), 1, "{day} with {rows} rows:\n{text}");
    }
}

async fn questions_are_answered(site: &Site) {
    const COUNT: &str = "SELECT count(*) AS n FROM public.security_event";
    let table = query(site, &["-c", COUNT]).await.succeeded();
    assert_eq!(table.stdout, " n\n---\n 7\n(1 row)\n");
    let csv = query(site, &["--format", "csv", "-c", COUNT]).await.succeeded();
    assert_eq!(csv.stdout, "n\n7\n");
    for arguments in [&["--json", "-c", COUNT][..], &["--format", "json", "-c", COUNT]] {
        assert_eq!(parsed(&query(site, arguments).await.succeeded()), json!([{"n": 7}]));
    }
    for name in ["security_event", "SECURITY_EVENT", "idp_archive.security_event"] {
        assert_eq!(lake_value(site, &format!("SELECT count(*) FROM {name}")).await, "7", "{name}");
    }
    let file = site.folder().join("questions.sql");
    std::fs::write(&file, "-- two of them\nSELECT 1 AS a;\nSELECT ';' AS b;\n").unwrap();
    let answers = query(site, &["--format", "csv", "-f", file.to_str().unwrap()]).await.succeeded();
    assert_eq!(answers.stdout, "a\n1\n\nb\n;\n");
}

async fn what_is_no_question_is_refused(site: &Site) {
    let unknown = query(site, &["-c", "SELECT * FROM securty_event"]).await;
    unknown.refused(1, &["securty_event", "did you mean security_event?"]);
    let unknown = query(site, &["-c", "SELECT tennant_id FROM security_event"]).await;
    unknown.refused(1, &["tennant_id", "did you mean", "tenant_id"]);

    let target = site.folder().join("copied.csv");
    let copy = format!("COPY (SELECT 1) TO '{}'", target.display());
    for sql in [
        copy.as_str(),
        "DROP TABLE security_event",
        "CREATE TABLE mine AS SELECT 1",
        "INSERT INTO security_event SELECT * FROM security_event",
        "SELECT * INTO mine FROM security_event",
        "SELECT 1; DELETE FROM security_event",
    ] {
        let refused = query(site, &["-c", sql]).await.refused(1, &["read-only"]);
        assert_eq!(refused.stdout, "", "{sql}: nothing runs before everything was judged");
    }
    assert!(!target.exists());
    assert_eq!(lake_value(site, "SELECT count(*) FROM security_event").await, "7");

    let file = target.to_str().unwrap();
    query(site, &["-f", file]).await.refused(1, &[file]);
    for usage in [&["-c", "SELECT 1", "-f", file][..], &[], &["--format", "xml", "-c", "SELECT 1"]] {
        let finished = query(site, usage).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{usage:?}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn a_missing_lake_names_the_verb_that_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, lake) = (folder.path().join("pipeline.toml"), folder.path().join("lake"));
    let text = PipelineText {
        url: format!("postgresql://{NAME}@127.0.0.1:1/{DATABASE}"),
        slot: NAME.to_owned(),
        lake: format!("file://{}", lake.display()),
        options: Vec::new(),
        max_age: "1s",
        memory_limit: None,
        archive: String::new(),
        snapshot: String::new(),
        tables: vec![("public.security_event".to_owned(), "created_at".to_owned(), "day")],
    };
    std::fs::write(&pipeline, text.render()).unwrap();
    let refused = lakebed(&pipeline, &["query", "-c", "SELECT 1"]).await.refused(1, &["no lake table", "lakebed init"]);
    assert!(refused.stdout.is_empty() && !lake.exists());
}
