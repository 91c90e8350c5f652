//! What the tables hold after each transaction, and what it changed: written down while the transaction's statements are.

use super::row::{EXTRAS, Image, KINDS, MICROS_PER_DAY};
use std::collections::{BTreeMap, BTreeSet};

pub const TABLES: usize = KINDS.len();

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Update,
    Delete,
}

/// A version that a transaction found, and what it did to it first.
#[derive(Clone, Debug)]
pub struct Change {
    pub table: usize,
    pub operation: Operation,
    pub before: Image,
    /// It was deleted and inserted again, and is the same.
    pub is_move: bool,
}

/// A transaction that committed.
#[derive(Clone, Debug)]
pub struct Committed {
    pub xid: u32,
    pub changes: Vec<Change>,
    /// Versions that it left and did not find.
    pub born: Vec<(usize, Image)>,
}

/// The rows of each table. Two halves, so that two transactions that are open at the same time never meet.
pub type Half = [Vec<Image>; TABLES];

/// Everything that the next transaction depends on.
#[derive(Clone)]
pub struct State {
    pub halves: [Half; 2],
    /// Of each table, which of the columns that come and go are there.
    pub live: [[bool; EXTRAS]; TABLES],
    /// Of each table, how many such columns there were.
    pub made: [usize; TABLES],
    /// Days that have a leaf of their own. All others share the default partition, and an UPDATE from leaf to leaf is a DELETE and an
    /// INSERT to whoever follows.
    pub leaves: [BTreeSet<i64>; TABLES],
}

impl State {
    pub fn new() -> Self {
        let (live, made, leaves) = ([[false; EXTRAS]; TABLES], [0; TABLES], Default::default());
        Self { halves: Default::default(), live, made, leaves }
    }

    pub fn rows(&self, table: usize) -> impl Iterator<Item = &Image> {
        self.halves.iter().flat_map(move |half| &half[table])
    }

    fn leaf_of(&self, table: usize, at: i64) -> Option<i64> {
        let day = at.div_euclid(MICROS_PER_DAY);
        self.leaves[table].contains(&day).then_some(day)
    }

    /// The image without what was in columns that are gone: what the source has.
    pub fn in_source(&self, table: usize, image: &Image) -> Image {
        let mut image = *image;
        for (extra, live) in image.extras.iter_mut().zip(self.live[table]) {
            *extra = extra.filter(|_| live);
        }
        image
    }
}

/// A row inside a transaction.
#[derive(Clone, Copy, Debug)]
struct Row {
    image: Image,
    /// Which of the rows before the transaction it was.
    origin: Option<usize>,
    touched: bool,
}

/// What a savepoint keeps.
#[derive(Clone)]
struct Rows {
    rows: [Vec<Row>; TABLES],
    /// What was first done to each of the rows before the transaction.
    firsts: [BTreeMap<usize, Operation>; TABLES],
}

/// A transaction that is being written.
pub struct Draft {
    /// Before it.
    state: State,
    half: usize,
    now: Rows,
    savepoints: Vec<Rows>,
    pub sql: String,
}

impl Draft {
    pub fn new(state: &State, half: usize) -> Self {
        let rows = std::array::from_fn(|table| {
            let rows = state.halves[half][table].iter().enumerate();
            rows.map(|(place, image)| Row { image: *image, origin: Some(place), touched: false }).collect()
        });
        let now = Rows { rows, firsts: Default::default() };
        Self { state: state.clone(), half, now, savepoints: Vec::new(), sql: String::new() }
    }

    pub fn len(&self, table: usize) -> usize {
        self.now.rows[table].len()
    }

    pub fn image(&self, table: usize, place: usize) -> Image {
        self.now.rows[table][place].image
    }

    /// Whether the transaction has not changed the row so far.
    pub fn is_untouched(&self, table: usize, place: usize) -> bool {
        !self.now.rows[table][place].touched
    }

    pub fn insert(&mut self, table: usize, image: Image) {
        let image = self.state.in_source(table, &image);
        self.sql += &KINDS[table].insert(&image, &self.state.live[table]);
        self.now.rows[table].push(Row { image, origin: None, touched: true });
    }

    pub fn update(&mut self, table: usize, place: usize, after: Image) {
        let before = self.image(table, place);
        let after = self.state.in_source(table, &after);
        self.sql += &KINDS[table].update(&self.state.in_source(table, &before), &after, &self.state.live[table]);
        self.became(table, place, after);
    }

    /// One statement for the rows at these places.
    pub fn relabel(&mut self, table: usize, places: &BTreeSet<usize>, label: u32) {
        let images: Vec<Image> = places.iter().map(|place| self.image(table, *place)).collect();
        self.sql += &KINDS[table].relabel(&images, label);
        for (place, image) in places.iter().zip(images) {
            let after = self.state.in_source(table, &Image { label, ..image });
            self.became(table, *place, after);
        }
    }

    pub fn delete(&mut self, table: usize, places: &BTreeSet<usize>) {
        let images: Vec<Image> = places.iter().map(|place| self.image(table, *place)).collect();
        self.sql += &KINDS[table].delete(&images);
        for place in places.iter().rev() {
            let row = self.now.rows[table].swap_remove(*place);
            self.note(table, &row, Operation::Delete);
        }
    }

    fn became(&mut self, table: usize, place: usize, after: Image) {
        let row = self.now.rows[table][place];
        let [from, to] = [row.image.at, after.at].map(|at| self.state.leaf_of(table, at));
        self.note(table, &row, if from == to { Operation::Update } else { Operation::Delete });
        self.now.rows[table][place] = Row { image: after, touched: true, ..row };
    }

    fn note(&mut self, table: usize, row: &Row, operation: Operation) {
        if let Some(origin) = row.origin {
            self.now.firsts[table].entry(origin).or_insert(operation);
        }
    }

    pub fn savepoint(&mut self) {
        self.sql += &format!("SAVEPOINT s{};\n", self.savepoints.len());
        self.savepoints.push(self.now.clone());
    }

    pub fn end_savepoint(&mut self, keep: bool) {
        let Some(before) = self.savepoints.pop() else { return };
        let name = self.savepoints.len();
        if keep {
            self.sql += &format!("RELEASE s{name};\n");
        } else {
            self.sql += &format!("ROLLBACK TO s{name};\n");
            self.now = before;
        }
    }

    /// The half after the transaction's commit, and what it did.
    pub fn end(self, xid: u32) -> (Half, Committed) {
        let Self { state, half, mut now, .. } = self;
        let mut committed = Committed { xid, changes: Vec::new(), born: Vec::new() };
        for table in 0..TABLES {
            for (origin, operation) in &now.firsts[table] {
                let before = state.halves[half][table][*origin];
                let same = state.in_source(table, &before);
                let again = now.rows[table].iter_mut().find(|row| row.touched && row.image == same);
                let again = again.filter(|_| *operation == Operation::Delete);
                let is_move = again.is_some();
                if let Some(row) = again {
                    // The lake's row stays, with what it holds of columns that are gone.
                    *row = Row { image: before, origin: Some(*origin), touched: false };
                }
                committed.changes.push(Change { table, operation: *operation, before, is_move });
            }
            let born = now.rows[table].iter().filter(|row| row.touched);
            committed.born.extend(born.map(|row| (table, row.image)));
        }
        (now.rows.map(|rows| rows.into_iter().map(|row| row.image).collect()), committed)
    }
}
