//! Which days of a table have still to be copied from PostgreSQL, as the table's own log says it.
//!
//! A day that was there before lakebed came, and one that did not balance and is to be taken anew, is marked: until its copy has landed,
//! nobody relies on what the lake has of it, and whoever follows the stream may pass its changes by. The mark is a transaction identifier
//! of its own, so it goes with the table, any process can set it beside the feed, and the commit that brings the copy takes it away.

use super::actions;
use super::active::Wanted;
use super::commit::Entry;
use super::error::LakeError;
use super::location::LakeLocation;
use super::patience::Patience;
use super::progress::{Progress, copy_app_id};
use super::receipt_book::dropped_partitions;
use super::table::{LakeTable, Place};
use crate::base::{DaySet, Partition, TableName};
use std::collections::{BTreeMap, BTreeSet};

/// The transaction version of a day that has still to be copied.
const MARKED: i64 = 1;
/// And of one that is copied.
const COPIED: i64 = 0;

/// What a table's log says of a feed's days.
pub(super) fn marked_days(feed: &str, transactions: &BTreeMap<String, i64>) -> DaySet {
    let mut days = DaySet::default();
    for (app_id, version) in transactions {
        note(&mut days, feed, app_id, *version);
    }
    days
}

/// Takes one transaction identifier into account.
pub(super) fn note(days: &mut DaySet, feed: &str, app_id: &str, version: i64) {
    let Some(rest) = app_id.strip_prefix(&copy_app_id(feed, None)) else { return };
    let named = match rest {
        "" => DaySet::whole(),
        rest => match rest.strip_prefix('/').map(str::parse::<Partition>) {
            Some(Ok(day)) => DaySet::from_iter([day]),
            _ => return,
        },
    };
    match version > COPIED {
        true => days.extend(&named),
        false if named.is_whole() => *days = days.days().collect(),
        false => days.subtract(&named),
    }
}

/// The transaction identifiers that mark days.
pub(super) fn marks(feed: &str, days: &DaySet) -> Vec<(String, i64)> {
    let whole = days.is_whole().then_some(None);
    let each = whole.into_iter().chain(days.days().map(Some));
    each.map(|day| (copy_app_id(feed, day), MARKED)).collect()
}

/// Those that take the marks of `copied` away, of all that are there.
pub(super) fn unmarks(feed: &str, marked: &DaySet, copied: &DaySet) -> Vec<(String, i64)> {
    let whole = (marked.is_whole() && copied.is_whole()).then_some(None);
    let each = whole.into_iter().chain(marked.days().filter(|day| copied.contains(*day)).map(Some));
    each.map(|day| (copy_app_id(feed, day), COPIED)).collect()
}

/// Which days of a pipeline's table have still to be copied; none of a table that is not there.
///
/// # Errors
/// A log that cannot be read; what the store says.
pub async fn uncopied(location: &LakeLocation, path: &str, slot: &str, table: &TableName) -> Result<DaySet, LakeError> {
    let place = Place::unchecked(location, path, &anybodys(slot, table))?;
    let Some(state) = place.log.look().await? else { return Ok(DaySet::default()) };
    let feed = feed_of(&state.transactions, slot, table);
    Ok(feed.map_or_else(DaySet::default, |feed| marked_days(feed, &state.transactions)))
}

/// Marks days of a pipeline's table, beside whoever feeds it: they are to be copied again. What the lake has of them stays until then.
///
/// # Errors
/// [`LakeError::Missing`]; [`LakeError::NotLakebed`] where the pipeline does not feed the table; what the store says.
pub async fn mark_uncopied(
    location: &LakeLocation,
    path: &str,
    slot: &str,
    table: &TableName,
    days: &DaySet,
    patience: &Patience,
) -> Result<(), LakeError> {
    let place = Place::unchecked(location, path, &anybodys(slot, table))?;
    let Some(state) = place.log.read().await? else {
        return Err(LakeError::Missing { location: place.log.location });
    };
    let Some(feed) = feed_of(&state.transactions, slot, table) else {
        return Err(LakeError::NotLakebed { location: place.log.location });
    };
    let mut opened = LakeTable::open_to_maintain(location, path).await?;
    opened.refuse_what_is_only_here(table, days).await?;
    opened.put_marks(&marks(feed, days), patience).await?;
    opened.close().await;
    Ok(())
}

/// For the names alone.
fn anybodys(slot: &str, table: &TableName) -> Progress {
    Progress { system_identifier: String::new(), pipeline: slot.to_owned(), table: table.clone(), epoch: 0 }
}

/// The application id under which a pipeline feeds a table, in its latest epoch.
fn feed_of<'a>(transactions: &'a BTreeMap<String, i64>, slot: &str, table: &TableName) -> Option<&'a str> {
    let of_any_system = anybodys(slot, table);
    transactions.keys().filter(|app_id| of_any_system.is_app_id_on_any_system(app_id)).map(String::as_str).next_back()
}

impl LakeTable {
    /// The days that have still to be copied, as far as this handle knows.
    pub fn uncopied(&self) -> &DaySet {
        &self.uncopied
    }

