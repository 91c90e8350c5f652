//! What `init` installs: the files of `sql/`, filled in, and only those that are not in force already.
//!
//! The plan is made from facts, so that a second run finds nothing to do and `--dry-run` prints exactly what a run would send.
//! Everything is applied in one transaction, and the plan is made again afterwards: GRANT without the grant option is only
//! a warning to the server.

use super::archive_objects::archive_objects;
use super::read::{execute, field, read, read_one};
use super::template::render;
use super::{
    CronJob, PartmanFacts, SourceError, TableFacts, detached_tables, leaves, partman, publication, refused_in_schema,
    role, unreadable_tables,
};
use crate::base::TableName;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// What should be in force.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    /// The pipeline's login.
    pub login: &'a str,
    /// The schema where partman leaves detached tables.
    pub archive: &'a str,
    /// The publication.
    pub publication: &'a str,
    /// The configured tables.
    pub tables: &'a [TableFacts],
    /// How long partman keeps partitions of the tables attached; None leaves its configuration as it is.
    pub retention: Option<&'a str>,
    /// Roles that run partman's maintenance, where known from pg_cron. Owners of roots and leaves are added.
    pub maintenance_users: &'a [String],
}

/// One step of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it brings about: "login lakebed".
    pub what: String,
    /// Whether that is in force already.
    pub present: bool,
    /// The SQL, ready for psql; holds no secret.
    pub sql: String,
}

/// A SCRAM-SHA-256 verifier of a password (RFC 5803), with a fresh salt: what the server stores, and all that it is sent.
pub fn scram_verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// What is in force and what is missing, in the order in which it must be applied.
///
/// # Errors
/// As any statement.
pub async fn plan(client: &Client, wanted: &Installation<'_>) -> Result<Vec<Step>, SourceError> {
    let login = role(client, wanted.login).await?;
    let complete = login.as_ref().is_some_and(|role| role.can_login && (role.replication || role.superuser));
    let database: String = field(&read_one(client, "reading the database's name", DATABASE, &[]).await?, "name")?;
    let login_variable = ("login", wanted.login);
    let mut steps = vec![
        step("login", wanted.login, complete, SQL_LOGIN, &[login_variable])?,
        step(
            "CONNECT on database",
            &database,
            login.as_ref().is_some_and(|role| role.can_connect),
            SQL_CONNECT,
            &[login_variable, ("database", &database)],
        )?,
    ];
    let makers = leaf_makers(client, wanted).await?;
    steps.extend(archive_steps(client, wanted, &makers, login.is_some()).await?);
    steps.extend(archive_objects(client, wanted).await?);
    for table in wanted.tables {
        steps.push(table_step(client, wanted, table, login.is_some()).await?);
    }
    if !login.is_some_and(|role| role.superuser) {
        steps.extend(future_leaves(client, wanted, &makers).await?);
    }
    steps.extend(partman_step(client, wanted).await?);
    steps.extend(retention_steps(client, wanted).await?);
    steps.extend(publication_steps(client, wanted).await?);
    Ok(steps)
}

/// Applies the missing steps in one transaction and returns how many there were. `verifier` is given to a login that must be created
/// (see [`scram_verifier`]); it travels as a bound parameter and is in no [`Step`].
///
/// # Errors
/// The first step that fails, by name, with nothing applied; or [`SourceError::NotInForce`].
pub async fn apply(client: &Client, wanted: &Installation<'_>, verifier: Option<&str>) -> Result<usize, SourceError> {
    let missing: Vec<Step> = plan(client, wanted).await?.into_iter().filter(|step| !step.present).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    execute(client, "beginning the installation", "BEGIN").await?;
    if let Err(error) = apply_steps(client, &missing, verifier).await {
        // The error is what matters; a connection that cannot roll back ends with its session, and so does the transaction.
        let _ = execute(client, "rolling back the installation", "ROLLBACK").await;
        return Err(error);
    }
    execute(client, "committing the installation", "COMMIT").await?;
    let left: Vec<String> =
        plan(client, wanted).await?.into_iter().filter(|step| !step.present).map(|step| step.what).collect();
    if left.is_empty() { Ok(missing.len()) } else { Err(SourceError::NotInForce { steps: left.join(", ") }) }
}

