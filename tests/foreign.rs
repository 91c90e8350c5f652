//! L2 beside other programs: somebody else commits to the table just before a rewrite does, or just after it.

use crate::support::lane::{TABLES, journal_of};
use crate::support::versions::Versions;
use crate::support::{
    DATABASE, Lane, PipelineText, RunningRun, Site, Value, assert_lake_equals_source, delta_rows, files, load,
};
use deltalake::arrow::array::{ArrayRef, RecordBatch, StringArray};
use deltalake::arrow::datatypes::{DataType, Field, Schema};
use deltalake::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use deltalake::{DeltaTable, DeltaTableBuilder};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, ServerKind};
use std::path::Path;
use std::sync::Arc;
use url::Url;

const EVENTS: &str = "public.security_event";
const FOREIGN: &str = "f0000000-0000-4000-8000-000000000000";

/// One file a day stands for all others; how many files come and go.
async fn optimize(table: DeltaTable) -> Result<(u64, u64), String> {
    let optimized = Box::pin(table.optimize().into_future()).await;
    let (_, metrics) = optimized.map_err(|error| error.to_string())?;
    Ok((metrics.num_files_added, metrics.num_files_removed))
}

async fn table(folder: &Path) -> DeltaTable {
    let url = Url::from_directory_path(folder).unwrap();
    DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap()
}

/// How often a rewrite was planned anew.
fn plans_dropped(log: &str) -> usize {
    log.matches("another program was faster").count()
}

/// Two commits of one day, of which some rows are about to change.
struct Overtaken {
    site: Site,
    /// The ten rows that [`Self::change`] changes.
    chosen: Vec<Option<String>>,
}

impl Overtaken {
    async fn new() -> Self {
        let site = Site::small().await;
        site.init().await;
        for _ in 0..2 {
            site.insert_events(20, 1).await;
            site.run_until_caught_up().await;
        }
        let chosen = site.cluster.query(DATABASE, &format!("SELECT id::text FROM {EVENTS} ORDER BY id LIMIT 10")).await;
        Self { site, chosen: chosen.unwrap().into_iter().flatten().collect() }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.site.lake().join("security_event")
    }

    /// Ten rows are updated, and then five of them deleted.
    async fn change(&self) {
        let chosen = format!("WHERE id IN (SELECT id FROM {EVENTS} ORDER BY id LIMIT");
        self.site
            .sql(&format!(
                "BEGIN; UPDATE {EVENTS} SET description = 'changed' {chosen} 10); DELETE FROM {EVENTS} {chosen} 5); COMMIT"
            ))
            .await;
    }

    /// Changes the rows; returns when the process stands still at the first of the fail points.
    async fn about_to_rewrite(&self, fail_points: &str) -> RunningRun {
        let run = RunningRun::start_with_fail_points(&self.site.pipeline_file(), fail_points);
        self.change().await;
        run.wait_until_stopped().await;
        run
    }

