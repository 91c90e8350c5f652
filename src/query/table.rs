//! One lake table as DataFusion sees it.

use super::days::Dated;
use async_trait::async_trait;
use deltalake::DeltaTable;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::datafusion::catalog::{Session, TableProvider};
use deltalake::datafusion::common::{DataFusionError, Result};
use deltalake::datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use std::sync::Arc;

/// A Delta table at one version. It adds to a scan what the bounds on time say about folders (Q2), and leaves out the one
/// thing of delta-rs's provider that writes: without `insert_into` the table is read-only by construction (Q1).
#[derive(Debug)]
pub(super) struct LakeTableProvider {
    scan: DeltaScanNext,
    dated: Option<Dated>,
}

impl LakeTableProvider {
    /// Over the version that `table` has loaded. Partition columns are plain strings: a dictionary would be no smaller here
    /// and is a type of its own in joins and in what users read.
    pub(super) fn new(table: &DeltaTable, dated: Option<Dated>) -> Result<Self> {
        let snapshot = table.snapshot().map_err(external)?.snapshot().clone();
        let scan = DeltaScanNext::new(snapshot, DeltaScanConfig::new().with_wrap_partition_values(false))?;
        Ok(Self { scan, dated })
    }
}

pub(super) fn external(error: deltalake::DeltaTableError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[async_trait]
impl TableProvider for LakeTableProvider {
    fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.dated.as_ref().and_then(|dated| dated.folder_filter(filters)) {
            Some(folders) => {
                let filters: Vec<Expr> = filters.iter().cloned().chain([folders]).collect();
                self.scan.scan(session, projection, &filters, limit).await
            }
            None => self.scan.scan(session, projection, filters, limit).await,
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.scan.supports_filters_pushdown(filters)
    }
}
