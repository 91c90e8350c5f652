//! What a refused row is called: its primary key, and nothing else of it.

use super::binding::Binding;
use crate::base::{ColumnType, TableShape};
use crate::decode::value::{self, Encoded};
use crate::decode::{Datum, Tuple};
use std::fmt;

/// Characters shown of one key value.
const VALUE_CHARACTERS_MAX: usize = 64;

/// A row's primary key, or what names it in an UPDATE or DELETE, in PostgreSQL's own text, on one line: `row id=0190…, created_at=2026-01-01 00:00:00`. A value is cut at 64
/// characters, and control characters are escaped; one whose bytes are not its type's is shown as `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey(Box<str>);

impl RowKey {
    /// Reads the columns of `name` (the key, or the identity) out of a row of the bound relation, and no others.
    pub(super) fn of(name: &[usize], shape: &TableShape, binding: Option<&Binding>, tuple: &Tuple<'_>) -> Self {
        if name.is_empty() {
            return Self("a row without a key".into());
        }
        let mut text = String::from("row ");
        for (place, index) in name.iter().enumerate() {
            let Some(column) = shape.columns.get(*index) else { continue };
            if place > 0 {
                text.push_str(", ");
            }
            push_shown(&column.name, &mut text);
            text.push('=');
            let position = binding.and_then(|binding| binding.columns().iter().position(|bound| bound == index));
            let datum = position.and_then(|position| tuple.columns().nth(position)).and_then(Result::ok);
            match datum.and_then(|datum| value_text(column.column_type, datum)) {
                Some(value) => push_shown(&value, &mut text),
                None => text.push('?'),
            }
        }
        Self(text.into())
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn value_text(column_type: ColumnType, datum: Datum<'_>) -> Option<String> {
    let encoded = match datum {
        Datum::Null => return Some("NULL".to_owned()),
        Datum::Unchanged => return None,
        Datum::Text(bytes) => Encoded::Text(bytes),
        Datum::Binary(bytes) => Encoded::Binary(bytes),
    };
    let mut text = String::new();
    value::print(column_type, encoded, &mut text).is_ok().then_some(text)
}

fn push_shown(text: &str, out: &mut String) {
    let mut characters = text.chars();
    for character in characters.by_ref().take(VALUE_CHARACTERS_MAX) {
        if breaks_a_line(character) { out.extend(character.escape_default()) } else { out.push(character) }
    }
    if characters.next().is_some() {
        out.push('…');
    }
}

/// Control characters, line and paragraph separators, and marks that turn the direction of what follows.
fn breaks_a_line(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}
