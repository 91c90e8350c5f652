//! Damage, for tests: what a wire, a disk or a hostile server could make of a message.

use proptest::collection::vec;
use proptest::prelude::*;

/// One change to some bytes; places are taken modulo the length.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Flip { at: usize, bit: u8 },
    Set { at: usize, byte: u8 },
    Cut { at: usize },
    Remove { at: usize, count: usize },
    Insert { at: usize, bytes: Vec<u8> },
    Duplicate { at: usize, count: usize },
}

/// Up to four changes; none at all now and then.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let (at, count) = (any::<u16>().prop_map(usize::from), 1..12_usize);
    // Bytes that are tags, signs, or the ends of ranges of a count.
    let byte =
        prop_oneof![proptest::sample::select(vec![0, 1, 0x7F, 0x80, 0xFF, b'N', b't', b'b', b'n', b'u']), any::<u8>()];
    let mutation = prop_oneof![
        3 => (at.clone(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        3 => (at.clone(), byte.clone()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        1 => at.clone().prop_map(|at| Mutation::Cut { at }),
        1 => (at.clone(), count.clone()).prop_map(|(at, count)| Mutation::Remove { at, count }),
        1 => (at.clone(), vec(byte, 1..8)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        1 => (at, count).prop_map(|(at, count)| Mutation::Duplicate { at, count }),
    ];
    vec(mutation, 0..5)
}

pub(crate) fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let place = |at: &usize| at.checked_rem(bytes.len()).unwrap_or(0);
        match mutation {
            Mutation::Flip { at, bit } => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Mutation::Set { at, byte: new } => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *new);
            }
            Mutation::Cut { at } => bytes.truncate(place(at)),
            Mutation::Remove { at, count } => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Mutation::Insert { at, bytes: new } => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied());
            }
            Mutation::Duplicate { at, count } => {
                let at = place(at);
                let copy = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}
