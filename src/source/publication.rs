//! The publication: which tables' changes are sent, and whether anything is silently left out.

use super::read::{field, read};
use super::{SourceError, qualified, quote_identifier};
use crate::base::TableName;
use tokio_postgres::{Client, Row};

/// A table that the publication sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// With `publish_via_partition_root`, the root.
    pub table: TableName,
    /// Server 15+: only listed columns are sent; a column added later is lost.
    pub has_column_list: bool,
    /// Server 15+: only rows that pass WHERE are sent.
    pub has_row_filter: bool,
}

/// Something that stands against using a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// The statements that mend it, for the publication's owner.
    pub remedy: String,
}

/// A publication as the catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationFacts {
    /// Its name.
    pub name: String,
    /// Its owner, who alone may alter it.
    pub owner: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Server 15+: FOR TABLES IN SCHEMA.
    pub schemas: Vec<String>,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// `publish` holds insert.
    pub inserts: bool,
    /// `publish` holds update.
    pub updates: bool,
    /// `publish` holds delete.
    pub deletes: bool,
    /// `publish` holds truncate.
    pub truncates: bool,
    /// Server 18+: `publish_generated_columns = stored`.
    pub generated_stored: bool,
    /// Everything that is sent, however it came in.
    pub tables: Vec<PublishedTable>,
}

impl PublicationFacts {
    /// The entry of a table.
    pub fn find(&self, table: &TableName) -> Option<&PublishedTable> {
        self.tables.iter().find(|published| published.table == *table)
    }

    /// Everything because of which rows or columns of `tables` would be lost without a word, or arrive under another name. A table
    /// that is not published at all is not among them.
    pub fn problems(&self, tables: &[TableName]) -> Vec<Problem> {
        let name = quote_identifier(&self.name);
        let mut problems = Vec::new();
        if !self.via_root {
            problems.push(Problem {
                what: format!("publication {} sends rows under the names of leaves, not of the root", self.name),
                remedy: format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"),
            });
        }
        let missing = self.missing_operations();
        if !missing.is_empty() {
            problems.push(Problem {
                what: format!("publication {} does not send {}", self.name, missing.join(", ")),
                remedy: format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
            });
        }
        for published in tables.iter().filter_map(|table| self.find(table)) {
            let cut = match (published.has_column_list, published.has_row_filter) {
                (false, false) => continue,
                (true, false) => "only listed columns",
                (false, true) => "only filtered rows",
                (true, true) => "only listed columns and filtered rows",
            };
            let target = qualified(&published.table);
            problems.push(Problem {
                what: format!("publication {} sends {cut} of {}", self.name, published.table),
                remedy: format!(
                    "ALTER PUBLICATION {name} DROP TABLE {target}; ALTER PUBLICATION {name} ADD TABLE {target}"
                ),
            });
        }
        problems
    }

    /// The operations that are not sent.
    pub fn missing_operations(&self) -> Vec<&'static str> {
        let operations = [
            ("insert", self.inserts),
            ("update", self.updates),
            ("delete", self.deletes),
            ("truncate", self.truncates),
        ];
        operations.into_iter().filter(|(_, sent)| !sent).map(|(name, _)| name).collect()
    }
}

/// Reads a publication; `None` when there is none of that name.
///
/// # Errors
/// As any statement.
pub async fn publication(client: &Client, name: &str) -> Result<Option<PublicationFacts>, SourceError> {
    // Columns that only later versions have are read through to_jsonb, which gives NULL where they are absent.
    const SQL: &str = "
        SELECT p.oid, pg_get_userbyid(p.pubowner)::text AS owner, p.puballtables, p.pubviaroot, p.pubinsert, p.pubupdate,
               p.pubdelete, p.pubtruncate, coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) AS generated_stored
        FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text";
    let Some(row) = read(client, "reading the publication", SQL, &[&name]).await?.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(PublicationFacts {
        name: name.to_owned(),
        owner: field(&row, "owner")?,
        all_tables: field(&row, "puballtables")?,
        schemas: schemas(client, field(&row, "oid")?).await?,
        via_root: field(&row, "pubviaroot")?,
        inserts: field(&row, "pubinsert")?,
        updates: field(&row, "pubupdate")?,
        deletes: field(&row, "pubdelete")?,
        truncates: field(&row, "pubtruncate")?,
        generated_stored: field(&row, "generated_stored")?,
        tables: tables(client, name).await?,
    }))
}

async fn schemas(client: &Client, publication_oid: u32) -> Result<Vec<String>, SourceError> {
    const EXISTS: &str = "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL AS present";
    const SQL: &str = "
        SELECT n.nspname::text AS name FROM pg_catalog.pg_publication_namespace s
        JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = $1::oid ORDER BY 1";
    let doing = "reading the publication's schemas";
    let present = super::read::read_one(client, doing, EXISTS, &[]).await?;
    if !field::<bool>(&present, "present")? {
        return Ok(Vec::new());
    }
    read(client, doing, SQL, &[&publication_oid]).await?.iter().map(|row| field(row, "name")).collect()
}

async fn tables(client: &Client, name: &str) -> Result<Vec<PublishedTable>, SourceError> {
    const SQL: &str = "
        SELECT t.schemaname::text AS schema_name, t.tablename::text AS table_name,
               coalesce(to_jsonb(r) ->> 'prattrs' IS NOT NULL, false) AS has_column_list,
               coalesce(to_jsonb(r) ->> 'prqual' IS NOT NULL, false) AS has_row_filter
        FROM pg_catalog.pg_publication_tables t
        JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
        LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
        WHERE t.pubname = $1::text ORDER BY 1, 2";
    let table = |row: &Row| {
        Ok(PublishedTable {
            table: TableName { schema: field(row, "schema_name")?, name: field(row, "table_name")? },
            has_column_list: field(row, "has_column_list")?,
            has_row_filter: field(row, "has_row_filter")?,
        })
    };
    read(client, "reading the publication's tables", SQL, &[&name]).await?.iter().map(table).collect()
}
