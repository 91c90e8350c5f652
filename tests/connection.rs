//! Connections against a real PostgreSQL: every way to authenticate, every definite error, and the stream with its
//! feedback.

use crate::support::proxy::{Direction, Flow, Proxy};
use lakebed::base::{Classify, Lsn, RetryClass};
use lakebed::connect::{self, ConnectError, Settings};
use lakebed::wal::{ReplicationConnection, ReplicationStream, StreamOptions, WalError, WalFrame};
use server::Server;
use std::time::Duration;

mod replication;
mod server;

/// Both sessions, replication and control; what `control` says about the connection.
async fn both(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    let mut replication = ReplicationConnection::open(settings).await?;
    let identity = replication.identify_system().await?;
    assert_eq!(identity.database, settings.database());
    assert!(replication.server_version() >= 150_000);
    let control = connect::control(settings).await?;
    let user: String = control.client().query_one("SELECT current_user::text", &[]).await?.get(0);
    assert_eq!(user, settings.user());
    Ok(())
}

async fn refusal(settings: &Settings) -> ConnectError {
    let by_control = connect::control(settings).await.unwrap_err();
    let WalError::Connect(by_wal) = ReplicationConnection::open(settings).await.unwrap_err() else {
        panic!("not a connection error")
    };
    assert_eq!(by_wal.to_string(), by_control.to_string());
    assert_eq!(by_wal.retry_class(), by_control.retry_class());
    by_wal
}

/// One server for all of these, because none of them changes it.
#[tokio::test]
async fn who_is_let_in_and_how() {
    let server = Server::with_tls().await;
    every_way_to_authenticate_works(&server).await;
    a_password_leaves_in_clear_text_only_over_tls(&server).await;
    tls_is_verified_as_sslmode_says(&server).await;
    allow_and_prefer_try_the_other_kind_of_encryption(&server).await;
    a_client_certificate_is_shown(&server).await;
    each_refusal_is_one_line_with_its_remedy(&server).await;
    a_role_without_the_right_cannot_replicate(&server).await;
}

async fn every_way_to_authenticate_works(server: &Server) {
    let scram = server.settings("scram_role:secret", "postgres?sslmode=disable");
    both(&scram).await.unwrap();
    both(&server.settings("md5_role:secret", "postgres?sslmode=disable")).await.unwrap();
    both(&server.settings("clear_role:secret", "postgres?sslmode=require")).await.unwrap();
    both(&server.admin()).await.unwrap();
}

async fn a_password_leaves_in_clear_text_only_over_tls(server: &Server) {
    let settings = server.settings("clear_role:secret", "postgres?sslmode=disable");
    let error = ReplicationConnection::open(&settings).await.unwrap_err();
    assert!(matches!(error, WalError::Connect(ConnectError::Authentication { .. })), "{error}");
    assert!(!error.to_string().contains("secret"));
}

