//! What cannot end well is refused: one clear line with the remedy, and the documented exit code.

use crate::support::{DATABASE, Site};
use lakebed::demo::{ClusterOptions, ServerKind, customer};

async fn refused(site: &Site, code: i32, words: &[&str]) {
    site.lakebed(&["run", "--until-caught-up"]).await.refused(code, words);
}

#[tokio::test]
async fn w2_a_wrong_or_missing_source_is_refused_with_its_remedy() {
    let site = Site::small().await;
    let right = site.pipeline_text();

    site.init().await;
    let mut text = right.clone();
    text.url = text.url.replace(crate::support::PASSWORD, "wrong");
    site.write_pipeline(&text);
    refused(&site, 1, &["password", "lakebed", ".pgpass"]).await;

    site.write_pipeline(&right);
    site.sql("SELECT pg_drop_replication_slot('lakebed')").await;
    refused(&site, 1, &["slot", "does not exist", "lakebed init"]).await;

    site.sql("DROP PUBLICATION lakebed").await;
    refused(&site, 1, &["publication", "does not exist", "lakebed init"]).await;
    site.cluster.stop().await;
}

#[tokio::test]
async fn w2_a_server_without_logical_wal_is_refused() {
    let site = Site::with_options(ClusterOptions { wal_level_logical: false, ..ClusterOptions::default() }).await;
    customer::create(&site.cluster, &customer::CustomerOptions::with_history(1)).await.unwrap();
    let mut text = site.pipeline_text();
    text.url = site.cluster.admin_url(DATABASE);
    site.write_pipeline(&text);
    refused(&site, 1, &["wal_level", "logical", "restart"]).await;
    site.init_with(&[]).await.refused(1, &["wal_level", "logical", "restart"]);
    site.cluster.stop().await;
}

#[tokio::test]
async fn w2_a_publication_that_leaves_something_out_is_refused() {
    let site = Site::small().await;
    site.init().await;
    for (change, words) in [
        ("SET (publish_via_partition_root = false)", vec!["publish_via_partition_root"]),
        ("SET (publish_via_partition_root = true, publish = 'insert')", vec!["update, delete, truncate"]),
        ("SET (publish = 'insert, update, delete, truncate')", vec![]),
        ("DROP TABLE public.security_event", vec!["does not publish public.security_event"]),
        ("ADD TABLE public.security_event (id, created_at)", vec!["only some columns"]),
        (
            "SET TABLE public.security_event WHERE (client_id = 'x'), public.security_event_hook_results",
            vec!["only some rows"],
        ),
    ] {
        site.sql(&format!("ALTER PUBLICATION lakebed {change}")).await;
        if words.is_empty() {
            site.run_until_caught_up().await;
        } else {
            refused(&site, 1, &words).await;
        }
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_a_table_that_cannot_be_kept_is_refused() {
    let site = Site::bare(ServerKind::Debian15).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    for (create, words) in [
        ("", vec!["public.t", "does not exist"]),
        ("CREATE TABLE public.t (id int, at timestamp NOT NULL)", vec!["public.t", "primary key"]),
        ("CREATE TABLE public.t (id int PRIMARY KEY)", vec!["public.t", "at"]),
        ("CREATE TABLE public.t (id int PRIMARY KEY, at text NOT NULL)", vec!["public.t", "at"]),
        ("CREATE TABLE public.t (id int PRIMARY KEY, at timestamp)", vec!["public.t", "at", "NOT NULL"]),
        ("CREATE TABLE public.t (id int PRIMARY KEY, at timestamp NOT NULL, \"Übel\" int)", vec!["Übel"]),
        ("CREATE TABLE public.t (id int PRIMARY KEY, at timestamp NOT NULL, year int)", vec!["year"]),
    ] {
        site.sql(&format!("DROP TABLE IF EXISTS public.t; {create}")).await;
        let mut text = site.pipeline_text();
        text.tables = vec![("public.t".to_owned(), "at".to_owned(), "day")];
        site.write_pipeline(&text);
        site.init_with(&[]).await.refused(1, &words);
    }
    assert_eq!(site.value("SELECT count(*) FROM pg_replication_slots").await, "0", "a refused init leaves no slot");
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_wrong_pipeline_file_ends_with_code_2() {
    let site = Site::bare(ServerKind::Debian15).await;
    let good = site.pipeline_text().render();
    let cases = [
        (good.replace("slot =", "slott ="), vec!["line 3", "slott"]),
        (good.replace("300ms", "soon"), vec!["[buffer].max_age", "10s"]),
        (good.replace("file://", "floppy://"), vec!["[lake].url", "s3://"]),
        (good.replace("[source]", "[source"), vec!["line 1"]),
        (good.replace("lakebed:canary-7f3a@", "lakebed:${NOT_SET_ANYWHERE}@"), vec!["NOT_SET_ANYWHERE"]),
        (good.replace("sslmode=disable", "sslmode=perhaps"), vec!["[source].url", "sslmode"]),
        (good.replace("sslmode=disable", "sslmood=disable"), vec!["[source].url", "sslmood"]),
    ];
    for (text, words) in cases {
        std::fs::write(site.pipeline_file(), text).unwrap();
        refused(&site, 2, &words).await;
    }
    std::fs::remove_file(site.pipeline_file()).unwrap();
    refused(&site, 2, &["pipeline.toml", "--pipeline"]).await;
    assert_eq!(site.lakebed(&["ruin"]).await.code, Some(2));
    site.cluster.stop().await;
}

#[tokio::test]
async fn an_unwritable_or_foreign_lake_is_refused() {
    let site = Site::small().await;
    std::fs::write(site.lake(), "a file where the folder should be").unwrap();
    site.init_with(&[]).await.refused(1, &["lake"]);
    assert_eq!(site.value("SELECT count(*) FROM pg_replication_slots").await, "0", "a refused init leaves no slot");
    std::fs::remove_file(site.lake()).unwrap();

    site.init().await;
    std::fs::rename(site.lake(), site.folder().join("elsewhere")).unwrap();
    refused(&site, 1, &["security_event", "lakebed init"]).await;
    std::fs::remove_dir_all(site.lake()).unwrap();
    std::fs::write(site.lake(), "a file where the folder should be").unwrap();
    refused(&site, 1, &["lake"]).await;
    site.cluster.stop().await;
}
