//! What `repair` prints, as lines for people and as the documented JSON.

use super::Exit;
use crate::base::TableName;
use crate::pipeline::{CopyAgain, PipelineError, Rehearsal, RepairDay};
use crate::reconcile::{DayVerdict, Span, Standing};
use serde_json::{Value, json};

/// The whole.
#[derive(Debug)]
pub(super) struct RepairReport {
    pub(super) executed: bool,
    pub(super) tables: Vec<TableRepair>,
}

/// Of one table.
#[derive(Debug)]
pub(super) struct TableRepair {
    pub(super) table: TableName,
    pub(super) error: Option<String>,
    pub(super) copy: CopyAgain,
    days: Vec<DayRepair>,
}

/// Of one day.
#[derive(Debug)]
struct DayRepair {
    day: String,
    span: Span,
    outcome: &'static str,
    reasons: Vec<String>,
    after: Option<(&'static str, Vec<String>)>,
}

/// A verdict's name in the JSON, and what is to be said with it.
fn named(verdict: &DayVerdict) -> (&'static str, Vec<String>) {
    match verdict {
        DayVerdict::Balances => ("balances", Vec::new()),
        DayVerdict::BalancesSoFar => ("balances_so_far", Vec::new()),
        DayVerdict::Differs { reasons } => ("differs", reasons.clone()),
        DayVerdict::NotJudged(error) => ("not_judged", vec![error.to_string()]),
    }
}

fn standing(standing: &Standing) -> (&'static str, Vec<String>) {
    match standing {
        Standing::Asked => ("not_judged", Vec::new()),
        Standing::Dropped { receipts } => {
            let numbers: Vec<String> = receipts.iter().map(ToString::to_string).collect();
            ("dropped", vec![format!("dropped by receipt {}: never touched, see lakebed audit", numbers.join(", "))])
        }
        Standing::NoPlace => {
            let reason =
                "PostgreSQL has no partition of it, attached or waiting, and no receipt: a copy would empty it";
            ("no_partition", vec![reason.to_owned()])
        }
        Standing::NotCopied => ("not_copied", vec!["marked to be copied already".to_owned()]),
    }
}

impl DayRepair {
    fn of(RepairDay { day, verdict }: RepairDay) -> Self {
        let (outcome, reasons) = verdict.as_ref().map_or_else(|| standing(&day.standing), named);
        Self { day: day.partition.to_string(), span: day.span, outcome, reasons, after: None }
    }

    /// What counts in the end.
    fn last(&self) -> &'static str {
        self.after.as_ref().map_or(self.outcome, |(outcome, _)| outcome)
    }

    fn lines(&self, table: &TableName) -> String {
        let line = |what: &str, reasons: &[String]| match reasons {
            [] => format!("{table} {}: {what}\n", self.day),
            reasons => reasons.iter().map(|reason| format!("{table} {}: {what}: {reason}\n", self.day)).collect(),
        };
        let before = match self.outcome {
            "differs" => line("does not balance", &self.reasons),
            "not_judged" => line("not judged", &self.reasons),
            "dropped" | "no_partition" => line("left alone", &self.reasons),
            "not_copied" => line("not copied yet", &self.reasons),
            _ => String::new(),
        };
        let after = match &self.after {
            None => String::new(),
            Some(("balances", _)) => line("copied again, balances", &[]),
            Some(("balances_so_far", _)) => line("copied again, balances as far as its hours are over", &[]),
            Some(("differs", reasons)) => line("copied again, still does not balance", reasons),
            Some((_, reasons)) => line("copied again, not judged", reasons),
        };
        before + &after
    }

    fn to_json(&self) -> Value {
        let (after, reasons_after) = match &self.after {
            Some((outcome, reasons)) => (Some(*outcome), reasons.clone()),
            None => (None, Vec::new()),
        };
        json!({
            "day": self.day, "outcome": self.outcome, "reasons": self.reasons, "after": after, "reasons_after": reasons_after,
        })
    }
}

impl TableRepair {
    pub(super) fn of(rehearsal: Rehearsal) -> Self {
        let Rehearsal { table, days, copy } = rehearsal;
        let error = match &copy {
            CopyAgain::Days(_) => None,
            CopyAgain::Refused { kept } => Some(format!(
                "its updates and deletes do not name their day, so it can be copied as a whole only, and PostgreSQL does not have {kept} \
                 any more: nothing is copied; give it a replica identity with the partition column, set it up anew in an empty lake \
                 folder, or mend the days by hand"
            )),
        };
        Self { table, error, copy, days: days.into_iter().map(DayRepair::of).collect() }
    }

