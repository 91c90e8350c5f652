//! The bytes of one COPY become rows, whatever pieces they come in.

use crate::decode::{CopyRow, DecodeError, Tuple, copy_header, copy_row};

/// What a COPY's reader stops at.
#[derive(Debug)]
pub(super) enum RowFault<E> {
    /// The bytes are no COPY.
    Format(DecodeError),
    /// Whoever takes the rows refused one.
    Refused(E),
}

/// Reads one COPY. The server sends a row a piece, and then nothing is copied here; a row in several pieces is put together.
#[derive(Debug, Default)]
pub(super) struct CopiedRows {
    /// The beginning of what is not complete yet.
    carried: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl CopiedRows {
    /// Takes the rows that are complete with this piece; returns how many.
    pub(super) fn take<E>(
        &mut self,
        piece: &[u8],
        texts: &[bool],
        row: impl FnMut(&Tuple<'_>) -> Result<(), E>,
    ) -> Result<u64, RowFault<E>> {
        if self.carried.is_empty() {
            let (rows, left) = self.read(piece, texts, row)?;
            self.carried.extend_from_slice(left);
            return Ok(rows);
        }
        let mut bytes = std::mem::take(&mut self.carried);
        bytes.extend_from_slice(piece);
        let (rows, left) = self.read(&bytes, texts, row)?;
        let read = bytes.len() - left.len();
        bytes.drain(..read);
        self.carried = bytes;
        Ok(rows)
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// [`DecodeError`] where the trailer is missing.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.ended { Ok(()) } else { Err(DecodeError::Truncated { message: "CopyData", field: "row" }) }
    }

    /// The rows in some bytes, and what is left of them.
    fn read<'a, E>(
        &mut self,
        bytes: &'a [u8],
        texts: &'a [bool],
        mut row: impl FnMut(&Tuple<'_>) -> Result<(), E>,
    ) -> Result<(u64, &'a [u8]), RowFault<E>> {
        let mut rest = bytes;
        if !self.begun {
            match copy_header(bytes).map_err(RowFault::Format)? {
                None => return Ok((0, bytes)),
                Some(after) => (self.begun, rest) = (true, after),
            }
        }
        let mut rows = 0;
        loop {
            if self.ended && !rest.is_empty() {
                let count = rest.len();
                return Err(RowFault::Format(DecodeError::TrailingBytes { message: "CopyData", count }));
            }
            match copy_row(rest, texts).map_err(RowFault::Format)? {
                CopyRow::Row(tuple, after) => {
                    row(&tuple).map_err(RowFault::Refused)?;
                    rows += 1;
                    rest = after;
                }
                CopyRow::Incomplete => return Ok((rows, rest)),
                CopyRow::End => {
                    self.ended = true;
                    return Ok((rows, &[]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Datum;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0";

    fn sent(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for value in rows {
            bytes.extend(1_i16.to_be_bytes());
            bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
            bytes.extend(value);
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    fn value(tuple: &Tuple<'_>) -> Vec<u8> {
        let Some(Ok(Datum::Binary(bytes))) = tuple.columns().next() else { panic!("one value") };
        bytes.to_vec()
    }

    proptest! {
        #[test]
        fn rows_come_in_whatever_pieces(rows in vec(vec(any::<u8>(), 0..12), 0..8), pieces in vec(1_usize..20, 1..30)) {
            let bytes = sent(&rows);
            let (mut reader, mut found, mut rest) = (CopiedRows::default(), Vec::new(), &bytes[..]);
            let mut count = 0;
            for size in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                prop_assert!(reader.finish().is_err());
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                let taken = reader.take(piece, &[], |tuple| { found.push(value(tuple)); Ok::<(), ()>(()) });
                count += taken.unwrap();
                rest = after;
            }
            prop_assert!(reader.finish().is_ok());
            prop_assert_eq!(count, rows.len() as u64);
            prop_assert_eq!(found, rows);
            let more = reader.take(&[0], &[], |_| Ok::<(), ()>(()));
            let is_trailing = matches!(more, Err(RowFault::Format(DecodeError::TrailingBytes { .. })));
            prop_assert!(is_trailing);
        }

        #[test]
        fn arbitrary_pieces_are_rows_or_errors(pieces in vec(vec(any::<u8>(), 0..20), 0..8)) {
            let mut reader = CopiedRows { begun: true, ..CopiedRows::default() };
            for piece in &pieces {
                if reader.take(piece, &[], |_| Ok::<(), ()>(())).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_refusal_is_handed_on() {
        let refused = CopiedRows::default().take(&sent(&[vec![1]]), &[], |_| Err("no"));
        assert!(matches!(refused, Err(RowFault::Refused("no"))));
    }
}
