//! Columns that change while the stream goes on: D3 for the rows before, between and behind the changes.

use crate::support::{DATABASE, RunningRun, Site, assert_changed_lake_equals_source, lake_rows};
use lakebed::demo::{ClusterOptions, ServerKind};

const ACTIVE: &str = "SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'";

fn servers() -> [ServerKind; 2] {
    [ServerKind::Debian15, ServerKind::postgres_18().unwrap()]
}

/// A server whose table `public.t` has a few rows of three days, in the lake already; `more` stands behind its [[table]]. Whatever
/// can be streamed is.
async fn site(columns: &str, more: &str) -> Site {
    site_on(ServerKind::Debian15, columns, more).await
}

async fn site_on(server: ServerKind, columns: &str, more: &str) -> Site {
    let extra_settings = vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())];
    let options = ClusterOptions { server, extra_settings, ..ClusterOptions::default() };
    let site = Site::with_options(options).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    site.sql(&format!("CREATE TABLE public.t (id int, at timestamp NOT NULL, {columns}, PRIMARY KEY (id, at))")).await;
    write_pipeline(&site, more);
    site.init().await;
    site
}

fn write_pipeline(site: &Site, more: &str) {
    let mut text = site.pipeline_text();
    text.tables = vec![("public.t".to_owned(), "at".to_owned(), "day")];
    std::fs::write(site.pipeline_file(), format!("{}{more}\n", text.render())).unwrap();
}

/// Rows `from` to `to` on three days; `columns` are expressions of n.
async fn insert(site: &Site, (from, to): (u32, u32), columns: &str) {
    site.sql(&rows((from, to), columns)).await;
}

fn rows((from, to): (u32, u32), columns: &str) -> String {
    format!(
        "INSERT INTO public.t SELECT n, timestamp '2026-01-01' + n % 3 * interval '1 day', {columns}
         FROM generate_series({from}, {to}) AS n;"
    )
}

async fn equal(site: &Site, besides: &[&str]) -> u64 {
    assert_changed_lake_equals_source(site, "public.t", "at", "day", besides).await
}

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_lsn()").await;
    let sql = "FROM pg_replication_slots WHERE slot_name = 'lakebed'";
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}'::pg_lsn {sql}")).await;
}

async fn stop(run: RunningRun) {
    run.signal("TERM").await;
    run.ended().await.succeeded();
}

/// What the lake's column holds, in order, as our own query verb prints it.
async fn lake(site: &Site, expression: &str) -> Vec<String> {
    let sql = format!("SELECT {expression} AS v FROM t ORDER BY 1");
    let printed = site.lakebed(&["query", "--format", "csv", "-c", &sql]).await.succeeded().stdout;
    printed.lines().skip(1).map(str::to_owned).collect()
}

/// One after the other, each between rows of the same flush or of another.
async fn every_change(site: &Site, live: bool) {
    let run = if live { Some(site.start_run()) } else { None };
    if live {
        site.wait_for(ACTIVE).await;
    }
    insert(site, (1, 9), "'n' || n, n").await;
    site.sql("ALTER TABLE public.t ADD COLUMN added text").await;
    insert(site, (10, 19), "'n' || n, n, CASE WHEN n % 2 = 0 THEN 'x' END").await;
    site.sql("CREATE TYPE public.mood AS ENUM ('glad', 'sad'); CREATE DOMAIN public.count AS int CHECK (value > 0)")
        .await;
    site.sql("ALTER TABLE public.t ADD COLUMN mood public.mood, ADD COLUMN count public.count").await;
    insert(site, (20, 29), "'n' || n, n, NULL, 'sad', n").await;
    site.sql("ALTER TABLE public.t ALTER COLUMN note TYPE varchar(200), ALTER COLUMN number DROP NOT NULL").await;
    insert(site, (30, 39), "repeat('long', 20), NULL, NULL, 'glad', NULL").await;
    site.sql("UPDATE public.t SET number = NULL, mood = 'glad' WHERE id IN (1, 12, 31)").await;
    site.sql("DELETE FROM public.t WHERE id % 7 = 0").await;
    site.sql("ALTER TABLE public.t DROP COLUMN added").await;
    insert(site, (40, 49), "NULL, n, 'glad', 1").await;
    site.sql("ALTER TABLE public.t RENAME COLUMN count TO amount").await;
    insert(site, (50, 59), "'n' || n, n, 'sad', n").await;
    site.sql("UPDATE public.t SET note = 'changed' WHERE id % 10 = 5").await;
    match run {
        Some(run) => {
            wait_until_acknowledged(site).await;
            stop(run).await;
        }
        None => site.run_until_caught_up().await,
    }
    assert_eq!(equal(site, &["added", "amount", "count"]).await, 54);
    assert_eq!(lake(site, "count(added)").await, ["4"]);
    assert_eq!(
        lake(site, "count(amount)").await,
        ["12"],
        "the rows of the new name, and those that were updated since"
    );
}

