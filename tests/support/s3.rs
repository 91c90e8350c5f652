//! A real S3 server, SeaweedFS, for one test.

use deltalake::logstore::object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use deltalake::logstore::object_store::path::Path as StorePath;
use deltalake::logstore::object_store::{ObjectStore, ObjectStoreExt};
use futures::TryStreamExt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The bucket that the server starts with.
pub const BUCKET: &str = "lake1";
const ACCESS_KEY: &str = "lakebed-test";
const SECRET_KEY: &str = "canary-91be";
/// SeaweedFS listens for its own calls this far above each port.
const GRPC_OFFSET: u16 = 10_000;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server and the folder with its data. It ends when dropped; the folder is the caller's.
pub struct S3 {
    folder: PathBuf,
    ports: Ports,
    child: Option<Child>,
}

struct Ports {
    s3: u16,
    master: u16,
    volume: u16,
    filer: u16,
    admin: u16,
}

impl S3 {
    /// On a folder that does not exist yet, with one empty bucket.
    pub async fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let [s3, master, volume, filer, admin] = free_ports();
        let ports = Ports { s3, master, volume, filer, admin };
        let mut server = Self { folder: folder.to_owned(), ports, child: None };
        server.restart().await;
        server
    }

    /// The port that speaks S3.
    pub fn port(&self) -> u16 {
        self.ports.s3
    }

    /// SIGKILL: nothing is flushed or handed over.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Starts it again on the same folder and ports, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill().await;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("server.log")).unwrap();
        let mut command = Command::from(program());
        command.args(["-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        command.args(["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=256"]);
        command.arg(format!("-dir={}", self.folder.display()));
        let Ports { s3, master, volume, filer, admin } = self.ports;
        for (name, port) in [("s3", s3), ("master", master), ("volume", volume), ("filer", filer), ("admin", admin)] {
            command.arg(format!("-{name}.port={port}"));
        }
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("S3_BUCKET", BUCKET).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let ready = async {
            while !self.answers().await {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "SeaweedFS ended: {}", self.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(READY_WITHIN, ready).await.is_ok();
        assert!(ready, "SeaweedFS is not ready: {}", self.log());
    }

    /// The health page speaks for the gateway alone; the bucket answers when everything behind it is there.
    async fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.ports.s3)).await else { return false };
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut response = String::new();
        if socket.write_all(request).await.is_err() || socket.read_to_string(&mut response).await.is_err() {
            return false;
        }
        if !response.starts_with("HTTP/1.1 200") {
            return false;
        }
        let probe = StorePath::from("ready");
        self.store().put(&probe, "ready".into()).await.is_ok() && self.store().delete(&probe).await.is_ok()
    }

    /// Objects below a prefix.
    pub async fn count(&self, prefix: &str) -> usize {
        self.store().list(Some(&StorePath::from(prefix))).try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// Changes one byte of every object below a prefix, as nobody should.
    pub async fn tamper(&self, prefix: &str) {
        let store = self.store();
        let objects: Vec<_> = store.list(Some(&StorePath::from(prefix))).try_collect().await.unwrap();
        assert!(!objects.is_empty(), "nothing below {prefix}");
        for object in objects {
            let mut bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap().to_vec();
            bytes[3] ^= 1;
            store.put(&object.location, bytes.into()).await.unwrap();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    fn store(&self) -> impl ObjectStore {
        let client = deltalake::logstore::object_store::ClientOptions::new().with_allow_http(true);
        let retry = deltalake::logstore::object_store::RetryConfig { max_retries: 0, ..Default::default() };
        AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{}", self.ports.s3))
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client)
            .with_retry(retry)
            .build()
            .unwrap()
    }

    /// Copies every object below a prefix into a folder, which is emptied first, so that readers of local files see the lake.
    pub async fn copy_to(&self, prefix: &str, folder: &Path) {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).unwrap();
        let store = self.store();
        let prefix = StorePath::from(prefix);
        let objects: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
        for object in objects {
            let name: PathBuf =
                object.location.prefix_match(&prefix).unwrap().map(|part| part.as_ref().to_owned()).collect();
            let target = folder.join(name);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            std::fs::write(target, bytes).unwrap();
        }
    }
}

/// It leaves its sockets behind in the temporary folder, named by their ports.
impl Drop for S3 {
    fn drop(&mut self) {
        self.child = None;
        let Ports { s3, master, volume, filer, admin } = self.ports;
        for (name, port) in [("s3", s3), ("master", master), ("volume", volume), ("filer", filer), ("admin", admin)] {
            for file in [format!("{name}-{port}"), format!("{name}-grpc-{}", port + GRPC_OFFSET)] {
                let _ = std::fs::remove_file(format!("/tmp/seaweedfs-{file}.sock"));
            }
        }
    }
}

/// The lines of `[lake.options]` for the server behind a port, which may be a proxy's.
pub fn options(port: u16) -> Vec<(String, String)> {
    let options = [
        ("endpoint", format!("http://127.0.0.1:{port}")),
        ("allow_http", "true".to_owned()),
        ("access_key_id", ACCESS_KEY.to_owned()),
        ("secret_access_key", SECRET_KEY.to_owned()),
        ("region", "us-east-1".to_owned()),
        ("virtual_hosted_style_request", "false".to_owned()),
        ("conditional_put", "etag".to_owned()),
    ];
    options.map(|(name, value)| (format!("aws_{name}"), value)).to_vec()
}

/// Dies with us, whatever ends us.
fn program() -> std::process::Command {
    let weed = std::env::var("LAKEBED_WEED").expect("LAKEBED_WEED names the SeaweedFS program: run scripts/test");
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return std::process::Command::new(weed);
    }
    let mut command = std::process::Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", &weed]);
    command
}

/// Ports whose neighbours for SeaweedFS's own calls are free, too. Both lie below 32768, where the kernel begins to choose the near end of
/// every connection: such a port can be taken between this look and the server's own.
fn free_ports() -> [u16; 5] {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < 5 {
        let port = 11_000 + rand::random::<u16>() % GRPC_OFFSET;
        let pair = [port, port + GRPC_OFFSET].map(|port| TcpListener::bind(("127.0.0.1", port)));
        if let [Ok(one), Ok(other)] = pair {
            held.extend([one, other]);
            ports.push(port);
        }
    }
    ports.try_into().unwrap()
}
