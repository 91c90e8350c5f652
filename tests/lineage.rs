//! W2: whether this server's WAL goes on where the lake ends, as `check`, `status`, `init` and `skip` see it, on servers that were
//! really restored and promoted.

use crate::support::{DATABASE, NAME, PASSWORD, Site};
use lakebed::demo::{Cluster, CopyKind, ServerKind};
use serde_json::Value;

const CONFIRMED: &str = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'lakebed'";
const ADVANCE: &str = "SELECT pg_replication_slot_advance('lakebed', pg_current_wal_lsn())";
const GOES_ON: &str = "ok       lake         the lake and slot lakebed go on from each other";

async fn check(site: &Site) -> String {
    site.lakebed(&["check"]).await.stdout
}

async fn status(site: &Site) -> Value {
    serde_json::from_str(&site.lakebed(&["status", "--json"]).await.stdout).unwrap()
}

/// The lake's record moves on, as it does while rows are followed: by a gap of nothing.
async fn move_on(site: &Site) {
    site.insert_events(3, 1).await;
    site.sql(ADVANCE).await;
    site.init_with(&["--from-now"]).await.succeeded();
}

#[tokio::test]
async fn w2_a_slot_that_was_advanced_by_hand_is_refused_until_the_gap_is_accepted() {
    let site = Site::small().await;
    site.init().await;
    assert!(check(&site).await.contains(GOES_ON));
    let fresh = status(&site).await;
    assert_eq!((&fresh["slot"]["refused"], &fresh["findings"]), (&Value::Null, &serde_json::json!([])), "{fresh}");

    site.insert_events(3, 1).await;
    let before = site.value(CONFIRMED).await;
    site.sql(ADVANCE).await;
    let after = site.value(CONFIRMED).await;
    let words = ["advanced, or dropped and made again", &before, &after, "lakebed init --from-now"];
    let shown = site.lakebed(&["status", "--json"]).await;
    assert_eq!(shown.code, Some(1));
    let refused = status(&site).await["slot"]["refused"].as_str().unwrap().to_owned();
    for word in words {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    let checked = site.lakebed(&["check"]).await;
    assert_eq!(checked.code, Some(1));
    assert!(
        checked.stdout.contains("error    lake         replication slot \"lakebed\" stands at"),
        "{}",
        checked.stdout
    );
    site.init_with(&[]).await.refused(1, &words);
    site.lakebed(&["run", "--until-caught-up"]).await.refused(1, &words);

    site.init_with(&["--from-now"]).await.succeeded();
    assert!(check(&site).await.contains(GOES_ON));
    let report = status(&site).await;
    let (finding, table) = (&report["findings"][0], &report["tables"][0]);
    assert_eq!(
        (&finding["kind"], &finding["lsn"], &report["slot"]["refused"]),
        (&"gap".into(), &after.clone().into(), &Value::Null)
    );
    assert!(finding["reason"].as_str().unwrap().contains(&format!("public.security_event from {before}")), "{finding}");
    assert_eq!(table["recorded_lsn"], after, "the table goes on behind the gap");
    let again = site.init_with(&[]).await.succeeded().stdout;
    assert!(again.lines().all(|line| line.starts_with("already there ")), "{again}");
    site.cluster.stop().await;
}

#[tokio::test]
async fn w2_a_lake_without_its_record_is_refused() {
    let site = Site::small().await;
    site.init().await;
    let records = site.lake().join("_lakebed/acknowledged");
    std::fs::remove_dir_all(&records).unwrap();
    let refused = status(&site).await["slot"]["refused"].as_str().unwrap().to_owned();
    assert!(refused.contains("no record") && refused.contains("lakebed init"), "{refused}");
    site.init().await;
    assert!(check(&site).await.contains(GOES_ON), "an init that was interrupted goes on");

    move_on(&site).await;
    std::fs::remove_dir_all(&records).unwrap();
    site.init_with(&[]).await.refused(1, &["no record", "_lakebed", "--from-now"]);
    site.init_with(&["--from-now"]).await.succeeded();
    assert!(check(&site).await.contains(GOES_ON));
    site.cluster.stop().await;
}

/// The pipeline file names this server instead.
fn point_at(site: &Site, pipeline: &str, cluster: &Cluster) {
    let (own, other) = (format!(":{}/", site.cluster.port()), format!(":{}/", cluster.port()));
    std::fs::write(site.pipeline_file(), pipeline.replace(&own, &other)).unwrap();
}

/// A server that was rolled back looks like the right one as soon as it has written past what the lake holds.
async fn still_refused_when_it_has_written_more(site: &Site, cluster: &Cluster) {
    for _ in 0..3 {
        cluster.execute(DATABASE, "SELECT pg_switch_wal(); CREATE TABLE more (); DROP TABLE more").await.unwrap();
    }
    let run = site.lakebed(&["run", "--until-caught-up"]).await;
    run.refused(1, &["refused its server before", "when the right server is back, remove", "refused-"]);
    let findings = site.lake().join("_lakebed/findings/lakebed");
    let notes = std::fs::read_dir(findings).unwrap().map(|entry| entry.unwrap().path());
    for note in notes.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("refused-")) {
        std::fs::remove_file(note).unwrap();
    }
}