async fn apply_steps(client: &Client, steps: &[Step], verifier: Option<&str>) -> Result<(), SourceError> {
    const VERIFIER: &str = "SELECT set_config('lakebed.verifier', $1::text, true)";
    read(client, "preparing the login's verifier", VERIFIER, &[&verifier.unwrap_or("")]).await?;
    for step in steps {
        execute(client, &format!("installing {}", step.what), &step.sql).await?;
    }
    Ok(())
}

/// The nightly partman job, for the database where pg_cron lives. `partman_schema` is where the extension is in `database`.
///
/// # Errors
/// A placeholder without value, which would be a fault of lakebed.
pub fn plan_cron(jobs: &[CronJob], database: &str, partman_schema: &str) -> Result<Step, SourceError> {
    let present = jobs.iter().any(super::runs_maintenance);
    let command = format!("CALL {}.run_maintenance_proc()", plain_or_quoted(partman_schema));
    let variables = [("database", database), ("command", command.as_str())];
    step("cron job partman-maintenance for database", database, present, SQL_CRON, &variables)
}

/// The archive guide's nightly job, which asks lakebed to look at what waits.
///
/// # Errors
/// A placeholder without value, which would be a fault of lakebed.
pub fn plan_archive_cron(jobs: &[CronJob], database: &str, archive: &str) -> Result<Step, SourceError> {
    let present = jobs.iter().any(|job| job.command.to_lowercase().contains("process_archived_partitions"));
    let schema = plain_or_quoted(archive);
    let command = format!("SELECT * FROM {schema}.process_archived_partitions(p_dry_run := FALSE)");
    let variables = [("database", database), ("command", command.as_str())];
    step("cron job archive-processing for database", database, present, SQL_ARCHIVE_CRON, &variables)
}

/// Registers the job of [`plan_cron`] or of [`plan_archive_cron`].
///
/// # Errors
/// SQLSTATE 42501 without rights on pg_cron's schema.
pub async fn apply_cron(client: &Client, step: &Step) -> Result<(), SourceError> {
    if step.present { Ok(()) } else { execute(client, &format!("installing {}", step.what), &step.sql).await }
}

const DATABASE: &str = "SELECT current_database()::text AS name";
const SQL_LOGIN: File = ("sql/01_login.sql", include_str!("../../sql/01_login.sql"));
const SQL_CONNECT: File = ("sql/02_connect.sql", include_str!("../../sql/02_connect.sql"));
const SQL_ARCHIVE: File = ("sql/03_archive.sql", include_str!("../../sql/03_archive.sql"));
const SQL_TABLE: File = ("sql/04_table.sql", include_str!("../../sql/04_table.sql"));
const SQL_FUTURE: File = ("sql/05_future_leaves.sql", include_str!("../../sql/05_future_leaves.sql"));
const SQL_PARTMAN: File = ("sql/06_partman.sql", include_str!("../../sql/06_partman.sql"));
const SQL_PUBLICATION: File = ("sql/07_publication.sql", include_str!("../../sql/07_publication.sql"));
const SQL_CRON: File = ("sql/08_cron.sql", include_str!("../../sql/08_cron.sql"));
const SQL_RETENTION: File = ("sql/13_retention.sql", include_str!("../../sql/13_retention.sql"));
const SQL_ARCHIVE_CRON: File = ("sql/14_cron_archive.sql", include_str!("../../sql/14_cron_archive.sql"));

/// A file's name and text.
pub(super) type File = (&'static str, &'static str);

pub(super) fn step(
    kind: &str,
    name: &str,
    present: bool,
    file: File,
    variables: &[(&str, &str)],
) -> Result<Step, SourceError> {
    Ok(Step { what: format!("{kind} {name}"), present, sql: render(file.0, file.1, variables)? })
}

async fn table_step(
    client: &Client,
    wanted: &Installation<'_>,
    table: &TableFacts,
    login_exists: bool,
) -> Result<Step, SourceError> {
    let name = &table.shape.table;
    let mut oids = vec![table.oid];
    oids.extend(leaves(client, table.oid, &table.shape).await?.iter().map(|leaf| leaf.oid));
    let detached = detached_tables(client, table.oid, wanted.archive).await?;
    oids.extend(detached.iter().filter(|detached| detached.same_columns).map(|detached| detached.oid));
    let present = login_exists && unreadable_tables(client, wanted.login, &oids).await?.is_empty();
    let variables =
        [("login", wanted.login), ("schema", &name.schema), ("table", &name.name), ("archive", wanted.archive)];
    step("SELECT on every leaf of", &name.to_string(), present, SQL_TABLE, &variables)
}

