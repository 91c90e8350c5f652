//! `pg_service.conf` (section 34.17 of PostgreSQL's manual): named sets of connection parameters.

use super::environment::Environment;
use super::error::SettingsError;
use super::parameter::{self, Parameters};
use std::io;
use std::path::{Path, PathBuf};

/// The parameters of `service`: the user's file first, then the system's. A service that stands in neither is an error.
pub(super) fn load(service: &str, environment: &dyn Environment) -> Result<Parameters, SettingsError> {
    let user_file = environment
        .variable("PGSERVICEFILE")
        .map(PathBuf::from)
        .or_else(|| environment.home().map(|home| Path::new(&home).join(".pg_service.conf")));
    let system_file = environment.variable("PGSYSCONFDIR").map(|folder| Path::new(&folder).join("pg_service.conf"));
    for path in [user_file, system_file].into_iter().flatten() {
        let text = match environment.file(&path) {
            Ok(file) => file.text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(SettingsError::Unreadable { path: path.display().to_string(), reason: error }),
        };
        if let Some(parameters) = section(&text, service, &path)? {
            return Ok(parameters);
        }
    }
    Err(SettingsError::UnknownService { service: service.to_owned() })
}

/// The first group of that name; libpq neither expands nor unquotes a value.
fn section(text: &str, service: &str, path: &Path) -> Result<Option<Parameters>, SettingsError> {
    let mut found: Option<Parameters> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if name.strip_suffix(']') == Some(service) {
                found = Some(Parameters::new());
            }
        } else if let Some(parameters) = found.as_mut() {
            let syntax = || SettingsError::ServiceSyntax { path: path.display().to_string(), line: index + 1 };
            let (name, value) = line.split_once('=').ok_or_else(syntax)?;
            // A service that points to another one is a syntax error in libpq as well.
            if name == "service" {
                return Err(syntax());
            }
            parameter::insert(parameters, name, value.to_owned(), "the service file")?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::environment::fake::FakeEnvironment;
    use super::*;

    const TEXT: &str = "# comment\n[other]\nhost=wrong\n\n[idp]\nhost=db.example\nport=6000\n[more]\nhost=wrong\n";

    #[test]
    fn the_users_file_comes_before_the_systems() {
        let environment = FakeEnvironment::default()
            .with("PGSYSCONFDIR", "/etc/pg")
            .with_file("/etc/pg/pg_service.conf", 0o644, "[idp]\nhost=system\n[sys]\nhost=only\n")
            .with_file("/home/ann/.pg_service.conf", 0o644, TEXT);
        let service = load("idp", &environment).unwrap();
        assert_eq!(service.get("host").map(String::as_str), Some("db.example"));
        assert_eq!(service.get("port").map(String::as_str), Some("6000"));
        assert_eq!(load("sys", &environment).unwrap().get("host").map(String::as_str), Some("only"));
        assert!(matches!(load("none", &environment), Err(SettingsError::UnknownService { .. })));
    }

    #[test]
    fn a_broken_line_is_named_by_number() {
        let file = |text: &str| FakeEnvironment::default().with("PGSERVICEFILE", "/s").with_file("/s", 0o644, text);
        let error = load("a", &file("[a]\nhost=x\nnonsense\n")).unwrap_err();
        assert!(matches!(error, SettingsError::ServiceSyntax { line: 3, .. }), "{error}");
        assert!(load("a", &file("[a]\nservice=b\n")).is_err());
        assert!(load("a", &file("[a]\nhosst=b\n")).is_err());
    }
}
