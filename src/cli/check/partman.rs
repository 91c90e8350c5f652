//! pg_partman's configuration against the archive guide, and the cron job that runs it.

use super::finding::{Area, Findings};
use crate::connect::{self, Settings};
use crate::source::{self, PartmanConfig, SourceError, TableFacts, quote_identifier, quote_literal};
use tokio_postgres::Client;

pub(super) async fn check(findings: &mut Findings, client: &Client, archive: &str, facts: &TableFacts) {
    const AREA: Area = Area::Partman;
    let table = &facts.shape.table;
    if facts.partitioning.is_none() {
        return;
    }
    let partman = match source::partman(client, table).await {
        Ok(partman) => partman,
        Err(error) => return findings.failed(AREA, &error),
    };
    let Some(partman) = partman else {
        let remedy = "CREATE EXTENSION pg_partman, or make and detach the partitions of the table by other means";
        return findings.warning(AREA, "pg_partman is not installed in this database", remedy);
    };
    let Some(config) = partman.config else {
        let remedy =
            format!("set it up with {}.create_parent, as in the archive guide", quote_identifier(&partman.schema));
        return findings.warning(AREA, format!("pg_partman {} does not manage {table}", partman.version), remedy);
    };
    let place = format!("UPDATE {}.part_config SET", quote_identifier(&partman.schema));
    let only = format!("WHERE parent_table = {}", quote_literal(&table.to_string()));
    for (what, change) in deviations(&config, archive, &facts.shape.columns[..], facts.shape.partition_column) {
        findings.warning(AREA, format!("{table}: {what}"), format!("{place} {change} {only}"));
    }
    match source::foreign_guide_functions(client, archive).await {
        Ok(functions) if functions.is_empty() => {}
        Ok(functions) => {
            let remedy = "let lakebed init --admin-url … replace them, or take the job that calls them out of pg_cron";
            let what = format!("{archive}.{} drop tables that nobody has proved", functions.join(" and "));
            findings.warning(AREA, what, remedy);
        }
        Err(error) => findings.failed(AREA, &error),
    }
    if let Err(error) = archive_rights(findings, client, archive, facts).await {
        findings.failed(AREA, &error);
    }
    let retention = config.retention.as_deref().unwrap_or("for ever");
    let PartmanConfig { interval, premake, .. } = &config;
    let version = &partman.version;
    findings.ok(AREA, format!("pg_partman {version} cuts {table} by {interval}, {premake} ahead, keeps {retention}"));
}

/// Retention moves a leaf with the rights of whoever runs it, which is an owner unless a job says otherwise.
async fn archive_rights(
    findings: &mut Findings,
    client: &Client,
    archive: &str,
    facts: &TableFacts,
) -> Result<(), SourceError> {
    let mut owners = vec![facts.owner.clone()];
    owners.extend(source::leaves(client, facts.oid, &facts.shape).await?.into_iter().map(|leaf| leaf.owner));
    owners.sort();
    owners.dedup();
    let refused = source::refused_in_schema(client, archive, &owners).await?;
    judge_archive_rights(findings, archive, &owners, refused.as_deref());
    if let Some((owner, refused)) = source::undroppable_owners(client, archive, &owners).await?
        && let Some(first) = refused.first()
    {
        let what = format!(
            "{owner}, the owner of schema {archive}, may not drop tables of {}, so they stay there for ever",
            refused.join(", ")
        );
        let grant = format!("GRANT {} TO {}", quote_identifier(first), quote_identifier(&owner));
        findings.error(Area::Partman, what, format!("{grant}, or let {owner} run partman and own its tables"));
    }
    Ok(())
}

/// `refused` is `None` when there is no archive schema.
fn judge_archive_rights(findings: &mut Findings, archive: &str, owners: &[String], refused: Option<&[String]>) {
    const AREA: Area = Area::Partman;
    let Some(refused) = refused else {
        return findings.error(AREA, format!("schema {archive} does not exist"), "lakebed init --admin-url …");
    };
    match refused.first() {
        None => findings.ok(AREA, format!("{} may move tables into schema {archive}", owners.join(", "))),
        Some(first) => {
            let what =
                format!("{} may not create in schema {archive}, so retention run by them fails", refused.join(", "));
            let grant =
                format!("GRANT USAGE, CREATE ON SCHEMA {} TO {}", quote_identifier(archive), quote_identifier(first));
            findings.error(AREA, what, format!("lakebed init --admin-url … (or {grant}, and so on)"));
        }
    }
}

