//! `.pgpass` (section 34.16 of PostgreSQL's manual): `host:port:database:user:password`, first match wins.

use super::environment::EnvironmentFile;
use super::password::Password;

/// What a line of the password file is matched with.
pub(super) struct Wanted<'a> {
    /// The host as it was named; `localhost` for the default socket directory.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// A password file that others may read is ignored, with a warning, as libpq does.
pub(super) fn is_private(file: &EnvironmentFile) -> bool {
    file.permissions & 0o077 == 0
}

/// The password of the first line that matches.
pub(super) fn find(text: &str, wanted: &Wanted<'_>) -> Option<Password> {
    let port = wanted.port.to_string();
    let expected = [wanted.host, &port, wanted.database, wanted.user];
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).find_map(|line| {
        let mut rest = line.trim_end_matches('\r');
        for value in expected {
            let (field, after) = field(rest)?;
            if field != "*" && unescape(field) != value {
                return None;
            }
            rest = after;
        }
        // libpq ends the password at the next bare colon, too; what follows has no meaning.
        let password = field(rest).map_or(rest, |(password, _)| password);
        (!password.is_empty()).then(|| Password::new(unescape(password)))
    })
}

/// The text up to the next colon that no backslash precedes, and what follows it.
fn field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((text.get(..index)?, text.get(index + 1..)?)),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: Wanted<'static> = Wanted { host: "db", port: 5432, database: "idp", user: "lakebed" };

    fn password(text: &str) -> Option<String> {
        find(text, &WANTED).map(|password| password.expose().to_owned())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let text = "# c\n\ndb:5433:idp:lakebed:port\nother:*:*:*:host\ndb:*:idp:lakebed:right\n*:*:*:*:later\n";
        assert_eq!(password(text).as_deref(), Some("right"));
        assert_eq!(password("*:*:*:*:any\r\n").as_deref(), Some("any"));
        assert_eq!(password("*:*:*:someone:no\n"), None);
        assert_eq!(password("db:5432:idp\n"), None);
        assert_eq!(password("*:*:*:*:\n"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(password(r"*:*:*:*:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(password(r"*:*:*:*:a:rest").as_deref(), Some("a"));
        let ipv6 = Wanted { host: "::1", ..WANTED };
        assert!(find(r"\:\:1:*:*:*:p", &ipv6).is_some());
    }

    #[test]
    fn only_a_private_file_counts() {
        let file = |permissions| EnvironmentFile { text: String::new(), permissions };
        assert!(is_private(&file(0o600)) && is_private(&file(0o400)));
        assert!(!is_private(&file(0o640)) && !is_private(&file(0o604)));
    }

    proptest! {
        #[test]
        fn an_escaped_password_comes_back(text in "[^\r\n\0]{1,30}") {
            let escaped = text.replace('\\', r"\\").replace(':', r"\:");
            prop_assert_eq!(password(&format!("*:*:*:*:{escaped}\n")), Some(text));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = password(&text);
        }
    }
}
