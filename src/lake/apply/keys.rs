//! Rows found by their identity: exact, whatever the types, and with little memory a key.

use deltalake::arrow::array::ArrayRef;
use deltalake::arrow::datatypes::Field;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Numbers of keys, by their bytes in Arrow's row format.
pub(super) struct KeyTable {
    converter: RowConverter,
    keys: Rows,
    /// Indexes into `keys`, the first of each key.
    found: HashTable<usize>,
    hasher: RandomState,
}

impl KeyTable {
    /// For keys of these columns.
    pub(super) fn new(fields: &[&Field]) -> Result<Self, ArrowError> {
        let fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let keys = converter.empty_rows(0, 0);
        Ok(Self { converter, keys, found: HashTable::new(), hasher: RandomState::new() })
    }

    /// The number of each row's key, which is noted if it is new.
    pub(super) fn note(&mut self, columns: &[ArrayRef]) -> Result<Vec<usize>, ArrowError> {
        let first = self.keys.num_rows();
        self.converter.append(&mut self.keys, columns)?;
        let mut numbers = Vec::with_capacity(self.keys.num_rows() - first);
        for row in first..self.keys.num_rows() {
            let Self { keys, found, hasher, .. } = self;
            let bytes = keys.row(row);
            let hash = hasher.hash_one(bytes.as_ref());
            let known = found.find(hash, |number| keys.row(*number) == bytes).copied();
            numbers.push(known.unwrap_or_else(|| {
                found.insert_unique(hash, row, |number| hasher.hash_one(keys.row(*number).as_ref()));
                row
            }));
        }
        Ok(numbers)
    }

    /// The number of each row's key, if it was noted.
    pub(super) fn find(&self, columns: &[ArrayRef]) -> Result<Vec<Option<usize>>, ArrowError> {
        let rows = self.converter.convert_columns(columns)?;
        let find = |row: usize| {
            let bytes = rows.row(row);
            let hash = self.hasher.hash_one(bytes.as_ref());
            self.found.find(hash, |number| self.keys.row(*number).as_ref() == bytes.as_ref()).copied()
        };
        Ok((0..rows.num_rows()).map(find).collect())
    }

    /// One more than the greatest number.
    pub(super) fn len(&self) -> usize {
        self.keys.num_rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::arrow::array::{Int64Array, StringArray};
    use deltalake::arrow::datatypes::DataType;
    use std::sync::Arc;

    #[test]
    fn equal_keys_have_one_number() {
        let fields = [Field::new("id", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        let mut keys = KeyTable::new(&fields.iter().collect::<Vec<_>>()).unwrap();
        let columns = |ids: Vec<Option<&str>>, numbers: Vec<i64>| -> Vec<ArrayRef> {
            vec![Arc::new(StringArray::from(ids)), Arc::new(Int64Array::from(numbers))]
        };
        let noted = keys.note(&columns(vec![Some("a"), Some("a"), Some("a"), None], vec![1, 2, 1, 1])).unwrap();
        assert_eq!(noted, [0, 1, 0, 3]);
        assert_eq!(keys.note(&columns(vec![Some("a"), Some("")], vec![2, 1])).unwrap(), [1, 5]);
        let found = keys.find(&columns(vec![Some("a"), Some("b"), None, Some("")], vec![2, 2, 1, 1])).unwrap();
        assert_eq!(found, [Some(1), None, Some(3), Some(5)]);
        assert_eq!(keys.len(), 6);
    }
}
