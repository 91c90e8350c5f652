//! Which table a relation's rows belong to.

use crate::base::TableName;
use crate::decode::Relation;
use std::collections::HashMap;

/// Relation oids seen in this stream, and the configured table behind each.
///
/// The server announces every relation before its first row, leaves as well as roots; rows carry the root's oid
/// (`publish_via_partition_root`). A relation that is published but not configured is known and ignored.
#[derive(Debug)]
pub(super) struct Routes {
    tables: Vec<TableName>,
    by_oid: HashMap<u32, Option<usize>>,
    /// Consecutive rows mostly share their relation.
    last: Option<(u32, Option<usize>)>,
}

impl Routes {
    pub(super) fn new(tables: Vec<TableName>) -> Self {
        Self { tables, by_oid: HashMap::new(), last: None }
    }

    /// Notes a RELATION message; the index of its table when it is a configured one.
    pub(super) fn announce(&mut self, relation: &Relation) -> Option<usize> {
        let found = self.tables.iter().position(|table| table.schema == relation.schema && table.name == relation.name);
        self.by_oid.insert(relation.oid, found);
        self.last = None;
        found
    }

    /// The table of a row: `Some(None)` when it is not configured, `None` when the relation was never announced.
    #[inline]
    pub(super) fn find(&mut self, relation_oid: u32) -> Option<Option<usize>> {
        if let Some((oid, table)) = self.last
            && oid == relation_oid
        {
            return Some(table);
        }
        let table = *self.by_oid.get(&relation_oid)?;
        self.last = Some((relation_oid, table));
        Some(table)
    }

    /// The configured table's name.
    pub(super) fn name(&self, table: usize) -> Option<&TableName> {
        self.tables.get(table)
    }
}