    /// Lets it go on, and end in order; returns what it logged.
    async fn goes_on(&self, run: RunningRun) -> String {
        run.signal("CONT").await;
        let lsn = self.site.value("SELECT pg_current_wal_insert_lsn()").await;
        let slot = "FROM pg_replication_slots WHERE slot_name = 'lakebed'";
        self.site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}' {slot}")).await;
        run.signal("TERM").await;
        run.ended().await.succeeded().stderr
    }

    /// The old image of each changed row as it was, and nothing else.
    async fn assert_journalled_once(&self) {
        let journal = self.site.lake().join(journal_of("security_event"));
        let columns = [("id", Value::Text), ("lakebed_operation", Value::Text), ("description", Value::Text)];
        let mut entries = delta_rows(&journal, &columns).await;
        entries.sort();
        // Of a row that was updated and then deleted only the first counts: its second version never was in the lake.
        let as_it_was =
            |id: &Option<String>| [id.clone(), Some("update".to_owned()), Some("made by a test".to_owned())];
        assert_eq!(entries, self.chosen.iter().map(as_it_was).collect::<Vec<_>>());
    }

    async fn assert_lake_equals_source(&self) {
        assert_eq!(assert_lake_equals_source(&self.site, EVENTS, "created_at", "day").await, 35);
    }

    /// As the source, and beside it the rows that somebody else appended.
    async fn assert_lake_equals_source_and(&self, foreign: usize) {
        let mut lake = delta_rows(&self.folder(), &[("id", Value::Text), ("description", Value::Text)]).await;
        lake.sort();
        let sql = format!("SELECT id::text, description FROM {EVENTS}");
        let mut source = self.site.cluster.query(DATABASE, &sql).await.unwrap();
        source.extend(vec![vec![Some(FOREIGN.to_owned()), Some("foreign".to_owned())]; foreign]);
        source.sort();
        assert_eq!(lake, source);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_optimize_that_was_faster_makes_the_rewrite_plan_anew() {
    let overtaken = Overtaken::new().await;
    let run = overtaken.about_to_rewrite("apply.before_log_write=1:stop").await;
    let replaced = optimize(table(&overtaken.folder()).await).await;
    assert_eq!(replaced, Ok((1, 2)), "the files that the rewrite is to remove");
    let log = overtaken.goes_on(run).await;
    assert_eq!(plans_dropped(&log), 1, "{log}");
    overtaken.assert_lake_equals_source().await;
    overtaken.assert_journalled_once().await;
    overtaken.site.run_until_caught_up().await;
    assert_eq!(files::missing(&overtaken.folder()), Vec::<String>::new());
    overtaken.site.cluster.stop().await;
}

/// Nothing that an append does makes the plan wrong, so that it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_append_that_was_faster_keeps_its_rows() {
    let overtaken = Overtaken::new().await;
    let run = overtaken.about_to_rewrite("apply.before_log_write=1:stop").await;
    append_a_copy(&overtaken.folder()).await;
    let log = overtaken.goes_on(run).await;
    assert_eq!(plans_dropped(&log), 0, "{log}");
    overtaken.assert_lake_equals_source_and(1).await;
    overtaken.assert_journalled_once().await;
    overtaken.site.cluster.stop().await;
}

/// The plan that is made anew is overtaken in its turn: by an append, whose file and all others one file stands for before it commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_rewrite_that_is_overtaken_twice_lands_once() {
    let overtaken = Overtaken::new().await;
    let run = overtaken.about_to_rewrite("apply.before_log_write=1:stop,apply.after_scan=2:stop").await;
    assert_eq!(optimize(table(&overtaken.folder()).await).await, Ok((1, 2)));
    run.signal("CONT").await;
    crate::support::until("the second plan is made", || plans_dropped(&run.log()) == 1).await;
    run.wait_until_stopped().await;
    append_a_copy(&overtaken.folder()).await;
    assert_eq!(optimize(table(&overtaken.folder()).await).await, Ok((1, 2)));
    let log = overtaken.goes_on(run).await;
    assert_eq!(plans_dropped(&log), 2, "{log}");
    overtaken.assert_lake_equals_source_and(1).await;
    overtaken.assert_journalled_once().await;
    overtaken.site.cluster.stop().await;
}

/// The journal has the old images since the first plan; the process that had made it is gone when they are looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_killed_while_it_plans_anew_nothing_is_missing_or_double() {
    let overtaken = Overtaken::new().await;
    let run = overtaken.about_to_rewrite("apply.before_log_write=1:stop,apply.after_rewrite=4").await;
    assert_eq!(optimize(table(&overtaken.folder()).await).await, Ok((1, 2)));
    overtaken.assert_journalled_once().await;
    run.signal("CONT").await;
    let log = run.ended().await.killed().stderr;
    assert_eq!(plans_dropped(&log), 1, "{log}");
    overtaken.site.run_until_caught_up().await;
    overtaken.assert_lake_equals_source().await;
    overtaken.assert_journalled_once().await;
    assert_eq!(files::left_behind(&overtaken.folder()), Vec::<String>::new());
    overtaken.site.cluster.stop().await;
}

/// The other way round: what a compaction read before a rewrite may not stand beside what the rewrite made of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_optimize_that_began_before_a_rewrite_brings_no_old_row_back() {
    let overtaken = Overtaken::new().await;
    let before = table(&overtaken.folder()).await;
    overtaken.change().await;
    overtaken.site.run_until_caught_up().await;
    let outcome = optimize(before).await;
    assert!(outcome.is_err(), "{outcome:?}");
    overtaken.assert_lake_equals_source().await;
    overtaken.assert_journalled_once().await;
    overtaken.site.cluster.stop().await;
}

