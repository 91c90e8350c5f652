//! The store, or the line to it, fails under a running pipeline.

use crate::support::s3::S3;
use crate::support::{Lane, Site};

#[tokio::test]
async fn a_lake_on_s3_equals_its_source() {
    let site = Site::small().await;
    let mut s3 = S3::start(&site.folder().join("s3")).await;
    let lane = Lane::on_s3(&site, "on_s3", s3.port(), |_| {});
    lane.init(&site).await;
    site.load_history(7, 2, 2_000, 100).await;
    lane.run_until_caught_up().await.succeeded();
    assert_eq!(lane.assert_balanced(&site, Some(&s3)).await.iter().sum::<u64>(), 2_000);
    // Killed and started again, the server still has everything.
    s3.restart().await;
    site.insert_events(10, 1).await;
    lane.run_until_caught_up().await.succeeded();
    assert_eq!(lane.assert_balanced(&site, Some(&s3)).await.iter().sum::<u64>(), 2_010);
    lane.assert_nothing_left_behind();
    site.cluster.stop().await;
}
