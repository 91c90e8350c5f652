//! Which columns a digest binds, and in what form: what a receipt keeps, so that both sides can be computed again in five years.

use crate::base::{ColumnType, TableShape};
use serde::{Deserialize, Serialize};

/// One column of a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestColumn {
    /// In PostgreSQL.
    pub name: String,
    /// In the lake.
    pub lake_name: String,
    /// The bytes that stand for a value.
    pub form: Form,
}

/// How a value is written into a row's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One byte, 1 for true.
    Bool,
    /// 2 bytes, big-endian, as all numbers.
    Int2,
    /// 4 bytes.
    Int4,
    /// 8 bytes.
    Int8,
    /// IEEE 754; every NaN is the one that PostgreSQL reads from `NaN`.
    Float4,
    /// As [`Self::Float4`], 8 bytes.
    Float8,
    /// Days since 2000-01-01, 4 bytes.
    Date,
    /// Microseconds since 2000-01-01 00:00:00, 8 bytes.
    Timestamp,
    /// The same, in UTC.
    Timestamptz,
    /// 16 bytes.
    Uuid,
    /// As they are.
    Bytea,
    /// `text` and `varchar`, which are their own output text.
    Text,
    /// The output text of any other type.
    Printed,
    /// The output text of `numeric(p,s)`: as many digits after the point as the type says.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
}

/// `pg_type.oid` of text and of varchar.
const OIDS_OF_TEXT: [u32; 2] = [25, 1043];

/// The columns of a table as it is now.
pub fn columns_of(shape: &TableShape) -> Vec<DigestColumn> {
    let columns = shape.columns.iter();
    let column = columns.map(|column| DigestColumn {
        name: column.name.clone(),
        lake_name: column.lake_name.clone(),
        form: Form::of(column.column_type, column.type_oid),
    });
    column.collect()
}

impl Form {
    fn of(column_type: ColumnType, type_oid: u32) -> Self {
        match column_type {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int2 => Self::Int2,
            ColumnType::Int4 => Self::Int4,
            ColumnType::Int8 => Self::Int8,
            ColumnType::Float4 => Self::Float4,
            ColumnType::Float8 => Self::Float8,
            ColumnType::Decimal { precision, scale } => Self::Decimal { precision, scale },
            ColumnType::Date => Self::Date,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::TimestampTz => Self::Timestamptz,
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Bytea => Self::Bytea,
            ColumnType::Text if OIDS_OF_TEXT.contains(&type_oid) => Self::Text,
            ColumnType::Text
            | ColumnType::Numeric
            | ColumnType::Time
            | ColumnType::Inet
            | ColumnType::Cidr
            | ColumnType::MacAddr
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::ServerText => Self::Printed,
        }
    }

    /// `pg_type.oid` that stands before the value.
    pub(super) fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text | Self::Printed | Self::Decimal { .. } => 25,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Date => 1082,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Uuid => 2950,
        }
    }
}
