//! The ledger of some days: what the lake holds against what it should hold (R1).

use super::digest::RowSum;
use serde_json::{Value, json};
use std::fmt;

/// Both sides of one cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// What was dropped before, by receipt.
    pub receipts: RowSum,
    /// The detached table that is frozen.
    pub detached: RowSum,
    /// What other detached tables and the parent hold for the same days.
    pub live: RowSum,
    /// The lake.
    pub lake: RowSum,
}

/// What a ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The same rows on both sides.
    Balanced,
    /// So many rows more (fewer) in the lake than in PostgreSQL, or as many of them, but not the same.
    Differs {
        /// Rows of the lake less those that it should have.
        surplus: i64,
    },
}

impl Ledger {
    /// What the lake should hold.
    pub fn expected(&self) -> RowSum {
        self.receipts + self.detached + self.live
    }

    /// The verdict.
    pub fn balance(&self) -> Balance {
        if self.lake == self.expected() {
            return Balance::Balanced;
        }
        Balance::Differs { surplus: (self.lake - self.expected()).rows }
    }

    /// For receipts and findings.
    pub fn to_json(self) -> Value {
        let side = |sum: RowSum| json!({ "rows": sum.rows, "digest": sum.digest() });
        json!({
            "receipts": side(self.receipts),
            "detached": side(self.detached),
            "live": side(self.live),
            "lake": side(self.lake),
        })
    }
}

/// One line for a report.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.expected();
        write!(
            f,
            "PostgreSQL has {} rows ({} here, {} elsewhere, {} dropped before), digest {}; the lake has {} rows, digest {}",
            expected.rows,
            self.detached.rows,
            self.live.rows,
            self.receipts.rows,
            expected.digest(),
            self.lake.rows,
            self.lake.digest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8]) -> RowSum {
        let mut sum = RowSum::default();
        for byte in bytes {
            sum.add_row(&[*byte; 32]);
        }
        sum
    }

    #[test]
    fn r1_the_lake_holds_what_was_dropped_what_is_detached_and_what_is_live() {
        let ledger =
            Ledger { receipts: rows(&[1, 2]), detached: rows(&[3]), live: rows(&[4]), lake: rows(&[4, 3, 2, 1]) };
        assert_eq!(ledger.balance(), Balance::Balanced);
        let missing = Ledger { lake: rows(&[1, 2, 3]), ..ledger };
        assert_eq!(missing.balance(), Balance::Differs { surplus: -1 });
        let other = Ledger { lake: rows(&[1, 2, 3, 5]), ..ledger };
        assert_eq!(other.balance(), Balance::Differs { surplus: 0 });
    }
}
