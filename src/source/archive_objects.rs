//! The steps of `init` in the archive schema: its tables (`sql/09`), the guide's functions (`sql/10`), the login's (`sql/11`, `sql/12`).

use super::SourceError;
use super::install::{File, Installation, Step, step};
use super::read::{field, read, read_one};
use tokio_postgres::Client;

pub(super) const SQL_TABLES: File = ("sql/09_archive_tables.sql", include_str!("../../sql/09_archive_tables.sql"));
pub(super) const SQL_GUIDE: File = ("sql/10_guide_functions.sql", include_str!("../../sql/10_guide_functions.sql"));
pub(super) const SQL_LOGIN: File = ("sql/11_login_functions.sql", include_str!("../../sql/11_login_functions.sql"));
pub(super) const SQL_RECORDS: File = ("sql/12_login_records.sql", include_str!("../../sql/12_login_records.sql"));

/// One step a file. A file is in force where the object that it makes last bears the file's name and version, and the login may use it.
pub(super) async fn archive_objects(client: &Client, wanted: &Installation<'_>) -> Result<Vec<Step>, SourceError> {
    const SQL: &str = "
        WITH found AS (
            SELECT to_regclass(format('%I.queue', $1::text))::oid AS tables,
                   to_regprocedure(format('%I.process_archived_partitions(boolean)', $1::text))::oid AS guide,
                   to_regprocedure(format('%I.lakebed_rename(oid, oid)', $1::text))::oid AS login,
                   to_regprocedure(format('%I.lakebed_served(text, text)', $1::text))::oid AS records,
                   (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $2::text) AS role)
        SELECT obj_description(tables, 'pg_class') AS tables, obj_description(guide, 'pg_proc') AS guide,
               obj_description(login, 'pg_proc') AS login, obj_description(records, 'pg_proc') AS records,
               coalesce(has_table_privilege(role, tables, 'SELECT'), false) AS reads,
               coalesce(has_function_privilege(role, login, 'EXECUTE'), false) AS calls,
               coalesce(has_function_privilege(role, records, 'EXECUTE'), false) AS records_calls
        FROM found";
    let row = read_one(client, "looking into the archive schema", SQL, &[&wanted.archive, &wanted.login]).await?;
    let (reads, calls): (bool, bool) = (field(&row, "reads")?, field(&row, "calls")?);
    let records: bool = field(&row, "records_calls")?;
    let variables = [("login", wanted.login), ("archive", wanted.archive)];
    let one = |kind: &str, column: &str, file: File, allowed: bool| {
        let found: Option<String> = field(&row, column)?;
        let present = allowed && found.as_deref() == version(file);
        step(kind, wanted.archive, present, file, &variables)
    };
    Ok(vec![
        one("receipts and findings in schema", "tables", SQL_TABLES, reads)?,
        one("the archive guide's functions in schema", "guide", SQL_GUIDE, true)?,
        one("functions to freeze and drop in schema", "login", SQL_LOGIN, calls)?,
        one("functions to keep what was found in schema", "records", SQL_RECORDS, records)?,
    ])
}

/// Which of the guide's functions stand in the archive schema and are not those of `init`: the guide's own drop what nobody has looked at.
///
/// # Errors
/// As any statement.
pub async fn foreign_guide_functions(client: &Client, archive: &str) -> Result<Vec<String>, SourceError> {
    const SQL: &str = "
        SELECT DISTINCT p.proname::text AS name
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = $1::text
          AND p.proname IN ('process_archived_partitions', 'export_partition_to_external_storage')
          AND coalesce(obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'lakebed sql/10,%' ORDER BY 1";
    let rows = read(client, "looking for the archive guide's functions", SQL, &[&archive]).await?;
    rows.iter().map(|row| field(row, "name")).collect()
}

/// The owner of the archive schema, whose functions freeze and drop, and which of these owners' tables it has no right to drop. None where
/// there is no such schema.
///
/// # Errors
/// As any statement.
pub async fn undroppable_owners(
    client: &Client,
    archive: &str,
    owners: &[String],
) -> Result<Option<(String, Vec<String>)>, SourceError> {
    const SQL: &str = "
        SELECT pg_get_userbyid(n.nspowner)::text AS owner,
               ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r
                     WHERE r.rolname = ANY ($2::text[]) AND NOT pg_has_role(n.nspowner, r.oid, 'USAGE') ORDER BY 1) AS refused
        FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::text";
    let rows = read(client, "asking who may drop in the archive schema", SQL, &[&archive, &owners]).await?;
    rows.first().map(|row| Ok((field(row, "owner")?, field(row, "refused")?))).transpose()
}

/// `lakebed sql/09, version 1`: how a file's first line begins, and what its objects bear as a comment.
fn version((_, text): File) -> Option<&'static str> {
    text.strip_prefix("-- ")?.split_once(':').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_of_a_file_bear_its_version() {
        for file in [SQL_TABLES, SQL_GUIDE, SQL_LOGIN] {
            let version = version(file).unwrap();
            assert!(version.starts_with("lakebed sql/") && version.contains(", version "), "{version}");
            assert!(file.1.contains(&format!("'{version}'")), "{}", file.0);
        }
    }

    /// R2.
    #[test]
    fn r2_one_drop_stands_in_all_of_sql() {
        let all = [SQL_TABLES.1, SQL_GUIDE.1, SQL_LOGIN.1].concat();
        let statements: Vec<&str> = all.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        assert_eq!(statements.iter().filter(|line| line.contains("DROP")).count(), 1, "{statements:?}");
    }
}
