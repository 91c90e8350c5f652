//! R4: the digest of PostgreSQL's side, by SQL, and of the lake's, from Parquet, are equal for every value.

use crate::support::{DATABASE, Site};
use lakebed::base::{PartitionBy, TableName};
use lakebed::lake::{LakeLocation, PartitionReader};
use lakebed::reconcile::digest::{DigestColumn, LakeDigest, PINS, RowSum, columns_of, digest_query};
use lakebed::source::{self, TableRules};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Compares all rows at once; where they differ, it says which column does.
pub(super) async fn both_sides_agree(site: &Site, table: &str) {
    let connection = site.cluster.connect(DATABASE).await.unwrap();
    let rules = TableRules {
        table: table.parse::<TableName>().unwrap(),
        partition_column: "happened".to_owned(),
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        text_columns: Vec::new(),
        lake_columns: BTreeMap::new(),
    };
    let shape = source::table(&connection, &rules, false).await.unwrap().shape;
    let columns = columns_of(&shape);
    let (source, lake) = (in_source(site, table, &columns).await, in_lake(site, &columns).await);
    assert!(source.rows > 0);
    if source == lake {
        return;
    }
    for column in &columns {
        let one = std::slice::from_ref(column);
        let (source, lake) = (in_source(site, table, one).await, in_lake(site, one).await);
        assert_eq!(source, lake, "{column:?}");
    }
    panic!("{source} in the source, {lake} in the lake, and each column alone agrees");
}

async fn in_source(site: &Site, table: &str, columns: &[DigestColumn]) -> RowSum {
    let connection = site.cluster.connect(DATABASE).await.unwrap();
    connection.execute(&format!("BEGIN; {PINS}")).await.unwrap();
    let sql = format!("SELECT 'all' AS part, sums.* FROM ({}) AS sums", digest_query(columns, &[table.to_owned()]));
    let sums = source::labelled_sums(&connection, "counting", &sql).await.unwrap();
    connection.execute("COMMIT").await.unwrap();
    RowSum::from_signed(sums[0].1, sums[0].2)
}

async fn in_lake(site: &Site, columns: &[DigestColumn]) -> RowSum {
    let url = url::Url::from_file_path(site.lake()).unwrap();
    let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
    let reader = PartitionReader::open(&location, "arbitrary").await.unwrap();
    let columns: Arc<[DigestColumn]> = columns.into();
    let mut sum = RowSum::default();
    for file in reader.partitions().await.unwrap().values().flatten() {
        let fetched = reader.fetch(file).await.unwrap();
        let digest = LakeDigest::new(Arc::clone(&columns));
        sum = sum + fetched.read(digest, |digest, rows| digest.add(rows)).await.unwrap().sum();
    }
    sum
}
