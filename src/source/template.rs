//! Fills the placeholders of `sql/*.sql` as psql does, so that the very same files work with `psql -v name=value -f`.
//!
//! `:"name"` becomes a quoted identifier and `:'name'` a quoted literal. As in psql (its manual, "SQL Interpolation"), nothing is
//! replaced inside quotes, dollar quotes or comments, and `::` is a cast. Bare `:name` is not used by these files.

use super::{SourceError, quote_identifier, quote_literal};

/// The text with every placeholder replaced from `variables`.
///
/// # Errors
/// A placeholder without a value.
pub(super) fn render(file: &'static str, text: &str, variables: &[(&str, &str)]) -> Result<String, SourceError> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((mark, name, length)) = placeholder(rest) {
            let value = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let unknown = || SourceError::UnknownPlaceholder { file, name: name.to_owned() };
            let value = value.ok_or_else(unknown)?;
            rendered.push_str(&if mark == '"' { quote_identifier(value) } else { quote_literal(value) });
            rest = rest.get(length..).unwrap_or("");
            continue;
        }
        let length = verbatim(rest).unwrap_or(first.len_utf8());
        rendered.push_str(rest.get(..length).unwrap_or(rest));
        rest = rest.get(length..).unwrap_or("");
    }
    Ok(rendered)
}

/// A placeholder at the start: its quote mark, name and length.
fn placeholder(text: &str) -> Option<(char, &str, usize)> {
    let rest = text.strip_prefix(':')?;
    let mark = rest.chars().next().filter(|mark| matches!(mark, '"' | '\''))?;
    let (name, _) = rest.get(1..)?.split_once(mark)?;
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    valid.then_some((mark, name, name.len() + 3))
}

/// The length of what stands at the start and is copied whole: a cast, a comment, a quoted text.
fn verbatim(text: &str) -> Option<usize> {
    if text.starts_with("::") {
        return Some(2);
    }
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    for (open, close) in [("/*", "*/"), ("'", "'"), ("\"", "\"")] {
        if let Some(rest) = text.strip_prefix(open) {
            return Some(rest.find(close).map_or(text.len(), |end| open.len() + end + close.len()));
        }
    }
    let (tag, rest) = text.strip_prefix('$')?.split_once('$')?;
    if !tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let close = format!("${tag}$");
    Some(rest.find(&close).map_or(text.len(), |end| 2 * close.len() + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        render("test.sql", text, &[("login", "O'Brien"), ("table_name", "監査\"Log")]).unwrap()
    }

    #[test]
    fn placeholders_become_quoted_names_and_literals() {
        assert_eq!(rendered("GRANT x ON :\"table_name\" TO :\"login\";"), "GRANT x ON \"監査\"\"Log\" TO \"O'Brien\";");
        assert_eq!(rendered("SELECT :'login'::text"), "SELECT 'O''Brien'::text");
    }

    #[test]
    fn nothing_is_replaced_where_psql_replaces_nothing() {
        let untouched = [
            "-- :\"login\"\nSELECT 1",
            "/* :'login' */",
            "SELECT ':\"login\"'",
            "SELECT \":'login'\"",
            "DO $$ x := :'login' $$;",
            "DO $lakebed$ :'login' $$ :\"login\" $lakebed$;",
            "a := b::text",
        ];
        for text in untouched {
            assert_eq!(rendered(text), text);
        }
    }

    #[test]
    fn a_placeholder_without_a_value_is_an_error() {
        assert!(render("test.sql", "SELECT :'nobody'", &[]).is_err());
    }
}
