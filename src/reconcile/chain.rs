//! The chain of receipts, in the database and in the lake: each has what the other lacks.
//!
//! A receipt's text holds the hash of the one before it, so none can be changed, left out or put in between without a trace. The lake's copy
//! proves the archive without the database; and where it has more than the database, the database was restored from an older copy: the
//! receipts come back first, so that a table that came back with it is not taken for one that was never dropped.

use super::ReconcileError;
use crate::lake::{Booked, BookedReceipt, FileFault, LakeLocation, Patience, ReceiptBook, booked_receipts};
use crate::ops::fail_points;
use crate::source::{self, ReceiptText};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

/// Receipts that go to the lake in one commit.
const RECEIPTS_PER_COMMIT: i64 = 200;

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// The text does not have the hash.
    #[error("receipt {sequence} was changed: its text does not have its hash")]
    Changed {
        /// Its place.
        sequence: i64,
    },
    /// It does not follow the one before it.
    #[error("receipt {sequence} does not follow the one before it: one was taken out, put in or changed there")]
    Broken {
        /// Its place.
        sequence: i64,
    },
    /// The end is missing.
    #[error(
        "receipts {from} to {to} were there and are gone; take the folder of the lake's receipts away, and lakebed reconcile writes them all again"
    )]
    CutOff {
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// The text is no receipt's.
    #[error("receipt {sequence} cannot be read")]
    Unreadable {
        /// Its place.
        sequence: i64,
    },
}

/// What a receipt's text says to the chain and to the lake.
#[derive(Debug, Deserialize)]
struct Said {
    sequence: i64,
    previous_hash: String,
    kind: String,
    table_name: String,
    partition_name: String,
    lower_bound: NaiveDate,
    upper_bound: NaiveDate,
    rows: i64,
    digest: String,
    recorded_at: DateTime<Utc>,
}

/// Checks the links of a chain from its beginning, in order. Returns everything that is wrong.
pub fn faults_of<'a>(chain: impl Iterator<Item = (i64, &'a str, &'a str)>) -> Vec<ChainFault> {
    let mut faults = Vec::new();
    let (mut expected, mut before) = (1, String::new());
    for (sequence, content, hash) in chain {
        match serde_json::from_str::<Said>(content) {
            Err(_) => faults.push(ChainFault::Unreadable { sequence }),
            Ok(_) if hash_of(content) != hash => faults.push(ChainFault::Changed { sequence }),
            Ok(said) if sequence != expected || said.sequence != sequence || said.previous_hash != before => {
                faults.push(ChainFault::Broken { sequence });
            }
            Ok(_) => {}
        }
        expected = sequence + 1;
        hash.clone_into(&mut before);
    }
    faults
}

/// What came of [`keep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Receipts that the lake did not have.
    pub booked: u64,
    /// Receipts that the database did not have.
    pub restored: u64,
}

/// Writes down in the lake what only the database has, and in the database what only the lake has.
///
/// # Errors
/// [`ReconcileError::ChainForked`] where both have a receipt of their own at one place; what the store and the server say.
pub async fn keep(
    client: &Client,
    archive: &str,
    location: &LakeLocation,
    patience: &Patience,
) -> Result<Kept, ReconcileError> {
    let mut kept = Kept::default();
    // A lake of which nothing was ever dropped needs no table of receipts.
    if source::receipt_texts(client, archive, 0, 1).await?.is_empty() && !ReceiptBook::exists(location).await? {
        return Ok(kept);
    }
    let mut book = ReceiptBook::open(location).await?;
    if book.last() > 0 && source::receipt_texts(client, archive, book.last() - 1, 1).await?.is_empty() {
        kept.restored = restore(client, archive, location).await?;
    }
    loop {
        let missing = source::receipt_texts(client, archive, book.last(), RECEIPTS_PER_COMMIT).await?;
        if missing.is_empty() {
            break;
        }
        let receipts = missing.into_iter().map(booked).collect::<Result<Vec<_>, _>>()?;
        fail_points::reach("receipts.before_lake");
        book.add(&receipts, patience).await?;
        fail_points::reach("receipts.after_lake");
        kept.booked += u64::try_from(receipts.len()).unwrap_or(0);
    }
    book.close().await;
    Ok(kept)
}

