//! Changes of rows against a plain list of rows: whatever comes, the table holds what the list holds, and the journal what it held.

use super::apply_model::{World, row};
use super::{Rewriter, StreamedCommit};
use crate::base::Lsn;
use crate::lake::fixtures::{PATH, lsn};
use crate::lake::{Patience, WriterOptions, journal_path, table_days};
use proptest::prelude::*;

#[tokio::test]
async fn d3_what_an_update_does_not_send_is_the_earlier_versions() {
    let mut world = World::new().await;
    for number in 0..50 {
        world.insert(number, 1 + number % 3, "first");
    }
    world.flush(1 << 20, 1 << 20).await;
    world.patch((1, 2), row(1, 2, "second"));
    world.patch((1, 2), row(1, 2, "third"));
    world.patch((2, 3), row(2, 1, "another day"));
    world.patch((3, 1), row(103, 1, "another key"));
    world.patch((103, 1), row(203, 1, "and another"));
    world.insert(300, 1, "new");
    world.patch((300, 1), row(300, 1, "new and changed"));
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.files, landed.figures.rows, landed.figures.unmatched), (3, 3, 0));
    assert_eq!(landed.superseded.len(), 1);
}

#[tokio::test]
async fn l3_only_files_that_hold_the_rows_are_rewritten() {
    let mut world = World::new().await;
    for on in 1..=9 {
        (0..20).for_each(|number| world.insert(on * 100 + number, on, "first"));
        world.flush(1 << 20, 1 << 20).await;
    }
    for number in 0..20 {
        world.patch((500 + number, 5), row(500 + number, 5, "second"));
    }
    assert_eq!(world.flush(1 << 20, 1 << 20).await.figures.files, 1);
    world.delete((500, 5));
    world.update((900, 9), row(900, 8, "moved"));
    assert_eq!(world.flush(1 << 20, 1 << 20).await.figures.files, 2);
}

#[tokio::test]
async fn l1_the_journal_has_the_old_row_of_every_change_once() {
    let mut world = World::new().await;
    (0..20).for_each(|number| world.insert(number, 1 + number % 2, "first"));
    world.flush(1 << 20, 1 << 20).await;
    let entries = async |world: &World| {
        let days = table_days(&world.lake.location, &journal_path(PATH)).await;
        days.map(|days| days.iter().map(|day| day.rows.unwrap()).collect::<Vec<u64>>()).unwrap_or_default()
    };
    assert!(entries(&world).await.is_empty(), "a table that only grows has no journal");
    for round in 1..=3_u32 {
        world.delete((2 * round, 1));
        world.update((2 * round + 7, 2), row(2 * round + 7, 3, "second"));
        world.patch((2 * round + 8, 1), row(2 * round + 8, 1, "third"));
        // Comes and goes between two flushes.
        world.insert(100 + round, 1, "brief");
        world.delete((100 + round, 1));
        world.flush(1, 1).await;
        let round = u64::from(round);
        assert_eq!(entries(&world).await, [2 * round, round]);
    }
    world.table.close().await;
}

#[tokio::test]
async fn a_row_that_one_transaction_deletes_and_inserts_again_stays_where_it_is() {
    let mut world = World::new().await;
    (0..30).for_each(|number| world.insert(number, 1, "first"));
    world.flush(1 << 20, 1 << 20).await;
    for number in 0..10 {
        let old = world.delete((number, 1)).unwrap();
        world.put(old);
    }
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.moved, landed.figures.files), (10, 0));
    let old = world.delete((1, 1)).unwrap();
    world.end_transaction();
    world.put(old);
    let landed = world.flush(1 << 20, 1 << 20).await;
    assert_eq!((landed.figures.moved, landed.figures.files), (0, 1), "by another transaction");
}

