//! `lakebed skip`: step over one transaction that cannot be kept, and say so in the lake for ever.
//!
//! Nothing is skipped here: the decision is recorded beside the tables as a finding, and `run` reads it when it starts. So it
//! survives a restore of this machine, and `status` and `check` show it as long as the lake lives.

use super::Exit;
use crate::base::Lsn;
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::lake::{Finding, FindingKind, LakeLocation, Patience, record_finding};
use crate::source::{self, ServerFacts, SlotFacts};
use anyhow::{Context, bail, ensure};
use chrono::Utc;
use std::io::Write;

/// Arguments of `skip`.
#[derive(Debug, clap::Args)]
pub(super) struct SkipArgs {
    /// Where the transaction commits, as the error message of `run` names it
    #[arg(long, value_name = "LSN")]
    lsn: Lsn,
    /// Why its rows may be missing from the lake; kept with the finding
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// Records the finding. Exit code 0 also when it was recorded before.
pub(super) async fn run(args: &SkipArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let name = &pipeline.source.slot;
    let connection = connect::control(&settings).await?;
    source::prepare_session(connection.client()).await?;
    let server = source::server(connection.client()).await?;
    let slot = source::slot(connection.client(), name).await?;
    let Some(slot) = slot else {
        bail!("replication slot \"{name}\" does not exist on {}: there is nothing to step over", settings.endpoint());
    };
    judge(args.lsn, &slot, &server)?;

    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    let finding = Finding {
        kind: FindingKind::Skipped,
        table: None,
        lsn: args.lsn,
        reason: args.reason.clone(),
        recorded_at: Utc::now(),
        recorded_by: recorded_by(std::env::var("USER").ok()),
    };
    record_finding(&location, name, &finding, &Patience::none()).await?;
    let line = format!(
        "at its next start, lakebed run steps over the transaction that commits at {}: none of its rows reach the lake, and a finding \
         says so\n",
        args.lsn
    );
    std::io::stdout().lock().write_all(line.as_bytes()).context("cannot write to standard output")?;
    Ok(Exit::Done)
}

/// A position that could not take effect is a typing error, and would lie in wait for another transaction.
fn judge(at: Lsn, slot: &SlotFacts, server: &ServerFacts) -> anyhow::Result<()> {
    if let Some(problem) = slot.unusable(&server.database) {
        bail!(problem);
    }
    if slot.active {
        let holder = slot.holder.as_ref().map_or_else(|| "another session".to_owned(), ToString::to_string);
        bail!("slot {} is in use by {holder}, which would not hear of it; stop lakebed run first", slot.name);
    }
    let confirmed = slot.confirmed.unwrap_or(Lsn::ZERO);
    ensure!(
        // A commit record begins where the one before it ends, which is what was acknowledged.
        at >= confirmed,
        "slot {} is past {at} already (it has acknowledged {confirmed}): name the position in the error message of lakebed run",
        slot.name
    );
    ensure!(
        at <= server.wal_position,
        "no transaction commits at {at}: the server has written only up to {}; name the position in the error message of lakebed run",
        server.wal_position
    );
    Ok(())
}

fn recorded_by(user: Option<String>) -> String {
    user.map_or_else(|| "lakebed skip".to_owned(), |user| format!("lakebed skip, {user}"))
}
