//! A second server made of the first one's data: a standby that can take over, and what a restore brings back.

use super::{Cluster, ClusterDirectory, SUPERUSER};
use crate::demo::DemoError;
use crate::demo::server::{Account, run_to_end};
use std::path::Path;

/// Physical slot of a standby on its primary; without it, its feedback would be forgotten whenever it is away.
const STANDBY_SLOT: &str = "standby";
/// The first `server_version_num` that keeps logical slots on a standby.
const SLOT_SYNC_VERSION_MIN: u32 = 170_000;
/// How long a promotion may take.
const PROMOTE_WITHIN_SECONDS: u32 = 60;

/// What becomes of the copied data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// Streams from the original, with its logical slots where the server can (17 and later), until [`Cluster::promote`].
    Standby,
    /// A backup that is restored: it stays where the copy was made, slots included, until [`Cluster::promote`] gives it a timeline.
    Restore,
    /// A disk that is put back: it goes on from where the copy was made, on the same timeline.
    Snapshot,
}

impl Cluster {
    /// Stops the server, copies its data, starts it again, and starts the copy as another server. Roles, passwords, databases and
    /// settings are the original's; port and folder are the copy's own.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub async fn copy(&mut self, kind: CopyKind) -> Result<Cluster, DemoError> {
        let version = self.version().await?;
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.stop().await;
        }
        let options = super::ClusterOptions { directory: None, keep_directory: false, ..self.options.clone() };
        let directory = ClusterDirectory::create(&options, self.account)?;
        copy_folder(&self.directory.data(), &directory.data(), self.account).await?;
        self.launch().await?;
        let mut copy = Cluster {
            postmaster: None,
            directory,
            server: self.server.clone(),
            account: self.account,
            port: 0,
            password: self.password.clone(),
            options,
        };
        if kind != CopyKind::Snapshot {
            super::write_owned(&copy.directory.data().join("standby.signal"), "", self.account)?;
        }
        if kind == CopyKind::Standby {
            self.execute("postgres", &format!("SELECT pg_create_physical_replication_slot('{STANDBY_SLOT}', true)"))
                .await?;
            // As in any base backup: slots of the original would stand in the way of those that are kept in step.
            empty_folder(&copy.directory.data().join("pg_replslot"))?;
            copy.options.extra_settings.extend(self.standby_settings(version));
        }
        let options = copy.options.clone();
        copy.start_on_a_free_port(&options).await?;
        Ok(copy)
    }

    /// Ends a copy's recovery: from here on it writes, on a timeline of its own.
    ///
    /// # Errors
    /// [`DemoError::Sql`] when it is no standby, [`DemoError::Server`] when it does not get there.
    pub async fn promote(&self) -> Result<(), DemoError> {
        let promoted = self.query("postgres", &format!("SELECT pg_promote(true, {PROMOTE_WITHIN_SECONDS})")).await?;
        if promoted.first().and_then(|row| row.first()).and_then(Option::as_deref) == Some("t") {
            return Ok(());
        }
        let message = format!("after {PROMOTE_WITHIN_SECONDS} s");
        Err(DemoError::Server { what: "was not promoted", message })
    }

    async fn version(&self) -> Result<u32, DemoError> {
        let rows = self.query("postgres", "SHOW server_version_num").await?;
        let shown = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
        let unreadable = || DemoError::Server { what: "has no version", message: format!("{shown:?}") };
        shown.and_then(|text| text.parse().ok()).ok_or_else(unreadable)
    }

    fn standby_settings(&self, version: u32) -> Vec<(String, String)> {
        let sockets = self.directory.sockets().display().to_string();
        let conninfo = format!("host={sockets} port={} user={SUPERUSER} dbname=postgres", self.port);
        let mut settings = vec![
            ("primary_conninfo", conninfo),
            ("primary_slot_name", STANDBY_SLOT.to_owned()),
            ("hot_standby_feedback", "on".to_owned()),
        ];
        if version >= SLOT_SYNC_VERSION_MIN {
            settings.push(("sync_replication_slots", "on".to_owned()));
        }
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Keeps owner and modes, which the server insists on.
async fn copy_folder(from: &Path, to: &Path, account: Account) -> Result<(), DemoError> {
    let mut command = account.command(Path::new("cp"), "KILL");
    command.arg("-a").arg(from).arg(to);
    run_to_end(command, "cp").await
}

fn empty_folder(path: &Path) -> Result<(), DemoError> {
    for entry in std::fs::read_dir(path).map_err(DemoError::file("read", path))? {
        let entry = entry.map_err(DemoError::file("read", path))?.path();
        std::fs::remove_dir_all(&entry).map_err(DemoError::file("remove", &entry))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{ClusterOptions, ServerKind};

    const TIMELINE: &str = "SELECT timeline_id FROM pg_control_checkpoint()";

    async fn value(cluster: &Cluster, sql: &str) -> String {
        cluster.query("postgres", sql).await.unwrap().remove(0).remove(0).unwrap_or_default()
    }

    async fn wait_for(cluster: &Cluster, sql: &str) {
        let condition = async {
            while value(cluster, sql).await != "t" {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), condition).await.expect(sql);
    }

    async fn original(server: ServerKind) -> Cluster {
        let cluster = Cluster::start(ClusterOptions { server, ..ClusterOptions::default() }).await.unwrap();
        cluster.execute("postgres", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await.unwrap();
        cluster.execute("postgres", "SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput')").await.unwrap();
        cluster
    }

    #[tokio::test]
    async fn a_restored_copy_has_the_slot_and_after_its_promotion_a_timeline_of_its_own() {
        for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
            let mut cluster = original(server).await;
            let snapshot = cluster.copy(CopyKind::Snapshot).await.unwrap();
            assert_eq!(value(&snapshot, "SELECT pg_is_in_recovery()").await, "f");
            assert_eq!(value(&snapshot, TIMELINE).await, "1");
            snapshot.stop().await;

            let restored = cluster.copy(CopyKind::Restore).await.unwrap();
            cluster.execute("postgres", "INSERT INTO kept VALUES (2)").await.unwrap();
            restored.promote().await.unwrap();
            restored.execute("postgres", "CHECKPOINT").await.unwrap();
            assert_eq!(value(&restored, TIMELINE).await, "2");
            assert_eq!(value(&restored, "SELECT count(*) FROM kept").await, "1");
            assert_eq!(value(&restored, "SELECT wal_status FROM pg_replication_slots").await, "reserved");
            assert!(restored.promote().await.is_err(), "it is no standby any more");
            let identity = "SELECT system_identifier FROM pg_control_system()";
            assert_eq!(value(&restored, identity).await, value(&cluster, identity).await);
        }
    }

    #[tokio::test]
    async fn a_standby_takes_over_with_the_slot() {
        let mut cluster = original(ServerKind::postgres_18().unwrap()).await;
        let standby = cluster.copy(CopyKind::Standby).await.unwrap();
        cluster.execute("postgres", "SELECT pg_drop_replication_slot('lakebed')").await.unwrap();
        let create = "SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput', failover => true)";
        cluster.execute("postgres", create).await.unwrap();
        cluster.execute("postgres", "INSERT INTO kept VALUES (2)").await.unwrap();
        wait_for(&standby, "SELECT count(*) = 2 FROM kept").await;
        // A standby keeps a slot only once it stands behind the standby's own oldest WAL: somebody has to consume it.
        let consume =
            "SELECT pg_log_standby_snapshot(); SELECT pg_replication_slot_advance('lakebed', pg_current_wal_lsn())";
        let consumed = async {
            while value(&standby, "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary").await
                != "1"
            {
                cluster.execute("postgres", consume).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), consumed).await.expect("the slot is kept in step");
        cluster.kill_immediately().await;
        standby.promote().await.unwrap();
        standby.execute("postgres", "INSERT INTO kept VALUES (3)").await.unwrap();
        assert_eq!(value(&standby, "SELECT failover FROM pg_replication_slots WHERE slot_name = 'lakebed'").await, "t");
    }
}