/// The pairs of schema and role that makes leaves there: owners where their tables are, and whoever runs maintenance everywhere.
async fn leaf_makers(client: &Client, wanted: &Installation<'_>) -> Result<BTreeSet<(String, String)>, SourceError> {
    let mut makers: BTreeSet<(String, String)> = BTreeSet::new();
    for table in wanted.tables.iter().filter(|table| table.partitioning.is_some()) {
        makers.insert((table.shape.table.schema.clone(), table.owner.clone()));
        let leaves = leaves(client, table.oid, &table.shape).await?;
        makers.extend(leaves.into_iter().map(|leaf| (leaf.table.schema, leaf.owner)));
    }
    let schemas: BTreeSet<String> = makers.iter().map(|(schema, _)| schema.clone()).collect();
    for user in wanted.maintenance_users {
        makers.extend(schemas.iter().map(|schema| (schema.clone(), user.clone())));
    }
    Ok(makers)
}

/// One step for each role that moves leaves into the archive schema. The first, the owner of a table, becomes the owner of a schema
/// that is missing.
async fn archive_steps(
    client: &Client,
    wanted: &Installation<'_>,
    makers: &BTreeSet<(String, String)>,
    login_exists: bool,
) -> Result<Vec<Step>, SourceError> {
    let first = wanted.tables.iter().find(|table| table.partitioning.is_some()).or(wanted.tables.first());
    let mut creators: Vec<String> = first.map(|table| table.owner.clone()).into_iter().collect();
    for (_, maker) in makers {
        if !creators.contains(maker) {
            creators.push(maker.clone());
        }
    }
    let refused = refused_in_schema(client, wanted.archive, &creators).await?;
    let usable = login_exists && may_use_schema(client, wanted.login, wanted.archive).await?;
    let one = |creator: &String| {
        let present = usable && refused.as_ref().is_some_and(|refused| !refused.contains(creator));
        let variables = [("login", wanted.login), ("archive", wanted.archive), ("creator", creator.as_str())];
        step("schema", &format!("{}, where {creator} may create", wanted.archive), present, SQL_ARCHIVE, &variables)
    };
    creators.iter().map(one).collect()
}

/// One step for each pair of schema and role that makes leaves there.
async fn future_leaves(
    client: &Client,
    wanted: &Installation<'_>,
    makers: &BTreeSet<(String, String)>,
) -> Result<Vec<Step>, SourceError> {
    const SQL: &str = "
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_default_acl d
            JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
            JOIN pg_catalog.pg_roles creator ON creator.oid = d.defaclrole
            CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
            JOIN pg_catalog.pg_roles grantee ON grantee.oid = a.grantee
            WHERE d.defaclobjtype = 'r' AND a.privilege_type = 'SELECT' AND creator.rolname = $1::text
              AND n.nspname = $2::text AND grantee.rolname = $3::text) AS present";
    let mut steps = Vec::new();
    for (schema, creator) in makers.iter().filter(|(_, creator)| creator != wanted.login) {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [creator, schema, &wanted.login];
        let row = read_one(client, "reading default privileges", SQL, &parameters).await?;
        let variables = [("login", wanted.login), ("schema", schema), ("creator", creator)];
        let name = format!("{schema} by {creator}");
        steps.push(step("SELECT on future leaves in", &name, field(&row, "present")?, SQL_FUTURE, &variables)?);
    }
    Ok(steps)
}

async fn partman_step(client: &Client, wanted: &Installation<'_>) -> Result<Option<Step>, SourceError> {
    const SQL: &str = "
        SELECT n.nspname::text AS schema_name,
               EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $1::text
                       AND has_schema_privilege(r.oid, n.oid, 'USAGE')
                       AND has_table_privilege(r.oid, c.oid, 'SELECT')) AS readable
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'part_config'
        WHERE e.extname = 'pg_partman'";
    let rows = read(client, "looking for pg_partman", SQL, &[&wanted.login]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let schema: String = field(row, "schema_name")?;
    let variables = [("login", wanted.login), ("partman", schema.as_str())];
    step("SELECT on partman's configuration in", &schema, field(row, "readable")?, SQL_PARTMAN, &variables).map(Some)
}

