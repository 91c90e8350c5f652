//! Why a row was refused: cheap where it is noticed, and spelt out with table, column and key on the way out.

use super::binding::Binding;
use super::{BufferError, RefusedCell, RowKey};
use crate::base::TableShape;
use crate::decode::value::ValueError;
use crate::decode::{Datum, DecodeError, Tuple};
use deltalake::arrow::error::ArrowError;

/// The reason alone; columns are indexes into the shape.
pub(super) enum Refusal {
    NotBound,
    ColumnCount,
    NoPartition,
    Null {
        column: usize,
    },
    Unchanged {
        column: usize,
    },
    Value {
        column: usize,
        source: ValueError,
    },
    Decode(DecodeError),
    RowTooLarge {
        bytes: usize,
    },
    /// The old tuple's columns are not those of the identity.
    Identity,
    /// No old tuple, and the partitions' identities differ.
    AmbiguousIdentity,
    TooManyChanges,
    Arrow(ArrowError),
}

impl Refusal {
    /// The error that an operator reads. Only here is the row's key read.
    #[cold]
    pub(super) fn of_row(self, shape: &TableShape, binding: Option<&Binding>, tuple: &Tuple<'_>) -> BufferError {
        self.of_row_named_by(&shape.key, shape, binding, tuple)
    }

    /// The same for an old row, which may consist of the identity alone.
    #[cold]
    pub(super) fn of_old_row(self, shape: &TableShape, binding: Option<&Binding>, tuple: &Tuple<'_>) -> BufferError {
        self.of_row_named_by(&shape.identity, shape, binding, tuple)
    }

    fn of_row_named_by(
        self,
        name: &[usize],
        shape: &TableShape,
        binding: Option<&Binding>,
        tuple: &Tuple<'_>,
    ) -> BufferError {
        let table = shape.table.clone();
        let key = || RowKey::of(name, shape, binding, tuple);
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
            Self::Identity => {
                let expected = names(shape, shape.identity.iter());
                BufferError::IdentityDiffers { table, sent: sent(shape, binding, tuple), expected }
            }
            Self::AmbiguousIdentity => BufferError::IdentityAmbiguous { table, key: key() },
            Self::TooManyChanges => BufferError::TooManyChanges { table },
            Self::Arrow(source) => BufferError::Arrow { table, source },
        }
    }
}

fn names<'a>(shape: &TableShape, columns: impl Iterator<Item = &'a usize>) -> String {
    let names = columns.filter_map(|index| shape.columns.get(*index)).map(|column| column.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// The names of the columns that the tuple brings.
fn sent(shape: &TableShape, binding: Option<&Binding>, tuple: &Tuple<'_>) -> String {
    let order = binding.map_or(&[][..], Binding::columns);
    let brought = tuple.columns().zip(order).filter(|(datum, _)| !matches!(datum, Ok(Datum::Null) | Err(_)));
    names(shape, brought.map(|(_, index)| index))
}
