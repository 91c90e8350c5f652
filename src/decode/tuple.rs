//! TupleData: the values of one row, still the server's bytes.

use super::DecodeError;
use super::reader::Reader;

/// One column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    /// SQL NULL.
    Null,
    /// A TOASTed value that an UPDATE did not touch, and that the server therefore does not send.
    Unchanged,
    /// The type's output text.
    Text(&'a [u8]),
    /// The type's send form.
    Binary(&'a [u8]),
}

impl<'a> Datum<'a> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.byte("column kind")? {
            b'n' => Ok(Datum::Null),
            b'u' => Ok(Datum::Unchanged),
            b't' => {
                let count = reader.count("column length")?;
                reader.bytes(count, "column value").map(Datum::Text)
            }
            b'b' => {
                let count = reader.count("column length")?;
                reader.bytes(count, "column value").map(Datum::Binary)
            }
            tag => Err(reader.unknown_tag("column kind", tag)),
        }
    }
}

/// How a tuple's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    /// TupleData: each value says what it is.
    Sent,
    /// A row of COPY: a length and bytes; which columns hold text is known from elsewhere.
    Copied { texts: &'a [bool] },
}

/// The values of one row, in the order of the relation's columns. It was walked once when its message was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
    message: &'static str,
    form: Form<'a>,
}

impl<'a> Tuple<'a> {
    /// Walks over the tuple, so that the frame behind it can be read and every length is known to be sound.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.short_count("column count")?;
        let start = reader.rest();
        for _ in 0..count {
            Datum::read(reader)?;
        }
        let (bytes, _) = start.split_at_checked(start.len() - reader.rest().len()).unwrap_or((start, &[]));
        Ok(Self { count, bytes, message: reader.message(), form: Form::Sent })
    }

    /// The values of a row of COPY, all of which are in `bytes`.
    pub(super) fn copied(count: u16, bytes: &'a [u8], message: &'static str, texts: &'a [bool]) -> Self {
        Self { count, bytes, message, form: Form::Copied { texts } }
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// A table may have no columns.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size on the wire without the count: an upper bound of what its values take.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The columns in the relation's order.
    ///
    /// # Errors
    /// None for a tuple that [`super::parse()`] returned, which checked it; the signature keeps the reader total.
    #[inline]
    pub fn columns(&self) -> Columns<'a> {
        Columns { left: self.count, reader: Reader::new(self.bytes, self.message), form: self.form }
    }
}

/// Iterates over the columns of a [`Tuple`]; ends after an error.
pub struct Columns<'a> {
    left: u16,
    reader: Reader<'a>,
    form: Form<'a>,
}

impl<'a> Iterator for Columns<'a> {
    type Item = Result<Datum<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let datum = match &mut self.form {
            Form::Sent => Datum::read(&mut self.reader),
            Form::Copied { texts } => {
                let (is_text, rest) = texts.split_first().map_or((false, &[][..]), |(first, rest)| (*first, rest));
                *texts = rest;
                copied_datum(&mut self.reader, is_text)
            }
        };
        if datum.is_err() {
            self.left = 0;
        }
        Some(datum)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left)))
    }
}

/// A field of COPY's binary format: -1 stands for NULL.
#[inline]
fn copied_datum<'a>(reader: &mut Reader<'a>, is_text: bool) -> Result<Datum<'a>, DecodeError> {
    let Some(count) = reader.count_or_null("field length")? else { return Ok(Datum::Null) };
    let bytes = reader.bytes(count, "field value")?;
    Ok(if is_text { Datum::Text(bytes) } else { Datum::Binary(bytes) })
}

/// What an UPDATE or DELETE says about the row as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The replica identity's columns; every other column is NULL here and says nothing.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The values, whichever they are.
    pub fn tuple(&self) -> Tuple<'a> {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => *tuple,
        }
    }
}
