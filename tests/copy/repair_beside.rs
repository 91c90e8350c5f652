//! S3: a repair beside a pipeline that goes on streaming a load. Whoever follows copies the days, and the load reaches those days, too.

use super::load::Load;
use super::repair::{a_file, change_unseen, changed, double, files_of, sorted, take_out};
use super::{Amount, EVENTS, Old, init_snapshot, let_go, not_copied};
use crate::support::dice::{Dice, seed};
use crate::support::{DATABASE, RunningRun};
use chrono::NaiveDate;
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;
use std::time::Duration;

const AMOUNT: Amount = Amount { days: 7, events: 60, hook_results: 4, detached_after: 0 };
const HEALED_WITHIN: Duration = Duration::from_secs(90);
/// A day into which rows come all the time is judged by its hours that are over, in which a row comes late now and then.
const PAUSE: Duration = Duration::from_millis(100);

/// Rows of just now come, change and go; now and then a late one comes for the first hour of a day long over.
fn transaction(dice: &mut Dice, late: NaiveDate) -> String {
    let (events, now) = ("public.security_event", "timezone('UTC', clock_timestamp())");
    let some = format!(
        "created_at > {now} - interval '5 minutes' AND type = 'of the load' AND get_byte(uuid_send(id), 15) % 8 = {}",
        dice.below(8)
    );
    let at = |moment: &str| {
        format!(
            "INSERT INTO {events} SELECT gen_random_uuid(), 'of the load', 'new', gen_random_uuid(), 'tenant', 'client', 'name', NULL,
                 NULL, NULL, NULL, NULL, '{{}}', {moment} FROM generate_series(1, 3);\n"
        )
    };
    match dice.below(12) {
        0..6 => at(now),
        6..9 => format!("UPDATE {events} SET description = md5(random()::text) WHERE {some};\n"),
        9 | 10 => format!("DELETE FROM {events} WHERE {some};\n"),
        _ => at(&format!("timestamp '{late}' + random() * interval '1 hour'")),
    }
}

#[tokio::test]
async fn s3_a_repair_beside_a_running_pipeline_heals_damaged_days_alone() {
    let server = ServerKind::postgres_18().unwrap();
    let seed = seed();
    let old = Old::new(server, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    let run = site.start_run().allowing(&["another program removed rows"]);
    let before = files_of(site);
    let [in_the_load, taken_out, doubled, unseen] = [2, 3, 4, 5].map(|ago| old.day(ago));
    // Before the load: its rows would be in the default partition's way when the leaf comes back, and the other program of these tests
    // does not look who commits beside it.
    change_unseen(site, in_the_load).await;
    take_out(site, &a_file(site, taken_out));
    double(site, &a_file(site, doubled));
    let (mut load, mut dice) = (Load::none(), Dice::new(seed));
    load.session(site.cluster.socket_url(DATABASE), PAUSE, move || transaction(&mut dice, in_the_load));
    load.goes_on_for(10).await;

    change_unseen(site, unseen).await;
    load.goes_on_for(10).await;
    let rehearsal = site.lakebed(&["repair"]).await;
    assert_eq!(rehearsal.code, Some(3), "{}{}", rehearsal.stdout, rehearsal.stderr);
    for day in [in_the_load, taken_out, doubled, unseen] {
        assert!(rehearsal.stdout.contains(&day.to_string()), "{day}: {}", rehearsal.stdout);
    }
    site.lakebed(&["repair", "--execute"]).await.succeeded();
    load.goes_on_for(10).await;
    load.end().await;
    site.lakebed(&["repair"]).await.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.run_until_caught_up().await;
    old.assert_equal(&site.lake()).await;
    // The clock may have passed midnight.
    let loaded = sorted(&[old.day(0), old.today.succ_opt().unwrap()]);
    let after = files_of(site);
    let of = |table: usize| -> Vec<String> {
        changed(&before, &after, table).into_iter().filter(|day| !loaded.contains(day)).collect()
    };
    assert_eq!(of(0), sorted(&[in_the_load, taken_out, doubled, unseen]));
    assert_eq!(of(1), sorted(&[]));
}

/// Whoever follows dies with the day in its hands: whoever asked for the repair waits for the next. And what was asked for is done by
/// the next that follows when whoever asked has died, too.
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
    let asked = RunningRun::start_verb(&pipeline, &["repair", "--execute"]);
    run.finished(HEALED_WITHIN).await.killed();
    let_go(site, "lakebed").await;
    let run = site.start_run();
    asked.finished(HEALED_WITHIN).await.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    let_go(site, "lakebed").await;
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first]));

    change_unseen(site, second).await;
    let asked = RunningRun::start_verb_dying_at(&pipeline, &["repair", "--execute"], "copy.before_landing");
    asked.finished(HEALED_WITHIN).await.killed();
    let_go(site, "lakebed").await;
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first]), "nothing more has landed");
    assert_eq!(not_copied(&pipeline).await, BTreeSet::from([format!("{EVENTS} {second}")]));
    let run = site.start_run();
    site.wait_for("SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    site.lakebed(&["snapshot"]).await.succeeded();
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[first, second]));
    site.lakebed(&["repair"]).await.succeeded();
    old.assert_equal(&site.lake()).await;
}
