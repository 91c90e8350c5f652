//! Names and texts on their way into SQL.

use crate::base::TableName;

/// An identifier, always in double quotes: `a"b` → `"a""b"`. Right for every name that the catalogs can hold, upper case and
/// Japanese included. A NUL, which no PostgreSQL name can hold, is left out.
pub fn quote_identifier(name: &str) -> String {
    enclose(name, '"')
}

/// A string literal that means the same whatever `standard_conforming_strings` is: a text with a backslash becomes an `E''` string,
/// as libpq's `PQescapeLiteral` has it.
pub fn quote_literal(text: &str) -> String {
    let quoted = enclose(text, '\'');
    if quoted.contains('\\') { format!(" E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// `"schema"."table"`.
pub fn qualified(table: &TableName) -> String {
    format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.name))
}

fn enclose(text: &str, mark: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for character in text.chars().filter(|character| *character != '\0') {
        if character == mark {
            quoted.push(mark);
        }
        quoted.push(character);
    }
    quoted.push(mark);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_cannot_leave_its_quotes() {
        assert_eq!(quote_identifier("security_event"), r#""security_event""#);
        assert_eq!(quote_identifier(r#"a"; DROP TABLE b; --"#), r#""a""; DROP TABLE b; --""#);
        assert_eq!(quote_identifier("監査 Log"), r#""監査 Log""#);
        assert_eq!(quote_identifier("a\0b"), r#""ab""#);
        assert_eq!(qualified(&TableName::new("Public", "e'v")), r#""Public"."e'v""#);
    }

    #[test]
    fn a_literal_cannot_leave_its_quotes() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\'; DROP"), r" E'\\''; DROP'");
        assert_eq!(quote_literal(""), "''");
    }
}
