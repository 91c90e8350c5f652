//! A finding, and how findings are shown.

use crate::source::SourceError;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Ok,
    Warning,
    Error,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    Server,
    Login,
    Table,
    Publication,
    Slot,
    Lake,
    Partman,
    Cron,
}

/// One thing that was looked at. Holds names, counts and positions; never a cell value or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) area: Area,
    pub(super) what: String,
    pub(super) remedy: Option<String>,
}

/// In the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    pub(super) fn ok(&mut self, area: Area, what: impl Into<String>) {
        self.all.push(Finding { severity: Severity::Ok, area, what: what.into(), remedy: None });
    }

    pub(super) fn warning(&mut self, area: Area, what: impl Into<String>, remedy: impl Into<String>) {
        self.all.push(Finding { severity: Severity::Warning, area, what: what.into(), remedy: Some(remedy.into()) });
    }

    pub(super) fn error(&mut self, area: Area, what: impl Into<String>, remedy: impl Into<String>) {
        self.all.push(Finding { severity: Severity::Error, area, what: what.into(), remedy: Some(remedy.into()) });
    }

    /// An error of the source room: its message already ends with the remedy, after the last "; ".
    pub(super) fn failed(&mut self, area: Area, error: &SourceError) {
        self.failed_text(area, &error.to_string());
    }

    /// An error whose message ends with its remedy. Where it names none, the remedy depends on what was looked at.
    pub(super) fn failed_text(&mut self, area: Area, message: &str) {
        let nowhere_else = match area {
            Area::Lake => "look at the store of [lake].url and what else writes there",
            _ => "look into the server's log",
        };
        let last = || message.rsplit_once(": ").filter(|_| area == Area::Lake);
        let (what, remedy) = message.split_once("; ").or_else(last).unwrap_or((message, nowhere_else));
        self.error(area, what, remedy);
    }

    /// An error of the connect room: its message ends with the remedy after the last ": ".
    pub(super) fn not_connected(&mut self, area: Area, message: &str) {
        let (what, remedy) = message.rsplit_once(": ").unwrap_or((message, "look into the server's log"));
        self.error(area, what, remedy);
    }

    pub(super) fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    fn count(&self, severity: Severity) -> usize {
        self.all.iter().filter(|finding| finding.severity == severity).count()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[Finding] {
        &self.all
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.all {
            let severity = match finding.severity {
                Severity::Ok => "ok",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            let area = format!("{:?}", finding.area).to_lowercase();
            text.push_str(&format!("{severity:<8} {area:<12} {}\n", finding.what));
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("{:22}→ {remedy}\n", ""));
            }
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        text.push_str(&format!("{errors} errors, {warnings} warnings\n"));
        text
    }

    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Report<'a> {
            ok: bool,
            errors: usize,
            warnings: usize,
            findings: &'a [Finding],
        }
        let errors = self.errors();
        let report = Report { ok: errors == 0, errors, warnings: self.count(Severity::Warning), findings: &self.all };
        serde_json::to_string_pretty(&report).map(|text| text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let mut findings = Findings::default();
        findings.ok(Area::Server, "PostgreSQL 15.18");
        findings.warning(Area::Slot, "slot retains much", "start lakebed run");
        findings.failed_text(Area::Table, "table a.b has no primary key; add one: ALTER TABLE x; SELECT 1");
        findings
    }

    #[test]
    fn the_json_is_the_documented_contract() {
        let json: serde_json::Value = serde_json::from_str(&findings().to_json().unwrap()).unwrap();
        let expected = serde_json::json!({"ok": false, "errors": 1, "warnings": 1, "findings": [
            {"severity": "ok", "area": "server", "what": "PostgreSQL 15.18", "remedy": null},
            {"severity": "warning", "area": "slot", "what": "slot retains much", "remedy": "start lakebed run"},
            {"severity": "error", "area": "table", "what": "table a.b has no primary key",
             "remedy": "add one: ALTER TABLE x; SELECT 1"}]});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_message_without_a_remedy_is_not_sent_to_another_place() {
        let mut findings = Findings::default();
        findings.failed_text(Area::Lake, "the Delta table at file:///l was not written by lakebed: move it away");
        findings.failed_text(Area::Lake, "position 0/1 does not fit");
        findings.failed_text(Area::Table, "reading: the server says: no (SQLSTATE 42P01)");
        let remedies: Vec<&str> = findings.all().iter().filter_map(|finding| finding.remedy.as_deref()).collect();
        let expected = [
            "move it away",
            "look at the store of [lake].url and what else writes there",
            "look into the server's log",
        ];
        assert_eq!(remedies, expected);
    }

    #[test]
    fn the_text_puts_the_remedy_below() {
        let text = findings().to_text();
        assert!(
            text.contains("warning  slot         slot retains much\n                      → start lakebed run\n"),
            "{text}"
        );
        assert!(text.ends_with("1 errors, 1 warnings\n"));
    }
}
