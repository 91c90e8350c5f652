//! A throw-away cluster with a role for every way to authenticate.

use lakebed::connect::Settings;
use lakebed::demo::{Cluster, ClusterOptions, ServerKind, TlsFiles};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Looked at before the cluster's own rules: trust on the socket, scram-sha-256 on 127.0.0.1.
const RULES: [&str; 8] = [
    "hostssl   all,replication certified  127.0.0.1/32 cert",
    "host      all,replication certified  127.0.0.1/32 reject",
    "host      all,replication md5_role   127.0.0.1/32 md5",
    "host      all,replication clear_role 127.0.0.1/32 password",
    "host      all,replication barred     127.0.0.1/32 reject",
    "hostssl   all,replication tls_only   127.0.0.1/32 scram-sha-256",
    "hostnossl all,replication tls_only   127.0.0.1/32 reject",
    "hostssl   all,replication plain_only 127.0.0.1/32 reject",
];

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

/// A cluster and, where it has TLS, the folder of everybody's certificates and keys.
pub(super) struct Server {
    pub(super) cluster: Cluster,
    certificates: Option<TempDir>,
}

impl Server {
    /// Without TLS.
    pub(super) async fn plain() -> Self {
        Self::start(ClusterOptions::default(), None).await
    }

    /// Without TLS, of a kind.
    pub(super) async fn of(server: ServerKind) -> Self {
        Self::start(ClusterOptions { server, ..ClusterOptions::default() }, None).await
    }

    /// With TLS, and with rules about who must use it.
    pub(super) async fn with_tls() -> Self {
        let folder = TempDir::new().unwrap();
        certificates(folder.path());
        let file = |name: &str| folder.path().join(name);
        let tls = TlsFiles {
            certificate: file("server.crt"),
            key: file("server.key"),
            client_authority: Some(file("ca.crt")),
        };
        let authentication_rules = RULES.iter().map(|&rule| rule.to_owned()).collect();
        let options = ClusterOptions { tls: Some(tls), authentication_rules, ..ClusterOptions::default() };
        Self::start(options, Some(folder)).await
    }

    async fn start(options: ClusterOptions, certificates: Option<TempDir>) -> Self {
        let cluster = Cluster::start(options).await.unwrap();
        cluster.execute("postgres", ROLES).await.unwrap();
        Self { cluster, certificates }
    }

    pub(super) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// A role over TCP: `user` may hold a password, `rest` is the database and parameters.
    pub(super) fn settings(&self, user: &str, rest: &str) -> Settings {
        Settings::from_url(&format!("postgresql://{user}@127.0.0.1:{}/{rest}", self.port())).unwrap()
    }

    /// The superuser over the Unix socket.
    pub(super) fn admin(&self) -> Settings {
        Settings::from_url(&self.cluster.socket_url("postgres")).unwrap()
    }

    /// Path of a certificate or key.
    pub(super) fn file(&self, name: &str) -> String {
        self.certificates.as_ref().unwrap().path().join(name).display().to_string()
    }
}

/// One authority with a server certificate for localhost and a client certificate for role `certified`, and a stranger.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=authority
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout other.key -out other.crt -subj /CN=stranger
        issue() {
            openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$2
            printf "$3" > $1.ext
            openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                -days 30 -sha384 -extfile $1.ext -out $1.crt
        }
        issue server localhost 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n'
        issue client certified 'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n'
        chmod 600 *.key
        cp client.key client-open.key && chmod 644 client-open.key
    "#;
    let output = Command::new("bash").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
