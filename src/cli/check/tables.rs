//! A table that exists: its rights, leaves, bounds, identities and columns.

use super::finding::{Area, Findings};
use crate::base::{ColumnType, TableName};
use crate::config::Pipeline;
use crate::source::{
    self, BoundAlignment, Leaf, LeafBound, ReplicaIdentity, SourceError, TableFacts, qualified, quote_identifier,
};
use tokio_postgres::Client;

const AREA: Area = Area::Table;

pub(super) async fn check(
    findings: &mut Findings,
    client: &Client,
    pipeline: &Pipeline,
    login: &str,
    facts: &TableFacts,
) -> Result<(), SourceError> {
    let table = &facts.shape.table;
    let leaves = source::leaves(client, facts.oid, &facts.shape).await?;
    let key: Vec<&str> = facts
        .shape
        .key
        .iter()
        .filter_map(|place| facts.shape.columns.get(*place))
        .map(|column| column.name.as_str())
        .collect();
    findings.ok(
        AREA,
        format!("{table}: {} columns, key ({}), {} leaves", facts.shape.columns.len(), key.join(", "), leaves.len()),
    );
    columns(findings, facts);
    bounds(findings, facts, &leaves);
    identities(findings, facts, &leaves);
    if facts.row_security_enabled {
        let what =
            format!("{table} has row-level security; it stands on the root only, so the leaves are read directly");
        findings.ok(AREA, what);
    }
    let mut oids = vec![facts.oid];
    oids.extend(leaves.iter().map(|leaf| leaf.oid));
    let detached = source::detached_tables(client, facts.oid, &pipeline.archive.schema).await?;
    oids.extend(detached.iter().filter(|detached| detached.same_columns).map(|detached| detached.oid));
    let unreadable = source::unreadable_tables(client, login, &oids).await?;
    readable(findings, table, login, &unreadable);
    if unreadable.is_empty() {
        default_partition(findings, client, &leaves).await?;
    }
    Ok(())
}

fn readable(findings: &mut Findings, table: &TableName, login: &str, unreadable: &[TableName]) {
    match unreadable.first() {
        None => findings.ok(AREA, format!("{table}: root, leaves and detached tables are readable for {login}")),
        Some(first) => {
            let what =
                format!("{table}: {} of its tables are not readable for {login}, such as {first}", unreadable.len());
            let grant = format!("GRANT SELECT ON {} TO {}", qualified(first), quote_identifier(login));
            findings.error(AREA, what, format!("lakebed init --admin-url … (or {grant}, and so on)"));
        }
    }
}

/// The names are judged by the lake itself when a table is opened or created; here stands what only the source knows.
fn columns(findings: &mut Findings, facts: &TableFacts) {
    let table = &facts.shape.table;
    let as_text = facts.shape.columns.iter().filter(|column| column.column_type == ColumnType::ServerText);
    let as_text: Vec<&str> = as_text.map(|column| column.name.as_str()).collect();
    if !as_text.is_empty() {
        let what =
            format!("{table}: {} kept as the server's text, so rows are not sent in binary form", as_text.join(", "));
        findings.ok(AREA, what);
    }
    let unfit: Vec<&str> =
        facts.shape.columns.iter().map(|column| column.name.as_str()).filter(|name| !fits(name)).collect();
    if let Some(first) = unfit.first() {
        let remedy = format!("ALTER TABLE {} RENAME COLUMN {} TO …", qualified(table), quote_identifier(first));
        let rule = "only a-z, 0-9 and _, and not year, month or day";
        findings.error(
            AREA,
            format!("{table}: the lake has no such column names ({rule}): {}", unfit.join(", ")),
            remedy,
        );
    }
}

/// The reader profile's rule: lower-case `[a-z0-9_]`, and none of the lake's partition columns.
fn fits(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    plain && !matches!(name, "year" | "month" | "day")
}

