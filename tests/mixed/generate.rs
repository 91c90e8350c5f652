//! The next transaction, as the seed will have it.

use super::model::{Draft, State, TABLES};
use super::row::{Image, KINDS, MICROS_PER_DAY};
use crate::support::dice::Dice;
use std::collections::BTreeSet;

/// Rows of one half of each table, about.
const ROWS: [usize; TABLES] = [220, 90, 120];
/// A table with fewer rows is not deleted from.
const ROWS_MIN: usize = 20;
const SAVEPOINTS_MAX: usize = 2;

/// One statement, or a few that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Insert,
    InsertMany,
    Relabel,
    RelabelMany,
    Rewrite,
    RewriteSecond,
    SetExtra,
    SetNothing,
    ChangeKey,
    RotateKeys,
    ChangeDay,
    Delete,
    DeleteMany,
    Replace,
    Move,
    PassThrough,
    Savepoint,
    EndSavepoint,
}

/// Each with how often it comes.
const ACTS: [(Act, u64); 18] = [
    (Act::Insert, 16),
    (Act::InsertMany, 6),
    (Act::Relabel, 16),
    (Act::RelabelMany, 6),
    (Act::Rewrite, 8),
    (Act::RewriteSecond, 5),
    (Act::SetExtra, 6),
    (Act::SetNothing, 2),
    (Act::ChangeKey, 6),
    (Act::RotateKeys, 3),
    (Act::ChangeDay, 6),
    (Act::Delete, 8),
    (Act::DeleteMany, 4),
    (Act::Replace, 3),
    (Act::Move, 4),
    (Act::PassThrough, 5),
    (Act::Savepoint, 5),
    (Act::EndSavepoint, 4),
];

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
}

pub struct Generator {
    pub dice: Dice,
    /// Days since 1970.
    today: i64,
    sequence: u64,
    label: u32,
    /// How many days further back the days without leaves are than in the beginning.
    pub further_back: i64,
    /// A row that was deleted and inserted again keeps what it had in a column that was dropped in an earlier flush only.
    pub moves: bool,
}

impl Generator {
    pub fn new(seed: u64, today: i64) -> Self {
        Self { dice: Dice::new(seed), today, sequence: 0, label: 0, further_back: 0, moves: true }
    }

    /// A transaction of so many acts on one half of the rows.
    pub fn transaction(&mut self, state: &State, half: usize, acts: u64) -> Draft {
        let mut draft = Draft::new(state, half);
        self.acts(&mut draft, half, acts);
        draft
    }

    pub fn acts(&mut self, draft: &mut Draft, half: usize, acts: u64) {
        let mut open = 0;
        // Transactions stay with one table or two for a while, so that acts meet on the same rows.
        let mut table = self.dice.index(TABLES);
        for _ in 0..acts {
            if self.dice.percent(25) {
                table = self.dice.index(TABLES);
            }
            match self.act() {
                Act::Savepoint if open < SAVEPOINTS_MAX => {
                    draft.savepoint();
                    open += 1;
                }
                Act::EndSavepoint if open > 0 => {
                    draft.end_savepoint(self.dice.percent(50));
                    open -= 1;
                }
                Act::Savepoint | Act::EndSavepoint => {}
                act => self.do_one(draft, table, half, act),
            }
        }
        for _ in 0..open {
            draft.end_savepoint(self.dice.percent(50));
        }
    }

    pub fn end(&mut self) -> End {
        if self.dice.percent(8) { End::Rollback } else { End::Commit }
    }

    fn act(&mut self) -> Act {
        let total = ACTS.iter().map(|(_, weight)| weight).sum();
        let mut left = self.dice.below(total);
        for (act, weight) in ACTS {
            if left < weight {
                return act;
            }
            left -= weight;
        }
        Act::Insert
    }

    fn do_one(&mut self, draft: &mut Draft, table: usize, half: usize, act: Act) {
        let rows = draft.len(table);
        let act = match act {
            Act::Insert | Act::InsertMany if rows > ROWS[table] => Act::DeleteMany,
            Act::Delete | Act::DeleteMany | Act::Relabel if rows < ROWS[table] / 2 => Act::InsertMany,
            _ if rows < ROWS_MIN => Act::InsertMany,
            act => act,
        };
        match act {
            Act::Insert => draft.insert(table, self.image(table, half)),
            Act::InsertMany => (0..2 + self.dice.below(5)).for_each(|_| draft.insert(table, self.image(table, half))),
            Act::RelabelMany => {
                let (places, label) = (self.places(rows, 8), self.label());
                draft.relabel(table, &places, label);
            }
            Act::Delete => draft.delete(table, &self.places(rows, 1)),
            Act::DeleteMany => draft.delete(table, &self.places(rows, 6)),
            Act::RotateKeys => self.rotate(draft, table),
            Act::PassThrough => self.pass_through(draft, table, half),
            Act::Replace | Act::Move => self.again(draft, table, act == Act::Move),
            act => {
                let place = self.place(rows);
                let before = draft.image(table, place);
                let after = self.changed(table, half, act, before);
                draft.update(table, place, after);
            }
        }
    }