    /// Looks for what others have written since, marks among it.
    ///
    /// # Errors
    /// As a commit that meets another's.
    pub async fn look_for_marks(&mut self) -> Result<(), LakeError> {
        if self.in_doubt || self.parked.is_some() { Ok(()) } else { self.catch_up().await }
    }

    /// Marks days of this very feed. A single day is marked also where the lake alone has it: whoever copies finds that out, keeps it as it
    /// is and says so; the feed must not end for it.
    ///
    /// # Errors
    /// As [`Self::land`].
    pub async fn mark_uncopied(&mut self, days: &DaySet, patience: &Patience) -> Result<(), LakeError> {
        let table = self.rules.progress.table.clone();
        let mut waiting = patience.begin();
        while days.is_whole()
            && let Err(error) = self.refuse_what_is_only_here(&table, days).await
        {
            waiting.wait_out(error).await?;
        }
        self.put_marks(&marks(&self.rules.progress.app_id(), days), patience).await?;
        self.uncopied.extend(days);
        Ok(())
    }

    /// Takes marks of this very feed away without a copy: the table is to keep what it has of these days.
    ///
    /// # Errors
    /// As [`Self::land`].
    pub async fn unmark(&mut self, days: &DaySet, patience: &Patience) -> Result<(), LakeError> {
        self.put_marks(&unmarks(&self.rules.progress.app_id(), &self.uncopied, days), patience).await?;
        self.uncopied.subtract(days);
        Ok(())
    }

    /// Days that were dropped from PostgreSQL, and of which there are rows here, would be empty after a copy.
    async fn refuse_what_is_only_here(&self, table: &TableName, days: &DaySet) -> Result<(), LakeError> {
        let dropped = dropped_partitions(&self.log.lake, table, self.schema.partition_by).await?;
        let mut only_here: DaySet = dropped.into_iter().filter(|day| days.contains(*day)).collect();
        if only_here.is_empty() {
            return Ok(());
        }
        let files = self.log.active_files(self.version, self.schema.partition_by, &Wanted::All).await?;
        let held: BTreeSet<Partition> = files.into_iter().map(|file| file.partition).collect();
        only_here = only_here.days().filter(|day| held.contains(day)).collect();
        if only_here.is_empty() {
            return Ok(());
        }
        Err(LakeError::OnlyHere { table: table.clone(), days: only_here.to_string() })
    }

    /// A second time does no harm, so an attempt whose outcome is unknown is made again.
    async fn put_marks(&mut self, marks: &[(String, i64)], patience: &Patience) -> Result<(), LakeError> {
        let mut waiting = patience.begin();
        loop {
            let entry =
                Entry::new(|commit, now| actions::marking(marks, commit, now), ["lake.before_mark", "lake.after_mark"]);
            let put = match self.in_doubt {
                true => Err(LakeError::InDoubt { location: self.log.location.clone() }),
                false => self.put_entry(&entry).await,
            };
            match put {
                Ok(version) => {
                    self.checkpoints.after_commit(version, &self.log_store);
                    waiting.worked(&self.log.location);
                    return Ok(());
                }
                Err(error) => self.settle(&mut waiting, error).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: &str = "lakebed/7412/lakebed/public.event/0";

    fn day(text: &str) -> Partition {
        text.parse().unwrap()
    }

    fn all(marks: &[Vec<(String, i64)>]) -> BTreeMap<String, i64> {
        marks.iter().flatten().cloned().collect()
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let two = DaySet::from_iter([day("2026-01-02"), day("2026-01-03")]);
        let log = all(&[marks(FEED, &two), vec![(FEED.to_owned(), 5)]]);
        assert!(log.contains_key("lakebed-copy/7412/lakebed/public.event/0/2026-01-02"), "{log:?}");
        assert_eq!(marked_days(FEED, &log), two);
        assert!(marked_days("lakebed/7412/lakebed/public.event/00", &log).is_empty());
        assert!(marked_days("lakebed/7412/lakebed/public.even", &log).is_empty());
        let one = DaySet::from_iter([day("2026-01-02")]);
        let log = all(&[marks(FEED, &two), unmarks(FEED, &two, &one)]);
        assert_eq!(marked_days(FEED, &log), DaySet::from_iter([day("2026-01-03")]));
    }

    #[test]
    fn a_whole_table_is_unmarked_with_all_of_its_days() {
        let mut marked = DaySet::whole();
        marked.insert(day("2026-01-02"));
        let log = all(&[marks(FEED, &marked)]);
        assert_eq!(marked_days(FEED, &log), marked);
        let one = DaySet::from_iter([day("2026-01-02")]);
        assert_eq!(
            marked_days(FEED, &all(&[vec![], marks(FEED, &marked), unmarks(FEED, &marked, &one)])),
            DaySet::whole()
        );
        assert!(marked_days(FEED, &all(&[marks(FEED, &marked), unmarks(FEED, &marked, &DaySet::whole())])).is_empty());
    }

    #[test]
    fn the_feed_is_found_whatever_the_system() {
        let table = TableName::new("public", "event");
        let log = all(&[vec![(FEED.to_owned(), 5), ("lakebed/7412/other/public.event/0".to_owned(), 5)]]);
        assert_eq!(feed_of(&log, "lakebed", &table), Some(FEED));
        assert_eq!(feed_of(&log, "nobody", &table), None);
    }
}
