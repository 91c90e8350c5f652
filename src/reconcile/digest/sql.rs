//! PostgreSQL's side of a digest: one expression, computed where the rows are.

use super::column::{DigestColumn, Form};
use crate::source::quote_identifier;

/// What the output texts depend on, for the transaction in which [`digest_query`] runs: the same pins as the stream's.
pub const PINS: &str = "SET LOCAL search_path = ''; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; \
                        SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; \
                        SET LOCAL xmloption = 'content'; SET LOCAL row_security = off";

/// Rows and lanes of rows that have a `hash` in hexadecimal.
const SUMS: &str = "count(*) AS rows, coalesce(sum(('x' || substr(hash, 1, 16))::bit(64)::int8), 0)::text AS lane1, \
                    coalesce(sum(('x' || substr(hash, 17, 16))::bit(64)::int8), 0)::text AS lane2";

/// A query with one row: `rows` and the lanes `lane1` and `lane2`, each an exact numeric sum of signed 64-bit numbers. `relations` are
/// quoted names or subqueries, each with an alias; what they hold together is summed.
pub fn digest_query(columns: &[DigestColumn], relations: &[String]) -> String {
    let hash = hexadecimal(&hash(columns));
    format!("SELECT {SUMS} FROM ({}) AS part", from_each(relations, &format!("{hash} AS hash")))
}

/// The same for each value of an expression over the rows, whose text is `part`.
pub(in crate::reconcile) fn grouped_digest_query(
    columns: &[DigestColumn],
    relations: &[String],
    expression: &str,
) -> String {
    let selected = format!("{} AS hash, {expression} AS bucket", hexadecimal(&hash(columns)));
    let rows = from_each(relations, &selected);
    format!("SELECT bucket::text AS part, {SUMS} FROM ({rows}) AS part GROUP BY bucket")
}

/// The message of a row's columns.
pub(in crate::reconcile) fn message(columns: &[DigestColumn]) -> String {
    let values: Vec<String> = columns.iter().map(expression).collect();
    format!("record_send(ROW({}))", values.join(", "))
}

/// SHA-256 of the message, as bytes.
pub(in crate::reconcile) fn hash(columns: &[DigestColumn]) -> String {
    format!("sha256({})", message(columns))
}

/// Bytes as SQL has them, as digits.
pub(in crate::reconcile) fn hexadecimal(bytes: &str) -> String {
    format!("encode({bytes}, 'hex')")
}

/// The rows of all relations, with what is selected of each. OFFSET 0 keeps a hash from being computed again wherever it is used.
pub(in crate::reconcile) fn from_each(relations: &[String], selected: &str) -> String {
    let parts: Vec<String> =
        relations.iter().map(|relation| format!("(SELECT {selected} FROM {relation} OFFSET 0)")).collect();
    parts.join(" UNION ALL ")
}

/// Casts name the base type, which changes no value and leaves no domain's or other type's oid in the message.
fn expression(column: &DigestColumn) -> String {
    let name = quote_identifier(&column.name);
    let cast = |kind: &str| format!("{name}::pg_catalog.{kind}");
    let float = |kind: &str| {
        let value = format!("{name}::pg_catalog.{kind}");
        format!("CASE WHEN {value} = 'NaN' THEN 'NaN' ELSE {value} END")
    };
    match column.form {
        Form::Bool => cast("bool"),
        Form::Int2 => cast("int2"),
        Form::Int4 => cast("int4"),
        Form::Int8 => cast("int8"),
        Form::Float4 => float("float4"),
        Form::Float8 => float("float8"),
        Form::Date => cast("date"),
        Form::Timestamp => cast("timestamp"),
        Form::Timestamptz => cast("timestamptz"),
        Form::Uuid => cast("uuid"),
        Form::Bytea => cast("bytea"),
        Form::Text => cast("text"),
        // IS NOT NULL is another question for a composite value; IS DISTINCT FROM NULL asks for the value itself.
        Form::Printed | Form::Decimal { .. } => {
            format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END")
        }
    }
}
