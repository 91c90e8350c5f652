//! Why a row was refused: cheap where it is noticed, and spelt out with table, column and key on the way out.

use super::binding::Binding;
use super::{BufferError, RowKey};
use crate::base::TableShape;
use crate::decode::value::ValueError;
use crate::decode::{DecodeError, Tuple};
use deltalake::arrow::error::ArrowError;

/// The reason alone; columns are indexes into the shape.
pub(super) enum Refusal {
    NotBound,
    ColumnCount,
    NoPartition,
    Null { column: usize },
    Unchanged { column: usize },
    Value { column: usize, source: ValueError },
    Decode(DecodeError),
    RowTooLarge { bytes: usize },
    Arrow(ArrowError),
}

impl Refusal {
    /// The error that an operator reads. Only here is the row's key read.
    #[cold]
    pub(super) fn of_row(self, shape: &TableShape, binding: Option<&Binding>, tuple: &Tuple<'_>) -> BufferError {
        let table = shape.table.clone();
        let name = |column: usize| shape.columns.get(column).map(|column| column.name.clone()).unwrap_or_default();
        let key = || RowKey::of(shape, binding, tuple);
        match self {
            Self::NotBound => BufferError::NotBound { table },
            Self::ColumnCount => BufferError::ColumnCount { table, expected: shape.columns.len(), found: tuple.len() },
            Self::NoPartition => BufferError::NoPartition { table, column: name(shape.partition_column), key: key() },
            Self::Null { column } => BufferError::NullNotAllowed { table, column: name(column), key: key() },
            Self::Unchanged { column } => BufferError::Unchanged { table, column: name(column), key: key() },
            Self::Value { column, source } => {
                let dates_the_row = column == shape.partition_column;
                BufferError::Value { table, column: name(column), dates_the_row, key: key(), source }
            }
            Self::Decode(source) => BufferError::Decode { table, source },
            Self::RowTooLarge { bytes } => BufferError::RowTooLarge { table, key: key(), bytes },
            Self::Arrow(source) => BufferError::Arrow { table, source },
        }
    }
}
