//! Which column of the shape each value of a row belongs to.

use super::SchemaChange;
use crate::base::{TableName, TableShape};
use crate::decode::{Relation, RelationColumn};

/// A RELATION matched with a shape, by name: the order of a root's and a leaf's columns may differ.
#[derive(Debug)]
pub(super) struct Binding {
    /// For each value of a tuple, its column in the shape.
    columns: Vec<usize>,
    /// Where in a tuple the partition column stands.
    partition_position: usize,
}

impl Binding {
    pub(super) fn new(shape: &TableShape, relation: &Relation) -> Result<Self, SchemaChange> {
        if relation.schema != shape.table.schema || relation.name != shape.table.name {
            let now = TableName::new(relation.schema.as_str(), relation.name.as_str());
            return Err(SchemaChange::Renamed { now });
        }
        let mut columns = Vec::with_capacity(relation.columns.len());
        for column in &relation.columns {
            let index = find(shape, column)?;
            if columns.contains(&index) {
                return Err(SchemaChange::Added { column: column.name.clone() });
            }
            columns.push(index);
        }
        let missing = shape.columns.iter().enumerate().find(|(index, _)| !columns.contains(index));
        if let Some((_, column)) = missing {
            return Err(SchemaChange::Dropped { column: column.name.clone() });
        }
        let partition_position =
            columns.iter().position(|index| *index == shape.partition_column).unwrap_or(columns.len());
        Ok(Self { columns, partition_position })
    }

    #[inline]
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    #[inline]
    pub(super) fn partition_position(&self) -> usize {
        self.partition_position
    }
}

fn find(shape: &TableShape, column: &RelationColumn) -> Result<usize, SchemaChange> {
    let found = shape.columns.iter().enumerate().find(|(_, known)| known.name == column.name);
    match found {
        None => Err(SchemaChange::Added { column: column.name.clone() }),
        Some((_, known)) if known.type_oid != column.type_oid || known.type_modifier != column.type_modifier => {
            Err(SchemaChange::Retyped { column: column.name.clone() })
        }
        Some((index, _)) => Ok(index),
    }
}
