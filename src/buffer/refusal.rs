//! Why a row was refused: cheap where it is noticed, and spelt out with table, column and key on the way out.

use super::binding::Binding;
use super::{BufferError, RefusedCell, RowKey};
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
        let key = || RowKey::of(shape, binding, tuple);
        let cell = |column: usize| {
            let name = shape.columns.get(column).map(|column| column.name.clone());
            Box::new(RefusedCell { table: shape.table.clone(), column: name.unwrap_or_default(), key: key() })
        };
        match self {
            Self::NotBound => BufferError::NotBound { table },
            Self::ColumnCount => BufferError::ColumnCount { table, expected: shape.columns.len(), found: tuple.len() },
            Self::NoPartition => BufferError::NoPartition { cell: cell(shape.partition_column) },
            Self::Null { column } => BufferError::NullNotAllowed { cell: cell(column) },
            Self::Unchanged { column } => BufferError::Unchanged { cell: cell(column) },
            Self::Value { column, source } => {
                BufferError::Value { cell: cell(column), dates_the_row: column == shape.partition_column, source }
            }
            Self::Decode(source) => BufferError::Decode { table, source },
            Self::RowTooLarge { bytes } => BufferError::RowTooLarge { table, key: key(), bytes },
            Self::Arrow(source) => BufferError::Arrow { table, source },
        }
    }
}
