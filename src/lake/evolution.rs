//! How the lake's columns follow the source's: the lake has every column that the source ever had.
//!
//! A new column is added, nullable; one that the source no longer has stays, nullable, and new files leave it out; a type that became
//! wider becomes wider here, too. Everything else is refused by name, because no reader of the profile (L4) could read the files that
//! are there and the new ones as one column.

use super::schema::{DeltaField, LakeSchema, arrow_type};
use deltalake::arrow::datatypes::DataType;
use serde_json::{Map, Value};

/// Digits that an integer of each size may have.
const SHORT_DIGITS: i16 = 5;
const INTEGER_DIGITS: i16 = 10;
const LONG_DIGITS: i16 = 19;

/// What must become of a table's field list so that the source fits it.
#[derive(Debug, PartialEq)]
pub(super) struct Evolution {
    /// The whole list, partition columns last.
    pub(super) fields: Vec<DeltaField>,
    /// Columns that the table does not have yet.
    pub(super) added: Vec<String>,
    /// Columns whose values in the table's files have a narrower type.
    pub(super) widened: Vec<String>,
    /// Columns that become nullable.
    pub(super) loosened: Vec<String>,
}

impl Evolution {
    /// Whether the table fits as it is.
    pub(super) fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.widened.is_empty() && self.loosened.is_empty()
    }

    /// The columns that stand in the way of a commit, and how.
    pub(super) fn differences(&self) -> String {
        let missing = self.added.iter().map(|name| format!("{name} (missing in the lake)"));
        let narrow = self.widened.iter().map(|name| format!("{name} (narrower in the lake)"));
        let required = self.loosened.iter().map(|name| format!("{name} (not null in the lake)"));
        missing.chain(narrow).chain(required).collect::<Vec<_>>().join(", ")
    }
}

/// Compares a source with a table's own schema; an error names the columns that no evolution makes fit, and how they differ.
pub(super) fn evolution(
    wanted: &LakeSchema,
    found: &[DeltaField],
    found_partitions: &[String],
) -> Result<Evolution, String> {
    let mut refused = Vec::new();
    if !found_partitions.iter().eq(wanted.partition_columns.iter()) {
        let expected = wanted.partition_columns.join(", ");
        refused.push(format!("its partition columns ({} instead of {expected})", found_partitions.join(", ")));
    }
    let is_partition = |field: &&DeltaField| found_partitions.contains(&field.name);
    let mut all = Evolution { fields: Vec::new(), added: Vec::new(), widened: Vec::new(), loosened: Vec::new() };
    for field in found.iter().filter(|field| !is_partition(field)) {
        let own = wanted.fields.iter().find(|own| own.name == field.name);
        match evolved(own, field) {
            Err(difference) => refused.push(difference),
            Ok(evolved) => {
                if evolved.data_type != field.data_type {
                    all.widened.push(field.name.clone());
                }
                if evolved.nullable && !field.nullable {
                    all.loosened.push(field.name.clone());
                }
                all.fields.push(evolved);
            }
        }
    }
    for own in &wanted.fields {
        if wanted.partition_columns.contains(&own.name.as_str()) || found.iter().any(|field| field.name == own.name) {
            continue;
        }
        all.added.push(own.name.clone());
        all.fields.push(DeltaField { nullable: true, metadata: Map::new(), ..own.clone() });
    }
    all.fields.extend(found.iter().filter(is_partition).cloned());
    if refused.is_empty() { Ok(all) } else { Err(refused.join(", ")) }
}

/// What becomes of a column of the table; `own` is the source's, if that has it.
fn evolved(own: Option<&DeltaField>, found: &DeltaField) -> Result<DeltaField, String> {
    let name = &found.name;
    let text = |kind: &Value| kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
    // Invariants, generated columns and column mapping are written as field metadata with this prefix.
    if let Some(rule) = found.metadata.keys().find(|key| key.starts_with("delta.")) {
        return Err(format!("{name} (carries {rule})"));
    }
    let Some(there) = arrow_type(&found.data_type) else {
        return Err(format!("{name} ({}, which is not written here)", text(&found.data_type)));
    };
    let Some(own) = own else { return Ok(DeltaField { nullable: true, ..found.clone() }) };
    let nullable = found.nullable || own.nullable;
    let here = arrow_type(&own.data_type);
    // A stream that is behind the lake brings values of a type that the column had before.
    if here.as_ref().is_some_and(|here| *here == there || holds(&there, here)) {
        return Ok(DeltaField { nullable, ..found.clone() });
    }
    if here.is_some_and(|here| holds(&here, &there)) {
        return Ok(DeltaField { nullable, data_type: own.data_type.clone(), ..found.clone() });
    }
    Err(format!("{name} ({} instead of {})", text(&found.data_type), text(&own.data_type)))
}

