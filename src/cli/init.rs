//! `lakebed init`: install roles, grants, publication, slot and lake tables.
//!
//! The order is: look at everything and refuse what cannot end well, then SQL as owner or administrator in one transaction, then the
//! slot through the pipeline's **own** login, which proves login, `pg_hba.conf` and REPLICATION, then the lake tables, whose
//! first record is the slot's consistent point, and last the acknowledgement record, without which `run` does not start. A second run finds everything there and says so (W2: a slot is created here
//! and nowhere else; what would leave a gap is refused unless `--from-now` accepts it). With `--snapshot` the slot exports what is committed
//! at its consistent point, the days that hold rows then are marked in the new lake tables, and last they are copied, as `lakebed
//! snapshot` does.

mod beginning;
mod dry_run;
mod existing_slot;
mod lake_side;
mod listing;
mod record;
mod slot;

use self::beginning::{Beginning, Existing};
use self::lake_side::LakeSide;
use super::{Exit, snapshot};
use crate::base::{TableName, TableShape};
use crate::config::Pipeline;
use crate::connect::{self, ControlConnection, Settings};
use crate::pipeline::table_rules;
use crate::source::{self, Installation, PublicationFacts, ServerFacts, Step, TableFacts};
use anyhow::{Context, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::Write;
use tokio_postgres::Client;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// Connect as owner or administrator for the SQL; the database is the pipeline's [default: the pipeline's own URL]
    #[arg(long, value_name = "URL", env = "LAKEBED_ADMIN_URL", hide_env_values = true)]
    admin_url: Option<String>,
    /// The database where pg_cron lives; registers partman's nightly maintenance and the archive guide's job if no job runs them
    #[arg(long, value_name = "URL", env = "LAKEBED_CRON_URL", hide_env_values = true)]
    cron_url: Option<String>,
    /// Let partman detach partitions older than this into the archive schema, such as "90 days" [default: leave its configuration]
    #[arg(long, value_name = "INTERVAL")]
    retention: Option<String>,
    /// Copy the rows that exist already, those of detached partitions included; safe to interrupt, lakebed snapshot or run goes on
    #[arg(long, conflicts_with = "from_now")]
    snapshot: bool,
    /// Begin with what is committed from now on: rows that exist already, or that a lost slot missed, are not copied
    #[arg(long)]
    from_now: bool,
    /// Print the SQL that would be run, for psql and without the password, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl InitArgs {
    /// What `lakebed snapshot` asks for where something is missing.
    pub(super) fn for_snapshot(admin_url: Option<String>, cron_url: Option<String>) -> Self {
        Self { admin_url, cron_url, retention: None, snapshot: true, from_now: false, dry_run: false }
    }

    fn existing(&self) -> Existing {
        match (self.snapshot, self.from_now) {
            (true, _) => Existing::Copy,
            (_, true) => Existing::LeaveOut,
            _ => Existing::Refuse,
        }
    }
}

/// Installs what is missing, and copies what exists already if that is asked for. Exit code 0 also when there was nothing to do.
pub(super) async fn run(args: &InitArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    Box::pin(install(args, pipeline)).await?;
    match args.snapshot && !args.dry_run {
        true => Box::pin(snapshot::copy(pipeline)).await,
        false => Ok(Exit::Done),
    }
}