async fn publication_steps(client: &Client, wanted: &Installation<'_>) -> Result<Vec<Step>, SourceError> {
    let existing = publication(client, wanted.publication).await?;
    let publishes = |table: &TableName| existing.as_ref().is_some_and(|existing| existing.find(table).is_some());
    let one = |facts: &TableFacts| {
        let table = &facts.shape.table;
        let variables = [("publication", wanted.publication), ("schema", &table.schema), ("table", &table.name)];
        let kind = format!("publication {} of", wanted.publication);
        step(&kind, &table.to_string(), publishes(table), SQL_PUBLICATION, &variables)
    };
    wanted.tables.iter().map(one).collect()
}

async fn may_use_schema(client: &Client, login: &str, schema: &str) -> Result<bool, SourceError> {
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n
                       WHERE n.nspname = $2::text AND has_schema_privilege($1::name, n.oid, 'USAGE')) AS usable";
    field(&read_one(client, "reading the archive schema's rights", SQL, &[&login, &schema]).await?, "usable")
}

/// The guide's command reads `CALL partman.run_maintenance_proc()`; quotes only where they are needed.
fn plain_or_quoted(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain { name.to_owned() } else { super::quote_identifier(name) }
}

/// Only where it was asked for, and for tables that partman manages.
async fn retention_steps(client: &Client, wanted: &Installation<'_>) -> Result<Vec<Step>, SourceError> {
    let Some(retention) = wanted.retention else { return Ok(Vec::new()) };
    let mut steps = Vec::new();
    for table in wanted.tables {
        let name = table.shape.table.to_string();
        let found = partman(client, &table.shape.table).await?;
        let Some(PartmanFacts { schema, config: Some(config), .. }) = found else { continue };
        let present = config.retention.as_deref() == Some(retention)
            && config.retention_keep_table
            && config.retention_schema.as_deref() == Some(wanted.archive);
        let variables = [
            ("partman", schema.as_str()),
            ("table_name", name.as_str()),
            ("retention", retention),
            ("archive", wanted.archive),
        ];
        steps.push(step(&format!("retention of {retention} for"), &name, present, SQL_RETENTION, &variables)?);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cron_step_is_the_guides_and_only_once() {
        let step = plan_cron(&[], "idp\"server", "partman").unwrap();
        assert!(!step.present);
        assert!(step.sql.contains("'CALL partman.run_maintenance_proc()', 'idp\"server')"), "{}", step.sql);
        let job = CronJob {
            name: Some("nightly".into()),
            schedule: "0 2 * * *".into(),
            user: "idp".into(),
            command: "call Partman.RUN_MAINTENANCE_PROC();".into(),
            active: true,
        };
        assert!(plan_cron(&[job], "idpserver", "partman").unwrap().present);
        assert!(plan_cron(&[], "x", "Part Man").unwrap().sql.contains("CALL \"Part Man\".run_maintenance_proc()"));
    }

    /// By hand the files run in a superuser's session, where a function of a writable schema must not stand in for the server's.
    #[test]
    fn every_file_pins_the_search_path_first() {
        use super::super::archive_objects as objects;
        let files =
            [objects::SQL_TABLES, objects::SQL_GUIDE, objects::SQL_LOGIN, objects::SQL_RECORDS].into_iter().chain([
                SQL_LOGIN,
                SQL_CONNECT,
                SQL_ARCHIVE,
                SQL_TABLE,
                SQL_FUTURE,
                SQL_PARTMAN,
                SQL_PUBLICATION,
                SQL_CRON,
                SQL_RETENTION,
                SQL_ARCHIVE_CRON,
            ]);
        for (file, text) in files {
            let first = text.lines().find(|line| !line.is_empty() && !line.starts_with("--"));
            assert_eq!(first, Some("SET search_path = '';"), "{file}");
        }
    }

    #[test]
    fn a_verifier_is_what_the_server_stores() {
        assert!(scram_verifier("secret").starts_with("SCRAM-SHA-256$4096:"));
        assert_ne!(scram_verifier("secret"), scram_verifier("secret"));
    }
}
