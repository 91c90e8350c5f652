//! A waiting table whose name is attached again: a late row for a detached day made partman create a partition of the same name, and its
//! retention fails for the whole table until the first is gone. The waiting one gives its name up; both balance against the same day.

use super::candidate::{Candidate, Candidates, LeftAlone};
use super::{ReconcileError, Reconciler};
use crate::base::TableName;
use crate::source;
use serde_json::json;
use std::collections::BTreeSet;

/// A table that waits under a name that is attached again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTaken {
    /// The table as it was called.
    pub table: TableName,
    /// What it is called now; None if it still has its name.
    pub renamed: Option<TableName>,
    /// One line: what happened and what follows.
    pub reason: String,
}

impl Reconciler<'_> {
    /// Looks for waiting tables whose names are attached again, and has them renamed where tables may be dropped at all. `found` has the new
    /// names afterwards.
    ///
    /// # Errors
    /// As any statement.
    pub async fn make_way(&self, found: &mut Candidates) -> Result<Vec<NameTaken>, ReconcileError> {
        let leaves = source::leaves(self.control, self.facts.oid, &self.facts.shape).await?;
        let attached: BTreeSet<&str> = leaves.iter().map(|leaf| leaf.table.name.as_str()).collect();
        let mut taken = Vec::new();
        for one in &mut found.candidates {
            if attached.contains(one.table.name.as_str()) {
                taken.push(self.give_name_up(one).await?);
            }
        }
        Ok(taken)
    }

    /// A partition that cannot be taken for one waits for a person.
    ///
    /// # Errors
    /// As any statement.
    pub async fn note_left_alone(&self, left: &LeftAlone) -> Result<(), ReconcileError> {
        let names = (&self.facts.shape.table, &*left.table.to_string());
        let evidence = json!({});
        Ok(source::note_finding(self.control, self.archive, "left_alone", names, &left.reason, &evidence).await?)
    }

    async fn give_name_up(&self, one: &mut Candidate) -> Result<NameTaken, ReconcileError> {
        let before = one.table.clone();
        let late =
            format!("rows came late for {}, and {} is attached again while it waits here", one.span, before.name);
        let renamed = match self.drop {
            true => Some(source::rename_waiting(self.control, self.archive, one.oid, self.facts.oid).await),
            false => None,
        };
        let (renamed, reason) = match renamed {
            Some(Ok(name)) => {
                let renamed = TableName::new(before.schema.clone(), name);
                let reason = format!("{late}: it is {renamed} now, so that partman's retention goes on");
                (Some(renamed), reason)
            }
            Some(Err(error)) => (None, format!("{late}: partman's retention stops until it is renamed, and {error}")),
            None => (None, format!("{late}: partman's retention stops until lakebed reconcile renames or drops it")),
        };
        if let Some(renamed) = &renamed {
            one.table = renamed.clone();
        }
        let table = &self.facts.shape.table;
        let evidence = json!({ "days": one.span.to_string(), "from": before.to_string(), "to": one.table.to_string() });
        let names = (table, &*one.table.to_string());
        source::note_finding(self.control, self.archive, "name_taken", names, &reason, &evidence).await?;
        Ok(NameTaken { table: before, renamed, reason })
    }
}