/// Whether every value of the narrower type is exactly one of the wider.
pub(super) fn holds(wide: &DataType, narrow: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64};
    match (wide, narrow) {
        (Int16, Int8) | (Int32, Int8 | Int16) | (Int64, Int8 | Int16 | Int32) | (Float64, Float32) => true,
        (Decimal128(wide, scale), Decimal128(narrow, same)) => scale == same && wide > narrow,
        (Decimal128(precision, scale), Int8 | Int16 | Int32 | Int64) => {
            let digits = match narrow {
                Int64 => LONG_DIGITS,
                Int32 => INTEGER_DIGITS,
                _ => SHORT_DIGITS,
            };
            i16::from(*precision) - i16::from(*scale) >= digits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{column, security_event};
    use super::*;
    use crate::base::{ColumnType, TableShape};

    fn schema(shape: &TableShape) -> LakeSchema {
        LakeSchema::of(shape).unwrap()
    }

    fn partitions() -> Vec<String> {
        ["year", "month", "day"].map(str::to_owned).to_vec()
    }

    fn names(fields: &[DeltaField]) -> Vec<&str> {
        fields.iter().map(|field| field.name.as_str()).collect()
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let wanted = schema(&security_event());
        let found = evolution(&wanted, &wanted.fields, &partitions()).unwrap();
        assert!(found.is_nothing());
        assert_eq!(found.fields, wanted.fields);
        let mut turned = wanted.fields.clone();
        turned.swap(0, 5);
        turned[1].nullable = true;
        let found = evolution(&wanted, &turned, &partitions()).unwrap();
        assert!(found.is_nothing(), "columns are found by name, and what is nullable stays so");
        assert_eq!(found.fields, turned);
    }

    #[test]
    fn a_new_column_stands_before_the_partitions_and_an_old_one_stays() {
        let before = schema(&security_event());
        let mut shape = security_event();
        shape.columns.remove(2);
        shape.columns.push(column("note", ColumnType::Text, false));
        shape.columns[1].nullable = true;
        shape.partition_column = 12;
        let found = evolution(&schema(&shape), &before.fields, &partitions()).unwrap();
        assert_eq!(found.added, ["note"]);
        assert_eq!(found.loosened, ["type", "description"]);
        let expected: Vec<&str> =
            names(&before.fields)[..14].iter().copied().chain(["note", "year", "month", "day"]).collect();
        assert_eq!(names(&found.fields), expected);
        let nullable = |name: &str| found.fields.iter().find(|field| field.name == name).unwrap().nullable;
        assert!(nullable("note") && nullable("description") && nullable("type") && !nullable("tenant_id"));
        let again = evolution(&schema(&shape), &found.fields, &partitions()).unwrap();
        assert!(again.is_nothing(), "{again:?}");
    }

    #[test]
    fn a_type_goes_only_where_every_value_fits() {
        let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
        let cases = [
            (ColumnType::Int2, ColumnType::Int4, true),
            (ColumnType::Int4, ColumnType::Int8, true),
            (ColumnType::Int2, ColumnType::Int8, true),
            (ColumnType::Float4, ColumnType::Float8, true),
            (decimal(10, 2), decimal(12, 2), true),
            (ColumnType::Int8, decimal(19, 0), true),
            (ColumnType::Int4, decimal(12, 2), true),
            (ColumnType::Int4, decimal(11, 2), false),
            (decimal(10, 2), decimal(12, 3), false),
            (ColumnType::Int4, ColumnType::Float8, false),
            (ColumnType::Int4, ColumnType::Text, false),
            (ColumnType::Timestamp, ColumnType::Date, false),
        ];
        for (narrow, wide, goes) in cases {
            let of = |kind| {
                let mut shape = security_event();
                shape.columns.push(column("v", kind, true));
                schema(&shape)
            };
            let (before, after) = (of(narrow), of(wide));
            let found = evolution(&after, &before.fields, &partitions());
            match found {
                Ok(found) => {
                    assert!(goes && found.widened == ["v"] && found.fields[14] == after.fields[14], "{narrow:?}")
                }
                Err(text) => assert!(!goes && text.starts_with("v ("), "{narrow:?} to {wide:?}: {text}"),
            }
            let back = evolution(&before, &after.fields, &partitions());
            assert_eq!(back.is_ok_and(|back| back.is_nothing()), goes, "a stream that is behind: {narrow:?}");
        }
    }

    #[test]
    fn a_difference_names_the_column() {
        let wanted = schema(&security_event());
        let mut found = wanted.fields.clone();
        found[0].data_type = Value::String("long".to_owned());
        found[3].metadata.insert("delta.invariants".to_owned(), Value::Null);
        found[4].data_type = serde_json::json!({ "type": "array" });
        let text = evolution(&wanted, &found, &partitions()[..2]).unwrap_err();
        assert!(text.contains("id (long instead of string)"), "{text}");
        assert!(text.contains("tenant_id (carries delta.invariants)"), "{text}");
        assert!(text.contains("tenant_name ({\"type\":\"array\"}, which is not written here)"), "{text}");
        assert!(text.contains("partition columns (year, month instead of year, month, day)"), "{text}");
        assert!(!text.contains("type ("), "{text}");
    }
}