fn bounds(findings: &mut Findings, facts: &TableFacts, leaves: &[Leaf]) {
    let shape = &facts.shape;
    let table = &shape.table;
    let Some(column) = shape.columns.get(shape.partition_column) else { return };
    if let Some(partitioning) = &facts.partitioning {
        let key: Vec<&str> = partitioning.key.iter().map(|part| part.as_deref().unwrap_or("an expression")).collect();
        if partitioning.strategy != 'r' || key != [column.name.as_str()] {
            let what =
                format!("{table} is not partitioned by range of {} alone, but by {}", column.name, key.join(", "));
            let remedy = format!("set partition_column of {table} to what its partitions are cut by");
            return findings.warning(AREA, what, remedy);
        }
    }
    let (by, zone) = (shape.partition_by, shape.time_zone);
    let worst = leaves.iter().find_map(|leaf| {
        let alignment = leaf.bound.alignment(column.column_type, by, zone);
        (alignment != BoundAlignment::Aligned).then_some((alignment, &leaf.table))
    });
    match worst {
        None if leaves.is_empty() => {}
        None => findings.ok(AREA, format!("{table}: the leaves' bounds begin days of {zone}")),
        Some((BoundAlignment::DayOnly, leaf)) => findings.warning(
            AREA,
            format!("{table} is kept by month, but {leaf} begins or ends within one"),
            format!("set partition_by = \"day\" for {table}"),
        ),
        Some((BoundAlignment::InsideADay, leaf)) => findings.error(
            AREA,
            format!("{leaf} begins or ends inside a day of {zone}: a day of the lake would be spread over two leaves"),
            format!("set time_zone of {table} to the zone whose midnight the bounds have"),
        ),
        Some((_, leaf)) => findings.warning(
            AREA,
            format!("the bounds of {leaf} cannot be read as dates"),
            "bounds must be finite dates of the common era for the archive to prove a day",
        ),
    }
}

fn identities(findings: &mut Findings, facts: &TableFacts, leaves: &[Leaf]) {
    let table = &facts.shape.table;
    let nothing = leaves.iter().find(|leaf| leaf.replica_identity == ReplicaIdentity::Nothing).map(|leaf| &leaf.table);
    let root = (facts.replica_identity == ReplicaIdentity::Nothing && leaves.is_empty()).then_some(table);
    if let Some(without) = nothing.or(root) {
        let what =
            format!("{without} has REPLICA IDENTITY NOTHING: once published, its updates and deletes are refused");
        findings.error(AREA, what, format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", qualified(without)));
    }
    if facts.shape.identity_is_ambiguous {
        let what = format!(
            "{table}: its partitions name their rows by different indexes (REPLICA IDENTITY), so a change that does not bring the key is refused"
        );
        let remedy = "ALTER TABLE … REPLICA IDENTITY DEFAULT for every partition, or USING INDEX of the same columns";
        findings.warning(AREA, what, remedy);
    }
    if let Some(leaf) = leaves.iter().find(|leaf| leaf.foreign) {
        let what = format!("{} is a foreign table, which cannot be published", leaf.table);
        let remedy = format!("ALTER TABLE {} DETACH PARTITION {}", qualified(table), qualified(&leaf.table));
        findings.error(AREA, what, remedy);
    }
}

async fn default_partition(findings: &mut Findings, client: &Client, leaves: &[Leaf]) -> Result<(), SourceError> {
    for leaf in leaves.iter().filter(|leaf| leaf.bound == LeafBound::Default) {
        if source::holds_rows(client, &leaf.table, &[]).await? {
            let what = format!("default partition {} holds rows: days that have no partition of their own", leaf.table);
            let remedy = "CALL partman.partition_data_proc('…') moves them into partitions";
            findings.warning(AREA, what, remedy);
        } else {
            findings.ok(AREA, format!("default partition {} is empty", leaf.table));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_names_follow_the_reader_profile() {
        for name in ["id", "created_at", "a1", "_x", "years"] {
            assert!(fits(name), "{name}");
        }
        for name in ["Id", "日付", "it's", "year", "a b"] {
            assert!(!fits(name), "{name}");
        }
    }
}
