//! pg_cron's jobs, read in the database where it is installed.

use super::SourceError;
use super::read::{field, read, read_one};
use tokio_postgres::{Client, Row};

/// A row of `cron.job`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJob {
    /// `jobname`; jobs may have none.
    pub name: Option<String>,
    /// `schedule`, in cron's five fields.
    pub schedule: String,
    /// The role that the job runs as.
    pub user: String,
    /// The statement.
    pub command: String,
    /// Inactive jobs never run.
    pub active: bool,
}

/// The jobs that run in `database`. Without being superuser, only one's own are visible.
///
/// # Errors
/// SQLSTATE 42P01 or 3F000 when pg_cron is not in the connected database, 42501 without USAGE on its schema.
pub async fn cron_jobs(client: &Client, database: &str) -> Result<Vec<CronJob>, SourceError> {
    const SQL: &str = "
        SELECT jobname::text AS name, schedule, username, command, active FROM cron.job
        WHERE database = $1::text ORDER BY jobid";
    let job = |row: &Row| {
        Ok(CronJob {
            name: field(row, "name")?,
            schedule: field(row, "schedule")?,
            user: field(row, "username")?,
            command: field(row, "command")?,
            active: field(row, "active")?,
        })
    };
    read(client, "reading pg_cron's jobs", SQL, &[&database]).await?.iter().map(job).collect()
}

/// Whether pg_cron's row-level security hides the jobs of other users from the asking role.
///
/// # Errors
/// As [`cron_jobs`].
pub async fn sees_own_jobs_only(client: &Client) -> Result<bool, SourceError> {
    const SQL: &str = "SELECT row_security_active('cron.job'::text) AS hidden";
    field(&read_one(client, "reading one's rights on pg_cron's jobs", SQL, &[]).await?, "hidden")
}

/// Whether a job runs partman's maintenance: `run_maintenance()` or `run_maintenance_proc()`, of whatever schema.
pub fn runs_maintenance(job: &CronJob) -> bool {
    job.command.to_lowercase().contains("run_maintenance")
}
