//! D3: what a typed lake column cannot hold is refused, with the row's key, the rule and the remedy, and without its contents;
//! text_columns is the way out.

use crate::support::{DATABASE, Finished, Site, assert_lake_equals_source, assert_text_columns_equal_source};
use lakebed::demo::{ClusterOptions, ServerKind};

const CANARY: &str = "canary-93ab";

/// A server whose database has the encoding.
async fn site_with_encoding(encoding: &str) -> Site {
    let site = Site::with_options(ClusterOptions { server: ServerKind::Debian15, ..ClusterOptions::default() }).await;
    let create =
        format!("CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
    site.cluster.execute("postgres", &create).await.unwrap();
    site
}

/// Table `public.t` anew, with a lake, slot and publication of its own.
async fn set_up(site: &Site, columns: &str, partition_column: &str, more: &str) {
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    site.sql(drop_slot).await;
    site.sql(&format!(
        "DROP PUBLICATION IF EXISTS lakebed; DROP TABLE IF EXISTS public.t; CREATE TABLE public.t ({columns})"
    ))
    .await;
    if site.lake().exists() {
        std::fs::remove_dir_all(site.lake()).unwrap();
    }
    let mut text = site.pipeline_text();
    text.tables = vec![("public.t".to_owned(), partition_column.to_owned(), "day")];
    std::fs::write(site.pipeline_file(), format!("{}{more}\n", text.render())).unwrap();
    site.init().await;
}

/// `run` ends with code 1 and one line that holds the words; nothing that it printed holds the canary.
async fn refused(site: &Site, words: &[&str]) -> Finished {
    let finished = site.lakebed(&["run", "--until-caught-up"]).await.refused(1, words);
    assert!(!finished.stderr.contains(CANARY) && !finished.stdout.contains(CANARY), "{}", finished.stderr);
    finished
}

const MISFITS: [(&str, &str); 4] = [
    ("infinity", "an infinite"),
    ("-infinity", "an infinite"),
    ("0044-03-15 00:00:00 BC", "before the year 1"),
    ("10000-01-01 00:00:00", "after the year 9999"),
];

/// As the key shows a moment of that type.
fn shown(moment: &str, column_type: &str) -> String {
    match column_type {
        _ if moment.ends_with("infinity") => moment.to_owned(),
        "date" => moment.replace(" 00:00:00", ""),
        "timestamptz" => moment.replace("00:00:00", "00:00:00+00"),
        _ => moment.to_owned(),
    }
}

async fn misfits_of_a_plain_column(column_type: &str) {
    let site = site_with_encoding("UTF8").await;
    for (value, rule) in MISFITS {
        let columns = format!("id int, note text, v {column_type}, at timestamp NOT NULL, PRIMARY KEY (id, at)");
        set_up(&site, &columns, "at", "").await;
        site.sql(&format!("INSERT INTO public.t VALUES (1, '{CANARY}', '2026-01-01', '2026-01-01'), (7, '{CANARY}', '{value}', '2026-01-02')"))
            .await;
        let key = "public.t.v of row id=7, at=2026-01-02 00:00:00:";
        refused(&site, &[key, rule, column_type, "text_columns", "lakebed skip", "on_error = \"park\""]).await;
    }
    site.cluster.stop().await;
}

async fn misfits_of_the_partition_column(column_type: &str) {
    let site = site_with_encoding("UTF8").await;
    for (value, rule) in MISFITS {
        set_up(&site, &format!("id int, note text, at {column_type} NOT NULL, PRIMARY KEY (id, at)"), "at", "").await;
        site.sql(&format!("INSERT INTO public.t VALUES (7, '{CANARY}', '{value}')")).await;
        let key = format!("public.t.at of row id=7, at={}:", shown(value, column_type));
        refused(&site, &[&key, rule, column_type, "lakebed skip", "on_error = \"park\""]).await;
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_a_date_that_does_not_fit_is_refused() {
    misfits_of_a_plain_column("date").await;
    misfits_of_the_partition_column("date").await;
}

#[tokio::test]
async fn d3_a_timestamp_that_does_not_fit_is_refused() {
    misfits_of_a_plain_column("timestamp").await;
    misfits_of_the_partition_column("timestamp").await;
}

#[tokio::test]
async fn d3_a_timestamptz_that_does_not_fit_is_refused() {
    misfits_of_a_plain_column("timestamptz").await;
    misfits_of_the_partition_column("timestamptz").await;
}

#[tokio::test]
async fn d3_what_is_no_finite_decimal_is_refused_and_text_columns_keeps_it() {
    let site = site_with_encoding("UTF8").await;
    let columns = "id uuid PRIMARY KEY, note text, v numeric(10,2), until timestamptz, at timestamp NOT NULL";
    let rows = format!(
        "INSERT INTO public.t VALUES ('00000000-0000-0000-0000-000000000007', '{CANARY}', 'NaN', 'infinity', '2026-01-01')"
    );
    set_up(&site, columns, "at", "").await;
    site.sql(&rows).await;
    let key = "public.t.v of row id=00000000-0000-0000-0000-000000000007: a numeric NaN or infinity";
    refused(&site, &[key, "text_columns"]).await;

    // The remedy's first half is refused by the lake table as it was, and the whole of it keeps every value.
    let more = "text_columns = [\"v\", \"until\"]";
    let text = std::fs::read_to_string(site.pipeline_file()).unwrap();
    std::fs::write(site.pipeline_file(), format!("{text}{more}\n")).unwrap();
    refused(&site, &["public.t", "v"]).await;
    set_up(&site, columns, "at", more).await;
    site.sql(&rows).await;
    site.sql("INSERT INTO public.t VALUES (gen_random_uuid(), NULL, 1.5, '0044-03-15 12:00:00+00 BC', '2026-01-02'), (gen_random_uuid(), '', NULL, NULL, '2026-01-02')")
        .await;
    site.run_until_caught_up().await;
    let equal = assert_text_columns_equal_source(&site, "public.t", "at", "day", &["v", "until"]).await;
    assert_eq!(equal, 3);
    site.cluster.stop().await;
}

#[tokio::test]
async fn text_columns_that_cannot_be_are_refused() {
    let site = site_with_encoding("UTF8").await;
    set_up(&site, "id int PRIMARY KEY, v date, at timestamp NOT NULL", "at", "").await;
    let text = std::fs::read_to_string(site.pipeline_file()).unwrap();
    for (more, code, words) in [
        ("text_columns = [\"w\"]", 1, ["no column w", "id, v, at", "text_columns"]),
        ("text_columns = [\"at\"]", 2, ["text_columns", "partition column", "day"]),
    ] {
        std::fs::write(site.pipeline_file(), format!("{text}{more}\n")).unwrap();
        site.lakebed(&["run", "--until-caught-up"]).await.refused(code, &words);
    }
    site.cluster.stop().await;
}

/// `bits` forces the stream into text.
async fn bytes_that_are_not_utf8(bits: &str) {
    let site = site_with_encoding("SQL_ASCII").await;
    let columns = format!("id int PRIMARY KEY, note text, v text, j json, at timestamp NOT NULL {bits}");
    set_up(&site, &columns, "at", "").await;
    site.sql("INSERT INTO public.t VALUES (1, '日本', 'é', '\"é\"', '2026-01-01')").await;
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, "public.t", "at", "day").await, 1, "what is UTF-8 is kept");
    for (column, values) in [
        ("v", "convert_from('\\xe961', 'SQL_ASCII'), NULL"),
        ("j", "NULL, ('\"' || convert_from('\\xff', 'SQL_ASCII') || '\"')::json"),
    ] {
        set_up(&site, &columns, "at", "").await;
        site.sql(&format!("INSERT INTO public.t VALUES (7, '{CANARY}', {values}, '2026-01-01')")).await;
        refused(&site, &[&format!("public.t.{column} of row id=7:"), "not UTF-8", "lakebed skip", "on_error"]).await;
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_bytes_that_are_not_utf8_are_refused_in_binary() {
    bytes_that_are_not_utf8("").await;
}

#[tokio::test]
async fn d3_bytes_that_are_not_utf8_are_refused_in_text() {
    bytes_that_are_not_utf8(", bits bit(3)").await;
}
