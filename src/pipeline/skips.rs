//! Transactions that the operator asked to step over (`lakebed skip`), by the position of their commit.

use crate::base::Lsn;
use std::collections::BTreeMap;

/// The orders that lie ahead, and whether each was found.
#[derive(Debug, Default)]
pub(super) struct Skips {
    orders: BTreeMap<Lsn, bool>,
}

impl Skips {
    /// Orders as the lake holds them; older ones than the stream do no harm.
    pub(super) fn new(orders: impl IntoIterator<Item = Lsn>) -> Self {
        Self { orders: orders.into_iter().map(|lsn| (lsn, false)).collect() }
    }

    /// Whether the transaction that commits there is to be stepped over.
    #[inline]
    pub(super) fn begins(&self, commit_lsn: Lsn) -> bool {
        !self.orders.is_empty() && self.orders.contains_key(&commit_lsn)
    }

    /// It was.
    pub(super) fn stepped_over(&mut self, commit_lsn: Lsn) {
        if let Some(found) = self.orders.get_mut(&commit_lsn) {
            *found = true;
            tracing::warn!(commit_lsn = %commit_lsn, "stepped over a transaction, as ordered by `lakebed skip`: its rows are not in the lake");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ordered_transaction_is_stepped_over() {
        let mut skips = Skips::new([Lsn(7)]);
        assert!(skips.begins(Lsn(7)) && !skips.begins(Lsn(8)));
        skips.stepped_over(Lsn(7));
        assert!(skips.begins(Lsn(7)), "the server may send it again before it is acknowledged");
    }
}
