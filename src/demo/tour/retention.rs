//! partman's retention, and what makes it harmless: the days that it detaches are balanced with the lake, dropped, and
//! asked for again.

use super::super::{Connection, DemoError, customer};
use super::screen::{Screen, grouped};
use super::stages::{LOOK_INTERVAL, Stages, TABLES};
use std::collections::BTreeMap;
use std::time::Instant;

/// What the guide's configuration of partman keeps attached.
const RETENTION_DAYS: u32 = 90;
/// The guide's job of 02:00 UTC, and who runs it: whoever else ran it would own what it makes.
const MAINTENANCE: &str = "CALL partman.run_maintenance_proc()";
const MAINTENANCE_ROLE: &str = "idp";
/// Detached tables; the receipts and their like lie in the same schema.
const WAITING: &str = "SELECT tablename FROM pg_catalog.pg_tables
                       WHERE schemaname = 'archive' AND tablename ~ '_p[0-9][0-9_]*$' ORDER BY tablename";
const RECEIPTS: &str = "SELECT count(*), coalesce(sum(rows), 0) FROM archive.receipt";
const OLDEST: &str = "SELECT sequence, rows, lower_bound, upper_bound FROM archive.receipt
                      WHERE table_name = 'public.security_event' ORDER BY lower_bound, sequence LIMIT 1";
/// Lines of a report that are shown; the others say the same of other days.
const LINES_SHOWN: usize = 3;

impl Stages<'_> {
    /// Maintenance, balance and drop, and what the lake says of the dropped days.
    pub(super) async fn retire_old_days(&mut self) -> Result<(), DemoError> {
        let days = self.options.history_days;
        self.screen.heading(&format!("5. partman's retention: days older than {RETENTION_DAYS} leave PostgreSQL"));
        if days <= RETENTION_DAYS {
            self.screen
                .line(&format!("   The history has {days} days, so there is nothing to detach; --days 120 has."));
            return Ok(());
        }
        let waiting = self.detach().await?;
        self.balance_and_drop(waiting).await?;
        self.ask_for_the_oldest().await?;
        self.audit().await
    }

    /// Runs the guide's job now, and says how many tables of ours wait in the archive schema.
    async fn detach(&mut self) -> Result<usize, DemoError> {
        self.screen
            .line(&format!("   > {MAINTENANCE}   -- as {MAINTENANCE_ROLE}, as the guide's job does at 02:00 UTC"));
        let role = self.cluster.socket_url_of(MAINTENANCE_ROLE, customer::DATABASE);
        Connection::open(&role).await?.execute(MAINTENANCE).await?;
        let names = self.waiting().await?;
        let mut roots = by_root(&names);
        let mut ours = 0;
        for table in TABLES {
            let Some(tables) = roots.remove(table) else {
                let reason = format!("partman's maintenance detached no partition of {table}");
                return Err(DemoError::Archive { reason });
            };
            ours += tables.len();
            self.screen.line(&format!("   {table}: {}", ends_of(&tables)));
        }
        if !roots.is_empty() {
            let count: usize = roots.values().map(Vec::len).sum();
            let others = roots.keys().copied().collect::<Vec<_>>().join(", ");
            let because = "are in no [[table]] of the pipeline file: lakebed leaves them alone";
            self.screen.line(&format!("   {others}: {count} tables, which {because}"));
        }
        Ok(ours)
    }

    async fn waiting(&self) -> Result<Vec<String>, DemoError> {
        let names = self.cluster.query(customer::DATABASE, WAITING).await?;
        Ok(names.into_iter().flatten().flatten().collect())
    }

    /// `lakebed reconcile`, which has to drop every one of them.
    async fn balance_and_drop(&mut self, waiting: usize) -> Result<(), DemoError> {
        self.screen.line("   > lakebed reconcile");
        let begun = Instant::now();
        let connection = self.cluster.connect(customer::DATABASE).await?;
        let lines = tokio::select! {
            lines = self.verbs.report("reconcile", is_drop) => lines?,
            error = show_receipts(self.screen, &connection, waiting) => return Err(error),
        };
        self.show_first(&lines);
        let names = self.waiting().await?;
        let left = by_root(&names);
        if let Some(table) = TABLES.into_iter().find(|table| left.contains_key(*table)) {
            let reason = format!("partitions of {table} wait in the archive schema after `lakebed reconcile`");
            return Err(DemoError::Archive { reason });
        }
        let [receipts, rows] = numbers(&connection, RECEIPTS).await?;
        self.screen.line(&format!(
            "   none of them is left in PostgreSQL, {:.1} s; archive.receipt has {} receipts, of {} rows\n",
            begun.elapsed().as_secs_f64(),
            grouped(receipts),
            grouped(rows)
        ));
        Ok(())
    }

    /// The lake has the rows of the oldest day that PostgreSQL dropped.
    async fn ask_for_the_oldest(&mut self) -> Result<(), DemoError> {
        let oldest = self.cluster.query(customer::DATABASE, OLDEST).await?;
        let oldest: Vec<String> = oldest.into_iter().flatten().flatten().collect();
        let [receipt, rows, lower, upper] = oldest.as_slice() else {
            return Err(DemoError::Archive { reason: "there is no receipt of security_event".to_owned() });
        };
        let condition = format!("created_at >= '{lower}' AND created_at < '{upper}'");
        self.screen.line(&format!("   > SELECT count(*) FROM {} WHERE {condition}", TABLES[0]));
        let lake = self.verbs.count_rows(TABLES[0], &condition).await?;
        if lake.to_string() != *rows {
            let reason = format!("receipt {receipt} says {rows} rows of {lower}, and the lake answers {lake}");
            return Err(DemoError::Archive { reason });
        }
        self.screen.line(&format!("   {} rows in the lake, as receipt {receipt} says\n", grouped(lake)));
        Ok(())
    }

    /// The lake proves itself, by the receipts that lie in it.
    async fn audit(&mut self) -> Result<(), DemoError> {
        self.screen.line("   > lakebed audit");
        let begun = Instant::now();
        let lines = self.verbs.report("audit", is_proved).await?;
        self.show_first(&lines);
        let seconds = begun.elapsed().as_secs_f64();
        self.screen.line(&format!("   every file read and hashed again, {seconds:.1} s"));
        Ok(())
    }

    fn show_first(&mut self, lines: &[String]) {
        for line in lines.iter().take(LINES_SHOWN) {
            self.screen.line(&format!("   {line}"));
        }
        let more = lines.len().saturating_sub(LINES_SHOWN) as u64;
        if more > 0 {
            self.screen.line(&format!("   …   {} more lines, which say the same of other days", grouped(more)));
        }
    }
}

