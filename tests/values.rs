//! D3, R4: arbitrary values of every supported type, through a real server, by the stream, by COPY and by the first copy,
//! in text and in binary.

mod copy;
mod digest;
mod generate;
mod refused;

use crate::support::dice::seed;
use crate::support::{DATABASE, Lane, PipelineText, Site, assert_lake_equals_source, compare};
use generate::Column;
use lakebed::demo::ServerKind;

/// Rows of one table. More find no more on a good day: another seed does, and each run has one.
const ROWS: u32 = 250;

/// Fills a table of `columns` with generated rows and compares lake and COPY with the server's own text.
async fn arbitrary_values_are_equal(server: ServerKind, columns: &[Column], binary: bool) {
    let seed = seed();
    let site = Site::bare(server).await;
    site.cluster.execute("postgres", "CREATE DATABASE idpserver").await.unwrap();
    site.sql(generate::TYPES).await;
    site.sql(&generate::create_table(columns)).await;
    let mut text = site.pipeline_text();
    text.tables = vec![("public.arbitrary".to_owned(), "happened".to_owned(), "day")];
    site.write_pipeline(&text);
    site.init().await;
    for insert in generate::inserts(columns, seed, ROWS) {
        site.sql(&insert).await;
    }
    site.run_until_caught_up().await;
    let rows = assert_lake_equals_source(&site, "public.arbitrary", "happened", "day").await;
    assert_eq!(rows, u64::from(ROWS));
    copy::text_and_binary_give_the_same_values(&site, "public.arbitrary", binary).await;
    digest::both_sides_agree(&site, "public.arbitrary").await;
    a_copied_lake_is_equal_to_the_streamed_one(&site, &text).await;
    site.cluster.stop().await;
}

/// What came by the stream above is copied now, into a lake of its own.
async fn a_copied_lake_is_equal_to_the_streamed_one(site: &Site, streamed: &PipelineText) {
    let lane = Lane::local(site, "copied", |text| text.tables = streamed.tables.clone());
    let admin = site.cluster.admin_url(DATABASE);
    lane.lakebed(&["init", "--snapshot", "--admin-url", &admin]).await.succeeded();
    let (folder, by) = (lane.table_folder("arbitrary"), ("happened", "day"));
    let rows = compare(&site.cluster, site.folder(), &folder, "public.arbitrary", by).await;
    assert_eq!(rows, Ok(u64::from(ROWS)));
}

#[tokio::test]
async fn d3_arbitrary_values_are_equal_in_binary_on_postgresql_15() {
    arbitrary_values_are_equal(ServerKind::Debian15, &generate::with_binary_form(), true).await;
}

#[tokio::test]
async fn d3_arbitrary_values_are_equal_in_binary_on_postgresql_18() {
    arbitrary_values_are_equal(ServerKind::postgres_18().unwrap(), &generate::with_binary_form(), true).await;
}

#[tokio::test]
async fn d3_arbitrary_values_are_equal_in_text_on_postgresql_15() {
    arbitrary_values_are_equal(ServerKind::Debian15, &generate::every_column(), false).await;
}

#[tokio::test]
async fn d3_arbitrary_values_are_equal_in_text_on_postgresql_18() {
    arbitrary_values_are_equal(ServerKind::postgres_18().unwrap(), &generate::every_column(), false).await;
}
