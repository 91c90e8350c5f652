//! RELATION: what a table looks like from this point of the stream on.

use super::DecodeError;
use super::reader::Reader;

/// The one flag of a RELATION's column: it belongs to the replica identity.
const COLUMN_IS_KEY: u8 = 1;
/// A column takes at least its flags, an empty name's zero byte, type oid and modifier.
const COLUMN_BYTES_MIN: usize = 10;

/// Which old values an UPDATE or DELETE carries (`pg_class.relreplident`).
///
/// It says what the published root declares; a leaf may differ, so the tuple that arrives is what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// `d`: the primary key.
    Default,
    /// `n`: nothing.
    Nothing,
    /// `f`: the whole row.
    Full,
    /// `i`: the columns of an index.
    Index,
}

/// A table as the stream describes it before the first row that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`; rows refer to it.
    pub oid: u32,
    /// Schema as sent: the server writes an empty string for `pg_catalog`.
    pub schema: String,
    /// Table.
    pub name: String,
    /// As declared.
    pub replica_identity: ReplicaIdentity,
    /// Published columns, in the order of a tuple's values.
    pub columns: Vec<RelationColumn>,
}

/// One column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// `pg_attribute.attname`.
    pub name: String,
    /// `pg_attribute.atttypid`, a domain's own oid included.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
    /// Part of the replica identity.
    pub is_key: bool,
}

impl Relation {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let oid = reader.unsigned("relation oid")?;
        let schema = reader.text("schema name")?.to_owned();
        let name = reader.text("table name")?.to_owned();
        let replica_identity = match reader.byte("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            tag => return Err(reader.unknown_tag("replica identity", tag)),
        };
        let count = usize::from(reader.short_count("column count")?);
        // The count is the sender's word; what is there to be read bounds the allocation.
        let mut columns = Vec::with_capacity(count.min(reader.rest().len() / COLUMN_BYTES_MIN));
        for _ in 0..count {
            columns.push(RelationColumn::read(reader)?);
        }
        Ok(Self { oid, schema, name, replica_identity, columns })
    }
}

impl RelationColumn {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.flags(COLUMN_IS_KEY)?;
        Ok(Self {
            is_key: flags == COLUMN_IS_KEY,
            name: reader.text("column name")?.to_owned(),
            type_oid: reader.unsigned("type oid")?,
            type_modifier: reader.signed("type modifier")?,
        })
    }
}