#[tokio::test]
async fn w2_a_restored_or_promoted_server_is_followed_only_behind_what_the_lake_holds() {
    for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
        let mut site = site(server).await;
        let pipeline = std::fs::read_to_string(site.pipeline_file()).unwrap();
        site.init().await;
        let snapshot = site.cluster.copy(CopyKind::Snapshot).await.unwrap();
        let restored = site.cluster.copy(CopyKind::Restore).await.unwrap();
        move_on(&site).await;
        let promoted = site.cluster.copy(CopyKind::Restore).await.unwrap();
        restored.promote().await.unwrap();
        promoted.promote().await.unwrap();

        point_at(&site, &pipeline, &promoted);
        let shown = check(&site).await;
        assert!(shown.contains(GOES_ON), "it branched behind what the lake holds: {shown}");
        for (cluster, words) in [
            (&snapshot, ["has written only up to", "it was restored to an earlier state"]),
            (&restored, ["writes timeline 2, which left timeline 1 at", "never happened on this server"]),
        ] {
            point_at(&site, &pipeline, cluster);
            let shown = check(&site).await;
            let refused = status(&site).await["slot"]["refused"].as_str().unwrap().to_owned();
            for word in words {
                assert!(shown.contains(word) && refused.contains(word), "{word}: {shown}");
            }
            let run = site.lakebed(&["run", "--until-caught-up"]).await;
            run.refused(1, &[words[0], words[1], "or begin another lake with a slot of its own"]);
            if std::ptr::eq(cluster, &snapshot) {
                still_refused_when_it_has_written_more(&site, cluster).await;
            }
        }
        // No consent makes rows true that this server never wrote.
        restored.execute(DATABASE, ADVANCE).await.unwrap();
        let admin = restored.admin_url(DATABASE);
        let accepted = site.lakebed(&["init", "--admin-url", &admin, "--from-now"]).await;
        accepted.refused(1, &["timeline", "begin another lake"]);
    }
}

/// The customer's tables where the server has partman; else one table of our own under its name.
async fn site(server: ServerKind) -> Site {
    if server.has_extensions() {
        return Site::with_history(server, 2).await;
    }
    let site = Site::bare(server).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    let create =
        "CREATE TABLE public.security_event (id uuid, type text, description text, tenant_id uuid, tenant_name text,
             client_id text, client_name text, user_id uuid, user_name text, external_user_id text, ip_address inet,
             user_agent text, detail jsonb, created_at timestamp NOT NULL, PRIMARY KEY (id, created_at))";
    site.sql(create).await;
    let mut text = site.pipeline_text();
    text.tables.truncate(1);
    site.write_pipeline(&text);
    site
}

#[tokio::test]
async fn w2_init_asks_for_a_slot_that_survives_a_failover() {
    let site = site(ServerKind::postgres_18().unwrap()).await;
    let dry_run = site.init_with(&["--dry-run"]).await.succeeded().stdout;
    assert!(dry_run.contains("'pgoutput', failover => true)"), "{dry_run}");
    let text = std::fs::read_to_string(site.pipeline_file()).unwrap();
    std::fs::write(site.pipeline_file(), text.replace("\n[lake]", "failover = false\n[lake]")).unwrap();
    site.init().await;
    assert_eq!(status(&site).await["slot"]["failover"], false);
    assert!(!check(&site).await.contains("failover"));

    std::fs::write(site.pipeline_file(), text).unwrap();
    let warned = check(&site).await;
    assert!(warned.contains("warning  slot         slot lakebed is not kept through a failover"), "{warned}");
    let altered = site.init_with(&[]).await.succeeded().stdout;
    assert!(altered.contains("done           failover of slot lakebed"), "{altered}");
    assert_eq!(status(&site).await["slot"]["failover"], true);
    assert!(!check(&site).await.contains("failover"));
    site.cluster.stop().await;
}

#[tokio::test]
async fn skip_records_a_finding_and_refuses_what_could_not_take_effect() {
    let site = Site::small().await;
    let skip = async |lsn: &str, reason: &str| site.lakebed(&["skip", "--lsn", lsn, "--reason", reason]).await;
    site.write_pipeline(&site.pipeline_text());
    site.sql(&format!("CREATE ROLE {NAME} LOGIN REPLICATION PASSWORD '{PASSWORD}'")).await;
    skip("0/1", "why").await.refused(1, &["does not exist", "nothing to step over"]);
    site.init().await;
    site.insert_events(3, 1).await;
    let end = site.value("SELECT pg_current_wal_lsn()").await;
    for (lsn, reason) in [("here", "why"), (end.as_str(), "")] {
        let wrong = skip(lsn, reason).await;
        assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    }
    skip("0/1", "why").await.refused(1, &["is past", "error message of lakebed run"]);
    skip("FFFF/0", "why").await.refused(1, &["no transaction commits at FFFF/0"]);
    assert_eq!(status(&site).await["findings"], serde_json::json!([]), "what is refused leaves nothing");

    let done = skip(&end, "a row too wide\nfor anybody").await.succeeded().stdout;
    assert!(done.contains(&format!("steps over the transaction that commits at {end}")), "{done}");
    skip(&end, "again").await.succeeded();
    let findings = status(&site).await["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 1, "{findings}");
    assert_eq!((&findings[0]["kind"], &findings[0]["lsn"]), (&"skipped".into(), &end.clone().into()));
    assert_eq!(findings[0]["reason"], "a row too wide for anybody");
    assert!(check(&site).await.contains(&format!("known to be missing (skipped at {end}): a row too wide")));

    let run = site.start_run();
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    skip(&end, "why").await.refused(1, &["in use by process", "stop lakebed run first"]);
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