/// What another program removes is its own affair; what the source says of a row goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_delete_that_was_faster_takes_its_rows_and_no_others() {
    let overtaken = Overtaken::new().await;
    let run = overtaken.about_to_rewrite("apply.before_log_write=1:stop").await;
    let untouched = overtaken.site.value(&format!("SELECT max(id::text) FROM {EVENTS}")).await;
    let updated = overtaken.chosen[9].clone().unwrap();
    let predicate = format!("id IN ('{untouched}', '{updated}')");
    let delete = table(&overtaken.folder()).await.delete().with_predicate(predicate);
    let (_, metrics) = Box::pin(delete.into_future()).await.unwrap();
    assert_eq!(metrics.num_deleted_rows, Some(2));
    let run = run.allowing(&["another program removed rows"]);
    let log = overtaken.goes_on(run).await;
    assert_eq!(plans_dropped(&log), 1, "{log}");
    // The update brought a new version, which was not in the lake yet.
    let ids = delta_rows(&overtaken.folder(), &[("id", Value::Text), ("description", Value::Text)]).await;
    let of =
        |id: &str| ids.iter().filter(|row| row[0].as_deref() == Some(id)).map(|row| row[1].clone()).collect::<Vec<_>>();
    assert_eq!((ids.len(), of(&untouched), of(&updated)), (34, vec![], vec![Some("changed".to_owned())]));
    overtaken.assert_journalled_once().await;
    overtaken.site.cluster.stop().await;
}

/// A server that streams every transaction of more than so much.
async fn site_that_streams(server: ServerKind, work_mem: &str) -> Site {
    let extra_settings = vec![("logical_decoding_work_mem".to_owned(), work_mem.to_owned())];
    let site = Site::with_options(ClusterOptions { server, extra_settings, ..ClusterOptions::default() }).await;
    let options = CustomerOptions { premake_days: 2, ..CustomerOptions::with_history(3) };
    customer::create(&site.cluster, &options).await.unwrap();
    load::drop_indexes(&site.cluster, DATABASE).await;
    site
}

/// Changes that are planned twice although the first plan consumed what it could: parts of a streamed transaction, changes that were put
/// aside, rounds, values that were not sent. Returns whether any were put aside.
async fn overtaken_by_an_optimize(server: ServerKind, work_mem: &str, before: &str, changes: &str) -> bool {
    let site = site_that_streams(server, work_mem).await;
    let lane = Lane::local(&site, "overtaken", |text: &mut PipelineText| text.memory_limit = Some("128MiB"));
    // Both tables follow a TRUNCATE.
    let text = std::fs::read_to_string(&lane.file).unwrap();
    let truncated = "truncate = \"apply\"\npartition_by";
    std::fs::write(&lane.file, text.replace("partition_by", truncated)).unwrap();
    lane.init(&site).await;
    for _ in 0..2 {
        site.sql(before).await;
        lane.run_until_caught_up().await.succeeded();
    }
    let versions = Versions::of(&site).await;
    let run = RunningRun::start_stopping_at(&lane.file, "apply.before_log_write");
    lane.wait_until_active(&site).await;
    site.sql(changes).await;
    run.wait_until_stopped().await;
    let put_aside = lane.left_behind().iter().any(|file| file.contains("/_lakebed/changes/"));
    for name in TABLES {
        let (added, removed) = optimize(table(&lane.table_folder(name)).await).await.unwrap();
        assert!(added < removed, "{name}: {added} files stand for {removed}");
    }
    run.signal("CONT").await;
    lane.wait_until_acknowledged(&site).await;
    run.signal("TERM").await;
    let log = run.ended().await.succeeded().stderr;
    assert_eq!(plans_dropped(&log), 1, "{log}");
    lane.assert_balanced(&site, None).await;
    versions.assert_journalled(&site, &lane).await;
    lane.assert_nothing_left_behind();
    site.cluster.stop().await;
    put_aside
}

