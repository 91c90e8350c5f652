//! `lakebed query`: SQL over the lake, for people and scripts.
//!
//! Needs neither PostgreSQL nor the right to write to the lake. The whole text is parsed before anything is opened, and all
//! of its statements see the tables as they were when the command began.

use super::Exit;
use crate::base::TableName;
use crate::config::Pipeline;
use crate::lake::{LakeError, LakeLocation, journal_of, journal_path, open_for_query};
use crate::query::output::Format;
use crate::query::{QueryEngine, QueryError, QueryOptions, QueryTable, ReadStatement, parse, run_script};
use anyhow::Context;
use bytesize::ByteSize;
use std::io::Read;
use std::path::PathBuf;

/// Arguments of `lakebed query`.
#[derive(Debug, clap::Args)]
pub(super) struct QueryArgs {
    /// Statements, separated by semicolons
    #[arg(
        short = 'c',
        long,
        value_name = "SQL",
        allow_hyphen_values = true,
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    command: Option<String>,
    /// A file of statements; - reads standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What answers look like
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with = "json")]
    format: Format,
    /// Short for --format json
    #[arg(long)]
    json: bool,
    /// Memory for all operators together; beyond it they spill to disk
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    memory_limit: ByteSize,
    /// Threads that work on a statement [default: all]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<std::num::NonZeroUsize>,
}

/// Answers the statements on standard output. Ctrl-C cancels them.
pub(super) async fn run(args: &QueryArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let statements = parse(&text(args).await?)?;
    let format = if args.json { Format::Json } else { args.format };
    tokio::select! {
        answered = Box::pin(answer(args, pipeline, statements, format)) => answered.map(|()| Exit::Done),
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.context("cannot wait for Ctrl-C")?;
            anyhow::bail!("cancelled")
        }
    }
}

async fn text(args: &QueryArgs) -> anyhow::Result<String> {
    match (&args.command, &args.file) {
        (Some(command), _) => Ok(command.clone()),
        (None, Some(file)) if file.as_os_str() == "-" => {
            let read = || {
                let mut text = String::new();
                std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
            };
            tokio::task::spawn_blocking(read).await?.context("cannot read statements from standard input")
        }
        (None, Some(file)) => {
            let failed = || format!("cannot read statements from {}", file.display());
            tokio::fs::read_to_string(file).await.with_context(failed)
        }
        (None, None) => anyhow::bail!("no statements: give them with -c SQL or -f FILE"),
    }
}

async fn answer(
    args: &QueryArgs,
    pipeline: &Pipeline,
    statements: Vec<ReadStatement>,
    format: Format,
) -> anyhow::Result<()> {
    let Lake { tables, absent } = Lake::open(pipeline).await?;
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    let options = QueryOptions {
        database: pipeline.query.database.clone(),
        memory_limit_bytes: usize::try_from(args.memory_limit.as_u64()).unwrap_or(usize::MAX),
        spill_directory: None,
        threads,
    };
    let engine = QueryEngine::open(&tables, &options)?;
    match run_script(&engine, statements, format, std::io::stdout()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(absent_table(&error, absent).unwrap_or_else(|| error.into())),
    }
}

/// The pipeline's tables and their journals that exist, and those that do not yet, with what to say about them.
struct Lake {
    tables: Vec<QueryTable>,
    absent: Vec<(TableName, anyhow::Error)>,
}

impl Lake {
    /// A table that another part of the pipeline has not created yet is no reason to refuse questions about the rest.
    async fn open(pipeline: &Pipeline) -> anyhow::Result<Self> {
        let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
        let mut lake = Self { tables: Vec::new(), absent: Vec::new() };
        for table in &pipeline.tables {
            match Box::pin(open_for_query(&location, table.lake_path())).await {
                Ok(delta) => {
                    lake.tables.push(QueryTable::new(table.name.clone(), delta));
                    lake.open_journal(&location, &table.name, table.lake_path()).await?;
                }
                Err(error @ LakeError::Missing { .. }) => lake.absent.push((table.name.clone(), error.into())),
                Err(error) => return Err(error.into()),
            }
        }
        let first = lake.absent.first().and_then(|(_, error)| error.downcast_ref());
        if lake.tables.is_empty()
            && let Some(LakeError::Missing { location }) = first
        {
            anyhow::bail!("no lake table at {location}: run lakebed init");
        }
        Ok(lake)
    }