async fn install(args: &InitArgs, pipeline: &Pipeline) -> anyhow::Result<()> {
    let login = Settings::from_url(&pipeline.source.url)?;
    let admin = match &args.admin_url {
        Some(url) => Settings::from_url(&in_database(url, login.database())).context("--admin-url")?,
        None => login.clone(),
    };
    // A wrong URL is known before anything is asked.
    let cron_settings = args.cron_url.as_deref().map(Settings::from_url).transpose().context("--cron-url")?;
    let control = connect::control(&admin).await.with_context(|| init_needs_a_login(args))?;
    let client = control.client();
    source::prepare_session(client).await?;
    let server = source::server(client).await?;
    refuse_server(&server)?;
    let seen = look(client, pipeline, server).await?;
    let tables = &seen.tables;
    let cron = match cron_settings {
        Some(settings) => {
            Some(Cron::look(&settings, client, tables, (login.database(), &pipeline.archive.schema)).await?)
        }
        None => None,
    };
    let lake = LakeSide::look(pipeline, tables, &seen.server.system_identifier, !args.dry_run).await?;
    let beginning = Beginning::decide(client, pipeline, &seen, &lake, args.existing()).await?;

    let maintenance_users = cron.as_ref().map(|cron| cron.users.clone()).unwrap_or_default();
    let wanted = Installation {
        login: login.user(),
        archive: &pipeline.archive.schema,
        publication: &pipeline.source.publication,
        tables,
        retention: args.retention.as_deref(),
        maintenance_users: &maintenance_users,
    };
    let steps = source::plan(client, &wanted).await?;
    if args.dry_run {
        let cron_steps = cron.as_ref().map_or(&[][..], |cron| &cron.steps);
        let slot = beginning.dry_run_text(pipeline, &seen.server);
        return print(&dry_run::text(&steps, cron_steps, (beginning, &slot), &lake));
    }
    ensure!(
        login.password().is_some() || source::role(client, login.user()).await?.is_some(),
        "login {0} does not exist and no password is set for it: set PGPASSWORD or ~/.pgpass to the one it shall have, or create it \
         first: CREATE ROLE {0} LOGIN REPLICATION",
        source::quote_identifier(login.user())
    );
    let verifier = login.password().map(|password| source::scram_verifier(password.expose()));
    source::apply(client, &wanted, verifier.as_deref()).await?;
    for step in &steps {
        print(&step_line(step))?;
    }
    if let Some(cron) = &cron {
        for step in &cron.steps {
            source::apply_cron(cron.connection.client(), step).await?;
            print(&step_line(step))?;
        }
    }
    for line in lake.begin(client, &beginning, &login, pipeline, &seen).await? {
        print(&line)?;
    }
    Ok(())
}

/// The URL with another database. A parameter outranks the path, and only what the settings are read with decides which line of a
/// password file is taken.
fn in_database(url: &str, database: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // A ? in a password starts no query.
    let address = match rest.find(['@', '/']).and_then(|end| rest.split_at_checked(end)) {
        Some((_, after)) if after.starts_with('@') => after,
        _ => rest,
    };
    let mark = if address.contains('?') { '&' } else { '?' };
    format!("{url}{mark}dbname={}", utf8_percent_encode(database, NON_ALPHANUMERIC))
}

/// Without --admin-url the pipeline's own login connects, which on a new server does not exist yet.
fn init_needs_a_login(args: &InitArgs) -> &'static str {
    if args.admin_url.is_some() {
        "cannot connect with --admin-url"
    } else {
        "cannot connect as the pipeline's own login (name the owner or an administrator with --admin-url, who creates it)"
    }
}

fn refuse_server(server: &ServerFacts) -> anyhow::Result<()> {
    ensure!(
        server.version >= 140_000,
        "the server runs PostgreSQL {}; lakebed needs 14 or newer: upgrade the server",
        server.version_text()
    );
    ensure!(
        server.wal_level == "logical",
        "wal_level is {}, and logical replication needs logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server",
        server.wal_level
    );
    ensure!(!server.in_recovery, "the server is a standby, where nothing can be installed: connect to the primary");
    Ok(())
}

/// The source before anything is changed.
struct Seen {
    server: ServerFacts,
    publication: Option<PublicationFacts>,
    tables: Vec<TableFacts>,
}

