//! Statements in, streams of rows out.

use super::days::Dated;
use super::error::{QueryError, similar};
use super::read_only::ReadStatement;
use super::session;
use crate::base::TableName;
use deltalake::DeltaTable;
use deltalake::datafusion::common::{DataFusionError, TableReference};
use deltalake::datafusion::dataframe::DataFrame;
use deltalake::datafusion::execution::SendableRecordBatchStream;
use deltalake::datafusion::prelude::{SQLOptions, SessionContext};

use deltalake::datafusion::sql::parser::Statement;
use std::path::PathBuf;

/// One table to be asked about, loaded at the version that answers come from.
#[derive(Clone, Debug)]
pub struct QueryTable {
    pub(super) name: TableName,
    pub(super) delta: DeltaTable,
    pub(super) dated: Option<Dated>,
}

impl QueryTable {
    /// `delta` is loaded. How its rows were put into year/month/day folders is read from the table itself; one that does not
    /// say is asked about without leaving folders out.
    pub fn new(name: TableName, delta: DeltaTable) -> Self {
        let snapshot = delta.snapshot().ok();
        let dated = snapshot.and_then(|snapshot| Dated::recorded(snapshot.metadata().configuration()));
        Self { name, delta, dated }
    }
}

/// What an engine may use, and what its database is called.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// A second schema name for every table, such as `idp_archive`; `lake` when not given.
    pub database: Option<String>,
    /// Memory of all operators together; sorts, joins and groups spill to disk beyond it.
    pub memory_limit_bytes: usize,
    /// Where to spill; the system's temporary folder when not given. Files there are deleted when a statement ends.
    pub spill_directory: Option<PathBuf>,
    /// Partitions that are worked on at a time.
    pub threads: usize,
}

/// SQL over one fixed version of each table (Q1).
pub struct QueryEngine {
    context: SessionContext,
    tables: Vec<String>,
    memory_limit_bytes: usize,
}

impl QueryEngine {
    /// An engine over `tables`. Nothing is read: their logs were, when they were loaded.
    pub fn open(tables: &[QueryTable], options: &QueryOptions) -> Result<Self, QueryError> {
        let context = session::open(tables, options)?;
        let mut names: Vec<String> = tables.iter().map(|table| table.name.name.to_lowercase()).collect();
        names.sort();
        Ok(Self { context, tables: names, memory_limit_bytes: options.memory_limit_bytes })
    }

    /// Plans a statement and starts it. Rows come as the stream is polled; dropping it stops the work.
    pub async fn execute(&self, statement: ReadStatement) -> Result<SendableRecordBatchStream, QueryError> {
        let frame = self.plan(statement).await?;
        frame.execute_stream().await.map_err(|error| self.sort_out(&error))
    }

    /// The second half of Q1: what the planner made of the statement is judged too, because a write can hide inside
    /// a query (`WITH … INSERT`, `SELECT … INTO`).
    pub(super) async fn plan(&self, statement: ReadStatement) -> Result<DataFrame, QueryError> {
        let statement = statement.into_inner();
        let plan = match Box::pin(self.context.state().statement_to_plan(statement.clone())).await {
            Ok(plan) => plan,
            Err(error) => return Err(self.unknown_table(&statement).unwrap_or_else(|| self.sort_out(&error))),
        };
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|_| QueryError::ReadOnly { statement: "a statement that writes".to_owned() })?;
        Box::pin(self.context.execute_logical_plan(plan)).await.map_err(|error| self.sort_out(&error))
    }

    /// An error out of a stream that [`Self::execute`] gave.
    pub fn sort_out(&self, error: &DataFusionError) -> QueryError {
        QueryError::from_datafusion(error, self.memory_limit_bytes)
    }

    /// Asked only when planning failed: a missing table is the likeliest cause, and DataFusion tells it by text alone.
    fn unknown_table(&self, statement: &Statement) -> Option<QueryError> {
        let state = self.context.state();
        let references = state.resolve_table_references(statement).ok()?;
        let missing = |reference: &TableReference| {
            let is_function = state.table_functions().contains_key(reference.table());
            !is_function && !self.context.table_exist(reference.clone()).unwrap_or(false)
        };
        let reference = references.into_iter().find(missing)?;
        Some(QueryError::UnknownTable {
            name: reference.to_string(),
            similar: similar(reference.table(), &self.tables),
            tables: self.tables.clone(),
        })
    }
}
