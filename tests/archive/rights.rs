//! R2, R3: who may drop what, and who waits for whom.

use super::{EVENTS, archived, assert_chain, detached, is_there, outcomes, reconcile};
use crate::support::{DATABASE, NAME};
use lakebed::connect::{self, Settings};

#[tokio::test]
async fn r2_the_login_can_drop_nothing_but_what_it_has_frozen_and_counted() {
    let (site, run) = archived().await;
    let table = detached(&site, 8).await;
    let settings = Settings::from_url(&site.url()).unwrap();
    let connection = connect::control(&settings).await.unwrap();
    let client = connection.client();
    let refused = async |sql: &str, state: &str| {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().unwrap().code(), state, "{sql}: {error:?}");
    };
    refused(&format!("DROP TABLE {table}"), "42501").await;
    refused(&format!("DELETE FROM {table}"), "42501").await;
    refused(&format!("BEGIN; LOCK TABLE {table} IN SHARE MODE"), "42501").await;
    client.batch_execute("ROLLBACK").await.unwrap();
    refused("DELETE FROM archive.receipt", "42501").await;
    refused("UPDATE archive.receipt SET rows = 0", "42501").await;
    refused("INSERT INTO archive.finding (kind) VALUES ('x')", "42501").await;
    let drop = |table: &str, rows: u32| {
        format!(
            "SELECT * FROM archive.lakebed_drop('{table}'::regclass, '{EVENTS}'::regclass,
                 '{{\"rows\": {rows}, \"table_name\": \"{EVENTS}\", \"partition_name\": \"{table}\"}}')"
        )
    };
    refused(&drop(&table, 20), "55000").await;
    let freeze =
        |table: &str| format!("BEGIN; SELECT archive.lakebed_freeze('{table}'::regclass, '{EVENTS}'::regclass)");
    client.batch_execute(&freeze(&table)).await.unwrap();
    refused(&drop(&table, 19), "55000").await;
    client.batch_execute("ROLLBACK").await.unwrap();
    // A partition of another table, a leaf, a table of ours.
    let other = site.value("SELECT min('archive.' || tablename) FROM pg_tables WHERE schemaname = 'archive' AND tablename LIKE 'statistics_daily%'").await;
    let leaf = site
        .value(&format!("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = '{EVENTS}'::regclass"))
        .await;
    for table in [other.as_str(), &leaf, "archive.receipt"] {
        assert_ne!(table, "");
        refused(&freeze(table), "55000").await;
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    // Nor a table of its own for the root, which anybody may make: it cannot be published.
    let owner = site.value("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'archive'").await;
    let fake = "CREATE TEMP TABLE fake (LIKE archive.receipt) PARTITION BY LIST (kind);
        BEGIN; SELECT archive.lakebed_freeze('archive.receipt'::regclass, 'fake'::regclass)";
    refused(fake, "55000").await;
    client.batch_execute("ROLLBACK").await.unwrap();
    refused("SELECT * FROM archive.lakebed_append('{}')", "42501").await;
    // Whoever may create in the schema cannot have anything of theirs called with the rights of its owner.
    for (operator, left, right, result) in [
        ("=", "text[]", "text[]", "boolean"),
        ("=", "oid", "regclass", "boolean"),
        ("||", "name", "name", "text"),
        ("=", "text", "text", "boolean"),
    ] {
        let name = format!("called_{}", left.trim_end_matches("[]"));
        site.sql(&format!(
            "SET ROLE {owner};
             CREATE FUNCTION archive.{name}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'an operator of the archive schema was called'; END $$;
             CREATE OPERATOR archive.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = archive.{name});
             RESET ROLE"
        ))
        .await;
    }
    client.batch_execute(&freeze(&table)).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    site.sql("SELECT * FROM archive.process_archived_partitions()").await;
    // Nobody else may call them.
    site.sql("CREATE ROLE somebody LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA archive TO somebody").await;
    let error = site.cluster.execute(DATABASE, &format!("SET ROLE somebody; {}", drop(&table, 20))).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert!(is_there(&site, &table).await);
    assert_eq!(site.value(&format!("SELECT count(*) FROM pg_class WHERE relowner = '{NAME}'::regrole")).await, "0");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

#[tokio::test]
async fn r3_a_table_that_somebody_writes_to_waits_and_the_late_writer_is_counted() {
    let (site, run) = archived().await;
    let table = detached(&site, 8).await;
    let writer = site.cluster.connect(DATABASE).await.unwrap();
    writer.execute(&format!("BEGIN; INSERT INTO {table} SELECT (json_populate_record(t, json_build_object('id', gen_random_uuid()))).* FROM {table} t LIMIT 1")).await.unwrap();
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    assert_eq!(finished.code, Some(1), "{report}");
    assert!(report.to_string().contains("SQLSTATE 55P03"), "{report}");
    // One that commits while the lock is waited for: the row is counted, and the lake does not have it.
    let commit = async {
        site.wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock')")
            .await;
        writer.execute("COMMIT").await.unwrap();
    };
    let arguments = ["reconcile", "--json", "--table", &table];
    let (finished, ()) = tokio::join!(site.lakebed(&arguments), commit);
    assert_eq!(finished.code, Some(3), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("PostgreSQL has 21 rows"), "{}", finished.stdout);
    assert!(is_there(&site, &table).await);
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

#[tokio::test]
async fn r3_two_reconcilers_at_once_drop_each_partition_once() {
    let (site, run) = archived().await;
    let count = site
        .value("SELECT count(*) FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '^security_event.*_p2'")
        .await;
    let (one, other) = tokio::join!(reconcile(&site, &[]), reconcile(&site, &[]));
    let dropped = outcomes(&one.1, "dropped").len() + outcomes(&other.1, "dropped").len();
    let failed = outcomes(&one.1, "failed").len() + outcomes(&other.1, "failed").len();
    assert_eq!(outcomes(&one.1, "differs").len() + outcomes(&other.1, "differs").len(), 0);
    assert!(dropped > 0, "{} {}", one.1, other.1);
    // Whoever waited too long for the other's lock reports it; the next run drops what is left.
    if failed > 0 {
        reconcile(&site, &[]).await.0.succeeded();
    }
    assert_eq!(site.value("SELECT count(*) FROM archive.receipt").await, count);
    assert_eq!(site.value("SELECT count(DISTINCT partition_name) FROM archive.receipt").await, count);
    assert_chain(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
