//! The archive on a real S3 server: what is only asked of the store, and what is deleted there.

use super::{EVENTS, audit, audited, day, detached, insert, is_there, old_site, reconcile};
use crate::support::PipelineText;
use crate::support::s3::{self, BUCKET, S3};

#[tokio::test]
async fn r4_on_s3_a_cold_audit_asks_the_store_and_an_erasure_leaves_nothing_there() {
    let site = old_site().await;
    let store = S3::start(&site.folder().join("weed")).await;
    let (lake, options) = (format!("s3://{BUCKET}/archive"), s3::options(store.port()));
    site.write_pipeline(&PipelineText { lake, options, ..site.pipeline_text() });
    site.init().await;
    for days in [7, 8] {
        insert(&site, days, 20).await;
    }
    let run = site.start_run();
    site.sql("CALL partman.run_maintenance_proc()").await;
    reconcile(&site, &["--table", EVENTS]).await.0.succeeded();
    for days in [7, 8] {
        assert!(!is_there(&site, &detached(&site, days).await).await);
    }
    let tagged =
        "SELECT count(*) FROM archive.receipt r, jsonb_array_elements(r.content::jsonb -> 'files') f WHERE f ? 'e_tag'";
    assert_eq!(site.value(tagged).await, "2");
    for more in [&[][..], &["--cold"]] {
        let (finished, report) = audit(&site, &[&["--table", EVENTS], more].concat()).await;
        finished.succeeded();
        assert_eq!(audited(&site, &report, 8).await["outcome"], "good", "{report}");
    }

    let last = day(&site, 8).await;
    let arguments =
        ["erase", "--execute", "--table", EVENTS, "--where", "tenant_name = 'tenant'", "--reason", "x", "--to", &last];
    site.lakebed(&arguments).await.succeeded();
    let (finished, report) = audit(&site, &["--table", EVENTS]).await;
    finished.succeeded();
    let erased = audited(&site, &report, 8).await;
    assert_eq!((&erased["expected"]["rows"], &erased["files"]), (&0.into(), &0.into()), "{erased}");
    assert_eq!(store.count(&folder(&last)).await, 0, "the files are gone, and not only out of the log");

    let kept = day(&site, 7).await;
    store.tamper(&folder(&kept)).await;
    for (more, word) in [(&["--cold"][..], "another checksum"), (&[], "another SHA-256")] {
        let (finished, report) = audit(&site, &[&["--table", EVENTS], more].concat()).await;
        assert_eq!(finished.code, Some(3), "{report}");
        assert!(audited(&site, &report, 7).await["reasons"].to_string().contains(word), "{report}");
    }
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

fn folder(day: &str) -> String {
    let [year, month, day] = day.split('-').collect::<Vec<_>>().try_into().unwrap();
    format!("archive/security_event/year={year}/month={month}/day={day}")
}
