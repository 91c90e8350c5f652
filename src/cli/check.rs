//! `lakebed check`: look at source, slot, publication, partman and lake; every finding with its remedy.
//!
//! Exit code 0 when no finding is an error, else 1. Nothing is changed (the lake probe removes what it wrote). With `--json`,
//! standard output is one object:
//!
//! ```text
//! {"ok": bool,                          no finding is an error
//!  "errors": n, "warnings": n,
//!  "findings": [{"severity": "ok" | "warning" | "error",
//!                "area": "server" | "login" | "table" | "publication" | "slot" | "lake" | "partman" | "cron",
//!                "what": text,
//!                "remedy": text | null}]}   a command or SQL statement; null when severity is ok
//! ```

mod finding;
mod lake_side;
mod partman;
mod publication;
mod server;
mod slot;
mod tables;

use self::finding::{Area, Findings};
use super::Exit;
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::pipeline::table_rules;
use crate::source::{self, ServerFacts, SlotFacts, SourceError, TableFacts};
use anyhow::Context;
use std::io::Write;
use tokio_postgres::Client;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The database where pg_cron lives; looks for the job that runs partman's maintenance
    #[arg(long, value_name = "URL", env = "LAKEBED_CRON_URL", hide_env_values = true)]
    cron_url: Option<String>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Looks at everything that can be reached and prints what was found.
pub(super) async fn run(args: &CheckArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let cron_settings = args.cron_url.as_deref().map(Settings::from_url).transpose().context("--cron-url")?;
    let mut findings = Findings::default();
    let seen = source_side(&mut findings, pipeline, &settings).await;
    lake_side::check(&mut findings, pipeline, &settings, seen.as_ref()).await;
    if let Some(cron_settings) = &cron_settings {
        partman::check_cron(&mut findings, cron_settings, settings.database()).await;
    }
    let text = if args.json { findings.to_json()? } else { findings.to_text() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(if findings.errors() == 0 { Exit::Done } else { Exit::Failed })
}

/// What the source side told, for the lake side.
struct Seen {
    server: ServerFacts,
    /// If there is one that can be used.
    slot: Option<SlotFacts>,
    tables: Vec<TableFacts>,
}

/// `None` when the server told nothing.
async fn source_side(findings: &mut Findings, pipeline: &Pipeline, settings: &Settings) -> Option<Seen> {
    let connection = match connect::control(settings).await {
        Ok(connection) => connection,
        Err(error) => {
            findings.not_connected(Area::Server, &error.to_string());
            return None;
        }
    };
    let client = connection.client();
    let looked = look(findings, client, pipeline, settings).await;
    looked.map_err(|error| findings.failed(Area::Server, &error)).ok()
}

async fn look(
    findings: &mut Findings,
    client: &Client,
    pipeline: &Pipeline,
    settings: &Settings,
) -> Result<Seen, SourceError> {
    source::prepare_session(client).await?;
    let server = source::server(client).await?;
    server::check(findings, &server, settings);
    let role = source::role(client, settings.user()).await?;
    server::check_login(findings, role.as_ref(), settings.user());
    let publication = source::publication(client, &pipeline.source.publication).await?;
    publication::check(findings, publication.as_ref(), pipeline);
    let slot = source::slot(client, &pipeline.source.slot).await?;
    slot::check(findings, slot.as_ref(), &pipeline.source, &server);

    let generated_published = publication.is_some_and(|publication| publication.generated_stored);
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for section in &pipeline.tables {
        match source::table(client, &table_rules(section), generated_published).await {
            Err(error) => findings.failed(Area::Table, &error),
            Ok(facts) => {
                let checked = tables::check(findings, client, pipeline, settings.user(), &facts).await;
                checked.unwrap_or_else(|error| findings.failed(Area::Table, &error));
                partman::check(findings, client, &pipeline.archive.schema, &facts).await;
                tables.push(facts);
            }
        }
    }
    let slot = slot.filter(|slot| slot.unusable(&server.database).is_none());
    Ok(Seen { server, slot, tables })
}
