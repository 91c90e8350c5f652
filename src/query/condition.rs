//! A condition on rows, as a WHERE clause has it: what an erasure asks each row.

use super::error::QueryError;
use deltalake::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use deltalake::arrow::datatypes::{DataType, SchemaRef};
use deltalake::datafusion::common::DFSchema;
use deltalake::datafusion::physical_plan::PhysicalExpr;
use deltalake::datafusion::prelude::SessionContext;
use std::sync::Arc;

/// Said of any value that the condition cannot take: it names none.
const FAILED: &str = "the condition fails on a value of the lake; TRY_CAST and NULLIF give NULL instead";

/// A condition over the columns of a table.
#[derive(Clone, Debug)]
pub struct RowCondition {
    expression: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl RowCondition {
    /// Parses what stands behind WHERE: columns in any case, functions and literals, no subquery.
    ///
    /// # Errors
    /// Text that is no condition, names that are no columns.
    pub fn parse(text: &str, schema: SchemaRef) -> Result<Self, QueryError> {
        let failed = |error| QueryError::from_datafusion(&error, 0);
        let context = SessionContext::new();
        let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(failed)?;
        let parsed = context.parse_sql_expr(text, &columns).map_err(failed)?;
        let expression = context.create_physical_expr(parsed, &columns).map_err(failed)?;
        match expression.data_type(&schema).map_err(failed)? {
            DataType::Boolean => Ok(Self { expression, schema }),
            other => Err(QueryError::Invalid(format!("the condition is {other}, and has to be true or false"))),
        }
    }

    /// Asks every row. The rows have the columns that the condition was parsed with, in any order; one that they lack is an error.
    ///
    /// # Errors
    /// A value that the condition cannot take. No value is named.
    pub fn of(&self, rows: &RecordBatch) -> Result<BooleanArray, String> {
        let places = self.schema.fields().iter().map(|field| rows.schema().index_of(field.name()));
        let places =
            places.collect::<Result<Vec<usize>, _>>().map_err(|_| "a column of the condition is gone".to_owned())?;
        let rows = rows.project(&places).map_err(|_| FAILED.to_owned())?;
        let value = self.expression.evaluate(&rows).and_then(|value| value.into_array(rows.num_rows()));
        let array = value.map_err(|_| FAILED.to_owned())?;
        match array.as_boolean_opt() {
            Some(found) => Ok(found.clone()),
            None if array.data_type() == &DataType::Null => Ok(BooleanArray::from(vec![None::<bool>; rows.num_rows()])),
            None => Err(FAILED.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::arrow::array::{Int64Array, StringArray};
    use deltalake::arrow::datatypes::{Field, Schema};

    fn rows() -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
        let ids = Int64Array::from(vec![Some(1), Some(2), None]);
        let names = StringArray::from(vec![Some("Ann"), None, Some("12")]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(names)]).unwrap()
    }

    fn which(text: &str) -> Result<Vec<Option<bool>>, String> {
        let rows = rows();
        let condition = RowCondition::parse(text, rows.schema()).map_err(|error| error.to_string())?;
        Ok(condition.of(&rows)?.iter().collect())
    }

    #[test]
    fn a_condition_says_of_each_row_whether_it_goes() {
        assert_eq!(which("ID = 1").unwrap(), [Some(true), Some(false), None]);
        assert_eq!(which("name IN ('Ann', 'Bob') OR id IS NULL").unwrap(), [Some(true), None, Some(true)]);
        assert_eq!(which("lower(name) = 'ann' AND id < 5").unwrap()[0], Some(true));
    }

    #[test]
    fn what_is_no_condition_is_refused_and_no_value_is_told() {
        assert!(which("nmae = 'x'").unwrap_err().contains("nmae"));
        assert!(which("id + 1").unwrap_err().contains("has to be true or false"));
        assert!(which("id = ").is_err() && which("").is_err());
        assert!(which("id IN (SELECT 1)").is_err());
        let error = which("CAST(name AS BIGINT) = 12").unwrap_err();
        assert!(!error.contains("Ann") && error.contains("TRY_CAST"), "{error}");
    }
}