    /// A table that only grew has no journal.
    async fn open_journal(&mut self, location: &LakeLocation, table: &TableName, path: &str) -> anyhow::Result<()> {
        let journal = journal_of(table);
        match Box::pin(open_for_query(location, &journal_path(path))).await {
            Ok(delta) => self.tables.push(QueryTable::new(journal, delta)),
            Err(LakeError::Missing { .. }) => {
                let nothing = anyhow::anyhow!(
                    "there is no {journal}: no row of {table} was changed or removed since lakebed follows it"
                );
                self.absent.push((journal, nothing));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What is missing in the lake though the pipeline knows it is better called missing than unknown.
fn absent_table(error: &QueryError, absent: Vec<(TableName, anyhow::Error)>) -> Option<anyhow::Error> {
    let QueryError::UnknownTable { name, .. } = error else { return None };
    let bare = name.rsplit('.').next().unwrap_or(name);
    absent.into_iter().find(|(table, _)| table.name.eq_ignore_ascii_case(bare)).map(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ColumnType, Lsn, PartitionBy, SourceColumn, TableShape};
    use crate::lake::{LakeTable, Patience, Progress, record_gap};

    /// public.event, kept by months as in Tokyo.
    fn event() -> (TableShape, Progress) {
        let table = TableName::new("public", "event");
        let column = |name: &str, column_type| SourceColumn {
            name: name.to_owned(),
            lake_name: name.to_owned(),
            type_oid: 0,
            type_modifier: -1,
            column_type,
            nullable: false,
        };
        let shape = TableShape {
            table: table.clone(),
            columns: vec![column("id", ColumnType::Int8), column("seen_at", ColumnType::TimestampTz)],
            partition_column: 1,
            partition_by: PartitionBy::Month,
            time_zone: chrono_tz::Asia::Tokyo,
            key: vec![0],
            identity: vec![0],
            identity_is_ambiguous: false,
        };
        let progress = Progress { system_identifier: "1".to_owned(), pipeline: "p".to_owned(), table, epoch: 0 };
        (shape, progress)
    }

    fn lake() -> (tempfile::TempDir, LakeLocation) {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let location = LakeLocation::new(&url, &std::collections::BTreeMap::new()).unwrap();
        (folder, location)
    }

    #[tokio::test]
    async fn what_the_lake_records_of_its_folders_is_what_queries_read() {
        let ((shape, progress), (_folder, location)) = (event(), lake());
        LakeTable::create(&location, "event", &shape, &progress, Lsn(1)).await.unwrap();
        let delta = open_for_query(&location, "event").await.unwrap();
        let shown = format!("{:?}", QueryTable::new(shape.table, delta));
        let expected = "Some(Dated { column: \"seen_at\", partition_by: Month, time_zone: ";
        assert!(shown.contains(expected), "{shown}");
    }
    async fn answered(pipeline: &Pipeline, sql: &str) -> Result<String, String> {
        let Lake { tables, absent } = Lake::open(pipeline).await.map_err(|error| error.to_string())?;
        let options = QueryOptions {
            database: Some("archive".to_owned()),
            memory_limit_bytes: 64 << 20,
            spill_directory: None,
            threads: 1,
        };
        let engine = QueryEngine::open(&tables, &options).unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        match run_script(&engine, parse(sql).unwrap(), Format::Csv, output.reopen().unwrap()).await {
            Ok(_) => Ok(std::fs::read_to_string(output.path()).unwrap()),
            Err(error) => {
                Err(absent_table(&error, absent).map_or_else(|| error.to_string(), |absent| absent.to_string()))
            }
        }
    }

    #[tokio::test]
    async fn q2_a_journal_is_asked_by_all_names_and_by_the_same_dates_as_its_table() {
        let ((shape, progress), (folder, location)) = (event(), lake());
        let lake = url::Url::from_directory_path(folder.path()).unwrap();
        let text = format!(
            "[source]\nurl = \"postgresql://u@h/d\"\nslot = \"p\"\npublication = \"p\"\n[lake]\nurl = \"{lake}\"\n\
             [[table]]\nname = \"public.event\"\npartition_column = \"seen_at\"\npartition_by = \"month\"\n"
        );
        let pipeline = Pipeline::parse(&text, "pipeline.toml", &|_| None).unwrap();
        LakeTable::create(&location, "event", &shape, &progress, Lsn(1)).await.unwrap();
        let sql = "SELECT * FROM event__changes";
        let absent = answered(&pipeline, sql).await.unwrap_err();
        assert_eq!(
            absent,
            "there is no public.event__changes: no row of public.event was changed or removed since lakebed follows it"
        );
        let (now, patience) = (chrono::Utc::now(), Patience::none());
        record_gap(&location, "event", (&shape, &progress), Lsn(1)..Lsn(32), now, &patience).await.unwrap();
        for name in ["event__changes", "public.event__changes", "archive.Event__Changes"] {
            let sql = format!("SELECT lakebed_operation, lakebed_commit_lsn, lakebed_xid, id FROM {name}");
            let rows = "lakebed_operation,lakebed_commit_lsn,lakebed_xid,id\ngap,0/20,,\n";
            assert_eq!(answered(&pipeline, &sql).await.unwrap(), rows);
        }
        // What no row dates is in some folder, which no bound on the date may leave out or bring in.
        for (predicate, rows) in [
            ("seen_at >= '1970-01-01'", 0),
            ("seen_at < '2026-01-31T15:00:00Z'", 0),
            ("seen_at IS NULL", 1),
            ("seen_at IS NULL OR seen_at < '2026-02-01'", 1),
            ("coalesce(seen_at, TIMESTAMP '1970-01-01') < '2026-02-01'", 1),
        ] {
            let sql = format!("SELECT count(*) AS n FROM event__changes WHERE {predicate}");
            assert_eq!(answered(&pipeline, &sql).await.unwrap(), format!("n\n{rows}\n"), "{predicate}");
        }
    }
}