async fn look(client: &Client, pipeline: &Pipeline, server: ServerFacts) -> anyhow::Result<Seen> {
    let publication = source::publication(client, &pipeline.source.publication).await?;
    if let Some(publication) = &publication {
        let names: Vec<TableName> = pipeline.tables.iter().map(|table| table.name.clone()).collect();
        if let Some(problem) = publication.problems(&names).first() {
            bail!("{}: {}", problem.what, problem.remedy);
        }
    }
    let generated_published = publication.as_ref().is_some_and(|publication| publication.generated_stored);
    let mut tables = Vec::with_capacity(pipeline.tables.len());
    for section in &pipeline.tables {
        tables.push(source::table(client, &table_rules(section), generated_published).await?);
    }
    Ok(Seen { server, publication, tables })
}

/// pg_cron's side, when `--cron-url` is given.
struct Cron {
    connection: ControlConnection,
    steps: [Step; 2],
    /// Whoever runs maintenance makes the leaves.
    users: Vec<String>,
}

impl Cron {
    async fn look(
        settings: &Settings,
        client: &Client,
        tables: &[TableFacts],
        (database, archive): (&str, &str),
    ) -> anyhow::Result<Self> {
        let connection = connect::control(settings).await.context("--cron-url")?;
        source::prepare_session(connection.client()).await?;
        let jobs = source::cron_jobs(connection.client(), database).await;
        let jobs = jobs.map_err(|error| match error.is_undefined_object() {
            true => anyhow::anyhow!(
                "pg_cron is not in database {}: name the database of cron.database_name with --cron-url",
                settings.database()
            ),
            false => error.into(),
        })?;
        let partman = match tables.first() {
            Some(table) => source::partman(client, &table.shape.table).await?,
            None => None,
        };
        let Some(partman) = partman else {
            bail!(
                "pg_partman is not in database {database}, so there is no maintenance to schedule: leave --cron-url out"
            );
        };
        let step = source::plan_cron(&jobs, database, &partman.schema)?;
        let mut users: Vec<String> =
            jobs.iter().filter(|job| source::runs_maintenance(job)).map(|job| job.user.clone()).collect();
        if !step.present {
            users.push(settings.user().to_owned());
            if source::sees_own_jobs_only(connection.client()).await? {
                note(&format!(
                    "{} sees only its own jobs of pg_cron; a superuser would also see whether another's runs maintenance already",
                    settings.user()
                ));
            }
        }
        let archive_step = source::plan_archive_cron(&jobs, database, archive)?;
        Ok(Self { connection, steps: [step, archive_step], users })
    }
}

fn step_line(step: &Step) -> String {
    line(if step.present { Done::Already } else { Done::Now }, &step.what)
}

/// Whether a step had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Now,
    Already,
}

fn line(done: Done, what: &str) -> String {
    let state = if done == Done::Now { "done" } else { "already there" };
    format!("{state:<14} {what}\n")
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// A remark for whoever watches; the report on standard output stays as it is, and a closed standard error is no failure.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "lakebed: note: {text}");
}

/// The shape's lake table and what is recorded there, or that there is none.
type Recorded = Option<crate::base::Lsn>;

/// Names for messages: "public.a, public.b".
fn names<'a>(shapes: impl Iterator<Item = &'a TableShape>) -> String {
    shapes.map(|shape| shape.table.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_that_is_used_outranks_the_urls() {
        for url in [
            "postgresql://ann@h/postgres",
            "postgresql://ann:p?w@h",
            "postgresql://h/x?user=ann&dbname=y",
            "postgresql://h?user=ann",
        ] {
            let settings = Settings::from_url(&in_database(url, "監査 a&b=c")).unwrap();
            assert_eq!((settings.database(), settings.user()), ("監査 a&b=c", "ann"), "{url}");
        }
    }

    /// `cli::failed` looks for it below the name of the option.
    #[test]
    fn a_wrong_url_is_found_below_its_option() {
        let error = Settings::from_url(&in_database("mysql://h", "d")).context("--admin-url").unwrap_err();
        assert!(error.downcast_ref::<connect::SettingsError>().is_some());
    }
}