    pub(super) fn failed(table: TableName, error: &PipelineError) -> Self {
        Self { table, error: Some(error.to_string()), copy: CopyAgain::Days(Default::default()), days: Vec::new() }
    }

    /// The days that are balanced again once they are copied: those that differed, and those that were marked before.
    pub(super) fn marked(&self) -> Vec<Span> {
        let CopyAgain::Days(copied) = &self.copy else { return Vec::new() };
        let is_copied = |day: &&DayRepair| match day.outcome {
            "differs" | "not_copied" => true,
            "balances" | "balances_so_far" | "not_judged" => copied.is_whole(),
            _ => false,
        };
        self.days.iter().filter(is_copied).map(|day| day.span).collect()
    }

    pub(super) fn after(&mut self, balanced: Vec<(Span, DayVerdict)>) {
        for (span, verdict) in balanced {
            if let Some(day) = self.days.iter_mut().find(|day| day.span == span) {
                day.after = Some(named(&verdict));
            }
        }
    }

    fn count(&self, outcomes: &[&str]) -> usize {
        self.days.iter().filter(|day| outcomes.contains(&day.outcome)).count()
    }

    fn any_last(&self, outcome: &str) -> bool {
        self.days.iter().any(|day| day.last() == outcome)
    }

    fn counts(&self) -> [usize; 4] {
        [
            self.count(&["balances", "balances_so_far"]),
            self.count(&["differs"]),
            self.count(&["not_judged", "not_copied"]),
            self.count(&["dropped", "no_partition"]),
        ]
    }

    fn to_text(&self, executed: bool) -> String {
        let mut text: String = self.days.iter().map(|day| day.lines(&self.table)).collect();
        let [balance, differ, not_judged, left_alone] = self.counts();
        if self.error.is_none() || !self.days.is_empty() {
            let so_far = match self.count(&["balances_so_far"]) {
                0 => String::new(),
                days => format!(" ({days} of them as far as their hours are over)"),
            };
            text.push_str(&format!(
                "{}: {balance} days balance{so_far}, {differ} do not, {not_judged} not judged, {left_alone} left alone\n",
                self.table
            ));
        }
        match (&self.copy, executed) {
            (CopyAgain::Days(days), true) if !days.is_empty() => {
                text.push_str(&format!("{}: copied again: {days}\n", self.table));
            }
            (CopyAgain::Days(days), false) if !days.is_empty() => {
                text.push_str(&format!("{}: would be copied again: {days}\n", self.table));
            }
            _ => {}
        }
        text.extend(self.error.as_ref().map(|error| format!("{}: {error}\n", self.table)));
        text
    }

    fn to_json(&self, executed: bool) -> Value {
        let [balance, differ, not_judged, left_alone] = self.counts();
        let copied: Option<Vec<String>> = match &self.copy {
            CopyAgain::Days(days) if executed && days.is_whole() => Some(vec!["all".to_owned()]),
            CopyAgain::Days(days) if executed && !days.is_empty() => {
                Some(days.days().map(|day| day.to_string()).collect())
            }
            _ => None,
        };
        json!({
            "table": self.table.to_string(), "error": self.error, "balance": balance, "differ": differ,
            "not_judged": not_judged, "left_alone": left_alone, "copied": copied,
            "days": self.days.iter().map(DayRepair::to_json).collect::<Vec<_>>(),
        })
    }
}

impl RepairReport {
    pub(super) fn exit(&self) -> Exit {
        let any = |which: &dyn Fn(&TableRepair) -> bool| self.tables.iter().any(which);
        if any(&|table| table.any_last("differs")) {
            Exit::Unbalanced
        } else if any(&|table| table.error.is_some() || table.any_last("not_judged") || table.any_last("not_copied")) {
            Exit::Failed
        } else {
            Exit::Done
        }
    }