async fn tls_is_verified_as_sslmode_says(server: &Server) {
    let (ca, other) = (server.file("ca.crt"), server.file("other.crt"));
    let at = |rest: String| Settings::from_url(&format!("postgresql://tls_only:secret@{rest}")).unwrap();
    let port = server.port();
    let localhost = |rest: &str| at(format!("localhost:{port}/postgres?hostaddr=127.0.0.1&{rest}"));
    both(&localhost(&format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require"))).await.unwrap();
    both(&at(format!("127.0.0.1:{port}/postgres?sslmode=verify-ca&sslrootcert={ca}"))).await.unwrap();
    both(&at(format!("127.0.0.1:{port}/postgres?sslmode=require"))).await.unwrap();
    // The server's own certificate, named as root, is trusted by being named.
    both(&localhost(&format!("sslmode=verify-full&sslrootcert={}", server.file("server.crt")))).await.unwrap();
    for rest in [
        format!("127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={ca}"),
        format!("127.0.0.1:{port}/postgres?sslmode=verify-ca&sslrootcert={other}"),
        format!("127.0.0.1:{port}/postgres?sslmode=require&sslrootcert={other}"),
    ] {
        let error = refusal(&at(rest)).await;
        assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");
        assert_eq!(error.retry_class(), RetryClass::Definite);
    }
    let error = refusal(&localhost("sslmode=verify-full&sslrootcert=/nowhere")).await;
    assert!(matches!(error, ConnectError::TlsFile { .. }), "{error}");
    let binding = server.settings("scram_role:secret", "postgres?sslmode=disable&channel_binding=require");
    assert!(matches!(refusal(&binding).await, ConnectError::Authentication { .. }));
}

async fn allow_and_prefer_try_the_other_kind_of_encryption(server: &Server) {
    both(&server.settings("tls_only:secret", "postgres?sslmode=allow")).await.unwrap();
    both(&server.settings("plain_only:secret", "postgres?sslmode=prefer")).await.unwrap();
    let error = refusal(&server.settings("plain_only:secret", "postgres?sslmode=require")).await;
    assert!(matches!(error, ConnectError::RoleRefused { .. }), "{error}");
}

async fn a_client_certificate_is_shown(server: &Server) {
    let with = |key: &str| {
        let files = format!("sslcert={}&sslkey={}", server.file("client.crt"), server.file(key));
        server.settings("certified", &format!("postgres?sslmode=require&{files}"))
    };
    both(&with("client.key")).await.unwrap();
    assert!(matches!(refusal(&with("client-open.key")).await, ConnectError::TlsFile { .. }));
    let without = refusal(&server.settings("certified", "postgres?sslmode=require")).await;
    assert!(matches!(without, ConnectError::RoleRefused { .. }), "{without}");
}

async fn each_refusal_is_one_line_with_its_remedy(server: &Server) {
    let place = format!("127.0.0.1:{}", server.port());
    let cases = [
        ("scram_role:wrong", "postgres", format!("PostgreSQL at {place} refused the password of role \"scram_role\"")),
        ("md5_role:wrong", "postgres", format!("PostgreSQL at {place} refused the password of role \"md5_role\"")),
        ("scram_role", "postgres", format!("PostgreSQL at {place} wants a password for role \"scram_role\"")),
        ("barred:secret", "postgres", format!("PostgreSQL at {place} does not let role \"barred\" in")),
        ("scram_role:secret", "nowhere", format!("PostgreSQL at {place} has no database \"nowhere\"")),
    ];
    for (user, database, beginning) in cases {
        let error = refusal(&server.settings(user, &format!("{database}?sslmode=disable&passfile=/nowhere"))).await;
        assert_eq!(error.retry_class(), RetryClass::Definite);
        let text = error.to_string();
        assert!(text.starts_with(&beginning) && !text.contains('\n') && !text.contains("secret"), "{text}");
    }
}

async fn a_role_without_the_right_cannot_replicate(server: &Server) {
    let settings = server.settings("plain_login:secret", "postgres");
    let error = ReplicationConnection::open(&settings).await.unwrap_err();
    assert!(matches!(error, WalError::NoReplicationRight { .. }), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_may_come_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings::from_url(&format!("postgresql://u@127.0.0.1:{free}/d")).unwrap();
    let error = refusal(&settings).await;
    assert_eq!(error.retry_class(), RetryClass::Transient);
    let expected = format!(
        "cannot reach PostgreSQL at 127.0.0.1:{free} (connection refused): start the server or correct [source].url"
    );
    assert_eq!(error.to_string(), expected);
    let socket = Settings::from_url("postgresql://u@/d?host=/nowhere").unwrap();
    assert_eq!(refusal(&socket).await.retry_class(), RetryClass::Transient);
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for mode in ["disable", "require"] {
        let url = format!("postgresql://u@127.0.0.1:{port}/d?connect_timeout=1&sslmode={mode}");
        let error = refusal(&Settings::from_url(&url).unwrap()).await;
        assert!(matches!(error, ConnectError::TimedOut { seconds: 1, .. }), "{error}");
    }
}

fn options(slot: &str) -> StreamOptions {
    StreamOptions { slot: slot.to_owned(), messages: true, binary: true, ..StreamOptions::default() }
}

async fn created(settings: &Settings, slot: &str) -> Lsn {
    let mut connection = ReplicationConnection::open(settings).await.unwrap();
    connection.create_slot(slot, false).await.unwrap().consistent_point
}

async fn started(settings: &Settings, options: StreamOptions) -> Result<ReplicationStream, WalError> {
    ReplicationConnection::open(settings).await?.start(options).await
}

/// Counts INSERTs until `rows` came; the end position of the last COMMIT.
async fn read_inserts(stream: &mut ReplicationStream, rows: usize) -> Lsn {
    let (mut seen, mut end) = (0, Lsn::ZERO);
    loop {
        let batch = stream.next().await.unwrap().expect("the stream goes on");
        for frame in batch.frames() {
            if let WalFrame::Data { payload, .. } = frame.unwrap() {
                match payload.first() {
                    Some(b'I') => seen += 1,
                    // flags, commit position, end position
                    Some(b'C') => end = Lsn(u64::from_be_bytes(payload[10..18].try_into().unwrap())),
                    _ => {}
                }
            }
        }
        if seen >= rows && end > Lsn::ZERO {
            assert_eq!(seen, rows);
            return end;
        }
    }
}

async fn wait_until(client: &tokio_postgres::Client, condition: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let sql = format!(
        "SELECT coalesce(bool_and({condition}), false)
         FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid"
    );
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        if client.query_one(&format!("{sql} {}", condition_slot(condition)), &[]).await.unwrap().get(0) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "never true: {condition}");
    }
}

/// Conditions begin with a comment that names the slot: `/*slot*/`.
fn condition_slot(condition: &str) -> String {
    let slot = condition.strip_prefix("/*").and_then(|rest| rest.split_once("*/")).map_or("", |(slot, _)| slot);
    format!("WHERE s.slot_name = '{slot}'")
}

#[tokio::test]
async fn rows_stream_over_every_transport_and_feedback_moves_the_slot() {
    let server = Server::with_tls().await;
    let unix = server.admin();
    let tcp = server.settings("scram_role:secret", "postgres?sslmode=disable");
    let tls = server.settings("scram_role:secret", "postgres?sslmode=require");
    let control = connect::control(&unix).await.unwrap();
    for (slot, settings) in [("over_unix", &unix), ("over_tcp", &tcp), ("over_tls", &tls)] {
        created(settings, slot).await;
        let small = StreamOptions { buffer_bytes: 256 << 10, ..options(slot) };
        let mut stream = started(settings, small).await.unwrap();
        // One row is larger than the buffer, and must pass.
        let insert = "TRUNCATE event; INSERT INTO event SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n;
                      INSERT INTO event SELECT 0, string_agg(md5(n::text), '') FROM generate_series(1, 60000) n";
        control.client().batch_execute(insert).await.unwrap();
        let end = read_inserts(&mut stream, 20_001).await;
        stream.feedback().acknowledge(end);
        wait_until(control.client(), &format!("/*{slot}*/ s.confirmed_flush_lsn >= '{end}'")).await;
        control.client().batch_execute("INSERT INTO event VALUES (-1, 'last')").await.unwrap();
        let end = read_inserts(&mut stream, 1).await;
        stream.feedback().acknowledge(end);
        stream.finish().await.unwrap();
        wait_until(control.client(), &format!("/*{slot}*/ s.confirmed_flush_lsn >= '{end}' AND NOT s.active")).await;
    }
}

#[tokio::test]
async fn keepalives_are_answered_while_nobody_reads() {
    let server = Server::plain().await;
    let settings = server.admin();
    let control = connect::control(&settings).await.unwrap();
    created(&settings, "unread").await;
    let url = format!("{}&options=-c%20wal_sender_timeout%3D2s", server.cluster.socket_url("postgres"));
    let impatient = Settings::from_url(&url).unwrap();
    let small = StreamOptions { buffer_bytes: 64 << 10, ..options("unread") };
    let mut stream = started(&impatient, small).await.unwrap();
    let insert = "INSERT INTO event SELECT n, repeat('x', 500) FROM generate_series(1, 50000) n";
    control.client().batch_execute(insert).await.unwrap();
    // Three timeouts later the same walsender is still there and still hears from us.
    let since = "SELECT clock_timestamp()::text, active_pid::text FROM pg_replication_slots WHERE slot_name = 'unread'";
    let row = control.client().query_one(since, &[]).await.unwrap();
    let (start, pid): (String, String) = (row.get(0), row.get(1));
    let alive = format!("/*unread*/ s.active_pid = {pid} AND r.reply_time > '{start}'::timestamptz + '6 s'");
    wait_until(control.client(), &alive).await;
    let end = read_inserts(&mut stream, 50_000).await;
    stream.feedback().acknowledge(end);
    wait_until(control.client(), &format!("/*unread*/ s.confirmed_flush_lsn >= '{end}'")).await;
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn slot_and_publication_errors_name_the_remedy() {
    let server = Server::plain().await;
    let settings = server.admin();
    let error = started(&settings, options("no such slot")).await.unwrap_err();
    assert!(matches!(&error, WalError::SlotMissing { .. }) && error.to_string().contains("lakebed init"), "{error}");

    created(&settings, "busy").await;
    let again = ReplicationConnection::open(&settings).await.unwrap().create_slot("busy", false).await.unwrap_err();
    assert!(matches!(again, WalError::SlotExists { .. }), "{again}");

    let holder = started(&settings, options("busy")).await.unwrap();
    let control = connect::control(&settings).await.unwrap();
    wait_until(control.client(), "/*busy*/ s.active").await;
    let pid: i32 = control
        .client()
        .query_one("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'busy'", &[])
        .await
        .unwrap()
        .get(0);
    let error = started(&settings, options("busy")).await.unwrap_err();
    assert!(matches!(&error, WalError::SlotInUse { .. }) && error.to_string().contains(&pid.to_string()), "{error}");
    assert_eq!(error.retry_class(), RetryClass::Definite);
    holder.finish().await.unwrap();
    wait_until(control.client(), "/*busy*/ NOT s.active").await;

    let nowhere = StreamOptions { publication: "it's \"nowhere\"".to_owned(), ..options("busy") };
    let mut stream = started(&settings, nowhere).await.unwrap();
    control.client().batch_execute("INSERT INTO event VALUES (1, 'x')").await.unwrap();
    let error = failure(&mut stream).await;
    assert!(matches!(error, WalError::PublicationMissing { .. }), "{error}");
    assert!(matches!(stream.next().await, Err(WalError::Ended)));
}

#[tokio::test]
async fn a_terminated_walsender_is_a_transient_error() {
    let server = Server::plain().await;
    let settings = server.admin();
    created(&settings, "terminated").await;
    let mut stream = started(&settings, options("terminated")).await.unwrap();
    let control = connect::control(&settings).await.unwrap();
    wait_until(control.client(), "/*terminated*/ s.active").await;
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'terminated'";
    control.client().batch_execute(kill).await.unwrap();
    let error = failure(&mut stream).await;
    assert_eq!(error.retry_class(), RetryClass::Transient, "{error}");
}

/// Reads on until the stream fails.
async fn failure(stream: &mut ReplicationStream) -> WalError {
    loop {
        match stream.next().await {
            Ok(batch) => drop(batch.expect("no clean end")),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_silent_or_cut_line_is_a_transient_error() {
    let server = Server::plain().await;
    let direct = server.admin();
    created(&direct, "lines").await;
    let proxy = Proxy::start(server.port()).await;
    let url = format!("postgresql://scram_role:secret@127.0.0.1:{}/postgres?sslmode=disable", proxy.port);
    let settings = Settings::from_url(&url).unwrap();
    let control = connect::control(&direct).await.unwrap();
    for silent in [true, false] {
        proxy.pass();
        let impatient = StreamOptions { receive_timeout: Duration::from_secs(2), ..options("lines") };
        let mut stream = started(&settings, impatient).await.unwrap();
        // An idle server is asked in time, so an open line lives longer than the timeout.
        let since = tokio::time::Instant::now();
        while since.elapsed() < Duration::from_secs(4) {
            assert!(stream.next().await.unwrap().is_some());
        }
        if silent {
            proxy.set(Direction::ToClient, Flow::Stall);
        } else {
            proxy.cut();
        }
        let error = failure(&mut stream).await;
        assert_eq!(error.retry_class(), RetryClass::Transient);
        assert_eq!(matches!(error, WalError::Silent { .. }), silent, "{error}");
        drop(stream);
        wait_until(control.client(), "/*lines*/ NOT s.active").await;
    }
}
