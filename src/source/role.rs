//! The pipeline's login: what it may do.

use super::SourceError;
use super::read::{field, read, unsigned};
use crate::base::TableName;
use tokio_postgres::Client;

/// Attributes and rights of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// May connect.
    pub can_login: bool,
    /// `rolreplication`.
    pub replication: bool,
    /// `rolbypassrls`.
    pub bypasses_row_security: bool,
    /// `rolsuper`.
    pub superuser: bool,
    /// CONNECT on the database that was asked.
    pub can_connect: bool,
    /// Objects of every database that belong to it (`pg_shdepend`); the bootstrap superuser's are not counted by the server.
    pub owned_objects: u64,
}

/// Reads a role; `None` when there is none of that name.
///
/// # Errors
/// As any statement.
pub async fn role(client: &Client, name: &str) -> Result<Option<RoleFacts>, SourceError> {
    const SQL: &str = "
        SELECT rolcanlogin, rolreplication, rolbypassrls, rolsuper,
               has_database_privilege(oid, current_database(), 'CONNECT') AS can_connect,
               (SELECT count(*) FROM pg_catalog.pg_shdepend d
                WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o') AS owned
        FROM pg_catalog.pg_roles r WHERE rolname = $1::text";
    let Some(row) = read(client, "reading the login's rights", SQL, &[&name]).await?.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(RoleFacts {
        name: name.to_owned(),
        can_login: field(&row, "rolcanlogin")?,
        replication: field(&row, "rolreplication")?,
        bypasses_row_security: field(&row, "rolbypassrls")?,
        superuser: field(&row, "rolsuper")?,
        can_connect: field(&row, "can_connect")?,
        owned_objects: unsigned(&row, "owned")?.unwrap_or(0),
    }))
}

/// Of the relations given by oid, those that the role cannot read: no SELECT, or no USAGE on their schema.
///
/// # Errors
/// As any statement; the role must exist.
pub async fn unreadable_tables(client: &Client, role: &str, oids: &[u32]) -> Result<Vec<TableName>, SourceError> {
    const SQL: &str = "
        SELECT n.nspname::text AS schema_name, c.relname::text AS table_name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($2::oid[])
          AND NOT (has_table_privilege($1::name, c.oid, 'SELECT') AND has_schema_privilege($1::name, n.oid, 'USAGE'))
        ORDER BY 1, 2";
    let rows = read(client, "reading the login's rights on tables", SQL, &[&role, &oids]).await?;
    rows.iter()
        .map(|row| Ok(TableName { schema: field(row, "schema_name")?, name: field(row, "table_name")? }))
        .collect()
}

/// Of the roles given by name, those that cannot create in `schema`, as whoever runs partman's retention must be able to in the
/// archive schema; `None` when there is no such schema. A role that does not exist is not among them.
///
/// # Errors
/// As any statement.
pub async fn refused_in_schema(
    client: &Client,
    schema: &str,
    roles: &[String],
) -> Result<Option<Vec<String>>, SourceError> {
    const SQL: &str = "
        SELECT ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname::text = ANY ($2::text[])
                     AND NOT (has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_schema_privilege(r.oid, n.oid, 'CREATE'))
                     ORDER BY 1) AS refused
        FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::text";
    let rows = read(client, "reading the archive schema's rights", SQL, &[&schema, &roles]).await?;
    rows.first().map(|row| field(row, "refused")).transpose()
}