/// Every receipt that the lake has and the database has not.
async fn restore(client: &Client, archive: &str, location: &LakeLocation) -> Result<u64, ReconcileError> {
    let booked = booked_receipts(location).await.map_err(|fault| match fault {
        FileFault::Lake(error) => ReconcileError::Lake(error),
        fault => ReconcileError::ReceiptsUnreadable { fault: Box::new(fault) },
    })?;
    let mut restored = 0;
    for receipt in &booked.receipts {
        match source::restore_receipt(client, archive, &receipt.content).await {
            Ok(missing) => restored += u64::from(missing),
            Err(error) if error.is_refusal() => {
                return Err(ReconcileError::ChainForked { sequence: receipt.sequence });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(restored)
}

/// What is wrong with a lake's chain: its links, columns that say something else than the text that was hashed, and an end that is cut off.
pub fn faults_of_booked(booked: &Booked) -> Vec<ChainFault> {
    let links = booked.receipts.iter();
    let mut faults = faults_of(links.map(|one| (one.sequence, one.content.as_str(), one.hash.as_str())));
    let differs = |one: &&BookedReceipt| {
        let text = ReceiptText { sequence: one.sequence, content: one.content.clone(), hash: one.hash.clone() };
        self::booked(text).is_ok_and(|said| said != **one)
    };
    faults.extend(booked.receipts.iter().filter(differs).map(|one| ChainFault::Changed { sequence: one.sequence }));
    let last = booked.receipts.last().map_or(0, |receipt| receipt.sequence);
    if last < booked.last {
        faults.push(ChainFault::CutOff { from: last + 1, to: booked.last });
    }
    faults
}

fn booked(text: ReceiptText) -> Result<BookedReceipt, ReconcileError> {
    let ReceiptText { sequence, content, hash } = text;
    let said: Said = serde_json::from_str(&content)
        .map_err(|_| ReconcileError::ChainFault { fault: ChainFault::Unreadable { sequence } })?;
    if hash_of(&content) != hash {
        return Err(ReconcileError::ChainFault { fault: ChainFault::Changed { sequence } });
    }
    Ok(BookedReceipt {
        sequence,
        hash,
        kind: said.kind,
        table: said.table_name,
        partition: said.partition_name,
        lower: said.lower_bound,
        upper: said.upper_bound,
        rows: said.rows,
        digest: said.digest,
        recorded_at: said.recorded_at,
        content,
    })
}

fn hash_of(content: &str) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(length: i64) -> Vec<(i64, String, String)> {
        let mut chain: Vec<(i64, String, String)> = Vec::new();
        for sequence in 1..=length {
            let before = chain.last().map_or("", |(_, _, hash)| hash.as_str());
            let content = json!({
                "sequence": sequence, "previous_hash": before, "kind": "dropped", "table_name": "public.event",
                "partition_name": "archive.event_p20260101", "lower_bound": "2026-01-01", "upper_bound": "2026-01-02", "rows": 1,
                "digest": "0", "recorded_at": "2026-04-01T03:00:00.123456+00:00",
            });
            let content = content.to_string();
            let hash = hash_of(&content);
            chain.push((sequence, content, hash));
        }
        chain
    }

    fn faults(chain: &[(i64, String, String)]) -> Vec<ChainFault> {
        faults_of(chain.iter().map(|(sequence, content, hash)| (*sequence, content.as_str(), hash.as_str())))
    }

    #[test]
    fn whatever_is_done_to_a_chain_leaves_a_trace() {
        assert_eq!(faults(&chain(3)), []);
        let mut changed = chain(3);
        changed[1].1 = changed[1].1.replace("\"rows\":1", "\"rows\":2");
        assert_eq!(faults(&changed), [ChainFault::Changed { sequence: 2 }]);
        changed[1].2 = hash_of(&changed[1].1);
        assert_eq!(faults(&changed), [ChainFault::Broken { sequence: 3 }]);
        let mut short = chain(3);
        short.remove(1);
        assert_eq!(faults(&short), [ChainFault::Broken { sequence: 3 }]);
        let mut torn = chain(3);
        torn[2].1.truncate(20);
        assert_eq!(faults(&torn), [ChainFault::Unreadable { sequence: 3 }]);
        assert_eq!(faults(&chain(3)[1..]), [ChainFault::Broken { sequence: 2 }], "a chain begins with its first");
    }
}
