//! The publication sends whole tables under their roots.

use super::finding::{Area, Findings};
use crate::base::TableName;
use crate::config::Pipeline;
use crate::source::{PublicationFacts, quote_identifier};

pub(super) fn check(findings: &mut Findings, publication: Option<&PublicationFacts>, pipeline: &Pipeline) {
    let tables: Vec<TableName> = pipeline.tables.iter().map(|table| table.name.clone()).collect();
    judge(findings, publication, &pipeline.source.publication, &tables);
}

fn judge(findings: &mut Findings, publication: Option<&PublicationFacts>, name: &str, tables: &[TableName]) {
    const AREA: Area = Area::Publication;
    let Some(publication) = publication else {
        findings.error(AREA, format!("publication {name} does not exist"), "lakebed init --admin-url …");
        return;
    };
    let problems = publication.problems(tables);
    let missing: Vec<&TableName> = tables.iter().filter(|table| publication.find(table).is_none()).collect();
    for problem in &problems {
        findings.error(AREA, problem.what.clone(), problem.remedy.clone());
    }
    // Without publish_via_partition_root the leaves stand in the roots' place, and mending that brings the roots.
    if publication.via_root {
        for table in &missing {
            let remedy = "lakebed init --admin-url …, which also says whether rows are missing already (ALTER PUBLICATION … ADD \
                          TABLE would hide that)";
            findings.error(AREA, format!("publication {name} does not send {table}"), remedy);
        }
        extra(findings, publication, tables);
    }
    if problems.is_empty() && missing.is_empty() {
        findings.ok(AREA, format!("publication {name} sends every operation on {} configured tables", tables.len()));
    }
}

fn extra(findings: &mut Findings, publication: &PublicationFacts, tables: &[TableName]) {
    let extra: Vec<String> = publication
        .tables
        .iter()
        .filter(|published| !tables.contains(&published.table))
        .map(|published| published.table.to_string())
        .collect();
    let Some(first) = extra.first() else { return };
    let what = format!(
        "publication {} sends {} tables that are not configured, such as {first}",
        publication.name,
        extra.len()
    );
    let remedy = format!(
        "remove them (ALTER PUBLICATION {} DROP TABLE …), or add a [[table]]",
        quote_identifier(&publication.name)
    );
    findings.warning(Area::Publication, what, remedy);
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::source::PublishedTable;

    fn published(name: &str) -> PublishedTable {
        PublishedTable { table: TableName::new("public", name), has_column_list: false, has_row_filter: false }
    }

    fn whole() -> PublicationFacts {
        PublicationFacts {
            name: "lakebed".into(),
            owner: "idp".into(),
            all_tables: false,
            schemas: Vec::new(),
            via_root: true,
            inserts: true,
            updates: true,
            deletes: true,
            truncates: true,
            generated_stored: false,
            tables: vec![published("a"), published("b")],
        }
    }

    fn severities(publication: Option<&PublicationFacts>, tables: &[&str]) -> Vec<Severity> {
        let tables: Vec<TableName> = tables.iter().map(|name| TableName::new("public", *name)).collect();
        let mut findings = Findings::default();
        judge(&mut findings, publication, "lakebed", &tables);
        findings.all().iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn whatever_would_lose_rows_or_columns_is_an_error() {
        use Severity::{Error, Ok, Warning};
        assert_eq!(severities(Some(&whole()), &["a", "b"]), [Ok]);
        assert_eq!(severities(None, &["a"]), [Error]);
        assert_eq!(severities(Some(&whole()), &["a", "b", "c"]), [Error]);
        assert_eq!(severities(Some(&whole()), &["a"]), [Warning, Ok]);
        let leaves = PublicationFacts { via_root: false, tables: vec![published("a_default")], ..whole() };
        assert_eq!(severities(Some(&leaves), &["a"]), [Error]);
        let mut cut = PublicationFacts { deletes: false, ..whole() };
        cut.tables[0].has_row_filter = true;
        assert_eq!(severities(Some(&cut), &["a", "b"]), [Error, Error]);
    }
}
