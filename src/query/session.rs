//! The DataFusion session: its settings, and the names under which tables are found.

use super::engine::{QueryOptions, QueryTable};
use super::error::QueryError;
use super::table::LakeTableProvider;
use deltalake::datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use deltalake::datafusion::common::DataFusionError;
use deltalake::datafusion::execution::SessionStateBuilder;
use deltalake::datafusion::execution::memory_pool::FairSpillPool;
use deltalake::datafusion::execution::runtime_env::RuntimeEnvBuilder;
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::delta_datafusion::DeltaSessionConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

/// First part of a name in three parts; nobody needs to write it.
const CATALOG: &str = "lakebed";
/// Where a bare name is looked up when the pipeline names no database.
const DEFAULT_DATABASE: &str = "lake";

/// Tables by the schema they are found in.
type Schemas = BTreeMap<String, Vec<(String, Arc<dyn TableProvider>)>>;

/// A session in which every table is found as `t`, `source_schema.t` and `database.t`, in any case.
pub(super) fn open(tables: &[QueryTable], options: &QueryOptions) -> Result<SessionContext, QueryError> {
    let database = options.database.as_deref().unwrap_or(DEFAULT_DATABASE).to_lowercase();
    let context = context(&database, options).map_err(setup)?;
    let mut schemas = Schemas::from([(database.clone(), Vec::new())]);
    for table in tables {
        table
            .delta
            .update_datafusion_session(&context.state())
            .map_err(|error| QueryError::Setup(error.to_string()))?;
        let provider = LakeTableProvider::new(&table.delta, table.dated.clone()).map_err(setup)?;
        let provider: Arc<dyn TableProvider> = Arc::new(provider);
        let name = table.name.name.to_lowercase();
        let source_schema = table.name.schema.to_lowercase();
        if source_schema != database {
            schemas.entry(source_schema).or_default().push((name.clone(), Arc::clone(&provider)));
        }
        schemas.entry(database.clone()).or_default().push((name, provider));
    }
    register(&context, schemas).map_err(setup)?;
    Ok(context)
}

fn setup(error: DataFusionError) -> QueryError {
    QueryError::Setup(error.strip_backtrace())
}

fn context(database: &str, options: &QueryOptions) -> Result<SessionContext, DataFusionError> {
    let mut runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(options.memory_limit_bytes)));
    if let Some(directory) = &options.spill_directory {
        runtime = runtime.with_temp_file_path(directory);
    }
    // delta-rs switches off what its scans cannot do; names are case-insensitive as in Athena and PostgreSQL.
    let config: SessionConfig = DeltaSessionConfig::default().into();
    let config = config
        .with_default_catalog_and_schema(CATALOG, database)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(options.threads.max(1))
        .set_bool("datafusion.sql_parser.enable_ident_normalization", true);
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime.build_arc()?)
        .build();
    Ok(SessionContext::new_with_state(state))
}

fn register(context: &SessionContext, schemas: Schemas) -> Result<(), DataFusionError> {
    let catalog = MemoryCatalogProvider::new();
    for (name, tables) in schemas {
        let schema = MemorySchemaProvider::new();
        for (table, provider) in tables {
            schema.register_table(table, provider)?;
        }
        catalog.register_schema(&name, Arc::new(schema))?;
    }
    context.register_catalog(CATALOG, Arc::new(catalog));
    Ok(())
}