/// Shows how far `lakebed reconcile` is, which reports at its end; returns only when it cannot be told.
async fn show_receipts(screen: &mut Screen, connection: &Connection, waiting: usize) -> DemoError {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match numbers(connection, RECEIPTS).await {
            Ok([receipts, _]) => screen.progress(&format!("{receipts} of {waiting} balanced and dropped")),
            Err(error) => return error,
        }
    }
}

/// The one row of a query of two numbers.
async fn numbers(connection: &Connection, sql: &str) -> Result<[u64; 2], DemoError> {
    let cells = connection.query(sql).await?.into_iter().flatten().flatten();
    let numbers: Vec<u64> = cells.filter_map(|cell| cell.parse().ok()).collect();
    numbers.try_into().map_err(|_| DemoError::Archive { reason: "the receipts cannot be counted".to_owned() })
}

/// partman's names, `security_event_p2026_01_02`, by the table that they were partitions of.
fn by_root(names: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut roots: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let root = name.rsplit_once("_p").map_or(name.as_str(), |(root, _)| root);
        roots.entry(root).or_default().push(name);
    }
    roots
}

/// How many there are, and the first and the last of them.
fn ends_of(names: &[&str]) -> String {
    match names {
        [] => "no table waits in schema archive".to_owned(),
        [only] => format!("1 table waits in schema archive, {only}"),
        [first, .., last] => format!("{} tables wait in schema archive, {first} to {last}", names.len()),
    }
}

/// Whether a line of `lakebed reconcile` says that a table was dropped.
fn is_drop(line: &str) -> bool {
    line.contains(" rows balanced and dropped, receipt ")
}

/// Whether a line of `lakebed audit` says that all is well, or explains the line before it.
fn is_proved(line: &str) -> bool {
    line.contains(": good, ")
        || line.ends_with(" receipts in the lake; PostgreSQL has the same")
        || line.starts_with("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maintenance_is_the_guides() {
        let cron = include_str!("../customer_cron.sql");
        assert!(cron.contains(&format!("$${MAINTENANCE}$$")) && cron.contains(&format!("'{MAINTENANCE_ROLE}'")));
        let partman = include_str!("../customer_partman.sql");
        assert!(partman.contains(&format!("retention = '{RETENTION_DAYS} days'")));
    }

    #[test]
    fn what_waits_is_told_by_the_table_that_it_was_a_partition_of() {
        let names = [
            "security_event_hook_results_p2026_01_02",
            "security_event_p2026_01_02",
            "security_event_p2026_01_03",
            "statistics_yearly_users_p2026_01_01",
        ];
        let names = names.map(str::to_owned);
        let roots = by_root(&names);
        assert_eq!(
            roots.keys().copied().collect::<Vec<_>>(),
            ["security_event", "security_event_hook_results", "statistics_yearly_users"]
        );
        assert_eq!(
            ends_of(&roots["security_event"]),
            "2 tables wait in schema archive, security_event_p2026_01_02 to security_event_p2026_01_03"
        );
        assert_eq!(
            ends_of(&roots["statistics_yearly_users"]),
            "1 table waits in schema archive, statistics_yearly_users_p2026_01_01"
        );
        assert_eq!(ends_of(&[]), "no table waits in schema archive");
    }

    #[test]
    fn only_a_drop_is_a_drop() {
        let name = "archive.security_event_p2026_01_02 (2026-01-02)";
        assert!(is_drop(&format!("{name}: 20 rows balanced and dropped, receipt 1")));
        for outcome in [
            "20 rows balance",
            "does not balance: the lake has 19 rows",
            "dropped by somebody else meanwhile",
            "not judged: nobody follows slot lakebed",
        ] {
            assert!(!is_drop(&format!("{name}: {outcome}")), "{outcome}");
        }
        assert!(!is_drop("no detached partition waits"));
    }

    #[test]
    fn an_audit_is_good_when_every_line_is() {
        for line in [
            "60 receipts in the lake; PostgreSQL has the same",
            "public.security_event 2026-01-02: good, 20 rows, 1 files, 1 of them by their receipt",
            "  it holds further rows, and PostgreSQL has them",
        ] {
            assert!(is_proved(line), "{line}");
        }
        for line in [
            "60 receipts in the lake; PostgreSQL has others",
            "chain: in the lake: receipt 2 is missing",
            "public.security_event 2026-01-02: differs, 19 rows, 1 files, 1 of them by their receipt",
            "public.security_event 2026-01-02: unknown, not read, 1 files, 1 of them by their receipt",
        ] {
            assert!(!is_proved(line), "{line}");
        }
    }
}
