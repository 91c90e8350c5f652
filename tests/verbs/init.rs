//! `init`: what it installs, what it refuses, and what the login that it makes may do.

use super::{assert_no_secret, follow, lake_value, query};
use crate::support::{DATABASE, NAME, PASSWORD, Site, lake_rows};
use lakebed::demo::Connection;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// All that `init` can change in the server, as one text. It holds password verifiers: compare it, never print it.
async fn catalogs(site: &Site) -> String {
    const SQL: &str = "
        SELECT concat_ws(E'\\n',
            (SELECT string_agg(a::text, ' ' ORDER BY a.oid) FROM pg_authid a),
            (SELECT string_agg(p::text, ' ' ORDER BY p.oid) FROM pg_publication p),
            (SELECT string_agg(r::text, ' ' ORDER BY r.oid) FROM pg_publication_rel r),
            (SELECT string_agg(concat(slot_name, confirmed_flush_lsn), ' ') FROM pg_replication_slots),
            (SELECT string_agg(d::text, ' ' ORDER BY d.oid) FROM pg_default_acl d),
            (SELECT string_agg(concat(nspname, nspowner, nspacl), ' ' ORDER BY oid) FROM pg_namespace
             WHERE nspname !~ '^pg_'),
            (SELECT string_agg(concat(oid, relacl), ' ' ORDER BY oid) FROM pg_class
             WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_')),
            (SELECT datacl::text FROM pg_database WHERE datname = current_database()))";
    site.value(SQL).await
}

/// Every file of the lake with its size; none where there is no lake.
fn lake_files(site: &Site) -> Vec<(PathBuf, u64)> {
    let (mut folders, mut files) = (vec![site.lake()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = path.metadata().unwrap().len();
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}

/// Runs a script as a database administrator would.
async fn psql(site: &Site, script: &str) {
    let file = site.folder().join("script.sql");
    std::fs::write(&file, script).unwrap();
    let output = tokio::process::Command::new(site.cluster.bin_dir().join("psql"))
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file"])
        .arg(&file)
        .arg(site.cluster.socket_url(DATABASE))
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("psql did not end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn assert_all_already_there(printed: &str) {
    assert!(printed.lines().all(|line| line.starts_with("already there ")) && printed.contains("slot "), "{printed}");
}

#[tokio::test]
async fn a_dry_run_is_for_psql_and_whatever_is_there_already_is_left_alone() {
    let site = Site::small().await;
    let before = catalogs(&site).await;
    let dry_run = site.init_with(&["--dry-run"]).await.succeeded();
    assert_no_secret(&site, &dry_run);
    assert!(before == catalogs(&site).await && !site.lake().exists(), "a dry run changes nothing");

    psql(&site, &dry_run.stdout).await;
    // What the script leaves to psql's \password.
    site.sql(&format!("ALTER ROLE {NAME} PASSWORD '{PASSWORD}'")).await;
    // The script's slot has begun, the lake tables have not: init takes that for a gap, which --from-now accepts.
    let first = site.init_with(&["--from-now"]).await.succeeded().stdout;
    let (made, found): (Vec<&str>, Vec<&str>) = first.lines().partition(|line| line.starts_with("done "));
    assert!(made.len() == 2 && made.iter().all(|line| line.contains(" lake table ")), "{first}");
    assert_all_already_there(&found.join("\n"));

    let (installed, files) = (catalogs(&site).await, lake_files(&site));
    let second = site.init_with(&[]).await.succeeded();
    assert_no_secret(&site, &second);
    assert_all_already_there(&second.stdout);
    assert_eq!(second.stdout.lines().count(), first.lines().count());
    let as_the_login_itself = site.lakebed(&["init"]).await.succeeded().stdout;
    assert_all_already_there(&as_the_login_itself);
    let dry_run = site.init_with(&["--dry-run"]).await.succeeded().stdout;
    let statements: Vec<&str> = dry_run.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    assert_eq!(statements, ["SET search_path = '';", "BEGIN;", "COMMIT;"]);
    assert!(installed == catalogs(&site).await, "a second run changes nothing in the server");
    assert_eq!(files, lake_files(&site), "nor in the lake");
}

#[tokio::test]
async fn what_would_be_missing_from_the_lake_is_refused_until_it_is_accepted() {
    let site = Site::small().await;
    site.insert_events(3, 1).await;
    let there_before = site.value("SELECT string_agg(quote_literal(id), ', ') FROM public.security_event").await;
    let before = catalogs(&site).await;
    site.init_with(&[]).await.refused(1, &["public.security_event", "already holds rows", "--snapshot", "--from-now"]);
    assert!(before == catalogs(&site).await && lake_files(&site).is_empty(), "what is refused changes nothing");

    site.init_with(&["--from-now"]).await.succeeded();
    site.insert_events(5, 2).await;
    follow(&site).await;
    assert_eq!(lake_rows(&site, "security_event").await, 5);
    let sql = format!("SELECT count(*) FROM security_event WHERE id IN ({there_before})");
    assert_eq!(lake_value(&site, &sql).await, "0", "rows that were there before are not copied");

    a_dropped_slot_is_a_gap(&site).await;
    a_removed_lake_table_is_a_gap(&site).await;
}

/// The lake has 5 rows before and 6 after.
async fn a_dropped_slot_is_a_gap(site: &Site) {
    site.sql(&format!("SELECT pg_drop_replication_slot('{NAME}')")).await;
    site.insert_events(2, 1).await;
    let (before, files) = (catalogs(site).await, lake_files(site));
    site.init_with(&[]).await.refused(1, &["slot lakebed is gone", "public.security_event", "--from-now"]);
    assert!(before == catalogs(site).await, "no slot without consent");
    assert_eq!(files, lake_files(site));
    let changes = "SELECT lakebed_operation, count(*) AS n, count(id) AS rows FROM security_event__changes GROUP BY 1";
    let asked = query(site, &["-c", changes]).await;
    asked.refused(1, &["no public.security_event__changes", "no row of public.security_event was changed or removed"]);

    let accepted = site.init_with(&["--from-now"]).await.succeeded().stdout;
    assert!(accepted.contains("/security_event keeps its rows; gap accepted from "), "{accepted}");
    assert_eq!(lake_rows(site, "security_event").await, 5);
    site.init_with(&[]).await.succeeded();
    let journal = query(site, &["--format", "csv", "-c", changes]).await.succeeded().stdout;
    assert_eq!(journal, "lakebed_operation,n,rows\ngap,1,0\n", "said once, where changes are looked for");
    site.insert_events(1, 1).await;
    follow(site).await;
    assert_eq!(lake_rows(site, "security_event").await, 6, "the two rows of the gap are missing, and nothing else");
}

async fn a_removed_lake_table_is_a_gap(site: &Site) {
    std::fs::remove_dir_all(site.lake().join("security_event_hook_results")).unwrap();
    let missing = "no lake table for public.security_event_hook_results";
    site.init_with(&[]).await.refused(1, &["slot lakebed exists", missing, "--from-now"]);
    let asked = query(site, &["-c", "SELECT count(*) FROM security_event_hook_results"]).await;
    asked.refused(1, &["security_event_hook_results", "lakebed init"]);
    assert_eq!(lake_rows(site, "security_event").await, 6, "the other table still answers");

    let accepted = site.init_with(&["--from-now"]).await.succeeded().stdout;
    let made: Vec<&str> = accepted.lines().filter(|line| line.starts_with("done ")).collect();
    assert!(made.len() == 1 && made[0].contains("/security_event_hook_results, from "), "{accepted}");
    let row = "INSERT INTO public.security_event_hook_results (id, tenant_id, security_event_id, security_event_type,
                   security_event_hook, security_event_payload, status)
               VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'login_success', 'webhook', '{}', '')";
    site.sql(row).await;
    follow(site).await;
    assert_eq!(lake_rows(site, "security_event_hook_results").await, 1);
    assert_eq!(lake_rows(site, "security_event").await, 6, "what is in the lake stays there");
}

#[tokio::test]
async fn the_login_that_init_makes_reads_its_tables_and_does_nothing_else() {
    let site = Site::small().await;
    let strangers_table =
        |name: &str| format!("CREATE TABLE public.{name} (id int8); ALTER TABLE public.{name} OWNER TO stranger; ");
    site.sql(&format!("CREATE ROLE stranger; {}", strangers_table("before_init"))).await;
    let done = site.init_with(&[]).await.succeeded();
    assert_no_secret(&site, &done);
    site.sql(&strangers_table("after_init")).await;
    let attributes = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = ";
    assert_eq!(site.value(&format!("{attributes}'{NAME}'")).await, "f");

    let login = Connection::open(&site.url()).await.unwrap();
    let allowed = ["SELECT count(*) FROM public.security_event_default", "SELECT count(*) FROM partman.part_config"];
    for sql in allowed {
        login.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for sql in [
        "DROP TABLE public.security_event",
        "DROP TABLE public.security_event_default",
        "DROP SCHEMA archive CASCADE",
        "DROP PUBLICATION lakebed",
        "INSERT INTO public.security_event DEFAULT VALUES",
        "INSERT INTO public.security_event_default DEFAULT VALUES",
        "UPDATE public.security_event_default SET type = ''",
        "DELETE FROM public.security_event_default",
        "TRUNCATE public.security_event",
        "UPDATE partman.part_config SET retention = '1 day'",
        "CREATE TABLE public.mine (id int8)",
        "CREATE TABLE archive.mine (id int8)",
        "CREATE TABLE partman.mine (id int8)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE PUBLICATION mine",
        "SELECT * FROM public.before_init",
        "SELECT * FROM public.after_init",
        "SELECT * FROM public.statistics_daily_users_default",
    ] {
        let error = login.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|state| state.code()), Some("42501"), "{sql}: {error}");
    }
}