#[tokio::test]
async fn a_value_that_nobody_has_is_refused_with_the_rows_key() {
    let mut world = World::new().await;
    world.model.insert((7, 1), row(7, 1, "elsewhere"));
    world.patch((7, 1), row(7, 1, "second"));
    let segment = world.segment(1 << 20, None).await;
    let rewriter = Rewriter { writer: WriterOptions::default(), round_bytes: 1 << 20 };
    let refused = world.table.land_changes(segment, &[], &rewriter, lsn(9), &Patience::none()).await;
    let message = refused.err().unwrap().to_string();
    for words in ["column detail", "row id=", "created_at=2026-01-01", "lakebed skip --lsn 0/A"] {
        assert!(message.contains(words), "{message}");
    }
    assert!(!message.contains("second"), "{message}");
}

#[tokio::test]
async fn b2_changes_of_a_rolled_back_subtransaction_do_not_count_even_when_spooled() {
    for memory in [1, 1 << 20] {
        let mut world = World::new().await;
        (0..10).for_each(|number| world.insert(number, 1, "first"));
        world.flush(1 << 20, 1 << 20).await;
        world.transaction = 77;
        world.delete((3, 1));
        world.was_rolled_back(row(3, 1, "first"));
        world.transaction = 78;
        world.delete((4, 1));
        world.end_transaction();
        let commit = StreamedCommit { commit_lsn: Lsn(500), commit_time_micros: 1 };
        let mut segment = world.segment(memory, Some(commit)).await;
        segment.aborted.insert(77);
        assert_eq!(world.land(segment, 1 << 20).await.figures.rows, 1);
    }
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u32, u32),
    Delete(u32),
    Update(u32, u32, u32),
    Patch(u32, u32, u32),
    MoveBack(u32),
    Touch(u32),
    Truncate,
    End,
    Flush,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..60_u32, 1..4_u32).prop_map(|(number, on)| Action::Insert(number, on)),
        4 => any::<u32>().prop_map(Action::Delete),
        4 => (any::<u32>(), 0..60_u32, 1..4_u32).prop_map(|(which, number, on)| Action::Update(which, number, on)),
        4 => (any::<u32>(), 0..60_u32, 1..4_u32).prop_map(|(which, number, on)| Action::Patch(which, number, on)),
        3 => any::<u32>().prop_map(Action::MoveBack),
        3 => any::<u32>().prop_map(Action::Touch),
        1 => Just(Action::Truncate),
        3 => Just(Action::End),
        2 => Just(Action::Flush),
    ]
}

async fn play(actions: Vec<Action>, memory: usize, round_bytes: usize) {
    let mut world = World::new().await;
    for (step, action) in actions.into_iter().enumerate() {
        let text = format!("text {step}");
        let some = |world: &World, which: u32| {
            let keys: Vec<_> = world.model.keys().copied().collect();
            (!keys.is_empty()).then(|| keys[which as usize % keys.len()])
        };
        match action {
            Action::Insert(number, on) if !world.model.contains_key(&(number, on)) => world.insert(number, on, &text),
            Action::Insert(..) => {}
            Action::Delete(which) => {
                if let Some(key) = some(&world, which) {
                    world.delete(key);
                }
            }
            Action::Update(which, number, on) | Action::Patch(which, number, on) => {
                let Some(key) = some(&world, which) else { continue };
                let taken = world.model.contains_key(&(number, on)) && key != (number, on);
                let (number, on) = if taken { key } else { (number, on) };
                match action {
                    Action::Update(..) => world.update(key, row(number, on, &text)),
                    _ => world.patch(key, row(number, on, &text)),
                }
            }
            Action::MoveBack(which) => {
                if let Some(key) = some(&world, which)
                    && let Some(old) = world.delete(key)
                {
                    world.put(old);
                }
            }
            // An UPDATE that changes nothing.
            Action::Touch(which) => {
                if let Some(key) = some(&world, which) {
                    let same = world.model[&key].clone();
                    world.patch(key, same);
                }
            }
            Action::Truncate => world.truncate(),
            Action::End => world.end_transaction(),
            Action::Flush => {
                world.flush(memory, round_bytes).await;
            }
        }
    }
    world.flush(memory, round_bytes).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_the_table_equal_to_a_plain_list(
        actions in proptest::collection::vec(action(), 1..90),
        memory in prop_oneof![Just(1_usize), Just(1 << 20)],
        round_bytes in prop_oneof![Just(1_usize), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(actions, memory, round_bytes));
    }
}
