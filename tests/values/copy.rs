//! The same rows by COPY, in both formats: its fields are the forms that the stream has, so the same decoding must read them.

use crate::support::{DATABASE, Site};
use bytes::Bytes;
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::datatypes::DataType;
use deltalake::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use lakebed::base::{PartitionBy, TableName, TableShape};
use lakebed::buffer::TableBuffer;
use lakebed::decode::{self, Message, Relation, RelationColumn, ReplicaIdentity};
use lakebed::demo::Connection;
use lakebed::source::{self, TableRules};
use std::sync::Arc;

/// What the replication connection pins, as far as the form of values depends on it.
const PINNED: &str = "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
                      SET extra_float_digits = 3; SET bytea_output = 'hex'";
/// Signature, flags and extension length of the binary format.
const BINARY_HEADER_BYTES: usize = 19;

/// One row's fields; None is NULL.
type Fields = Vec<Option<Vec<u8>>>;

/// Fetches the table both ways. Every value is decoded to the same Arrow value, and a lake string is the very text of the field.
/// A table with columns that have no binary form here is fetched as text only; `binary` says that this one has none of those, so
/// that its stream was binary, too.
pub(super) async fn text_and_binary_give_the_same_values(site: &Site, table: &str, binary: bool) {
    let connection = site.cluster.connect(DATABASE).await.unwrap();
    let rules = TableRules {
        table: table.parse::<TableName>().unwrap(),
        partition_column: "happened".to_owned(),
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        text_columns: Vec::new(),
        lake_columns: Default::default(),
    };
    let shape = source::table(&connection, &rules, false).await.unwrap().shape;
    connection.execute(PINNED).await.unwrap();
    let text = text_rows(&copy_out(&connection, table, "text").await);
    assert!(!text.is_empty());
    let decoded = decode_rows(&shape, &text, b't');
    strings_are_the_servers_text(&decoded, &text);
    assert_eq!(shape.binary_is_understood(), binary);
    if binary {
        let binary = binary_rows(&copy_out(&connection, table, "binary").await);
        let from_binary = decode_rows(&shape, &binary, b'b');
        for (left, right) in decoded.iter().zip(&from_binary) {
            for (index, column) in shape.columns.iter().enumerate() {
                assert_eq!(left.column(index).to_data(), right.column(index).to_data(), "{}", column.name);
            }
        }
        assert_eq!(decoded.len(), from_binary.len());
    }
}

async fn copy_out(connection: &Connection, table: &str, format: &str) -> Vec<u8> {
    let sql = format!("COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT (FORMAT {format})");
    let chunks: Vec<Bytes> = connection.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
    chunks.concat()
}

/// The text format: rows by newlines, fields by tabs, `\N` is NULL, and a backslash escapes.
fn text_rows(copied: &[u8]) -> Vec<Fields> {
    let rows = copied.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
    rows.map(|row| row.split(|byte| *byte == b'\t').map(text_field).collect()).collect()
}

fn text_field(escaped: &[u8]) -> Option<Vec<u8>> {
    if escaped == b"\\N" {
        return None;
    }
    let (mut field, mut bytes) = (Vec::new(), escaped.iter());
    while let Some(byte) = bytes.next() {
        field.push(match byte {
            b'\\' => match bytes.next().expect("something is escaped") {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'\\' => b'\\',
                other => panic!("no escape of the server: {other}"),
            },
            byte => *byte,
        });
    }
    Some(field)
}

/// The binary format: a count before each row, a length before each field; a count of -1 is the end.
fn binary_rows(copied: &[u8]) -> Vec<Fields> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = rest.split_at(count);
        *rest = tail;
        head
    }
    let mut rest = &copied[BINARY_HEADER_BYTES..];
    let mut rows = Vec::new();
    while let Ok(count) = u16::try_from(i16::from_be_bytes(take(&mut rest, 2).try_into().unwrap())) {
        let field = |_| {
            let length = i32::from_be_bytes(take(&mut rest, 4).try_into().unwrap());
            usize::try_from(length).ok().map(|length| take(&mut rest, length).to_vec())
        };
        rows.push((0..count).map(field).collect());
    }
    assert!(rest.is_empty());
    rows
}

/// Through the same code as the stream's rows.
fn decode_rows(shape: &TableShape, rows: &[Fields], form: u8) -> Vec<RecordBatch> {
    let column = |column: &lakebed::base::SourceColumn| RelationColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        is_key: false,
    };
    let relation = Relation {
        oid: 1,
        schema: shape.table.schema.clone(),
        name: shape.table.name.clone(),
        replica_identity: ReplicaIdentity::Default,
        columns: shape.columns.iter().map(column).collect(),
    };
    let mut buffer = TableBuffer::new(Arc::new(shape.clone()));
    buffer.bind(&relation).unwrap();
    let mut batches = Vec::new();
    for fields in rows {
        let frame = insert(fields, form);
        let Message::Insert { new, .. } = decode::parse(&frame, false).unwrap() else { panic!("an Insert") };
        buffer.append(&new, None).unwrap();
        // One batch a row keeps the order of the ids whatever the partitions are.
        buffer.end_transaction();
        batches.extend(buffer.cut().unwrap().ended.into_iter().map(|batch| batch.rows));
    }
    batches
}

fn insert(fields: &Fields, form: u8) -> Vec<u8> {
    let mut frame = [&b"I"[..], &1_u32.to_be_bytes(), b"N"].concat();
    frame.extend(i16::try_from(fields.len()).unwrap().to_be_bytes());
    for field in fields {
        match field {
            None => frame.push(b'n'),
            Some(bytes) => {
                frame.push(form);
                frame.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                frame.extend(bytes);
            }
        }
    }
    frame
}

fn strings_are_the_servers_text(decoded: &[RecordBatch], rows: &[Fields]) {
    assert_eq!(decoded.len(), rows.len());
    for (batch, fields) in decoded.iter().zip(rows) {
        for (index, field) in fields.iter().enumerate() {
            let values = batch.column(index);
            assert_eq!(values.is_null(0), field.is_none());
            if let (DataType::Utf8, Some(field)) = (values.data_type(), field) {
                assert_eq!(
                    values.as_string::<i32>().value(0).as_bytes(),
                    field,
                    "{}",
                    batch.schema().field(index).name()
                );
            }
        }
    }
}
