//! What is asked of the few keys that are told: their text, and in which columns their rows differ.

use super::compare::Hash;
use crate::reconcile::digest::DigestColumn;
use std::collections::BTreeMap;

/// By key.
pub(super) type Details = BTreeMap<Hash, Detail>;

/// One key on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Detail {
    /// The message of the key's columns.
    pub(super) message: Vec<u8>,
    /// Of each column, in the order of the digest.
    pub(super) columns: Vec<Extremes>,
}

/// The least and the greatest hash, in hexadecimal, of a column's value over the rows of a key: one row has one hash, and of several rows
/// it is enough to see that they are others than those of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extremes {
    pub(super) least: String,
    pub(super) greatest: String,
}

impl Extremes {
    fn widen(&mut self, other: Self) {
        if other.least < self.least {
            self.least = other.least;
        }
        if other.greatest > self.greatest {
            self.greatest = other.greatest;
        }
    }
}

/// Takes another row of a key in.
pub(super) fn merge(details: &mut Details, key: Hash, detail: Detail) {
    match details.get_mut(&key) {
        Some(known) => known.columns.iter_mut().zip(detail.columns).for_each(|(known, other)| known.widen(other)),
        None => {
            details.insert(key, detail);
        }
    }
}

/// The columns in which rows of these keys differ, in the order of the table.
pub(super) fn columns_that_differ(
    columns: &[DigestColumn],
    keys: &[Hash],
    source: &Details,
    lake: &Details,
) -> Vec<String> {
    let pairs: Vec<(&Detail, &Detail)> = keys.iter().filter_map(|key| source.get(key).zip(lake.get(key))).collect();
    let differs =
        |place: usize| pairs.iter().any(|(ours, theirs)| ours.columns.get(place) != theirs.columns.get(place));
    let those = columns.iter().enumerate().filter(|(place, _)| differs(*place));
    those.map(|(_, column)| column.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::digest::Form;

    fn detail(hashes: &[&str]) -> Detail {
        let columns = hashes.iter().map(|hash| Extremes { least: (*hash).to_owned(), greatest: (*hash).to_owned() });
        Detail { message: Vec::new(), columns: columns.collect() }
    }

    #[test]
    fn only_columns_with_other_hashes_are_named() {
        let column = |name: &str| DigestColumn { name: name.to_owned(), lake_name: name.to_owned(), form: Form::Text };
        let columns = ["id", "description", "detail"].map(column);
        let (mut source, mut lake) = (Details::new(), Details::new());
        for (key, ours, theirs) in
            [([1; 16], ["a", "b", "c"], ["a", "x", "c"]), ([2; 16], ["a", "b", "c"], ["a", "b", "y"])]
        {
            merge(&mut source, key, detail(&ours));
            merge(&mut lake, key, detail(&theirs));
        }
        assert_eq!(columns_that_differ(&columns, &[[1; 16]], &source, &lake), ["description"]);
        assert_eq!(columns_that_differ(&columns, &[[1; 16], [2; 16]], &source, &lake), ["description", "detail"]);
        assert_eq!(columns_that_differ(&columns, &[[3; 16]], &source, &lake), Vec::<String>::new());
        merge(&mut source, [1; 16], detail(&["a", "x", "c"]));
        assert_eq!(source[&[1_u8; 16]].columns[1], Extremes { least: "b".to_owned(), greatest: "x".to_owned() });
    }
}
