//! The pipeline's login: what it may do.

use super::SourceError;
use super::read::{field, read};
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
}

/// Reads a role; `None` when there is none of that name.
///
/// # Errors
/// As any statement.
pub async fn role(client: &Client, name: &str) -> Result<Option<RoleFacts>, SourceError> {
    const SQL: &str = "
        SELECT rolcanlogin, rolreplication, rolbypassrls, rolsuper,
               has_database_privilege(oid, current_database(), 'CONNECT') AS can_connect
        FROM pg_catalog.pg_roles WHERE rolname = $1::text";
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
