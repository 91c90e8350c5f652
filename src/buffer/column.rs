//! One column of one partition: an Arrow builder, and how a value gets into it.

use super::schema::UTC;
use crate::base::ColumnType;
use crate::decode::value::{self, Encoded, UUID_TEXT_BYTES, ValueError};
use deltalake::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use deltalake::arrow::datatypes::DataType;
use std::sync::Arc;

/// Hundreds of partitions may be open at once, so a builder starts empty and grows by doubling.
const NO_CAPACITY: usize = 0;

/// Buffers that a value's text is written into on its way, reused from row to row.
#[derive(Debug)]
pub(super) struct Scratch {
    text: String,
    bytes: Vec<u8>,
    uuid: [u8; UUID_TEXT_BYTES],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { text: String::new(), bytes: Vec::new(), uuid: [0; UUID_TEXT_BYTES] }
    }
}

/// Appends a value's text.
type Print = fn(Encoded<'_>, &mut String) -> Result<(), ValueError>;

#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal { values: Decimal128Builder, precision: u8, scale: i8 },
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Uuid(StringBuilder),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    ServerText(StringBuilder),
    Printed { values: StringBuilder, print: Print },
    Bytea(BinaryBuilder),
}

/// The same call on whichever builder it is.
macro_rules! each_builder {
    ($column:expr, $builder:ident => $call:expr) => {
        match $column {
            ColumnBuilder::Bool($builder) => $call,
            ColumnBuilder::Int2($builder) => $call,
            ColumnBuilder::Int4($builder) => $call,
            ColumnBuilder::Int8($builder) => $call,
            ColumnBuilder::Float4($builder) => $call,
            ColumnBuilder::Float8($builder) => $call,
            ColumnBuilder::Decimal { values: $builder, .. } => $call,
            ColumnBuilder::Date($builder) => $call,
            ColumnBuilder::Timestamp($builder) | ColumnBuilder::TimestampTz($builder) => $call,
            ColumnBuilder::Uuid($builder)
            | ColumnBuilder::Text($builder)
            | ColumnBuilder::Jsonb($builder)
            | ColumnBuilder::ServerText($builder)
            | ColumnBuilder::Printed { values: $builder, .. } => $call,
            ColumnBuilder::Bytea($builder) => $call,
        }
    };
}

impl ColumnBuilder {
    pub(super) fn new(column_type: ColumnType) -> Self {
        let strings = || StringBuilder::with_capacity(NO_CAPACITY, NO_CAPACITY);
        let timestamps = || TimestampMicrosecondBuilder::with_capacity(NO_CAPACITY).with_timezone(UTC);
        let printed = |print: Print| Self::Printed { values: strings(), print };
        match column_type {
            ColumnType::Bool => Self::Bool(BooleanBuilder::with_capacity(NO_CAPACITY)),
            ColumnType::Int2 => Self::Int2(Int16Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Int4 => Self::Int4(Int32Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Int8 => Self::Int8(Int64Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Float4 => Self::Float4(Float32Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Float8 => Self::Float8(Float64Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Decimal { precision, scale } => {
                let data_type = DataType::Decimal128(precision, scale);
                let values = Decimal128Builder::with_capacity(NO_CAPACITY).with_data_type(data_type);
                Self::Decimal { values, precision, scale }
            }
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(NO_CAPACITY)),
            ColumnType::Timestamp => Self::Timestamp(timestamps()),
            ColumnType::TimestampTz => Self::TimestampTz(timestamps()),
            ColumnType::Uuid => Self::Uuid(strings()),
            ColumnType::Text | ColumnType::Json => Self::Text(strings()),
            ColumnType::Jsonb => Self::Jsonb(strings()),
            ColumnType::ServerText => Self::ServerText(strings()),
            ColumnType::Numeric => printed(value::numeric),
            ColumnType::Time => printed(value::time),
            ColumnType::Inet => printed(value::inet),
            ColumnType::Cidr => printed(value::cidr),
            ColumnType::MacAddr => printed(value::macaddr),
            ColumnType::Bytea => Self::Bytea(BinaryBuilder::with_capacity(NO_CAPACITY, NO_CAPACITY)),
        }
    }

    /// Bytes that every row takes in this column, whatever its value: the value or its offset.
    pub(super) fn bytes_per_row(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Int2(_) => 2,
            Self::Int4(_) | Self::Float4(_) | Self::Date(_) => 4,
            Self::Int8(_) | Self::Float8(_) | Self::Timestamp(_) | Self::TimestampTz(_) => 8,
            Self::Decimal { .. } => 16,
            Self::Uuid(_)
            | Self::Text(_)
            | Self::Jsonb(_)
            | Self::ServerText(_)
            | Self::Printed { .. }
            | Self::Bytea(_) => 4,
        }
    }

    /// Decodes one value into the column; returns the bytes of its content beyond [`Self::bytes_per_row`].
    #[inline]
    pub(super) fn append(&mut self, encoded: Encoded<'_>, scratch: &mut Scratch) -> Result<usize, ValueError> {
        match self {
            Self::Text(values) => return Ok(append_text(values, value::text(encoded)?)),
            Self::Uuid(values) => return Ok(append_text(values, value::uuid(encoded, &mut scratch.uuid)?)),
            Self::Jsonb(values) => return Ok(append_text(values, value::jsonb(encoded)?)),
            Self::ServerText(values) => return Ok(append_text(values, value::server_text(encoded)?)),
            Self::Printed { values, print } => {
                scratch.text.clear();
                print(encoded, &mut scratch.text)?;
                return Ok(append_text(values, &scratch.text));
            }
            Self::Bytea(values) => {
                let bytes = value::bytea(encoded, &mut scratch.bytes)?;
                values.append_value(bytes);
                return Ok(bytes.len());
            }
            Self::Timestamp(values) => values.append_value(value::timestamp(encoded)?),
            Self::TimestampTz(values) => values.append_value(value::timestamptz(encoded)?),
            Self::Bool(values) => values.append_value(value::boolean(encoded)?),
            Self::Int2(values) => values.append_value(value::int2(encoded)?),
            Self::Int4(values) => values.append_value(value::int4(encoded)?),
            Self::Int8(values) => values.append_value(value::int8(encoded)?),
            Self::Float4(values) => values.append_value(value::float4(encoded)?),
            Self::Float8(values) => values.append_value(value::float8(encoded)?),
            Self::Date(values) => values.append_value(value::date(encoded)?),
            Self::Decimal { values, precision, scale } => {
                values.append_value(value::decimal(encoded, *precision, *scale)?);
            }
        }
        Ok(0)
    }

    #[inline]
    pub(super) fn append_null(&mut self) {
        each_builder!(self, values => values.append_null());
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        each_builder!(self, values => Arc::new(values.finish()))
    }
}

#[inline]
fn append_text(values: &mut StringBuilder, text: &str) -> usize {
    values.append_value(text);
    text.len()
}