/// Where the configuration differs from the guide: what is wrong, and the assignment that mends it.
fn deviations(
    config: &PartmanConfig,
    archive: &str,
    columns: &[crate::base::SourceColumn],
    partition_column: usize,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some(column) = columns.get(partition_column)
        && column.name != config.control
    {
        let what = format!("partman cuts by {}, the pipeline by {}", config.control, column.name);
        found.push((what, format!("control = {}", quote_literal(&column.name))));
    }
    match (&config.retention, config.retention_keep_table, config.retention_schema.as_deref()) {
        (None, _, _) => found.push((
            "no retention: old partitions are never moved to the archive".into(),
            format!(
                "retention = '90 days', retention_keep_table = true, retention_schema = {}",
                quote_literal(archive)
            ),
        )),
        (Some(_), _, Some(schema)) if schema == archive => {}
        (Some(_), false, None) => found.push((
            "partman drops old partitions before anything was proved".into(),
            format!("retention_keep_table = true, retention_schema = {}", quote_literal(archive)),
        )),
        (Some(_), _, _) => found.push((
            format!("old partitions do not go to schema {archive}"),
            format!("retention_keep_table = true, retention_schema = {}", quote_literal(archive)),
        )),
    }
    if config.premake < 1 {
        found.push(("no partition is made ahead".into(), "premake = 3".into()));
    }
    if !config.infinite_time_partitions {
        let what =
            "no new partitions once rows stop for longer than premake: late rows then go to the default partition";
        found.push((what.into(), "infinite_time_partitions = true".into()));
    }
    found
}

pub(super) async fn check_cron(findings: &mut Findings, settings: &Settings, database: &str) {
    const AREA: Area = Area::Cron;
    let jobs = async {
        let connection = connect::control(settings).await?;
        source::prepare_session(connection.client()).await?;
        let jobs = source::cron_jobs(connection.client(), database).await?;
        Ok::<_, anyhow::Error>((jobs, source::sees_own_jobs_only(connection.client()).await?))
    };
    let (jobs, own_only) = match jobs.await {
        Ok(seen) => seen,
        Err(error) => return findings.error(AREA, format!("{error:#}"), "let --cron-url name the database of pg_cron"),
    };
    match jobs.iter().find(|job| source::runs_maintenance(job)) {
        Some(job) if job.active => {
            findings.ok(AREA, format!("partman's maintenance runs at {:?} as {}", job.schedule, job.user));
        }
        Some(job) => {
            let name = job.name.as_deref().unwrap_or("");
            let remedy =
                "SELECT cron.alter_job(jobid, active := true) FROM cron.job WHERE command ILIKE '%run_maintenance%'";
            findings.warning(AREA, format!("job {name} runs partman's maintenance, but it is not active"), remedy);
        }
        None if own_only => findings.warning(
            AREA,
            format!(
                "no job of {} runs partman's maintenance for database {database}; those of other users cannot be seen",
                settings.user()
            ),
            "let --cron-url name a superuser, who sees every job",
        ),
        None => findings.warning(
            AREA,
            format!("no job runs partman's maintenance for database {database}"),
            "lakebed init --cron-url …, or schedule run_maintenance_proc() by other means",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ColumnType, SourceColumn};

    #[test]
    fn an_owner_who_cannot_create_in_the_archive_is_an_error() {
        use super::super::finding::Severity::{Error, Ok};
        let owners = ["idp".to_owned(), "it's".to_owned()];
        for (refused, expected) in [(None, Error), (Some(&owners[..0]), Ok), (Some(&owners[1..]), Error)] {
            let mut findings = Findings::default();
            judge_archive_rights(&mut findings, "archive", &owners, refused);
            assert_eq!(findings.all()[0].severity, expected, "{refused:?}");
        }
    }

    #[test]
    fn the_guides_settings_have_no_deviation_and_others_name_the_change() {
        let column = SourceColumn {
            name: "created_at".into(),
            lake_name: "created_at".into(),
            type_oid: 1114,
            type_modifier: -1,
            column_type: ColumnType::Timestamp,
            nullable: false,
        };
        let guide = PartmanConfig {
            control: "created_at".into(),
            interval: "1 day".into(),
            premake: 90,
            retention: Some("90 days".into()),
            retention_schema: Some("archive".into()),
            retention_keep_table: true,
            infinite_time_partitions: true,
        };
        let found = |config: &PartmanConfig| -> Vec<String> {
            let deviations = deviations(config, "archive", std::slice::from_ref(&column), 0);
            deviations.into_iter().map(|(_, change)| change).collect()
        };
        assert!(found(&guide).is_empty());
        let drops = PartmanConfig { retention_schema: None, retention_keep_table: false, ..guide.clone() };
        assert_eq!(found(&drops), ["retention_keep_table = true, retention_schema = 'archive'"]);
        let other = PartmanConfig { control: "at".into(), premake: 0, infinite_time_partitions: false, ..guide };
        assert_eq!(found(&other), ["control = 'created_at'", "premake = 3", "infinite_time_partitions = true"]);
    }
}
