//! One throw-away cluster for this test binary.

use lakebed::connect::Settings;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A throw-away cluster; it stops when the last test's process ends, because its starter holds the life line.
pub(crate) struct Server {
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn url(&self, user: &str, rest: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{rest}", self.port)
    }

    pub(crate) fn socket_url(&self, database: &str) -> String {
        format!("postgresql://postgres@/{database}?host={}&port={}", self.folder.display(), self.port)
    }

    pub(crate) fn settings(&self, user: &str, rest: &str) -> Settings {
        Settings::from_url(&self.url(user, rest)).unwrap()
    }

    pub(crate) fn admin(&self) -> Settings {
        Settings::from_url(&self.socket_url("postgres")).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn as_postgres(program: &str, arguments: &[&str]) {
    run(Command::new("runuser").args(["-u", "postgres", "--", program]).args(arguments));
}

/// One authority, one server certificate for localhost, one client certificate for role `certified`, one stranger's authority.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=authority
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout other.key -out other.crt -subj /CN=stranger
        issue() {
            openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$2
            printf "$3" > $1.ext
            openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -sha384 -extfile $1.ext -out $1.crt
        }
        issue server localhost 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n'
        issue client certified 'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n'
        chmod 600 *.key
        cp client.key client-open.key && chmod 644 client-open.key
    "#;
    run(Command::new("bash").args(["-c", script]).current_dir(folder));
}

const HBA: &str = "
local   all,replication  all                        trust
hostssl all,replication  certified  127.0.0.1/32    cert
host    all,replication  certified  127.0.0.1/32    reject
host    all,replication  md5_role   127.0.0.1/32    md5
host    all,replication  clear_role 127.0.0.1/32    password
host    all,replication  barred     127.0.0.1/32    reject
hostssl all,replication  tls_only   127.0.0.1/32    scram-sha-256
hostnossl all,replication tls_only  127.0.0.1/32    reject
hostssl all,replication  plain_only 127.0.0.1/32    reject
host    all,replication  all        127.0.0.1/32    scram-sha-256
";

const ROLES: &str = "
CREATE ROLE scram_role LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE tls_only LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE plain_only LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE clear_role LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE plain_login LOGIN PASSWORD 'secret';
CREATE ROLE certified LOGIN REPLICATION;
CREATE ROLE barred LOGIN REPLICATION PASSWORD 'secret';
SET password_encryption = 'md5';
CREATE ROLE md5_role LOGIN REPLICATION PASSWORD 'secret';
CREATE TABLE event (id int8 PRIMARY KEY, body text);
CREATE PUBLICATION lakebed FOR TABLE event;
";

/// The cluster of this test binary.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("lakebed-connection-").tempdir().unwrap().keep();
        certificates(&folder);
        run(Command::new("chown").args(["-R", "postgres"]).arg(&folder));
        let data = folder.join("data").display().to_string();
        as_postgres(
            &format!("{BIN}/initdb"),
            &["-D", &data, "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"],
        );
        std::fs::write(folder.join("data/pg_hba.conf"), HBA).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = folder.display();
        let options = format!(
            "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place} -c wal_level=logical \
             -c max_wal_senders=20 -c max_replication_slots=20 -c fsync=off -c shared_buffers=32MB -c ssl=on \
             -c ssl_cert_file={place}/server.crt -c ssl_key_file={place}/server.key -c ssl_ca_file={place}/ca.crt"
        );
        let log = folder.join("log").display().to_string();
        as_postgres(&format!("{BIN}/pg_ctl"), &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        // The keys belong to the tests' own user from here on, except the server's.
        run(Command::new("chown").args(["root", "client.key", "client-open.key"]).current_dir(&folder));
        stop_when_this_process_ends(&data, &folder);
        let socket = folder.display().to_string();
        let port_text = port.to_string();
        as_postgres(
            &format!("{BIN}/psql"),
            &["-qX", "-v", "ON_ERROR_STOP=1", "-h", &socket, "-p", &port_text, "-c", ROLES],
        );
        Server { folder, port }
    })
}

/// A static is never dropped, so a shell waits for the end of its standard input, which ends with this process.
fn stop_when_this_process_ends(data: &str, folder: &Path) {
    let script =
        "cat >/dev/null; runuser -u postgres -- \"$0\" -D \"$1\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"";
    let child = Command::new("setsid")
        .args(["sh", "-c", script, &format!("{BIN}/pg_ctl"), data])
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::mem::forget(child);
}
