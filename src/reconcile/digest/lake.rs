//! The lake's side of a digest: Parquet read back, value by value into the message that PostgreSQL makes of the row.
//!
//! Nothing of the writer's decoding is used here. A value of a type that the form does not know is an error; one that does not fit its
//! form, as after tampering, gets bytes that no value of PostgreSQL has, so that the digests differ.

use super::column::{DigestColumn, Form};
use super::sum::RowSum;
use deltalake::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray,
    RecordBatch, StringArray,
};
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

/// Days and microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const DAYS_1970_TO_2000: i64 = 10_957;
const MICROS_1970_TO_2000: i64 = DAYS_1970_TO_2000 * 86_400_000_000;
/// A length that stands for NULL.
const NULL_LENGTH: i32 = -1;

/// A column of the lake has a type that its digest's form does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} is {found} in a file of the lake, which is no form of {form:?}")]
pub struct FormError {
    /// The lake's name.
    pub column: String,
    /// What the receipt or the source says.
    pub form: Form,
    /// Arrow's name of the type.
    pub found: String,
}

/// Sums up rows of the lake.
#[derive(Debug)]
pub struct LakeDigest {
    columns: Arc<[DigestColumn]>,
    sum: RowSum,
}

impl LakeDigest {
    /// Of these columns.
    pub fn new(columns: Arc<[DigestColumn]>) -> Self {
        Self { columns, sum: RowSum::default() }
    }

    /// Takes the rows of a batch in. A column that the batch lacks is NULL, as Delta has it.
    ///
    /// # Errors
    /// [`FormError`]; nothing of the batch is taken in.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), FormError> {
        let mut messages = RowMessages::of(&self.columns, rows)?;
        for row in 0..rows.num_rows() {
            self.sum.add_row(&messages.hash(row));
        }
        Ok(())
    }

    /// What was taken in so far.
    pub fn sum(&self) -> RowSum {
        self.sum
    }
}

/// The messages of a batch's rows, in any of its columns.
pub(in crate::reconcile) struct RowMessages {
    columns: Vec<(Form, Cells)>,
    message: Vec<u8>,
    text: String,
}

impl RowMessages {
    /// Of these columns. One that the batch lacks is NULL, as Delta has it.
    pub(in crate::reconcile) fn of(columns: &[DigestColumn], rows: &RecordBatch) -> Result<Self, FormError> {
        let cells = columns.iter().map(|column| Cells::of(column, rows).map(|cells| (column.form, cells)));
        Ok(Self { columns: cells.collect::<Result<Vec<_>, _>>()?, message: Vec::new(), text: String::new() })
    }

    /// One row's.
    pub(in crate::reconcile) fn message(&mut self, row: usize) -> &[u8] {
        let Self { columns, message, text } = self;
        message.clear();
        message.extend(i32::try_from(columns.len()).unwrap_or(i32::MAX).to_be_bytes());
        for (form, cells) in columns.iter() {
            message.extend(form.oid().to_be_bytes());
            put(message, text, *form, cells, row);
        }
        message
    }

    /// Its SHA-256.
    pub(in crate::reconcile) fn hash(&mut self, row: usize) -> [u8; 32] {
        Sha256::digest(self.message(row)).into()
    }
}

/// A column's values under the type that its form is made from.
enum Cells {
    Missing,
    Bool(BooleanArray),
    Integer(PrimitiveArray<Int64Type>),
    Float4(PrimitiveArray<Float32Type>),
    Float8(PrimitiveArray<Float64Type>),
    Date(PrimitiveArray<Date32Type>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>),
    Text(StringArray),
    Bytes(BinaryArray),
    Decimal { values: Decimal128Array, scale: i8 },
}