    pub(super) fn to_text(&self) -> String {
        let mut text: String = self.tables.iter().map(|table| table.to_text(self.executed)).collect();
        let copies = |table: &TableRepair| matches!(&table.copy, CopyAgain::Days(days) if !days.is_empty());
        if !self.executed && self.tables.iter().any(copies) {
            text.push_str("nothing was changed: --execute copies these days again\n");
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let tables: Vec<Value> = self.tables.iter().map(|table| table.to_json(self.executed)).collect();
        json!({ "executed": self.executed, "tables": tables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DaySet, PartitionBy};
    use crate::reconcile::{DayToBalance, ReconcileError};

    fn day(text: &str, standing: Standing, verdict: Option<DayVerdict>) -> RepairDay {
        let partition = PartitionBy::Day.partition_of(text.parse().unwrap());
        let lower = partition.first_day();
        let span = Span { lower, upper: lower.succ_opt().unwrap() };
        RepairDay { day: DayToBalance { partition, span, standing }, verdict }
    }

    fn report(executed: bool) -> RepairReport {
        let table = TableName::new("public", "event");
        let differs = || Some(DayVerdict::Differs { reasons: vec!["the lake has 4 rows".to_owned()] });
        let days = vec![
            day("2026-01-01", Standing::Dropped { receipts: vec![7] }, None),
            day("2026-01-02", Standing::Asked, Some(DayVerdict::Balances)),
            day("2026-01-03", Standing::Asked, differs()),
            day("2026-01-04", Standing::Asked, Some(DayVerdict::BalancesSoFar)),
        ];
        let copy = CopyAgain::Days(DaySet::from_iter([days[2].day.partition]));
        let rehearsal = Rehearsal { table, days, copy };
        RepairReport { executed, tables: vec![TableRepair::of(rehearsal)] }
    }

    #[test]
    fn a_rehearsal_says_what_differs_and_changes_nothing() {
        let report = report(false);
        assert_eq!(report.exit(), Exit::Unbalanced);
        let expected = "public.event 2026-01-01: left alone: dropped by receipt 7: never touched, see lakebed audit\n\
                        public.event 2026-01-03: does not balance: the lake has 4 rows\n\
                        public.event: 2 days balance (1 of them as far as their hours are over), 1 do not, 0 not judged, 1 left alone\n\
                        public.event: would be copied again: 2026-01-03\n\
                        nothing was changed: --execute copies these days again\n";
        assert_eq!(report.to_text(), expected);
    }

    #[test]
    fn the_json_is_the_documented_contract() {
        let mut report = report(true);
        let marked = report.tables[0].marked();
        assert_eq!(marked.len(), 1);
        report.tables[0].after(vec![(marked[0], DayVerdict::Balances)]);
        assert_eq!(report.exit(), Exit::Done);
        let day = |day: &str, outcome: &str, reasons: &[&str], after: Option<&str>| json!({"day": day, "outcome": outcome, "reasons": reasons, "after": after, "reasons_after": []});
        let expected = json!({"executed": true, "tables": [{
            "table": "public.event", "error": null, "balance": 2, "differ": 1, "not_judged": 0, "left_alone": 1,
            "copied": ["2026-01-03"],
            "days": [day("2026-01-01", "dropped", &["dropped by receipt 7: never touched, see lakebed audit"], None),
                     day("2026-01-02", "balances", &[], None),
                     day("2026-01-03", "differs", &["the lake has 4 rows"], Some("balances")),
                     day("2026-01-04", "balances_so_far", &[], None)]}]});
        assert_eq!(report.to_json(), expected);
        assert!(report.to_text().contains("public.event 2026-01-03: copied again, balances\n"), "{}", report.to_text());
    }

    #[test]
    fn what_could_not_be_told_is_no_success() {
        let table = TableName::new("public", "event");
        let error = PipelineError::Reconcile(ReconcileError::StandsStill { table: table.clone() });
        let failed = RepairReport { executed: false, tables: vec![TableRepair::failed(table, &error)] };
        assert_eq!(failed.exit(), Exit::Failed);
        assert!(failed.to_text().starts_with("public.event: public.event stands still"), "{}", failed.to_text());
        let mut still = report(true);
        let span = still.tables[0].marked()[0];
        still.tables[0].after(vec![(span, DayVerdict::Differs { reasons: vec!["the lake has 3 rows".to_owned()] })]);
        assert_eq!(still.exit(), Exit::Unbalanced);
    }
}
