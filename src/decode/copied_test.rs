//! D1: COPY's binary format, read back exactly, and total over anything else.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const HEADER: &[u8] = b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0";

/// A field: NULL, text or a send form.
type Field = (bool, Option<Vec<u8>>);

fn encoded(row: &[Field]) -> Vec<u8> {
    let mut out = i16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
    for (_, field) in row {
        match field {
            None => out.extend((-1_i32).to_be_bytes()),
            Some(bytes) => {
                out.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                out.extend(bytes);
            }
        }
    }
    out
}

fn datum(field: &Field) -> Datum<'_> {
    match field {
        (_, None) => Datum::Null,
        (true, Some(bytes)) => Datum::Text(bytes),
        (false, Some(bytes)) => Datum::Binary(bytes),
    }
}

fn field() -> impl Strategy<Value = Field> {
    (any::<bool>(), proptest::option::of(vec(any::<u8>(), 0..20)))
}

#[test]
fn a_header_is_known_by_its_signature_and_passes_over_an_extension() {
    assert_eq!(copy_header(HEADER), Ok(Some(&[][..])));
    for end in 0..HEADER.len() {
        assert_eq!(copy_header(&HEADER[..end]), Ok(None), "{end}");
    }
    let extended = [&HEADER[..15], &[0, 0, 0, 2, 9, 9, 7]].concat();
    assert_eq!(copy_header(&extended), Ok(Some(&[7][..])));
    assert_eq!(copy_header(&extended[..20]), Ok(None));
    let with_oids = [&HEADER[..11], &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(copy_header(&with_oids), Err(DecodeError::UnknownFlags { message: "CopyData", flags: 1 }));
    assert!(copy_header(b"PGCOPY\n\xFE").is_err());
}

#[test]
fn nothing_comes_behind_the_trailer() {
    assert_eq!(copy_row(&[0xFF, 0xFF], &[]), Ok(CopyRow::End));
    assert_eq!(copy_row(&[0xFF], &[]), Ok(CopyRow::Incomplete));
    assert!(copy_row(&[0xFF, 0xFF, 0], &[]).is_err());
    assert!(copy_row(&[0xFF, 0xFE], &[]).is_err(), "a negative count");
    assert!(copy_row(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFE], &[]).is_err(), "a negative length");
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_sent(rows in vec(vec(field(), 0..8), 1..5)) {
        let mut bytes: Vec<u8> = rows.iter().flat_map(|row| encoded(row)).collect();
        bytes.extend([0xFF, 0xFF]);
        let mut rest = &bytes[..];
        for row in &rows {
            let texts: Vec<bool> = row.iter().map(|(is_text, _)| *is_text).collect();
            let size = encoded(row).len();
            for end in 0..size {
                prop_assert_eq!(copy_row(&rest[..end], &texts), Ok(CopyRow::Incomplete));
            }
            let Ok(CopyRow::Row(tuple, after)) = copy_row(rest, &texts) else { panic!("a row") };
            let columns: Vec<Datum<'_>> = tuple.columns().map(Result::unwrap).collect();
            prop_assert_eq!(columns, row.iter().map(datum).collect::<Vec<_>>());
            prop_assert_eq!((tuple.len(), tuple.len_bytes()), (row.len(), size - 2));
            rest = &rest[size..];
            prop_assert_eq!(after, rest);
        }
        prop_assert_eq!(copy_row(rest, &[]), Ok(CopyRow::End));
    }

    #[test]
    fn arbitrary_bytes_are_rows_or_errors(bytes in vec(prop_oneof![Just(0), Just(1), Just(0xFF), any::<u8>()], 0..60)) {
        let _ = copy_header(&bytes);
        let _ = copy_header(&[HEADER, &bytes].concat());
        if let Ok(CopyRow::Row(tuple, _)) = copy_row(&bytes, &[true]) {
            prop_assert!(tuple.columns().all(|column| column.is_ok()));
            prop_assert_eq!(tuple.columns().count(), tuple.len());
        }
    }
}
