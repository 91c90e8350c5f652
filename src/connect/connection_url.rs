//! A connection URI as libpq reads it (section 34.1.1.2 of PostgreSQL's manual), cut into parameters.
//!
//! `postgresql://[user[:password]@][host][:port][/dbname][?name=value[&…]]`. This is not a general URL parser: libpq allows a
//! percent-encoded directory as host and nearly any byte in the user part, which those refuse.

use super::error::SettingsError;
use super::parameter::{self, Parameters};
use percent_encoding::percent_decode_str;

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];
const PLACE: &str = "the connection URL";
/// Never with the text itself, which may be part of a password.
const STRAY: &str =
    "an @ too many, or a port that is no number (in user and password write %40, %2F and %3A for @, / and :)";

/// The parameters that the URL names; empty parts count as absent.
pub(super) fn parse(url: &str) -> Result<Parameters, SettingsError> {
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme)).ok_or(SettingsError::NotAUrl)?;
    let mut parameters = Parameters::new();
    // The user part comes first, because a ? in a password starts no query.
    let rest = match rest.find(['@', '/']).and_then(|end| rest.split_at_checked(end)) {
        Some((user, after)) if after.starts_with('@') => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            put(&mut parameters, "user", name)?;
            put(&mut parameters, "password", password)?;
            refuse_stray(after.strip_prefix('@').unwrap_or(after))?
        }
        // What looks like host:port may be the beginning of user:password.
        Some((host, _)) if host.contains(':') => refuse_stray(rest)?,
        _ => rest,
    };
    let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
    let (host, database) = address.split_once('/').unwrap_or((address, ""));
    host_and_port(&mut parameters, host)?;
    put(&mut parameters, "dbname", database)?;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        query_parameter(&mut parameters, pair)?;
    }
    Ok(parameters)
}

/// An @ behind the user part. What came before it would be taken for a host, a port or a database, and shown in messages.
fn refuse_stray(rest: &str) -> Result<&str, SettingsError> {
    if rest.contains('@') { Err(SettingsError::Malformed { what: STRAY }) } else { Ok(rest) }
}

fn host_and_port(parameters: &mut Parameters, text: &str) -> Result<(), SettingsError> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, after) =
            bracketed.split_once(']').ok_or(SettingsError::Malformed { what: "an IPv6 address without ]" })?;
        if host.is_empty() {
            return Err(SettingsError::Malformed { what: "an empty IPv6 address" });
        }
        match after.strip_prefix(':') {
            Some(port) => (host, port),
            None if after.is_empty() => (host, ""),
            None => return Err(SettingsError::Malformed { what: "text between ] and the port" }),
        }
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    if !decode(port)?.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SettingsError::Malformed { what: STRAY });
    }
    put(parameters, "host", host)?;
    put(parameters, "port", port)
}

fn query_parameter(parameters: &mut Parameters, pair: &str) -> Result<(), SettingsError> {
    let (name, value) = pair
        .split_once('=')
        .filter(|(_, value)| !value.contains('='))
        .ok_or(SettingsError::Malformed { what: "a query parameter that is not name=value" })?;
    let name = decode(name)?;
    let value = decode(value)?;
    // libpq keeps ssl=true for the sake of JDBC's URLs.
    if name == "ssl" && value == "true" {
        return parameter::insert(parameters, "sslmode", "require".to_owned(), PLACE);
    }
    parameter::insert(parameters, &name, value, PLACE)
}

fn put(parameters: &mut Parameters, name: &str, encoded: &str) -> Result<(), SettingsError> {
    if encoded.is_empty() { Ok(()) } else { parameter::insert(parameters, name, decode(encoded)?, PLACE) }
}

/// libpq refuses a percent sign that starts no escape, and %00.
fn decode(encoded: &str) -> Result<String, SettingsError> {
    let malformed = SettingsError::Malformed { what: "a % that is not followed by two hexadecimal digits" };
    let mut parts = encoded.split('%');
    parts.next();
    if !parts.all(|part| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2) {
        return Err(malformed);
    }
    let text = percent_decode_str(encoded).decode_utf8();
    let text = text.map_err(|_| SettingsError::Malformed { what: "an escape that is not UTF-8" })?;
    if text.contains('\0') {
        return Err(SettingsError::Malformed { what: "the forbidden escape %00" });
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(url: &str, name: &str) -> Option<String> {
        parse(url).unwrap().get(name).cloned()
    }

    #[test]
    fn every_part_is_read() {
        let url = "postgresql://us%40er:p%3Aw%2F?@db.example:5433/my%20db?sslmode=require&options=-c%20geqo%3Doff";
        let expected = [
            ("user", "us@er"),
            ("password", "p:w/?"),
            ("host", "db.example"),
            ("port", "5433"),
            ("dbname", "my db"),
            ("sslmode", "require"),
            ("options", "-c geqo=off"),
        ];
        for (name, value) in expected {
            assert_eq!(get(url, name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn hosts_may_be_addresses_and_directories() {
        assert_eq!(get("postgres://[2001:db8::1]:6000/d", "host").as_deref(), Some("2001:db8::1"));
        assert_eq!(get("postgres://[2001:db8::1]:6000/d", "port").as_deref(), Some("6000"));
        assert_eq!(get("postgresql://%2Fvar%2Frun/d", "host").as_deref(), Some("/var/run"));
        assert_eq!(get("postgresql:///d?host=/tmp&port=7", "host").as_deref(), Some("/tmp"));
        assert!(parse("postgresql://").unwrap().is_empty());
        assert!(parse("postgresql://@:/").unwrap().is_empty());
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        let error = parse("postgresql://h/d?sslmod=require").unwrap_err();
        assert!(error.to_string().contains("sslmod"), "{error}");
        assert!(parse("postgresql://h/d?gssencmode=require").is_err());
        assert!(parse("postgresql://h/d?gssencmode=disable&client_encoding=latin1").unwrap().len() == 2);
    }

    #[test]
    fn malformed_urls_are_refused() {
        for url in [
            "mysql://h",
            "postgresql://[::1",
            "postgresql://[]/",
            "postgresql://[::1]x/",
            "postgresql://h/%",
            "postgresql://h/%0",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
        for url in ["postgresql://h/%00", "postgresql://h/%ff", "postgresql://h/?sslmode", "postgresql://h/?a=b=c"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_that_is_not_encoded_is_shown_to_nobody() {
        for url in [
            "postgresql://u:canary/x@h/d",
            "postgresql://u:canary/x@h:5432/d",
            "postgresql://u:12/canary@h/d",
            "postgresql://u:/canary@h/d",
            "postgresql://u:x@canary@h/d",
            "postgresql://u:x@canary/y@h/d",
            "postgresql://u:x@canary?y=z@h/d",
            "postgresql://u:x@@canary/d",
            "postgresql://u@h:canary/d",
            "postgresql://h:canary",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("canary") && error.contains("%40"), "{url}: {error}");
        }
        assert_eq!(get("postgresql://u:a:b?@h:5432/d", "password").as_deref(), Some("a:b?"));
        assert_eq!(get("postgresql://h/d?user=me@example", "user").as_deref(), Some("me@example"));
    }

    proptest! {
        #[test]
        fn any_user_and_password_survive_encoding(user in "[^\0]{1,20}", password in "[^\0]{1,20}") {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let url = format!("postgresql://{}:{}@h/d", encode(&user), encode(&password));
            prop_assert_eq!(get(&url, "user"), Some(user));
            prop_assert_eq!(get(&url, "password"), Some(password));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse(&format!("postgresql://{text}"));
        }
    }
}
