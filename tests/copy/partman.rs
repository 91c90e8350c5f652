//! What the customer's nightly jobs do to the partitions: by pg_partman where the server has it, and by the same statements elsewhere.

use super::load::ROLLED_BACK;
use super::{Old, TABLES};
use crate::support::{DATABASE, Site};
use chrono::NaiveDate;
use lakebed::demo::Connection;

/// Nobody waits longer for a lock: whoever copies lets others pass.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'";
/// A deadlock with a session that writes ends one of both.
const ATTEMPTS: u32 = 20;

impl Old {
    /// Rows of the default partitions move into leaves of their days.
    pub(super) async fn empty_default(&self) {
        let partman = maintenance(&self.site).await;
        for table in TABLES {
            if self.site.cluster.has_extensions() {
                let call = format!("CALL partman.partition_data_proc('public.{table}', p_wait := 0, p_quiet := true)");
                again_and_again(&partman, &call).await;
                continue;
            }
            let days = format!("SELECT DISTINCT created_at::date FROM public.{table}_default ORDER BY 1");
            for day in self.site.cluster.query(DATABASE, &days).await.unwrap().into_iter().flatten().flatten() {
                again_and_again(&partman, &moved(table, day.parse().unwrap())).await;
            }
        }
    }

    /// Leaves older than so many days go to schema `archive`.
    pub(super) async fn detach_older_than(&self, days: u32) {
        detach_older_than(&self.site, days, self.day(days)).await;
    }
}

/// As [`Old::detach_older_than`], with the day of the oldest leaf that stays, where it is done by hand.
pub(super) async fn detach_older_than(site: &Site, days: u32, oldest: NaiveDate) {
    let partman = maintenance(site).await;
    if site.cluster.has_extensions() {
        let retention = format!(
            "UPDATE partman.part_config SET retention = '{days} days' WHERE parent_table LIKE 'public.security_event%'"
        );
        site.sql(&retention).await;
        again_and_again(&partman, "CALL partman.run_maintenance_proc()").await;
        return;
    }
    for table in TABLES {
        let old = format!(
            "SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
             WHERE inhparent = 'public.{table}'::regclass AND relname ~ '_p[0-9]{{8}}$'
               AND right(relname, 8) < '{}' ORDER BY 1",
            oldest.format("%Y%m%d")
        );
        for leaf in site.cluster.query(DATABASE, &old).await.unwrap().into_iter().flatten().flatten() {
            again_and_again(&partman, &detached(table, &leaf)).await;
        }
    }
}

/// A session of the role that owns the tables.
async fn maintenance(site: &Site) -> Connection {
    let connection = site.cluster.connect(DATABASE).await.unwrap();
    connection.execute(LOCK_TIMEOUT).await.unwrap();
    connection.execute("SET ROLE idp").await.unwrap();
    connection
}

async fn again_and_again(partman: &Connection, sql: &str) {
    for _ in 0..ATTEMPTS {
        let Err(error) = partman.batch_execute(sql).await else { return };
        let message = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        let code = error.code().map(|state| state.code().to_owned()).unwrap_or_default();
        // partman raises what struck it as an error of its own, with the first one's words.
        let is_deadlock = ROLLED_BACK.contains(&code.as_str())
            || message.contains("deadlock detected")
            || message.contains("would be violated by some row");
        assert!(is_deadlock, "{error:?}: {sql}");
        partman.execute("ROLLBACK").await.unwrap();
    }
    panic!("{ATTEMPTS} attempts were in vain: {sql}");
}

/// As pg_partman 5 does it at retention with `retention_keep_index = false`: no key is left.
fn detached(table: &str, leaf: &str) -> String {
    format!(
        "BEGIN;
         ALTER TABLE public.{table} DETACH PARTITION public.{leaf};
         ALTER TABLE public.{leaf} DROP CONSTRAINT {leaf}_pkey;
         ALTER TABLE public.{leaf} SET SCHEMA archive;
         COMMIT"
    )
}

/// As pg_partman does it, in one transaction. The rows go into the leaf itself: row-level security stands on the parent.
fn moved(table: &str, day: NaiveDate) -> String {
    let next = day.succ_opt().unwrap();
    let leaf = format!("{table}_p{}", day.format("%Y%m%d"));
    let rows = format!("public.{table}_default WHERE created_at >= '{day}' AND created_at < '{next}'");
    format!(
        "BEGIN;
         CREATE TEMP TABLE moved (LIKE public.{table}) ON COMMIT DROP;
         WITH gone AS (DELETE FROM {rows} RETURNING *) INSERT INTO moved SELECT * FROM gone;
         CREATE TABLE public.{leaf} PARTITION OF public.{table} FOR VALUES FROM ('{day}') TO ('{next}');
         INSERT INTO public.{leaf} SELECT * FROM moved;
         COMMIT"
    )
}
