use super::environment::fake::FakeEnvironment;
use super::settings::Address;
use super::*;
use std::path::PathBuf;
use std::time::Duration;

fn read(url: &str, environment: FakeEnvironment) -> Settings {
    Settings::from_url_with(url, &environment).unwrap()
}

fn refused(url: &str) -> String {
    Settings::from_url_with(url, &FakeEnvironment::default()).unwrap_err().to_string()
}

#[test]
fn an_empty_url_means_libpqs_defaults() {
    let settings = read("postgresql://", FakeEnvironment::default());
    assert_eq!((settings.user(), settings.database()), ("ann", "ann"));
    assert_eq!(settings.endpoint(), "/var/run/postgresql/.s.PGSQL.5432");
    assert_eq!(settings.ssl_mode(), SslMode::Prefer);
    assert_eq!(settings.channel_binding(), ChannelBinding::Prefer);
    assert_eq!(settings.connect_timeout(), Some(Duration::from_secs(10)));
    assert!(settings.password().is_none() && settings.root_certificate.is_none());
    let other = FakeEnvironment::default().with_file("/tmp/.s.PGSQL.5432", 0o777, "");
    assert_eq!(read("postgresql://", other).endpoint(), "/tmp/.s.PGSQL.5432");
}

#[test]
fn url_beats_service_beats_environment() {
    let environment = || {
        FakeEnvironment::default()
            .with("PGSERVICE", "idp")
            .with("PGHOST", "environment")
            .with("PGPORT", "1")
            .with("PGUSER", "environment")
            .with("PGDATABASE", "environment")
            .with("PGPASSWORD", "environment")
            .with_file("/home/ann/.pg_service.conf", 0o644, "[idp]\nhost=service\nport=2\nuser=service\n[b]\nhost=b\n")
    };
    let settings = read("postgresql://url/", environment());
    assert_eq!(settings.endpoint(), "url:2");
    assert_eq!((settings.user(), settings.database()), ("service", "environment"));
    assert_eq!(settings.password().unwrap().expose(), "environment");
    assert_eq!(read("postgresql:///?service=b", environment()).endpoint(), "b:1");
}

#[test]
fn the_database_follows_the_role() {
    assert_eq!(read("postgresql://lakebed@h", FakeEnvironment::default()).database(), "lakebed");
    let settings = read("postgresql://lakebed@h/idp", FakeEnvironment::default());
    assert_eq!(settings.with_database("postgres").database(), "postgres");
    assert_eq!(settings.with_database("postgres").user(), "lakebed");
}

#[test]
fn endpoints_read_as_people_write_them() {
    assert_eq!(read("postgresql://[::1]:6/", FakeEnvironment::default()).endpoint(), "[::1]:6");
    assert_eq!(read("postgresql://%2Frun%2Fpg:6/", FakeEnvironment::default()).endpoint(), "/run/pg/.s.PGSQL.6");
    let settings = read("postgresql://db.example/?hostaddr=10.0.0.1", FakeEnvironment::default());
    assert_eq!(settings.address, Address::Tcp { host: "db.example".into(), dial: "10.0.0.1".into() });
}

#[test]
fn the_password_file_is_the_last_resort() {
    let environment = |mode| {
        let text = "h:5432:d:u:from file\nlocalhost:*:*:*:socket\n/run/pg:*:*:*:directory\n";
        FakeEnvironment::default().with_file("/home/ann/.pgpass", mode, text)
    };
    let password =
        |url: &str, mode| read(url, environment(mode)).password().map(|password| password.expose().to_owned());
    assert_eq!(password("postgresql://u@h/d", 0o600).as_deref(), Some("from file"));
    assert_eq!(password("postgresql://u:url@h/d", 0o600).as_deref(), Some("url"));
    assert_eq!(password("postgresql://", 0o600).as_deref(), Some("socket"));
    assert_eq!(password("postgresql:///?host=/run/pg", 0o600).as_deref(), Some("directory"));
    let open = read("postgresql://u@h/d", environment(0o644));
    assert!(open.password().is_none());
    assert!(open.warnings().iter().any(|warning| warning.contains("/home/ann/.pgpass")), "{:?}", open.warnings());
    let named = environment(0o644).with_file("/p", 0o600, "*:*:*:*:named");
    let settings = read("postgresql://u@h/d?passfile=/p", named);
    assert_eq!(settings.password().unwrap().expose(), "named");
}

#[test]
fn no_debug_form_shows_the_password() {
    let settings = read("postgresql://u:hunter2@h/d", FakeEnvironment::default());
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn the_home_directory_lends_its_certificates() {
    let environment = || {
        FakeEnvironment::default().with_file("/home/ann/.postgresql/root.crt", 0o644, "").with_file(
            "/home/ann/.postgresql/postgresql.crt",
            0o644,
            "",
        )
    };
    let settings = read("postgresql://h", environment());
    let home = PathBuf::from("/home/ann/.postgresql");
    assert_eq!(settings.root_certificate, Some(RootCertificate::File(home.join("root.crt"))));
    assert_eq!(settings.client_certificate, Some((home.join("postgresql.crt"), home.join("postgresql.key"))));
    let named = read("postgresql://h?sslcert=/c&sslkey=/k&sslrootcert=/r", environment());
    assert_eq!(named.root_certificate, Some(RootCertificate::File("/r".into())));
    assert_eq!(named.client_certificate, Some(("/c".into(), "/k".into())));
}

#[test]
fn the_systems_store_insists_on_the_name() {
    let settings = read("postgresql://h?sslrootcert=system", FakeEnvironment::default());
    assert_eq!((settings.ssl_mode(), settings.root_certificate), (SslMode::VerifyFull, Some(RootCertificate::System)));
    assert!(refused("postgresql://h?sslrootcert=system&sslmode=require").contains("verify-full"));
    let environment = FakeEnvironment::default().with("PGSSLMODE", "verify-ca").with("PGCHANNELBINDING", "require");
    let settings = read("postgresql://h", environment);
    assert_eq!((settings.ssl_mode(), settings.channel_binding()), (SslMode::VerifyCa, ChannelBinding::Require));
}

#[test]
fn numbers_are_checked() {
    let settings = read("postgresql://h?connect_timeout=3&keepalives_idle=7", FakeEnvironment::default());
    assert_eq!(settings.connect_timeout(), Some(Duration::from_secs(3)));
    assert_eq!(settings.keepalive.map(|keepalive| keepalive.idle), Some(Duration::from_secs(7)));
    let settings = read("postgresql://h?connect_timeout=0&keepalives=0", FakeEnvironment::default());
    assert_eq!((settings.connect_timeout(), settings.keepalive), (None, None));
    for (url, name) in [
        ("postgresql://h:0", "port"),
        ("postgresql://h:65536", "port"),
        ("postgresql://h?connect_timeout=soon", "connect_timeout"),
        ("postgresql://h?sslmode=on", "sslmode"),
        ("postgresql://h?channel_binding=yes", "channel_binding"),
        ("postgresql://h?hostaddr=h", "hostaddr"),
        ("postgresql://a,b/", "host"),
    ] {
        assert!(refused(url).contains(name), "{url}");
    }
}
