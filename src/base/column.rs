//! A column of a source table, and which of the lake's types it becomes.

/// One column as the catalog describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceColumn {
    /// `pg_attribute.attname`: what a RELATION message names it by.
    pub name: String,
    /// What the lake names it by: the same, unless the pipeline file says otherwise.
    pub lake_name: String,
    /// `pg_attribute.atttypid`: what a RELATION message carries, a domain's own oid included.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 where the type has none.
    pub type_modifier: i32,
    /// What it is, domains resolved to their base type.
    pub column_type: ColumnType,
    /// False for NOT NULL.
    pub nullable: bool,
}

/// The kinds of value that are told apart on the way into the lake: the type table of the reader profile.
///
/// Those that become a string keep PostgreSQL's own output text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `bool` → boolean
    Bool,
    /// `int2` → short
    Int2,
    /// `int4` → integer
    Int4,
    /// `int8` → long
    Int8,
    /// `float4` → float
    Float4,
    /// `float8` → double
    Float8,
    /// `numeric(p,s)` with 1 ≤ p ≤ 38 and 0 ≤ s ≤ p → decimal(p,s)
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Every other `numeric` → string
    Numeric,
    /// `date` → date
    Date,
    /// `time` → string
    Time,
    /// `timestamp` → timestamp, read as UTC
    Timestamp,
    /// `timestamptz` → timestamp
    TimestampTz,
    /// `uuid` → string
    Uuid,
    /// `inet` → string
    Inet,
    /// `cidr` → string
    Cidr,
    /// `macaddr` → string
    MacAddr,
    /// `json` → string
    Json,
    /// `jsonb` → string
    Jsonb,
    /// `bytea` → binary
    Bytea,
    /// `text`, `varchar`, `char(n)`, `name`, enums → string: types whose binary form is their text
    Text,
    /// Arrays, composites, ranges, `interval`, `bit`, …, and what `text_columns` names → string. Only the server's text form is
    /// understood, so one such column turns `binary` off for the stream.
    ServerText,
}

/// `pg_type.typtype` of an enum.
const ENUM: char = 'e';
/// `numeric`'s type modifier is offset by this (VARHDRSZ in PostgreSQL's numeric.c).
const NUMERIC_MODIFIER_OFFSET: i32 = 4;

impl ColumnType {
    /// The kind of a type, from `pg_type.oid` and `pg_type.typtype` of the base type (domains resolved) and the modifier in
    /// force. Oids below 10,000 are fixed for ever (PostgreSQL's pg_type.dat); everything unknown is [`Self::ServerText`].
    pub fn from_catalog(base_type_oid: u32, type_kind: char, type_modifier: i32) -> Self {
        match base_type_oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            19 | 25 | 1042 | 1043 => Self::Text,
            114 => Self::Json,
            650 => Self::Cidr,
            700 => Self::Float4,
            701 => Self::Float8,
            829 => Self::MacAddr,
            869 => Self::Inet,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1700 => Self::numeric(type_modifier),
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ if type_kind == ENUM => Self::Text,
            _ => Self::ServerText,
        }
    }

    /// PostgreSQL 15 packs a signed 11-bit scale; decimal(p,s) of Delta wants 0 ≤ s ≤ p ≤ 38.
    fn numeric(type_modifier: i32) -> Self {
        let packed = type_modifier - NUMERIC_MODIFIER_OFFSET;
        if packed < 0 {
            return Self::Numeric;
        }
        let precision = (packed >> 16) & 0xFFFF;
        let scale = ((packed & 0x7FF) ^ 1024) - 1024;
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale >= 0 && i32::from(scale) <= i32::from(precision) => {
                Self::Decimal { precision, scale }
            }
            _ => Self::Numeric,
        }
    }

    /// The same column as a lake string of the server's own text, which holds every value that the server can print. A kind that
    /// is such a string already stays as it is, and with it its binary form; any other turns `binary` off for the stream.
    pub fn as_text(self) -> Self {
        match self {
            Self::Numeric
            | Self::Time
            | Self::Uuid
            | Self::Inet
            | Self::Cidr
            | Self::MacAddr
            | Self::Json
            | Self::Jsonb
            | Self::Text
            | Self::ServerText => self,
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Decimal { .. }
            | Self::Date
            | Self::Timestamp
            | Self::TimestampTz
            | Self::Bytea => Self::ServerText,
        }
    }

    /// Whether the value's send/receive form is decoded here, exactly.
    pub fn binary_is_understood(self) -> bool {
        self != Self::ServerText
    }

    /// Whether a column of this type can date a row.
    pub fn can_date_a_row(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp | Self::TimestampTz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: i32, scale: i32) -> ColumnType {
        let modifier = ((precision << 16) | (scale & 0x7FF)) + NUMERIC_MODIFIER_OFFSET;
        ColumnType::from_catalog(1700, 'b', modifier)
    }

    #[test]
    fn a_numeric_is_a_decimal_only_where_delta_has_it() {
        assert_eq!(numeric(38, 10), ColumnType::Decimal { precision: 38, scale: 10 });
        assert_eq!(numeric(5, 0), ColumnType::Decimal { precision: 5, scale: 0 });
        assert_eq!(numeric(39, 0), ColumnType::Numeric);
        assert_eq!(numeric(5, -2), ColumnType::Numeric);
        assert_eq!(numeric(3, 5), ColumnType::Numeric);
        assert_eq!(ColumnType::from_catalog(1700, 'b', -1), ColumnType::Numeric);
    }

    #[test]
    fn an_unknown_type_keeps_the_servers_text() {
        assert_eq!(ColumnType::from_catalog(90_000, 'e', -1), ColumnType::Text);
        assert_eq!(ColumnType::from_catalog(90_000, 'c', -1), ColumnType::ServerText);
        assert_eq!(ColumnType::from_catalog(1009, 'b', -1), ColumnType::ServerText);
    }

    #[test]
    fn a_column_kept_as_text_gives_up_its_binary_form_only_where_it_must() {
        assert_eq!(ColumnType::TimestampTz.as_text(), ColumnType::ServerText);
        assert_eq!(numeric(10, 2).as_text(), ColumnType::ServerText);
        assert_eq!(ColumnType::Numeric.as_text(), ColumnType::Numeric);
        assert_eq!(ColumnType::Jsonb.as_text(), ColumnType::Jsonb);
    }
}
