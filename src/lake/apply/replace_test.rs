//! **S1**: days that are replaced by a copy, in one commit, with the changes that came above its floor.

use super::apply_model::{World, row};
use crate::base::{DaySet, Partition};
use crate::lake::fixtures::{Lake, PATH, day, lsn, progress, security_event};
use crate::lake::{LakeError, LakeTable, Patience, mark_uncopied, uncopied};
use std::collections::BTreeSet;

fn days(numbers: &[u32]) -> DaySet {
    numbers.iter().map(|number| day(*number)).collect()
}

async fn marked(lake: &Lake) -> DaySet {
    let progress = progress();
    uncopied(&lake.location, PATH, &progress.pipeline, &progress.table).await.unwrap()
}

async fn files_of(world: &World, partition: Partition) -> BTreeSet<String> {
    let wanted = crate::lake::active::Wanted::Of([partition].into());
    let files = world.table.log.active_files(world.table.version(), crate::base::PartitionBy::Day, &wanted).await;
    files.unwrap().iter().map(|file| file.object_path()).collect()
}

#[tokio::test]
async fn s1_a_day_is_replaced_in_the_commit_that_takes_its_mark_away() {
    let mut world = World::new().await;
    for on in 1..=3 {
        (0..20).for_each(|number| world.insert(number, on, "wrong"));
    }
    world.flush(1 << 20, 1 << 20).await;
    world.table.mark_uncopied(&days(&[2, 3]), &Patience::none()).await.unwrap();
    assert_eq!(marked(&world.lake).await, days(&[2, 3]));
    let (first, second) = (files_of(&world, day(1)).await, files_of(&world, day(2)).await);
    world.replace_day(2);
    (0..10).for_each(|number| world.insert(number, 2, "right"));
    // Above the floor: what was copied changes, whether or not the former day had such a row.
    world.patch((1, 2), row(1, 2, "patched"));
    world.update((2, 2), row(102, 2, "updated"));
    world.delete((3, 2));
    world.insert(3, 2, "again");
    world.end_transaction();
    let mut segment = world.segment(1, None).await;
    segment.replaces = days(&[2]);
    world.land(segment, 1).await;
    assert_eq!(*world.table.uncopied(), days(&[3]));
    assert_eq!(marked(&world.lake).await, days(&[3]));
    assert_eq!(files_of(&world, day(1)).await, first, "a day that is none of the copy's keeps its files");
    assert!(files_of(&world, day(2)).await.is_disjoint(&second));
    world.replace_day(3);
    let mut segment = world.segment(1, None).await;
    segment.replaces = days(&[3]);
    world.land(segment, 1).await;
    assert!(files_of(&world, day(3)).await.is_empty(), "a day that PostgreSQL has no rows of is empty");
    assert!(marked(&world.lake).await.is_empty());
}

/// Days beside the copy were emptied when the stream came to the TRUNCATE, and have rows since.
#[tokio::test]
async fn s1_a_truncate_that_was_kept_aside_empties_the_copied_days_alone() {
    let mut world = World::new().await;
    world.insert(1, 1, "after the TRUNCATE");
    world.flush(1 << 20, 1 << 20).await;
    world.table.mark_uncopied(&days(&[2]), &Patience::none()).await.unwrap();
    world.insert(7, 2, "copied");
    world.truncate_day(2);
    world.insert(8, 2, "after the TRUNCATE");
    world.end_transaction();
    let mut segment = world.segment(1, None).await;
    segment.replaces = days(&[2]);
    world.land(segment, 1).await;
}

#[tokio::test]
async fn s1_a_whole_table_is_replaced_with_all_of_its_days() {
    let mut world = World::new().await;
    (1..=3).for_each(|on| world.insert(on, on, "wrong"));
    world.flush(1 << 20, 1 << 20).await;
    let mut marks = DaySet::whole();
    marks.insert(day(1));
    world.table.mark_uncopied(&marks, &Patience::none()).await.unwrap();
    (1..=3).for_each(|on| world.replace_day(on));
    world.insert(9, 2, "right");
    let mut segment = world.segment(1, None).await;
    segment.replaces = DaySet::whole();
    world.land(segment, 1).await;
    assert!(marked(&world.lake).await.is_empty());
}

#[tokio::test]
async fn marks_are_set_beside_the_feed_which_finds_them() {
    let lake = Lake::new();
    let (shape, owner) = (security_event(), progress());
    let marked_at_first = days(&[1, 2]);
    let create = LakeTable::create_to_copy(&lake.location, PATH, &shape, &owner, lsn(1), &marked_at_first);
    let mut feed = create.await.unwrap();
    assert_eq!(*feed.uncopied(), days(&[1, 2]));
    assert_eq!(marked(&lake).await, days(&[1, 2]), "they came with the table");
    let mark = async |table: &crate::base::TableName, of: &DaySet| {
        mark_uncopied(&lake.location, PATH, &owner.pipeline, table, of, &Patience::none()).await
    };
    mark(&owner.table, &days(&[5])).await.unwrap();
    feed.look_for_marks().await.unwrap();
    assert_eq!(*feed.uncopied(), days(&[1, 2, 5]));
    mark(&owner.table, &days(&[6])).await.unwrap();
    feed.land(&[], lsn(2), &Patience::none()).await.unwrap();
    assert_eq!(*feed.uncopied(), days(&[1, 2, 5, 6]), "its own commit meets them");
    let reopened = LakeTable::open(&lake.location, PATH, &shape, &owner).await.unwrap();
    assert_eq!((reopened.uncopied(), reopened.recorded()), (feed.uncopied(), lsn(2)));
    let stranger = crate::base::TableName::new("public", "other");
    assert!(matches!(mark(&stranger, &days(&[7])).await, Err(LakeError::NotLakebed { .. })));
}
