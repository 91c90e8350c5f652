//! What names a row in an UPDATE or DELETE: the columns of a table's replica identity, and those of its leaves.

use super::SourceError;
use super::read::{field, letter, read};
use super::table::ReplicaIdentity;
use crate::base::SourceColumn;
use tokio_postgres::{Client, Row};

/// The columns that name a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Indexes into the table's columns.
    pub(super) columns: Vec<usize>,
    /// The leaves name their rows in different ways, or by a column that is not published.
    pub(super) is_ambiguous: bool,
}

/// What one table, or a leaf of it, says.
#[derive(Debug)]
struct Declared {
    identity: ReplicaIdentity,
    /// Of the index that it names; none if that was dropped.
    index: Vec<String>,
}

/// Reads what a plain table, or the leaves of a partitioned one, declare; the root's own setting does not reach its leaves.
pub(super) async fn identity(
    client: &Client,
    oid: u32,
    columns: &[SourceColumn],
    key: &[usize],
) -> Result<Identity, SourceError> {
    const SQL: &str = "
        WITH RECURSIVE tree (oid) AS (
            SELECT $1::oid UNION ALL SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT DISTINCT c.relreplident::text AS identity,
               ARRAY(SELECT a.attname::text
                     FROM pg_catalog.pg_index i
                     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                     WHERE i.indrelid = c.oid AND i.indisreplident AND k.place <= i.indnkeyatts ORDER BY k.place) AS index
        FROM pg_catalog.pg_class c
        WHERE c.oid IN (SELECT oid FROM tree) AND c.relkind <> 'p'
        ORDER BY 1, 2";
    let rows = read(client, "reading the table's replica identity", SQL, &[&oid]).await?;
    let declared = |row: &Row| {
        let identity = ReplicaIdentity::from_letter(letter(row, "identity")?);
        Ok(Declared { identity, index: field(row, "index")? })
    };
    let declared = rows.iter().map(declared).collect::<Result<Vec<_>, SourceError>>()?;
    Ok(decide(&declared, columns, key))
}

/// A whole old row can be asked for any column, and a table without an identity has no UPDATE; all others must agree. Where they do
/// not, the key is right for every change that brings the old row, which tells whether it is.
fn decide(declared: &[Declared], columns: &[SourceColumn], key: &[usize]) -> Identity {
    let place = |name: &String| columns.iter().position(|column| column.name == *name);
    let mut found: Option<Vec<usize>> = None;
    let ambiguous = || Identity { columns: key.to_vec(), is_ambiguous: true };
    for Declared { identity, index } in declared {
        let named = match identity {
            ReplicaIdentity::Default => Some(key.to_vec()),
            ReplicaIdentity::Index if !index.is_empty() => index.iter().map(place).collect(),
            ReplicaIdentity::Index | ReplicaIdentity::Full | ReplicaIdentity::Nothing => continue,
        };
        match (named, &found) {
            (None, _) => return ambiguous(),
            (Some(named), None) => found = Some(named),
            (Some(named), Some(known)) if same(&named, known) => {}
            (Some(_), Some(_)) => return ambiguous(),
        }
    }
    let columns = found.filter(|found| !same(found, key)).unwrap_or_else(|| key.to_vec());
    Identity { columns, is_ambiguous: false }
}

/// Whether both hold the same columns, in whatever order.
fn same(one: &[usize], other: &[usize]) -> bool {
    one.len() == other.len() && one.iter().all(|column| other.contains(column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ColumnType;

    fn decided(declared: &[(char, &[&str])]) -> (Vec<usize>, bool) {
        let column = |name: &str| SourceColumn {
            name: name.to_owned(),
            lake_name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
            column_type: ColumnType::Text,
            nullable: false,
        };
        let columns = ["id", "created_at", "number", "note"].map(column);
        let declared: Vec<Declared> = declared
            .iter()
            .map(|(letter, index)| Declared {
                identity: ReplicaIdentity::from_letter(*letter),
                index: index.iter().map(|name| String::from(*name)).collect(),
            })
            .collect();
        let Identity { columns, is_ambiguous } = decide(&declared, &columns, &[0, 1]);
        (columns, is_ambiguous)
    }

    #[test]
    fn the_key_names_a_row_unless_an_index_is_declared() {
        assert_eq!(decided(&[]), (vec![0, 1], false), "no leaf yet");
        assert_eq!(decided(&[('d', &[])]), (vec![0, 1], false));
        assert_eq!(decided(&[('f', &[])]), (vec![0, 1], false));
        assert_eq!(decided(&[('n', &[])]), (vec![0, 1], false));
        assert_eq!(decided(&[('i', &[])]), (vec![0, 1], false), "its index was dropped");
        assert_eq!(decided(&[('i', &["number"])]), (vec![2], false));
    }

    #[test]
    fn leaves_that_name_their_rows_differently_are_ambiguous() {
        assert_eq!(decided(&[('d', &[]), ('f', &[])]), (vec![0, 1], false));
        assert_eq!(decided(&[('f', &[]), ('i', &["number"]), ('n', &[])]), (vec![2], false));
        assert_eq!(
            decided(&[('d', &[]), ('i', &["created_at", "id"])]),
            (vec![0, 1], false),
            "the key, by another index"
        );
        assert_eq!(decided(&[('i', &["number", "id"]), ('i', &["id", "number"])]), (vec![2, 0], false));
        assert_eq!(decided(&[('d', &[]), ('i', &["number"])]), (vec![0, 1], true));
        assert_eq!(decided(&[('i', &["number"]), ('i', &["number", "note"])]), (vec![0, 1], true));
        assert_eq!(decided(&[('i', &["generated"])]), (vec![0, 1], true), "not published");
    }
}
