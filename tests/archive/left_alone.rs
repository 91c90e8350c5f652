//! R5: what is no detached partition of a configured table is not touched; and what a partition may look like.

use super::{EVENTS, archived, assert_chain, detached, is_there, outcomes, reconcile};
use crate::support::DATABASE;

#[tokio::test]
async fn r5_what_only_looks_like_a_partition_stays() {
    let (site, run) = archived().await;
    let strangers = [
        (
            "archive.security_event_p2020_01_01",
            "CREATE TABLE archive.security_event_p2020_01_01 (id uuid, created_at timestamp)",
        ),
        ("archive.security_event_p2020_w01", &format!("CREATE TABLE archive.security_event_p2020_w01 (LIKE {EVENTS})")),
        (
            "archive.security_event_p2020_13_01",
            &format!("CREATE TABLE archive.security_event_p2020_13_01 (LIKE {EVENTS})"),
        ),
        ("archive.notes", "CREATE TABLE archive.notes (LIKE public.security_event)"),
        (
            "archive.security_event_p2020_01_02",
            "CREATE VIEW archive.security_event_p2020_01_02 AS SELECT * FROM public.security_event",
        ),
        (
            "archive.security_event_p2020_01_03",
            "CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
          CREATE FOREIGN TABLE archive.security_event_p2020_01_03 (id uuid) SERVER elsewhere",
        ),
        (
            "elsewhere.security_event_p2020_01_04",
            &format!("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.security_event_p2020_01_04 (LIKE {EVENTS})"),
        ),
    ];
    for (_, statement) in &strangers {
        site.sql(statement).await;
    }
    let (finished, report) = reconcile(&site, &[]).await;
    assert_eq!(finished.code, Some(3), "one of them has a partition's name: {report}");
    assert!(!outcomes(&report, "dropped").is_empty(), "{report}");
    let finding = "SELECT kind FROM archive.finding WHERE partition_name = 'archive.security_event_p2020_01_01'";
    assert_eq!(site.value(finding).await, "left_alone");
    for (stranger, _) in &strangers {
        assert!(is_there(&site, stranger).await, "{stranger}: {report}");
        assert!(!outcomes(&report, "dropped").contains(stranger), "{report}");
    }
    let left: Vec<&str> =
        report["left_alone"].as_array().unwrap().iter().map(|left| left["table"].as_str().unwrap()).collect();
    assert!(left.contains(&"archive.security_event_p2020_13_01"), "{report}");
    // A table without partitions or a name that says no day is refused by its name, too.
    let finished = site.lakebed(&["reconcile", "--table", "archive.notes"]).await;
    finished.refused(1, &["archive.notes is no table of the pipeline file and no detached partition of one"]);
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

#[tokio::test]
async fn r4_without_a_key_with_foreign_days_and_behind_a_policy() {
    let (site, run) = archived().await;
    let [keyless, foreign, hidden] = [7, 8, 9].map(|day| detached(&site, day));
    let (keyless, foreign, hidden) = (keyless.await, foreign.await, hidden.await);
    // As partman 5 leaves it with retention_keep_index = false.
    let name = keyless.split('.').nth(1).unwrap();
    site.sql(&format!(
        "DO $$ DECLARE found text; BEGIN
             FOR found IN SELECT conname FROM pg_constraint WHERE conrelid = '{keyless}'::regclass AND contype = 'p' LOOP
                 EXECUTE format('ALTER TABLE {keyless} DROP CONSTRAINT %I', found); END LOOP;
             FOR found IN SELECT indexname FROM pg_indexes WHERE schemaname = 'archive' AND tablename = '{name}' LOOP
                 EXECUTE format('DROP INDEX archive.%I', found); END LOOP;
         END $$"
    ))
    .await;
    // Without the CHECK that partman's partitions do not have, nothing keeps rows of another day out.
    site.sql(&format!(
        "UPDATE {foreign} SET created_at = created_at + interval '1 day' WHERE ctid = (SELECT min(ctid) FROM {foreign})"
    ))
    .await;
    site.sql(&format!("ALTER TABLE {hidden} ENABLE ROW LEVEL SECURITY")).await;
    let (finished, report) = reconcile(&site, &["--table", EVENTS]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert!(outcomes(&report, "dropped").contains(&keyless.as_str()), "{report}");
    assert_eq!(outcomes(&report, "differs"), [foreign.as_str()], "{report}");
    assert_eq!(outcomes(&report, "failed"), [hidden.as_str()], "{report}");
    let text = report.to_string();
    assert!(text.contains(&format!("1 rows of {foreign} are not of")), "{text}");
    assert!(text.contains(&format!("row-level security hides rows of {hidden} from this login")), "{text}");
    assert!(is_there(&site, &foreign).await && is_there(&site, &hidden).await);
    site.cluster.execute(DATABASE, "ALTER ROLE lakebed BYPASSRLS").await.unwrap();
    let (finished, report) = reconcile(&site, &["--table", &hidden]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [hidden.as_str()], "{report}");
    assert_chain(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