#[tokio::test]
async fn d3_columns_that_change_under_a_running_pipeline_arrive_as_they_are() {
    for server in servers() {
        let site = site_on(server, "note varchar(20), number int NOT NULL", "").await;
        every_change(&site, true).await;
        site.cluster.stop().await;
    }
}

/// A server of version 18 sends what it has generated if the publication says so; elsewhere the column is nothing to the lake.
#[tokio::test]
async fn d3_a_generated_column_is_followed_where_it_is_published() {
    for (server, published) in servers().into_iter().zip([false, true]) {
        let site = site_on(server, "note text, number int NOT NULL", "").await;
        if published {
            site.sql("ALTER PUBLICATION lakebed SET (publish_generated_columns = stored)").await;
        }
        let run = site.start_run().allowing(&["rows of the lake lack a default"]);
        site.wait_for(ACTIVE).await;
        insert(&site, (1, 9), "'n' || n, n").await;
        site.sql("ALTER TABLE public.t ADD COLUMN doubled int GENERATED ALWAYS AS (number * 2) STORED").await;
        insert(&site, (10, 19), "'n' || n, n").await;
        site.sql(
            "UPDATE public.t SET number = number + 1 WHERE id IN (3, 13); DELETE FROM public.t WHERE id IN (4, 14)",
        )
        .await;
        wait_until_acknowledged(&site).await;
        stop(run).await;
        if !published {
            site.sql("ALTER TABLE public.t DROP COLUMN doubled").await;
        }
        assert_eq!(equal(&site, if published { &["doubled"] } else { &[] }).await, 17);
        if published {
            let sum = "SELECT sum(doubled) FROM public.t WHERE id >= 10 OR id = 3";
            assert_eq!(lake(&site, "sum(doubled)").await, [site.value(sum).await], "those that came or changed since");
        }
        site.cluster.stop().await;
    }
}

#[tokio::test]
async fn d3_columns_that_changed_while_lakebed_was_down_arrive_as_they_were_then() {
    let site = site("note varchar(20), number int NOT NULL", "").await;
    every_change(&site, false).await;
    site.cluster.stop().await;
}

