//! What is told of a difference.

use crate::reconcile::digest::RowSum;
use serde_json::{Value, json};

/// Why some days do not balance, as far as it was found. Keys are the only values in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// The hours that differ, in their order.
    pub hours: Vec<HourDifference>,
    /// The lake lacks them.
    pub missing: Keys,
    /// Only the lake has them.
    pub extra: Keys,
    /// The lake has them more often.
    pub doubled: Keys,
    /// Both have them, with other values.
    pub different: Keys,
    /// In which columns those differ that are told.
    pub columns: Vec<String>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// One hour of the column that dates rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourDifference {
    /// `2026-01-02T03` (UTC), `2026-01-02` where a date dates the rows, or `other days`.
    pub hour: String,
    /// What PostgreSQL has.
    pub postgres: RowSum,
    /// What the lake has.
    pub lake: RowSum,
}

/// Keys of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// How many there are.
    pub total: u64,
    /// Some of them: `id=…, created_at=…`.
    pub keys: Vec<String>,
}

impl Narrowed {
    /// Adds a note, once.
    pub(super) fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// For a finding's evidence and for `--json`.
    pub fn to_json(&self) -> Value {
        let side = |sum: RowSum| json!({ "rows": sum.rows, "digest": sum.digest() });
        let hour = |hour: &HourDifference| json!({ "hour": hour.hour, "postgres": side(hour.postgres), "lake": side(hour.lake) });
        json!({
            "hours": self.hours.iter().map(hour).collect::<Vec<_>>(),
            "missing": self.missing.to_json(),
            "extra": self.extra.to_json(),
            "doubled": self.doubled.to_json(),
            "different": self.different.to_json(),
            "columns": self.columns,
            "notes": self.notes,
        })
    }

    /// For people, one line a fact.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.hours.iter().map(HourDifference::line).collect();
        let kinds = [
            ("missing in the lake", &self.missing),
            ("extra in the lake", &self.extra),
            ("doubled in the lake", &self.doubled),
        ];
        lines.extend(kinds.into_iter().filter_map(|(kind, keys)| Some(format!("{kind}: {}", keys.line()?))));
        if let Some(different) = self.different.line() {
            let columns = if self.columns.len() == 1 { "column" } else { "columns" };
            let names = if self.columns.is_empty() { "unknown".to_owned() } else { self.columns.join(", ") };
            lines.push(format!("different: {different}, in {columns} {names}"));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

impl HourDifference {
    fn line(&self) -> String {
        let (hour, postgres, lake) = (&self.hour, self.postgres.rows, self.lake.rows);
        if postgres == lake {
            return format!("{hour}: PostgreSQL and the lake have {} each, and not the same", counted(postgres, "row"));
        }
        format!("{hour}: PostgreSQL has {}, the lake {lake}", counted(postgres, "row"))
    }
}

impl Keys {
    fn to_json(&self) -> Value {
        json!({ "total": self.total, "keys": self.keys })
    }

    /// None where there are none.
    fn line(&self) -> Option<String> {
        let shown = match self.keys.as_slice() {
            [] => String::new(),
            [key] => format!(": {key}"),
            keys => format!(": ({})", keys.join("), (")),
        };
        let told = u64::try_from(self.keys.len()).unwrap_or(u64::MAX);
        let more = if told > 0 && told < self.total { ", …" } else { "" };
        (self.total > 0).then(|| format!("{}{shown}{more}", counted(self.total, "key")))
    }
}

/// `1 row`, `2 rows`
pub(super) fn counted(number: impl TryInto<i128>, what: &str) -> String {
    let number = number.try_into().unwrap_or(i128::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(total: u64, keys: &[&str]) -> Keys {
        Keys { total, keys: keys.iter().map(|key| (*key).to_owned()).collect() }
    }

    fn hour(postgres: i64, lake: i64) -> HourDifference {
        let sum = |rows| RowSum { rows, lanes: [0, 0] };
        HourDifference { hour: "2026-01-02T03".to_owned(), postgres: sum(postgres), lake: sum(lake) }
    }

    #[test]
    fn each_fact_is_one_line() {
        let narrowed = Narrowed {
            hours: vec![hour(20, 19), hour(1, 1)],
            missing: keys(1, &["id=1"]),
            extra: keys(30, &["id=2", "id=3"]),
            doubled: keys(4, &[]),
            different: keys(1, &["id=4, part=5"]),
            columns: vec!["description".to_owned(), "detail".to_owned()],
            notes: vec!["a note".to_owned()],
        };
        let expected = [
            "2026-01-02T03: PostgreSQL has 20 rows, the lake 19",
            "2026-01-02T03: PostgreSQL and the lake have 1 row each, and not the same",
            "missing in the lake: 1 key: id=1",
            "extra in the lake: 30 keys: (id=2), (id=3), …",
            "doubled in the lake: 4 keys",
            "different: 1 key: id=4, part=5, in columns description, detail",
            "a note",
        ];
        assert_eq!(narrowed.lines(), expected);
        assert_eq!(Narrowed::default().lines(), Vec::<String>::new());
    }

    #[test]
    fn a_note_is_made_once() {
        let mut narrowed = Narrowed::default();
        narrowed.note("again");
        narrowed.note("again");
        assert_eq!(narrowed.notes, ["again"]);
    }

    #[test]
    fn the_evidence_has_numbers_digests_and_keys() {
        let narrowed = Narrowed { hours: vec![hour(2, 1)], missing: keys(1, &["id=1"]), ..Narrowed::default() };
        let json = narrowed.to_json();
        assert_eq!(json["hours"][0]["postgres"], json!({ "rows": 2, "digest": "0".repeat(32) }));
        assert_eq!(json["missing"], json!({ "total": 1, "keys": ["id=1"] }));
    }
}
