//! How far a table is, and who says so.

use crate::base::{Lsn, Partition, TableName};
use std::ops::Range;

/// The first part of every application id that records progress.
pub(super) const APPLICATION_PREFIX: &str = "lakebed/";

/// The first part of the application ids that say since when a table stands still. It does not begin with
/// [`APPLICATION_PREFIX`], so it never counts as a writer.
const PARKED_PREFIX: &str = "lakebed-parked/";

/// The first part of the application ids that say that a stretch was not followed; it counts as no writer either.
const GAP_PREFIX: &str = "lakebed-gap/";

/// The first part of the application ids that say what has still to be copied from PostgreSQL; it counts as no writer either.
pub(super) const COPY_PREFIX: &str = "lakebed-copy/";

/// Whose progress a table records: one pipeline of one PostgreSQL system.
///
/// The epoch rises when a server is restored or upgraded and its positions start again at lower numbers, so that old and
/// new positions are never compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: String,
    /// The pipeline's name: its slot.
    pub pipeline: String,
    /// The source table.
    pub table: TableName,
    /// Counts restarts of the position space; 0 at first.
    pub epoch: u32,
}

impl Progress {
    /// The `appId` of the Delta transaction identifier: `lakebed/<system>/<pipeline>/<schema.table>/<epoch>` (Delta
    /// protocol, section "Transaction Identifiers").
    pub fn app_id(&self) -> String {
        format!("{}{}", self.feed(), self.epoch)
    }

    /// The `appId` under which the table is parked: its version is the position since which the table stands still, and 0 when
    /// it does not any more.
    pub(super) fn parked_app_id(&self) -> String {
        self.app_id_under(PARKED_PREFIX)
    }

    /// Whether an `appId` is [`Self::parked_app_id`] on some system, in some epoch.
    pub(super) fn is_parked_app_id(&self, app_id: &str) -> bool {
        let own = self.feed();
        let of_any_system = own.splitn(3, '/').nth(2).unwrap_or_default();
        let rest = app_id.strip_prefix(PARKED_PREFIX).and_then(|rest| rest.split_once('/'));
        rest.is_some_and(|(_, rest)| rest.strip_prefix(of_any_system).is_some_and(|epoch| !epoch.contains('/')))
    }

    /// The `appId` of one stretch that was not followed: what was recorded under it is recorded once.
    pub(super) fn gap_app_id(&self, gap: &Range<Lsn>) -> String {
        format!("{}/{:016X}-{:016X}", self.app_id_under(GAP_PREFIX), gap.start.0, gap.end.0)
    }

    fn app_id_under(&self, prefix: &str) -> String {
        let app_id = self.app_id();
        format!("{prefix}{}", app_id.strip_prefix(APPLICATION_PREFIX).unwrap_or(&app_id))
    }

    /// Whether an `appId` is [`Self::app_id`] on some system, in some epoch.
    pub(super) fn is_app_id_on_any_system(&self, app_id: &str) -> bool {
        let own = self.feed();
        let of_any_system = own.splitn(3, '/').nth(2).unwrap_or_default();
        let rest = app_id.strip_prefix(APPLICATION_PREFIX).and_then(|rest| rest.split_once('/'));
        rest.is_some_and(|(_, rest)| rest.strip_prefix(of_any_system).is_some_and(|epoch| !epoch.contains('/')))
    }

    /// The application id without its epoch.
    fn feed(&self) -> String {
        let part = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        let table = part(&self.table.to_string());
        format!("{APPLICATION_PREFIX}{}/{}/{table}/", part(&self.system_identifier), part(&self.pipeline))
    }

    /// Whether `app_id`, found in a table's log, forbids this pipeline to write: another feed, or a later epoch of this one.
    pub(super) fn is_forbidden_by(&self, app_id: &str) -> bool {
        if !app_id.starts_with(APPLICATION_PREFIX) {
            return false;
        }
        let epoch = app_id.strip_prefix(&self.feed()).and_then(|epoch| epoch.parse::<u32>().ok());
        epoch.is_none_or(|epoch| epoch > self.epoch)
    }
}

/// The `appId` that says whether a day has still to be copied from PostgreSQL to the table that a feed with this `appId` has, or, without a
/// day, the whole table: its version is positive then, and 0 once it is copied.
pub(super) fn copy_app_id(feed: &str, day: Option<Partition>) -> String {
    let rest = feed.strip_prefix(APPLICATION_PREFIX).unwrap_or(feed);
    match day {
        Some(day) => format!("{COPY_PREFIX}{rest}/{day}"),
        None => format!("{COPY_PREFIX}{rest}"),
    }
}

/// Proof that everything up to a position is in a table's lake: what a slot may be acknowledged with (W1).
///
/// Only this room makes one, from a commit that landed or from the log itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(Lsn);

impl Durable {
    pub(super) fn new(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position: everything that committed at or before it is in the lake.
    pub fn lsn(&self) -> Lsn {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(pipeline: &str, epoch: u32) -> Progress {
        let table = TableName::new("public", "security_event");
        Progress { system_identifier: "7412".to_owned(), pipeline: pipeline.to_owned(), table, epoch }
    }

    #[test]
    fn an_application_id_names_everything_and_cannot_be_forged_by_a_name() {
        assert_eq!(progress("lakebed", 0).app_id(), "lakebed/7412/lakebed/public.security_event/0");
        assert_eq!(progress("a/b%", 1).app_id(), "lakebed/7412/a%2Fb%25/public.security_event/1");
        assert_eq!(progress("a/b%", 1).parked_app_id(), "lakebed-parked/7412/a%2Fb%25/public.security_event/1");
        let elsewhere = Progress { system_identifier: "1".to_owned(), ..progress("a/b%", 0) };
        assert!(elsewhere.is_parked_app_id(&progress("a/b%", 1).parked_app_id()));
        assert!(!elsewhere.is_parked_app_id(&progress("b", 1).parked_app_id()));
        assert!(!elsewhere.is_parked_app_id(&progress("a/b%", 1).app_id()));
        assert_eq!(
            progress("lakebed", 0).gap_app_id(&(Lsn(16)..Lsn(32))),
            "lakebed-gap/7412/lakebed/public.security_event/0/0000000000000010-0000000000000020"
        );
    }

    #[test]
    fn another_feed_or_a_later_epoch_forbids_writing() {
        let ours = progress("lakebed", 1);
        assert!(!ours.is_forbidden_by(&progress("lakebed", 0).app_id()));
        assert!(!ours.is_forbidden_by(&ours.app_id()));
        assert!(!ours.is_forbidden_by("spark-streaming-query"));
        assert!(!ours.is_forbidden_by(&progress("other", 2).parked_app_id()));
        assert!(!ours.is_forbidden_by(&progress("other", 2).gap_app_id(&(Lsn(1)..Lsn(2)))));
        assert!(ours.is_forbidden_by(&progress("lakebed", 2).app_id()));
        assert!(ours.is_forbidden_by(&progress("other", 0).app_id()));
    }
}
