use super::*;
use crate::demo::customer::{self, CustomerOptions};
use crate::demo::generator::{Generator, GeneratorOptions};
use crate::demo::load::{Inserter, load_history};

#[tokio::test]
async fn a_cluster_recovers_from_a_crash_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let directory = cluster.directory().to_owned();
    cluster.execute("postgres", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)").await.unwrap();
    let over_tcp = Connection::open(&cluster.admin_url("postgres")).await.unwrap();
    cluster.kill_immediately().await;
    assert!(over_tcp.execute("SELECT 1").await.is_err());
    let port = cluster.port();
    cluster.restart().await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(cluster.query("postgres", "SELECT n FROM kept").await.unwrap(), [[Some("42".to_owned())]]);
    assert!(Connection::open(&cluster.admin_url("postgres").replace(cluster.password(), "wrong")).await.is_err());
    drop(cluster);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let extra_settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Cluster::start(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn the_customer_has_its_tables_and_its_rows() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let options = CustomerOptions { premake_days: 4, ..CustomerOptions::with_history(10) };
    customer::create(&cluster, &options).await.unwrap();
    let now = chrono::Utc::now().naive_utc();
    let mut generator = Generator::new(GeneratorOptions::with_seed(1));
    let mut admin = cluster.connect(customer::DATABASE).await.unwrap();
    let written = load_history(&mut admin, generator.history(10, 2000, now), 500, |_| {}).await.unwrap();
    assert_eq!((written.events, written.hook_results), (1800, 200));

    let mut application = Connection::open(&cluster.socket_url_of("idp_app_user", customer::DATABASE)).await.unwrap();
    let inserter = Inserter::prepare(&application).await.unwrap();
    for _ in 0..20 {
        let row = generator.live(now);
        assert!(inserter.insert_live(&mut application, &row).await.unwrap());
        assert!(!inserter.insert_live(&mut application, &row).await.unwrap(), "a retried insert changes nothing");
    }
    let counts = "SELECT (SELECT count(*) FROM security_event) + (SELECT count(*) FROM security_event_hook_results),
                         (SELECT count(*) FROM security_event_default)";
    assert_eq!(admin.query(counts).await.unwrap(), [[Some("2020".to_owned()), Some("0".to_owned())]]);
    let retention =
        "SELECT DISTINCT retention, retention_schema, retention_keep_table::text, infinite_time_partitions::text
                     FROM partman.part_config";
    let expected = ["90 days", "archive", "true", "true"].map(|value| Some(value.to_owned()));
    assert_eq!(admin.query(retention).await.unwrap(), [expected]);
    assert!(application.query("SELECT count(*) FROM security_event").await.is_err(), "row-level security is forced");
    cluster.stop().await;
}