impl Cells {
    fn of(column: &DigestColumn, rows: &RecordBatch) -> Result<Self, FormError> {
        let Some(array) = rows.column_by_name(&column.lake_name) else { return Ok(Self::Missing) };
        let refused =
            || FormError { column: column.lake_name.clone(), form: column.form, found: array.data_type().to_string() };
        let found = match (column.form, array.data_type()) {
            (Form::Bool, DataType::Boolean) => array.as_boolean_opt().cloned().map(Self::Bool),
            (Form::Int2 | Form::Int4 | Form::Int8, DataType::Int16 | DataType::Int32 | DataType::Int64) => {
                as_integers(array).map(Self::Integer)
            }
            (Form::Float4 | Form::Float8, DataType::Float32) => primitive(array).map(Self::Float4),
            (Form::Float4 | Form::Float8, DataType::Float64) => primitive(array).map(Self::Float8),
            (Form::Date, DataType::Date32) => primitive(array).map(Self::Date),
            (Form::Timestamp | Form::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                primitive(array).map(Self::Timestamp)
            }
            (Form::Uuid | Form::Text | Form::Printed, DataType::Utf8) => array.as_string_opt().cloned().map(Self::Text),
            (Form::Bytea, DataType::Binary) => array.as_binary_opt().cloned().map(Self::Bytes),
            // A column whose numbers became decimals since.
            (Form::Int2 | Form::Int4 | Form::Int8 | Form::Decimal { .. }, DataType::Decimal128(_, scale)) => {
                primitive::<Decimal128Type>(array).map(|values| Self::Decimal { values, scale: *scale })
            }
            _ => None,
        };
        found.ok_or_else(refused)
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Missing => true,
            Self::Bool(values) => values.is_null(row),
            Self::Integer(values) => values.is_null(row),
            Self::Float4(values) => values.is_null(row),
            Self::Float8(values) => values.is_null(row),
            Self::Date(values) => values.is_null(row),
            Self::Timestamp(values) => values.is_null(row),
            Self::Text(values) => values.is_null(row),
            Self::Bytes(values) => values.is_null(row),
            Self::Decimal { values, .. } => values.is_null(row),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<PrimitiveArray<T>> {
    array.as_primitive_opt::<T>().cloned()
}

fn as_integers(array: &ArrayRef) -> Option<PrimitiveArray<Int64Type>> {
    primitive(&cast(array, &DataType::Int64).ok()?)
}

/// Length and bytes of one value.
fn put(message: &mut Vec<u8>, text: &mut String, form: Form, cells: &Cells, row: usize) {
    if cells.is_null(row) {
        message.extend(NULL_LENGTH.to_be_bytes());
        return;
    }
    match cells {
        Cells::Missing => message.extend(NULL_LENGTH.to_be_bytes()),
        Cells::Bool(values) => field(message, &[u8::from(values.value(row))]),
        Cells::Integer(values) => put_integer(message, form, values.value(row)),
        Cells::Float4(values) if form == Form::Float4 => field(message, &canonical4(values.value(row)).to_be_bytes()),
        Cells::Float4(values) => field(message, &canonical8(f64::from(values.value(row))).to_be_bytes()),
        Cells::Float8(values) => put_float8(message, form, values.value(row)),
        Cells::Date(values) => put_date(message, values.value(row)),
        Cells::Timestamp(values) => match values.value(row).checked_sub(MICROS_1970_TO_2000) {
            Some(micros) => field(message, &micros.to_be_bytes()),
            None => field(message, b"out of range"),
        },
        Cells::Text(values) if form == Form::Uuid => put_uuid(message, values.value(row)),
        Cells::Text(values) => field(message, values.value(row).as_bytes()),
        Cells::Bytes(values) => field(message, values.value(row)),
        Cells::Decimal { values, scale } if matches!(form, Form::Int2 | Form::Int4 | Form::Int8) => {
            match rescaled(values.value(row), *scale, 0).and_then(|value| i64::try_from(value).ok()) {
                Some(value) => put_integer(message, form, value),
                None => field(message, b"no such number"),
            }
        }
        Cells::Decimal { values, scale } => {
            text.clear();
            print_decimal(text, values.value(row), *scale, form);
            field(message, text.as_bytes());
        }
    }
}

fn field(message: &mut Vec<u8>, bytes: &[u8]) {
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    message.extend(length.to_be_bytes());
    message.extend(bytes);
}

/// A number that its form cannot hold keeps all of its bytes.
fn put_integer(message: &mut Vec<u8>, form: Form, value: i64) {
    match (form, i16::try_from(value), i32::try_from(value)) {
        (Form::Int2, Ok(value), _) => field(message, &value.to_be_bytes()),
        (Form::Int4, _, Ok(value)) => field(message, &value.to_be_bytes()),
        _ => field(message, &value.to_be_bytes()),
    }
}

/// A column that was widened since holds what was a float4.
#[allow(clippy::cast_possible_truncation)]
fn put_float8(message: &mut Vec<u8>, form: Form, value: f64) {
    let narrow = value as f32;
    if form == Form::Float4 && (value.is_nan() || f64::from(narrow).to_bits() == value.to_bits()) {
        field(message, &canonical4(narrow).to_be_bytes());
    } else {
        field(message, &canonical8(value).to_be_bytes());
    }
}

fn canonical4(value: f32) -> u32 {
    if value.is_nan() { 0x7FC0_0000 } else { value.to_bits() }
}

fn canonical8(value: f64) -> u64 {
    if value.is_nan() { 0x7FF8_0000_0000_0000 } else { value.to_bits() }
}

fn put_date(message: &mut Vec<u8>, days: i32) {
    match i32::try_from(i64::from(days) - DAYS_1970_TO_2000) {
        Ok(days) => field(message, &days.to_be_bytes()),
        Err(_) => field(message, b"out of range"),
    }
}

/// The lake has uuids in lower case with hyphens. Any other spelling is not what PostgreSQL printed, and stays as it is.
fn put_uuid(message: &mut Vec<u8>, text: &str) {
    let mut spelled = Uuid::encode_buffer();
    match Uuid::try_parse(text) {
        Ok(uuid) if uuid.hyphenated().encode_lower(&mut spelled) == text => field(message, uuid.as_bytes()),
        _ => field(message, text.as_bytes()),
    }
}

/// As PostgreSQL prints `numeric(p,s)`. A column that was widened since has more digits, which are zeros if the value is unchanged.
fn print_decimal(text: &mut String, value: i128, found: i8, form: Form) {
    let wanted = if let Form::Decimal { scale, .. } = form { scale } else { found };
    let (value, scale) = rescaled(value, found, wanted).map_or((value, found), |value| (value, wanted));
    let places = usize::try_from(scale).unwrap_or(0);
    let digits = value.unsigned_abs().to_string();
    let (whole, fraction) = digits.split_at_checked(digits.len().saturating_sub(places)).unwrap_or((&digits, ""));
    text.push_str(if value < 0 { "-" } else { "" });
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if places > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{fraction:0>places$}");
    }
}

fn rescaled(value: i128, from: i8, to: i8) -> Option<i128> {
    let factor = 10_i128.checked_pow(u32::from(from.abs_diff(to)))?;
    if to >= from {
        return value.checked_mul(factor);
    }
    (value % factor == 0).then_some(value / factor)
}
