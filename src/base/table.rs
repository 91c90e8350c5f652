//! A source table: its name and its shape.

use super::column::SourceColumn;
use super::partition::PartitionBy;
use std::fmt;
use std::str::FromStr;

/// A table's qualified name, unquoted: exactly the two `name` values of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema, as in `pg_namespace.nspname`.
    pub schema: String,
    /// Table, as in `pg_class.relname`.
    pub name: String,
}

impl TableName {
    /// A qualified name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// `schema.name`, for people; never spliced into SQL.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The text is not `schema.table`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a table name: expected schema.table, such as public.security_event")]
pub struct ParseTableNameError;

impl FromStr for TableName {
    type Err = ParseTableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (schema, name) = text.split_once('.').ok_or(ParseTableNameError)?;
        if schema.is_empty() || name.is_empty() || name.contains('.') || text.contains(['"', '\0']) {
            return Err(ParseTableNameError);
        }
        Ok(Self::new(schema, name))
    }
}

/// Everything about a source table that decides how its rows are stored: read from the catalog once at start, and compared
/// with every RELATION message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct TableShape {
    /// The partitioned root (or plain table) as it is published.
    pub table: TableName,
    /// Columns in the source's order, dropped and generated ones left out.
    pub columns: Vec<SourceColumn>,
    /// Index into `columns` of the column that dates a row.
    pub partition_column: usize,
    /// Day or month.
    pub partition_by: PartitionBy,
    /// IANA zone in which a `timestamptz` partition column is cut into days. Other types carry no zone.
    pub time_zone: chrono_tz::Tz,
    /// Indexes into `columns` of the primary key, in key order; empty for a table without one.
    pub key: Vec<usize>,
    /// Indexes into `columns` of what names a row in an UPDATE or DELETE: the primary key, or the columns of the replica identity's
    /// index. With REPLICA IDENTITY FULL it is the primary key, which the old row holds like everything else.
    pub identity: Vec<usize>,
    /// The partitions' replica identities differ, so that an UPDATE that brings no old row may mean a row of another identity than
    /// that of its new values.
    pub identity_is_ambiguous: bool,
}

impl TableShape {
    /// Whether every column's binary form can be decoded exactly, so that `binary 'true'` may be asked of the server.
    pub fn binary_is_understood(&self) -> bool {
        self.columns.iter().all(|column| column.column_type.binary_is_understood())
    }

    /// Whether every UPDATE and DELETE tells of which day the row was. Where it does not, the days of the table cannot be copied one by one.
    pub fn changes_name_their_day(&self) -> bool {
        self.identity.contains(&self.partition_column)
    }
}
