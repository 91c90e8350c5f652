//! A row's values on their way into builders: those of a tuple, or of one whose gaps another tuple fills.

use crate::decode::{Columns, Datum, DecodeError, OldTuple, Tuple};

/// The values of one row, in the order of the bound relation's columns.
pub(super) trait Values<'a> {
    /// Number of columns.
    fn len(&self) -> usize;
    /// An upper bound of what the values take.
    fn len_bytes(&self) -> usize;
    /// The values.
    fn columns(&self) -> impl Iterator<Item = Result<Datum<'a>, DecodeError>>;
}

impl<'a> Values<'a> for Tuple<'a> {
    #[inline]
    fn len(&self) -> usize {
        Tuple::len(self)
    }

    #[inline]
    fn len_bytes(&self) -> usize {
        Tuple::len_bytes(self)
    }

    #[inline]
    fn columns(&self) -> impl Iterator<Item = Result<Datum<'a>, DecodeError>> {
        Tuple::columns(self)
    }
}

/// The new row of an UPDATE. A value that it does not bring is the old row's, where that came with it: in a whole old row, or in the
/// identity, which the server sends along when it is too large to stand in the new row itself. A value that is not sent because it has not
/// changed is never NULL, so a NULL of the old row only says that it did not come along: the letter that calls an old row whole is the
/// root's, and its partitions may declare something else.
#[derive(Clone, Copy)]
pub(super) struct Updated<'a> {
    pub(super) new: Tuple<'a>,
    pub(super) old: Option<OldTuple<'a>>,
}

impl Updated<'_> {
    /// Whether every value is known.
    pub(super) fn is_complete(&self) -> bool {
        !self.columns().any(|datum| datum == Ok(Datum::Unchanged))
    }
}

impl<'a> Values<'a> for Updated<'a> {
    fn len(&self) -> usize {
        self.new.len()
    }

    fn len_bytes(&self) -> usize {
        self.new.len_bytes().saturating_add(self.old.map_or(0, |old| old.tuple().len_bytes()))
    }

    fn columns(&self) -> impl Iterator<Item = Result<Datum<'a>, DecodeError>> {
        Filled { new: self.new.columns(), fallback: self.old.map(|old| old.tuple().columns()) }
    }
}

struct Filled<'a> {
    new: Columns<'a>,
    fallback: Option<Columns<'a>>,
}

impl<'a> Iterator for Filled<'a> {
    type Item = Result<Datum<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let new = self.new.next()?;
        let old = self.fallback.as_mut().and_then(Iterator::next);
        if new != Ok(Datum::Unchanged) {
            return Some(new);
        }
        Some(match old {
            None | Some(Ok(Datum::Null)) => new,
            Some(old) => old,
        })
    }
}
