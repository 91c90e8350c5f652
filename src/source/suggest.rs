//! "Did you mean": which existing names are close to one that is not there.

use crate::base::TableName;

/// Suggestions shown at most.
const SHOWN_MAX: usize = 3;
/// Edits up to which a name counts as close.
const DISTANCE_MAX: usize = 3;

/// The existing tables whose name resembles `wanted`, the closest first.
pub(super) fn close_tables(wanted: &TableName, existing: Vec<TableName>) -> Vec<TableName> {
    let mut scored: Vec<(usize, TableName)> = existing
        .into_iter()
        .map(|table| (distance(&wanted.name.to_lowercase(), &table.name.to_lowercase()), table))
        .filter(|(score, table)| *score <= DISTANCE_MAX && *score < table.name.chars().count())
        .collect();
    scored.sort();
    scored.into_iter().take(SHOWN_MAX).map(|(_, table)| table).collect()
}

/// Levenshtein's distance, one row of the matrix at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(index + 1);
        for ((pair, other), before) in row.windows(2).zip(&right).zip(0..) {
            let [diagonal, above] = pair else { continue };
            let beside = next.get(before).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(character != *other)).min(above + 1).min(beside + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_come_first_and_strangers_never() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "")), (3, 3, 3));
        let existing = ["users", "security_event", "security_events_old", "Security_Events"];
        let existing = existing.map(|name| TableName::new("public", name)).to_vec();
        let close = close_tables(&TableName::new("public", "security_events"), existing);
        let names: Vec<&str> = close.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["Security_Events", "security_event"]);
    }
}
