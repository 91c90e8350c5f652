//! S3: a repair beside a pipeline that goes on streaming a load. Whoever follows copies the days, and the load reaches those days, too.

use super::load::{self, Load};
use super::repair::{a_file, change_unseen, changed, double, files_of, sorted, take_out};
use super::{Amount, EVENTS, Old, init_snapshot, not_copied};
use crate::support::dice::{Dice, seed};
use crate::support::{DATABASE, RunningRun};
use chrono::NaiveDate;
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;
use std::time::Duration;

const AMOUNT: Amount = Amount { days: 7, events: 60, hook_results: 4, detached_after: 0 };
/// The load reaches as many days back; one of them is damaged.
const LOADED_DAYS: u32 = 3;
const HEALED_WITHIN: Duration = Duration::from_secs(90);

/// Rows come, change, go and move between the loaded days; only rows that this load has made.
fn transaction(dice: &mut Dice, days: &[NaiveDate]) -> String {
    let some = format!(
        "tenant_name = 'of the load' AND created_at >= '{}' AND get_byte(uuid_send(id), 15) % 8 = {}",
        days.iter().min().unwrap(),
        dice.below(8)
    );
    let (day, events) = (days[dice.index(days.len())], "public.security_event");
    let statement = match dice.below(5) {
        0 | 1 => {
            let inserted = load::events(&[day], 3).replace("tenant, \"quoted\"", "of the load");
            inserted + &load::hook_results(&[day], 1)
        }
        2 => format!("UPDATE {events} SET description = md5(random()::text) WHERE {some};\n"),
        3 => format!("UPDATE {events} SET created_at = timestamp '{day}' + created_at::time WHERE {some};\n"),
        _ => format!("DELETE FROM {events} WHERE {some} AND get_byte(uuid_send(id), 14) % 2 = 0;\n"),
    };
    format!("BEGIN;\n{statement}COMMIT;\n")
}

async fn healed_beside_a_run(server: ServerKind) {
    let seed = seed();
    let old = Old::new(server, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    let run = site.start_run().allowing(&["another program removed rows"]);
    let before = files_of(site);
    let [in_the_load, taken_out, doubled, unseen] = [2, 3, 4, 5].map(|ago| old.day(ago));
    // Before the load: its rows would be in the default partition's way when the leaf comes back.
    change_unseen(site, in_the_load).await;
    let loaded: Vec<NaiveDate> = (0..LOADED_DAYS).map(|ago| old.day(ago)).collect();
    let (mut load, mut dice) = (Load::none(), Dice::new(seed));
    let days = loaded.clone();
    load.session(site.cluster.socket_url(DATABASE), move || transaction(&mut dice, &days));
    load.goes_on_for(10).await;

    change_unseen(site, unseen).await;
    take_out(site, &a_file(site, taken_out));
    double(site, &a_file(site, doubled));
    load.goes_on_for(10).await;
    let rehearsal = site.lakebed(&["repair"]).await;
    assert_eq!(rehearsal.code, Some(3), "{}{}", rehearsal.stdout, rehearsal.stderr);
    for day in [in_the_load, taken_out, doubled, unseen] {
        assert!(rehearsal.stdout.contains(&day.to_string()), "{day}: {}", rehearsal.stdout);
    }
    site.lakebed(&["repair", "--execute"]).await.succeeded();
    load.goes_on_for(10).await;
    site.lakebed(&["repair"]).await.succeeded();
    load.end().await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.run_until_caught_up().await;
    old.assert_equal(&site.lake()).await;
    let loaded = sorted(&loaded);
    let after = files_of(site);
    let of = |table: usize| -> Vec<String> {
        changed(&before, &after, table).into_iter().filter(|day| !loaded.contains(day)).collect()
    };
    assert_eq!(of(0), sorted(&[taken_out, doubled, unseen]));
    assert_eq!(of(1), sorted(&[]));
}

#[tokio::test]
async fn s3_a_repair_beside_a_running_pipeline_heals_damaged_days_alone_on_postgresql_15() {
    healed_beside_a_run(ServerKind::Debian15).await;
}

#[tokio::test]
async fn s3_a_repair_beside_a_running_pipeline_heals_damaged_days_alone_on_postgresql_18() {
    healed_beside_a_run(ServerKind::postgres_18().unwrap()).await;
}

/// Whoever follows dies with the day in its hands: whoever asked for the repair goes on by itself. And what was asked for is done by the
/// next that follows, when whoever asked has died.
#[tokio::test]
async fn s3_a_repair_survives_the_death_of_whoever_follows_and_of_whoever_asked() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let (site, pipeline) = (&old.site, old.site.pipeline_file());
    init_snapshot(site, &pipeline).await.succeeded();
    site.run_until_caught_up().await;
    let before = files_of(site);
    let [first, second] = [5, 6].map(|ago| old.day(ago));

    change_unseen(site, first).await;
    let run = RunningRun::start_dying_at(&pipeline, "copy.before_landing");
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    let asked = RunningRun::start_verb(&pipeline, &["repair", "--execute"]).allowing(&["not following for now"]);
    run.finished(HEALED_WITHIN).await.killed();
    asked.finished(HEALED_WITHIN).await.succeeded();
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first]));

    change_unseen(site, second).await;
    let asked = RunningRun::start_verb_dying_at(&pipeline, &["repair", "--execute"], "copy.before_landing");
    asked.finished(HEALED_WITHIN).await.killed();
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first]), "nothing more has landed");
    assert_eq!(not_copied(&pipeline).await, BTreeSet::from([format!("{EVENTS} {second}")]));
    let run = site.start_run().allowing(&["not following for now"]);
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    site.lakebed(&["snapshot"]).await.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first, second]));
    site.lakebed(&["repair"]).await.succeeded();
    old.assert_equal(&site.lake()).await;
}
