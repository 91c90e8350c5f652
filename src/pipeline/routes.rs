//! Which table a relation's rows belong to.

use super::refusal::{Cause, Refusal};
use crate::base::TableName;
use crate::decode::Relation;
use crate::source::PublicationFacts;
use std::collections::HashMap;

/// Relation oids seen in this stream, and the configured table behind each.
///
/// The server announces every relation before its first row, leaves as well as roots; rows carry the root's oid
/// (`publish_via_partition_root`). A relation that is published but not configured is known and ignored.
#[derive(Debug)]
pub(super) struct Routes {
    tables: Vec<TableName>,
    publication: String,
    /// Published, ours or not; `None` when the publication names schemas or all tables, so that new ones may come.
    published: Option<Vec<TableName>>,
    /// Relations announced under a name that the publication does not have.
    unknown: HashMap<u32, TableName>,
    by_oid: HashMap<u32, Option<usize>>,
    /// Consecutive rows mostly share their relation.
    last: Option<(u32, Option<usize>)>,
}

impl Routes {
    /// The configured tables with the oids that the catalog gave them at start.
    pub(super) fn new(tables: Vec<(u32, TableName)>, publication: &PublicationFacts) -> Self {
        let open_ended = publication.all_tables || !publication.schemas.is_empty();
        let named = || publication.tables.iter().map(|published| published.table.clone()).collect();
        let by_oid = tables.iter().enumerate().map(|(index, (oid, _))| (*oid, Some(index))).collect();
        Self {
            tables: tables.into_iter().map(|(_, name)| name).collect(),
            publication: publication.name.clone(),
            published: (!open_ended).then(named),
            unknown: HashMap::new(),
            by_oid,
            last: None,
        }
    }

    /// Notes a RELATION message; the index of its table when it is a configured one.
    ///
    /// An oid that was ours stays ours under another name: a renamed table must be refused, not mistaken for one that is not
    /// configured, whose rows are ignored.
    pub(super) fn announce(&mut self, relation: &Relation) -> Option<usize> {
        let found = self.resolve(relation);
        self.by_oid.insert(relation.oid, found);
        if found.is_none() && self.is_foreign(relation) {
            self.unknown.insert(relation.oid, TableName::new(&relation.schema, &relation.name));
        }
        self.last = None;
        found
    }

    /// The configured table of a relation as it is described, without noting anything: a transaction in progress may rename
    /// a table and roll back.
    pub(super) fn resolve(&self, relation: &Relation) -> Option<usize> {
        let by_name =
            self.tables.iter().position(|table| table.schema == relation.schema && table.name == relation.name);
        by_name.or_else(|| self.by_oid.get(&relation.oid).copied().flatten())
    }

    /// Whether the publication does not have a relation of this name, so that its rows may not pass by.
    pub(super) fn is_foreign(&self, relation: &Relation) -> bool {
        let named = |table: &TableName| table.schema == relation.schema && table.name == relation.name;
        self.published.as_ref().is_some_and(|published| !published.iter().any(named))
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

    /// Whether rows of a relation that is not configured may pass by: those of a table that is published beside ours. Rows
    /// under a name that the publication does not have are a leaf's, whose root is ours, and must not be lost in silence.
    pub(super) fn may_be_ignored(&self, relation_oid: u32) -> Result<(), Refusal> {
        match self.unknown.get(&relation_oid) {
            None => Ok(()),
            Some(table) => Err(self.unknown_relation(table.clone())),
        }
    }

    /// Rows of a relation that the publication does not name.
    pub(super) fn unknown_relation(&self, table: TableName) -> Refusal {
        let publication = self.publication.clone();
        Refusal { table: None, cause: Cause::UnknownRelation { table, publication } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ReplicaIdentity;
    use crate::source::PublishedTable;

    fn relation(oid: u32, name: &str) -> Relation {
        let (schema, name) = ("public".to_owned(), name.to_owned());
        Relation { oid, schema, name, replica_identity: ReplicaIdentity::Default, columns: Vec::new() }
    }

    fn publication(tables: &[&str]) -> PublicationFacts {
        let published = |name: &&str| PublishedTable {
            table: TableName::new("public", *name),
            has_column_list: false,
            has_row_filter: false,
        };
        PublicationFacts {
            name: "lakebed".to_owned(),
            owner: "idp".to_owned(),
            all_tables: false,
            schemas: Vec::new(),
            via_root: true,
            inserts: true,
            updates: true,
            deletes: true,
            truncates: true,
            generated_stored: false,
            tables: tables.iter().map(published).collect(),
        }
    }

    #[test]
    fn rows_of_a_leaf_are_refused_and_rows_of_another_published_table_pass() {
        let mut routes = Routes::new(vec![(7, TableName::new("public", "events"))], &publication(&["events", "other"]));
        assert_eq!(routes.announce(&relation(8, "other")), None);
        assert!(routes.may_be_ignored(8).is_ok());
        assert_eq!(routes.announce(&relation(9, "events_p2026_01_01")), None);
        let refused = routes.may_be_ignored(9).unwrap_err();
        assert!(matches!(refused.cause, Cause::UnknownRelation { .. }));
    }

    #[test]
    fn a_renamed_table_stays_ours_so_that_it_is_refused() {
        let mut routes = Routes::new(vec![(7, TableName::new("public", "events"))], &publication(&["events", "other"]));
        assert_eq!(routes.announce(&relation(7, "renamed")), Some(0), "renamed before its first RELATION");
        assert_eq!(routes.announce(&relation(8, "other")), None);
        assert_eq!(routes.find(8), Some(None));
        assert_eq!(routes.find(9), None, "never announced");
        assert_eq!(routes.announce(&relation(9, "events")), Some(0), "dropped and made again: another oid");
        assert_eq!(routes.find(9), Some(Some(0)));
    }
}
