//! What the archive needs next, and when. Pure: the clock is the caller's.

use crate::base::Backoff;
use crate::config::Schedule;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// After a round in which something failed that may go well another time.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(1_800);
/// Rounds between two that are scheduled: what keeps failing is for the next night, and for a person.
const RETRIES_MAX: u32 = 8;
/// A proof takes a fifth of the time at most: the server has other things to do.
const REST_PER_PROOF: u32 = 4;
/// No rest is longer, so that ninety days are proved within a day.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Balance and drop what waits.
    Round,
    /// Prove the next day that is complete.
    Proof,
}

/// When what is due.
#[derive(Debug)]
pub(super) struct Agenda {
    schedule: Schedule,
    proof_interval: Duration,
    round: Option<DateTime<Utc>>,
    retry: Option<DateTime<Utc>>,
    retries: u32,
    backoff: Backoff,
    proof: DateTime<Utc>,
}

impl Agenda {
    /// The first proof is due soon, when the stream has had a moment to begin.
    pub(super) fn new(schedule: Schedule, proof_interval: Duration, now: DateTime<Utc>) -> Self {
        let round = schedule.next_after(now);
        let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let proof = now + delta(proof_interval / 10);
        Self { schedule, proof_interval, round, retry: None, retries: 0, backoff, proof }
    }

    /// What comes next, and when.
    pub(super) fn next(&self) -> (DateTime<Utc>, Duty) {
        let round = self.round.into_iter().chain(self.retry).min();
        match round {
            Some(round) if round <= self.proof => (round, Duty::Round),
            _ => (self.proof, Duty::Proof),
        }
    }

    /// A round over everything ended; `again`: something may go well another time.
    pub(super) fn round_ended(&mut self, now: DateTime<Utc>, again: bool, jitter: f64) {
        if self.round.is_some_and(|round| round <= now) {
            self.round = self.schedule.next_after(now);
            self.retries = 0;
            self.backoff.reset();
        }
        self.retry = None;
        self.try_again(now, again, jitter);
    }

    /// A round over what was asked for ended: it takes nothing from the schedule, and from what failed before.
    pub(super) fn asked_round_ended(&mut self, now: DateTime<Utc>, again: bool, jitter: f64) {
        if self.retry.is_none() {
            self.try_again(now, again, jitter);
        }
    }

    fn try_again(&mut self, now: DateTime<Utc>, again: bool, jitter: f64) {
        if again && self.retries < RETRIES_MAX {
            self.retries += 1;
            self.retry = Some(now + delta(self.backoff.next(jitter)));
        }
    }

    /// A day was proved (or could not be), and there may be more of them.
    pub(super) fn day_proved(&mut self, now: DateTime<Utc>, took: Duration) {
        self.proof = now + delta((took * REST_PER_PROOF).min(LONGEST_REST));
    }

    /// No further day is due.
    pub(super) fn all_proved(&mut self, now: DateTime<Utc>) {
        self.proof = now + delta(self.proof_interval);
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn agenda() -> Agenda {
        Agenda::new(Schedule::parse("0 3 * * *").unwrap(), Duration::from_secs(600), at("25T02:55:00"))
    }

    #[test]
    fn proofs_are_made_between_rounds() {
        let mut agenda = agenda();
        assert_eq!(agenda.next(), (at("25T02:56:00"), Duty::Proof));
        agenda.day_proved(at("25T02:56:10"), Duration::from_secs(10));
        assert_eq!(agenda.next(), (at("25T02:56:50"), Duty::Proof), "a fifth of the time");
        agenda.day_proved(at("25T02:57:00"), Duration::from_secs(3600));
        assert_eq!(agenda.next(), (at("25T03:00:00"), Duty::Round));
        agenda.round_ended(at("25T03:00:05"), false, 1.0);
        assert_eq!(agenda.next(), (at("25T03:07:00"), Duty::Proof));
        agenda.all_proved(at("26T02:59:00"));
        assert_eq!(agenda.next(), (at("26T03:00:00"), Duty::Round));
    }

    #[test]
    fn what_failed_is_tried_again_a_few_times_until_the_next_night() {
        let mut agenda = agenda();
        agenda.all_proved(at("26T00:00:00"));
        agenda.round_ended(at("25T03:00:01"), true, 1.0);
        let mut rounds = Vec::new();
        loop {
            let (due, duty) = agenda.next();
            if duty == Duty::Proof || due >= at("26T00:00:00") {
                break;
            }
            rounds.push(due);
            agenda.round_ended(due, true, 1.0);
        }
        assert_eq!(rounds.len(), 8, "{rounds:?}");
        assert_eq!(rounds[..2], [at("25T03:01:01"), at("25T03:03:01")]);
        agenda.all_proved(at("27T00:00:00"));
        assert_eq!(agenda.next(), (at("26T03:00:00"), Duty::Round));
        agenda.round_ended(at("26T03:00:02"), true, 1.0);
        assert_eq!(agenda.next(), (at("26T03:01:02"), Duty::Round), "a new night, a new patience");
    }

    #[test]
    fn a_round_that_was_asked_for_leaves_the_schedule_as_it_is() {
        let mut agenda = agenda();
        agenda.all_proved(at("26T00:00:00"));
        agenda.asked_round_ended(at("25T03:02:00"), false, 1.0);
        assert_eq!(agenda.next(), (at("25T03:00:00"), Duty::Round), "though it lasted beyond the hour");
        agenda.round_ended(at("25T03:03:00"), true, 1.0);
        agenda.asked_round_ended(at("25T03:03:10"), false, 1.0);
        assert_eq!(agenda.next(), (at("25T03:04:00"), Duty::Round), "what failed in the night is tried again");
    }
}
