//! What the replication grammar of old and new servers takes: transactions in progress, failover slots, a server's own patience.

use super::{options, started, wait_until};
use crate::connection::server::Server;
use lakebed::base::Lsn;
use lakebed::connect::{self, Settings};
use lakebed::demo::ServerKind;
use lakebed::wal::{ReplicationConnection, ReplicationStream, StreamOptions, WalFrame};
use std::time::Duration;

async fn both_servers() -> [Server; 2] {
    [Server::of(ServerKind::Debian15).await, Server::of(ServerKind::postgres_18().unwrap()).await]
}

fn with_option(server: &Server, option: &str) -> Settings {
    Settings::from_url(&format!("{}&options={option}", server.cluster.socket_url("postgres"))).unwrap()
}

/// Reads until a message of one of these kinds comes.
async fn next_of(stream: &mut ReplicationStream, kinds: &[u8]) -> u8 {
    loop {
        let batch = stream.next().await.unwrap().expect("the stream goes on");
        for frame in batch.frames() {
            if let WalFrame::Data { payload, .. } = frame.unwrap()
                && let Some(kind) = payload.first().filter(|kind| kinds.contains(kind))
            {
                return *kind;
            }
        }
    }
}

/// B2: the server sends a transaction before it commits, if it was asked to and only then.
#[tokio::test]
async fn b2_a_transaction_in_progress_is_streamed_where_it_was_asked_for() {
    const STREAM_START: u8 = b'S';
    const BEGIN: u8 = b'B';
    for server in both_servers().await {
        let control = connect::control(&server.admin()).await.unwrap();
        let settings = with_option(&server, "-c%20logical_decoding_work_mem%3D64kB");
        for (slot, streaming, first) in [("in_progress", true, STREAM_START), ("whole", false, BEGIN)] {
            super::created(&settings, slot).await;
            let wanted = StreamOptions { protocol_version: 2, streaming, ..options(slot) };
            let mut stream = started(&settings, wanted).await.unwrap();
            let insert = "BEGIN; INSERT INTO event SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n";
            control.client().batch_execute(insert).await.unwrap();
            if streaming {
                assert_eq!(next_of(&mut stream, &[STREAM_START, BEGIN]).await, first, "before its end");
            }
            control.client().batch_execute("ROLLBACK; INSERT INTO event VALUES (0, 'small')").await.unwrap();
            assert_eq!(next_of(&mut stream, &[STREAM_START, BEGIN][usize::from(streaming)..]).await, BEGIN);
            control.client().batch_execute("TRUNCATE event").await.unwrap();
            stream.finish().await.unwrap();
        }
    }
}

#[tokio::test]
async fn w2_a_slot_survives_a_failover_where_the_server_can_keep_it() {
    const FAILOVER: &str =
        "SELECT (to_jsonb(s) ->> 'failover')::bool FROM pg_replication_slots s WHERE slot_name = 'lakebed'";
    let failover = async |server: &Server| -> Option<bool> {
        let control = connect::control(&server.admin()).await.unwrap();
        control.client().query_one(FAILOVER, &[]).await.unwrap().get(0)
    };
    let [old, new] = both_servers().await;
    let mut connection = ReplicationConnection::open(&old.admin()).await.unwrap();
    assert!(connection.create_slot("lakebed", true).await.unwrap().consistent_point > Lsn::ZERO);
    assert_eq!(failover(&old).await, None, "not asked for where it does not exist");

    let mut connection = ReplicationConnection::open(&new.admin()).await.unwrap();
    connection.create_slot("lakebed", false).await.unwrap();
    assert_eq!(failover(&new).await, Some(false));
    connection.enable_failover("lakebed").await.unwrap();
    assert_eq!(failover(&new).await, Some(true));
    let control = connect::control(&new.admin()).await.unwrap();
    control.client().batch_execute("SELECT pg_drop_replication_slot('lakebed')").await.unwrap();
    assert!(connection.create_slot("lakebed", true).await.unwrap().consistent_point > Lsn::ZERO);
    assert_eq!(failover(&new).await, Some(true));
    wait_until(control.client(), "/*lakebed*/ NOT s.temporary").await;
}

/// W3: a server whose walsender may be silent for long is not given up earlier than it allows itself.
#[tokio::test]
async fn w3_the_servers_own_patience_is_the_least() {
    let server = Server::plain().await;
    for (setting, seconds) in [("1min", 60), ("1500ms", 60), ("0", 60), ("5min", 300), ("2h", 7_200)] {
        let settings = with_option(&server, &format!("-c%20wal_sender_timeout%3D{setting}"));
        let mut connection = ReplicationConnection::open(&settings).await.unwrap();
        assert_eq!(connection.receive_timeout(), Duration::from_secs(seconds), "{setting}");
        let system = connection.identify_system().await.unwrap();
        assert_eq!(connection.timeline_history(system.timeline).await.unwrap(), [], "it never switched");
        assert!(connection.timeline_history(7).await.unwrap_err().to_string().contains("TIMELINE_HISTORY"));
    }
}