    /// Mostly any row; often one of the last, which were inserted or moved just now.
    fn place(&mut self, rows: usize) -> usize {
        if self.dice.percent(35) { rows - 1 - self.dice.index(rows.min(6)) } else { self.dice.index(rows) }
    }

    fn places(&mut self, rows: usize, most: u64) -> BTreeSet<usize> {
        (0..1 + self.dice.below(most)).map(|_| self.place(rows)).collect()
    }

    fn changed(&mut self, table: usize, half: usize, act: Act, before: Image) -> Image {
        let mut after = before;
        match act {
            Act::SetNothing => {}
            Act::Rewrite => (after.body, after.label) = (self.dice.draw() >> 1, self.label()),
            Act::RewriteSecond if KINDS[table].more.is_some() => after.more = self.more(),
            Act::SetExtra => {
                after.extras = after.extras.map(|extra| if self.dice.percent(50) { Some(self.label()) } else { extra })
            }
            Act::ChangeDay => after.at = self.at(table),
            // Of the plain table the key is not what names the row; of the others a part of it may change alone.
            Act::ChangeKey => match self.dice.below(3) {
                0 => after.id = self.id(table, half),
                1 if KINDS[table].by == "month" => after.code = self.dice.draw() >> 1,
                _ => after.at = before.at.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY + self.time(),
            },
            _ => after.label = self.label(),
        }
        if self.dice.percent(10) {
            after.label = self.label();
        }
        after
    }

    /// Two rows swap what names them, by way of a third name.
    fn rotate(&mut self, draft: &mut Draft, table: usize) {
        let (one, other) = (self.place(draft.len(table)), self.place(draft.len(table)));
        if one == other {
            return;
        }
        let [first, second] = [one, other].map(|place| draft.image(table, place));
        let renamed = |image: Image, as_other: Image| match KINDS[table].by {
            "month" => Image { code: as_other.code, ..image },
            _ => Image { id: as_other.id, at: as_other.at, ..image },
        };
        let free = Image { id: self.id(table, usize::from(first.id % 2 == 1)), code: self.dice.draw() >> 1, ..first };
        draft.update(table, one, renamed(first, free));
        draft.update(table, other, renamed(second, first));
        let first = draft.image(table, one);
        draft.update(table, one, renamed(first, second));
    }

    /// Inserted, updated in both ways and deleted.
    fn pass_through(&mut self, draft: &mut Draft, table: usize, half: usize) {
        draft.insert(table, self.image(table, half));
        let last = draft.len(table) - 1;
        for act in [Act::Relabel, Act::Rewrite, Act::ChangeDay] {
            if self.dice.percent(60) {
                let after = self.changed(table, half, act, draft.image(table, last));
                draft.update(table, last, after);
            }
        }
        if self.dice.percent(70) {
            draft.delete(table, &BTreeSet::from([last]));
        }
    }

    /// Deleted and inserted again: as it was, or under the same name with other values.
    fn again(&mut self, draft: &mut Draft, table: usize, as_it_was: bool) {
        let place = self.place(draft.len(table));
        if as_it_was && !(self.moves && draft.is_untouched(table, place)) {
            return;
        }
        let before = draft.image(table, place);
        draft.delete(table, &BTreeSet::from([place]));
        let label = if as_it_was { before.label } else { self.label() };
        draft.insert(table, Image { label, ..before });
    }

    fn image(&mut self, table: usize, half: usize) -> Image {
        let (id, at, label) = (self.id(table, half), self.at(table), self.label());
        let code = if KINDS[table].by == "month" { self.dice.draw() >> 1 } else { 0 };
        let (body, more) = (self.dice.draw() >> 1, if KINDS[table].by == "month" { None } else { self.more() });
        let extras = [(); 4].map(|()| self.dice.percent(50).then_some(label));
        Image { id, code, at, label, body, more, extras }
    }

    /// Its last bit says to which half it belongs.
    fn id(&mut self, table: usize, half: usize) -> u64 {
        self.sequence += 1;
        let high = if KINDS[table].ascending { self.sequence << 16 } else { self.dice.draw() >> 2 };
        (high & !1) | half as u64
    }

    fn at(&mut self, table: usize) -> i64 {
        let further = self.dice.percent(25);
        let (from, to) = KINDS[table].days[usize::from(further)];
        let back = from + i64::try_from(self.dice.below((to - from + 1).unsigned_abs())).unwrap();
        let back = if further && KINDS[table].by == "day" { back + self.further_back } else { back };
        (self.today - back) * MICROS_PER_DAY + self.time()
    }

    /// Of a day, its first and last moment among them.
    fn time(&mut self) -> i64 {
        match self.dice.below(20) {
            0 => 0,
            1 => MICROS_PER_DAY - 1,
            _ => i64::try_from(self.dice.below(MICROS_PER_DAY.unsigned_abs())).unwrap(),
        }
    }

    fn label(&mut self) -> u32 {
        self.label += 1;
        self.label
    }

    fn more(&mut self) -> Option<u64> {
        let seed = self.dice.draw() >> 1;
        (!seed.is_multiple_of(4)).then_some(seed)
    }
}