#[tokio::test]
async fn b2_a_change_inside_a_streamed_transaction_belongs_to_it_until_it_commits() {
    let site = site("note text", "").await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    let filler = "repeat(md5(n::text), 8)";
    for (end, first) in [("ROLLBACK", 1), ("COMMIT", 5_001)] {
        let (a, b, c) = (
            rows((first, first + 1_499), filler),
            rows((first + 1_500, first + 2_999), &format!("{filler}, n")),
            rows((first + 3_000, first + 3_999), &format!("{filler}, n")),
        );
        site.sql(&format!(
            "BEGIN; {a} ALTER TABLE public.t ADD COLUMN number int; {b}
             SAVEPOINT s; ALTER TABLE public.t ADD COLUMN never text; UPDATE public.t SET never = 'x' WHERE id % 100 = 0; ROLLBACK TO s;
             {c} DELETE FROM public.t WHERE id % 1000 = 1; {end}"
        ))
        .await;
        let last = if end == "COMMIT" { format!("{filler}, 7") } else { filler.to_owned() };
        insert(&site, (first + 4_000, first + 4_009), &last).await;
    }
    wait_until_acknowledged(&site).await;
    stop(run).await;
    let streamed =
        site.value("SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'lakebed'").await;
    assert_eq!(streamed, "t");
    assert_eq!(equal(&site, &["never"]).await, 9 + 3_996 + 10);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_wider_number_rewrites_the_lakes_files_once() {
    let site = site("number int, small smallint, price numeric(6,2)", "").await;
    insert(&site, (1, 9), "n, n, n + 0.25").await;
    site.run_until_caught_up().await;
    // The stream is behind when lakebed starts: rows of the narrow types are still to come.
    insert(&site, (10, 19), "n, n, n + 0.5").await;
    site.sql("ALTER TABLE public.t ALTER COLUMN number TYPE bigint, ALTER COLUMN small TYPE int, ALTER COLUMN price TYPE numeric(12,2)")
        .await;
    insert(&site, (20, 29), "n + 5000000000, n + 100000, 12345678.75").await;
    site.run_until_caught_up().await;
    assert_eq!(equal(&site, &[]).await, 29);
    // And while it runs.
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    insert(&site, (30, 39), "n, n, n").await;
    site.sql("ALTER TABLE public.t ALTER COLUMN small TYPE bigint").await;
    insert(&site, (40, 49), "n, n + 5000000000, n").await;
    wait_until_acknowledged(&site).await;
    stop(run).await;
    assert_eq!(equal(&site, &[]).await, 49);
    site.cluster.stop().await;
}

#[tokio::test]
async fn l2_a_crash_around_a_change_of_columns_is_mended_by_the_next_start() {
    let site = site("number int, small smallint", "").await;
    insert(&site, (1, 9), "n, n").await;
    site.run_until_caught_up().await;
    let (mut from, mut columns) = (10, "n, n".to_owned());
    for point in ["lake.before_evolve", "lake.after_evolve"] {
        let kind = if point.contains("before") { "int" } else { "bigint" };
        for change in [format!("ADD COLUMN c{from} text"), format!("ALTER COLUMN small TYPE {kind}")] {
            let run = RunningRun::start_dying_at(&site.pipeline_file(), point);
            site.wait_for(ACTIVE).await;
            insert(&site, (from, from + 9), &columns).await;
            site.sql(&format!("ALTER TABLE public.t {change}")).await;
            if change.starts_with("ADD") {
                columns.push_str(", 'x'");
            }
            insert(&site, (from + 10, from + 19), &columns).await;
            run.ended().await.killed();
            site.run_until_caught_up().await;
            from += 20;
            assert_eq!(equal(&site, &[]).await, u64::from(from) - 1, "{point}: {change}");
        }
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_table_that_stands_still_stops_nobody_whatever_became_of_it() {
    let site = site("note text", "on_error = \"park\"").await;
    site.sql("CREATE TABLE public.other (id int, at timestamp NOT NULL, PRIMARY KEY (id, at))").await;
    let mut text = site.pipeline_text();
    text.tables = ["public.other", "public.t"].map(|name| (name.to_owned(), "at".to_owned(), "day")).to_vec();
    std::fs::write(site.pipeline_file(), format!("{}on_error = \"park\"\n", text.render())).unwrap();
    site.init_with(&["--from-now"]).await.succeeded();
    insert(&site, (1, 9), "'n' || n").await;
    site.sql("ALTER TABLE public.t ALTER COLUMN note TYPE int USING id").await;
    insert(&site, (10, 19), "n").await;
    let run = site.lakebed(&["run", "--until-caught-up"]).await.allowing(&["stands still from here on"]);
    run.succeeded();
    for change in [
        "ALTER TABLE public.t RENAME COLUMN at TO \"At\"",
        "ALTER PUBLICATION lakebed DROP TABLE public.t",
        "ALTER TABLE public.t RENAME TO gone",
        "DROP TABLE public.gone",
    ] {
        site.sql(change).await;
        site.sql("INSERT INTO public.other SELECT count(*) + 1, '2026-01-01' FROM public.other").await;
        site.run_until_caught_up().await;
    }
    assert_eq!(assert_changed_lake_equals_source(&site, "public.other", "at", "day", &[]).await, 4);
    site.cluster.stop().await;
}

#[tokio::test]
async fn another_type_is_refused_and_another_name_in_the_lake_is_the_way_out() {
    let site = site("amount int", "").await;
    insert(&site, (1, 9), "n").await;
    site.run_until_caught_up().await;
    insert(&site, (10, 19), "n").await;
    site.sql("ALTER TABLE public.t ALTER COLUMN amount TYPE text").await;
    insert(&site, (20, 29), "'n' || n").await;
    let words = ["amount (integer instead of string)", "lake_columns", "__v2"];
    site.lakebed(&["run", "--until-caught-up"]).await.refused(1, &words);
    // Values of the old type that are still to come go where the others are.
    write_pipeline(&site, "lake_columns = { amount = \"amount__v2\" }");
    site.run_until_caught_up().await;
    assert_eq!(lake(&site, "count(amount)").await, ["19"]);
    assert_eq!(lake(&site, "count(amount__v2)").await, ["10"]);
    assert_eq!(lake(&site, "max(amount__v2)").await, ["n29"]);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_type_without_a_binary_form_here_turns_the_stream_into_text() {
    let site = site("note text", "").await;
    let run = site.start_run().allowing(&["not following for now"]);
    site.wait_for(ACTIVE).await;
    insert(&site, (1, 9), "'n' || n").await;
    site.sql("ALTER TABLE public.t ADD COLUMN labels text[]").await;
    insert(&site, (10, 19), "'n' || n, ARRAY['a', NULL, n::text]").await;
    site.sql("ALTER TABLE public.t DROP COLUMN labels").await;
    insert(&site, (20, 29), "'n' || n").await;
    wait_until_acknowledged(&site).await;
    stop(run).await;
    assert_eq!(equal(&site, &["labels"]).await, 29);
    assert_eq!(lake(&site, "count(labels)").await, ["10"]);
    assert_eq!(lake_rows(&site, "t").await, 29);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_default_that_the_stream_does_not_tell_is_a_finding() {
    let site = site("note text", "").await;
    insert(&site, (1, 9), "'n' || n").await;
    site.run_until_caught_up().await;
    let run = site.start_run().allowing(&["rows of the lake lack a default"]);
    site.wait_for(ACTIVE).await;
    site.sql("ALTER TABLE public.t ADD COLUMN rank int NOT NULL DEFAULT 7, ADD COLUMN plain int").await;
    insert(&site, (10, 19), "'n' || n, 8, 1").await;
    wait_until_acknowledged(&site).await;
    stop(run).await;
    assert_eq!(equal(&site, &["rank"]).await, 19);
    assert_eq!(lake(&site, "count(rank)").await, ["10"]);
    let findings = std::fs::read_dir(site.lake().join("_lakebed/findings/lakebed")).unwrap();
    let findings: Vec<_> = findings.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert!(findings.len() == 1 && findings[0].contains("rank was added with a default"), "{findings:?}");
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_table_that_was_dropped_and_made_again_is_treated_like_a_truncate() {
    let site = site("note text", "").await;
    insert(&site, (1, 9), "'n' || n").await;
    site.run_until_caught_up().await;
    insert(&site, (10, 19), "'n' || n").await;
    let again =
        "DROP TABLE public.t; CREATE TABLE public.t (id int, at timestamp NOT NULL, note text, PRIMARY KEY (id, at));
                 ALTER PUBLICATION lakebed ADD TABLE public.t; GRANT SELECT ON public.t TO lakebed;";
    let filler = rows((100, 1_599), "repeat(md5(n::text), 8)");
    site.sql(&format!("BEGIN; {again} {filler} COMMIT")).await;
    let words = ["public.t was dropped and made again", "truncate = \"apply\""];
    site.lakebed(&["run", "--until-caught-up"]).await.refused(1, &words);
    write_pipeline(&site, "truncate = \"apply\"");
    site.run_until_caught_up().await;
    assert_eq!(equal(&site, &[]).await, 1_500);
    // Under a running pipeline, in a transaction that arrives whole, and then nothing more is lost at the next start.
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    site.sql(&format!("BEGIN; {again} {} COMMIT", rows((1, 5), "'again'"))).await;
    insert(&site, (6, 9), "'more'").await;
    wait_until_acknowledged(&site).await;
    stop(run).await;
    assert_eq!(equal(&site, &[]).await, 9);
    insert(&site, (10, 12), "'more'").await;
    site.run_until_caught_up().await;
    assert_eq!(equal(&site, &[]).await, 12);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_table_that_leaves_the_publication_ends_the_pipeline_unless_it_stands_still() {
    let site = site("note text", "").await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    insert(&site, (1, 9), "'n' || n").await;
    wait_until_acknowledged(&site).await;
    site.sql("ALTER PUBLICATION lakebed DROP TABLE public.t").await;
    run.ended().await.refused(1, &["does not publish public.t any more", "ALTER PUBLICATION … ADD TABLE"]);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_renamed_key_column_is_refused_until_it_keeps_its_name_in_the_lake() {
    let site = site("note text", "").await;
    insert(&site, (1, 9), "'n' || n").await;
    site.run_until_caught_up().await;
    insert(&site, (10, 19), "'n' || n").await;
    site.sql("ALTER TABLE public.t RENAME COLUMN id TO number").await;
    insert(&site, (20, 29), "'n' || n").await;
    site.sql("UPDATE public.t SET note = 'changed' WHERE number % 5 = 0").await;
    let words = ["has no column number, which names or dates the rows", "lake_columns = { number = "];
    site.lakebed(&["run", "--until-caught-up"]).await.refused(1, &words);
    write_pipeline(&site, "lake_columns = { number = \"id\" }");
    site.run_until_caught_up().await;
    assert_eq!(lake(&site, "count(id)").await, ["29"]);
    assert_eq!(lake(&site, "count(*) FILTER (WHERE note = 'changed')").await, ["5"]);
    site.cluster.stop().await;
}