/// On three days.
fn some_rows() -> String {
    load::events(300, 3) + &load::long_hook_results(3, 1..=40)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_changes_of_every_kind_are_exact_after_an_optimize_that_was_faster() {
    for (server, work_mem) in [(ServerKind::Debian15, "64kB"), (ServerKind::postgres_18().unwrap(), "64MB")] {
        overtaken_by_an_optimize(server, work_mem, &some_rows(), &load::changes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_truncate_empties_the_table_after_an_optimize_that_was_faster() {
    let truncate = format!(
        "BEGIN; UPDATE {EVENTS} SET description = 'changed' WHERE id::text < '4'; TRUNCATE {EVENTS}; {} COMMIT;",
        load::events(7, 2)
    );
    overtaken_by_an_optimize(ServerKind::Debian15, "64MB", &some_rows(), &truncate).await;
}

/// More than one round's, and more than is held in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_many_changes_are_exact_after_an_optimize_that_was_faster() {
    let before = load::events(30_000, 3) + &load::hook_results(10, 1);
    let put_aside = overtaken_by_an_optimize(ServerKind::Debian15, "64kB", &before, &load::change_of_all()).await;
    assert!(put_aside);
}

/// How many compactions landed and how many were refused, one after the other, until something else is over.
async fn optimize_until(lane: &Lane, over: impl Future<Output = ()>) -> (u32, u32) {
    tokio::pin!(over);
    let (mut landed, mut refused) = (0, 0);
    for name in TABLES.iter().cycle() {
        let compaction = async { optimize(table(&lane.table_folder(name)).await).await };
        tokio::select! {
            () = &mut over => break,
            outcome = compaction => if outcome.is_ok() { landed += 1 } else { refused += 1 },
        }
    }
    (landed, refused)
}

/// Transactions of both tables, so many that each side meets the other at every moment of its way.
const TURNS: usize = 8;

/// Compactions all the time beside changes all the time: now one is faster and now the other, and no row is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_optimizing_again_and_again_beside_changes_leaves_every_row_once() {
    let site = site_that_streams(ServerKind::Debian15, "64kB").await;
    let lane = Lane::local(&site, "busy", |text: &mut PipelineText| text.max_age = "100ms");
    lane.init(&site).await;
    site.sql(&some_rows()).await;
    lane.run_until_caught_up().await.succeeded();
    let versions = Versions::of(&site).await;
    let run = lane.start();
    let writer = site.cluster.connect(DATABASE).await.unwrap();
    let changes = async {
        for _ in 0..TURNS {
            writer.execute(&load::changes()).await.unwrap();
            lane.wait_until_acknowledged(&site).await;
        }
    };
    let (landed, refused) = optimize_until(&lane, changes).await;
    run.signal("TERM").await;
    let log = run.ended().await.succeeded().stderr;
    eprintln!("{landed} compactions landed, {refused} were refused, {} plans were dropped", plans_dropped(&log));
    lane.assert_balanced(&site, None).await;
    versions.assert_journalled(&site, &lane).await;
    site.cluster.stop().await;
}

/// A row like one of the table's, under a name of its own, in the same day.
async fn append_a_copy(folder: &Path) {
    let (there, gone) = (files::named(folder, "add"), files::named(folder, "remove"));
    let path = there.difference(&gone).next().unwrap();
    let bytes = bytes::Bytes::from(std::fs::read(folder.join(path)).unwrap());
    // The writer's own Arrow types are of no interest.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let mut rows = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).unwrap().build().unwrap();
    let row = rows.next().unwrap().unwrap().slice(0, 1);
    let text = |value: &str| Arc::new(StringArray::from(vec![value.to_owned()])) as ArrayRef;
    let mut fields: Vec<_> = row.schema().fields().iter().cloned().collect();
    let mut columns = row.columns().to_vec();
    for (name, value) in [("id", FOREIGN), ("description", "foreign")] {
        columns[row.schema().index_of(name).unwrap()] = text(value);
    }
    for part in path.split('/').filter_map(|part| part.split_once('=')) {
        fields.push(Arc::new(Field::new(part.0, DataType::Utf8, true)));
        columns.push(text(part.1));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    Box::pin(table(folder).await.write(vec![batch]).into_future()).await.unwrap();
}
