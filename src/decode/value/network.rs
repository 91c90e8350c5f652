//! inet, cidr and macaddr, to PostgreSQL's own output text.

use super::text::hex_pair;
use super::{Encoded, ValueError, exactly};

/// Family byte of the send form (PGSQL_AF_INET, PGSQL_AF_INET6 in PostgreSQL's inet.h).
const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 3;
const GROUPS: usize = 8;

#[derive(Clone, Copy)]
enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Address {
    fn bits_max(self) -> u8 {
        match self {
            Address::V4(_) => 32,
            Address::V6(_) => 128,
        }
    }
}

/// `inet`: appended to `out` as inet_out prints it, without a mask for a single host.
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn inet(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) => push_checked(text, "inet", out),
        Encoded::Binary(bytes) => {
            let (address, bits) = sent(bytes, 0).ok_or(ValueError::Malformed { kind: "inet" })?;
            push_address(address, out);
            if bits != address.bits_max() {
                push_mask(bits, out);
            }
            Ok(())
        }
    }
}

/// `cidr`: appended to `out` as cidr_out prints it, always with its mask.
///
/// # Errors
/// [`ValueError::Malformed`]
pub fn cidr(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) => push_checked(text, "cidr", out),
        Encoded::Binary(bytes) => {
            let (address, bits) = sent(bytes, 1).ok_or(ValueError::Malformed { kind: "cidr" })?;
            push_address(address, out);
            push_mask(bits, out);
            Ok(())
        }
    }
}

/// `macaddr`: appended to `out` as `08:00:2b:01:02:03`.
///
/// # Errors
/// [`ValueError::Malformed`]
pub fn macaddr(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) => push_checked(text, "macaddr", out),
        Encoded::Binary(bytes) => {
            let bytes: [u8; 6] = exactly(bytes, "macaddr")?;
            for (index, byte) in bytes.into_iter().enumerate() {
                if index > 0 {
                    out.push(':');
                }
                out.extend(hex_pair(byte).map(char::from));
            }
            Ok(())
        }
    }
}

/// The server's text is the value; only what no address can contain is refused.
fn push_checked(text: &[u8], kind: &'static str, out: &mut String) -> Result<(), ValueError> {
    let address = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b':' | b'.' | b'/');
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty() && text.as_bytes().iter().all(address));
    out.push_str(text.ok_or(ValueError::Malformed { kind })?);
    Ok(())
}

/// network_send: family, mask bits, whether it is a cidr, address length, address.
fn sent(bytes: &[u8], cidr_flag: u8) -> Option<(Address, u8)> {
    let [family, bits, is_cidr, sent_length, address @ ..] = bytes else { return None };
    let (address, length) = match *family {
        FAMILY_4 => (Address::V4(address.try_into().ok()?), 4),
        FAMILY_6 => (Address::V6(address.try_into().ok()?), 16),
        _ => return None,
    };
    let sound = *sent_length == length && *is_cidr == cidr_flag && *bits <= address.bits_max();
    sound.then_some((address, *bits))
}

fn push_mask(bits: u8, out: &mut String) {
    out.push('/');
    push_decimal(bits, out);
}

#[inline]
fn push_decimal(byte: u8, out: &mut String) {
    if byte >= 100 {
        out.push(char::from(b'0' + byte / 100));
    }
    if byte >= 10 {
        out.push(char::from(b'0' + byte / 10 % 10));
    }
    out.push(char::from(b'0' + byte % 10));
}

fn push_address(address: Address, out: &mut String) {
    match address {
        Address::V4(bytes) => push_4(bytes, out),
        Address::V6(bytes) => push_6(bytes, out),
    }
}

#[inline]
fn push_4(bytes: [u8; 4], out: &mut String) {
    for (index, byte) in bytes.into_iter().enumerate() {
        if index > 0 {
            out.push('.');
        }
        push_decimal(byte, out);
    }
}

/// inet_net_ntop_ipv6 of PostgreSQL's src/port/inet_net_ntop.c: the first longest run of at least two zero groups becomes `::`,
/// and an embedded IPv4 address is printed as one (`::1.2.3.4`, `::ffff:1.2.3.4`).
fn push_6(bytes: [u8; 16], out: &mut String) {
    let mut groups = [0_u16; GROUPS];
    for (group, pair) in groups.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *group = u16::from_be_bytes(*pair);
    }
    let (start, length) = longest_zero_run(&groups);
    let embeds_ipv4 = start == 0 && (length == 6 || (length == 5 && groups[5] == 0xFFFF));
    for (index, group) in groups.into_iter().enumerate() {
        if length > 0 && (start..start + length).contains(&index) {
            if index == start {
                out.push(':');
            }
            continue;
        }
        if index > 0 {
            out.push(':');
        }
        if embeds_ipv4 && index == GROUPS - 2 {
            let [.., a, b, c, d] = bytes;
            push_4([a, b, c, d], out);
            break;
        }
        push_group(group, out);
    }
    if length > 0 && start + length == GROUPS {
        out.push(':');
    }
}

/// Start and length of the first longest run of two or more zero groups; length 0 if there is none.
fn longest_zero_run(groups: &[u16; GROUPS]) -> (usize, usize) {
    let mut best = (0, 1);
    let mut length = 0;
    for (index, group) in groups.iter().enumerate() {
        length = if *group == 0 { length + 1 } else { 0 };
        if length > best.1 {
            best = (index + 1 - length, length);
        }
    }
    if best.1 > 1 { best } else { (0, 0) }
}

/// Lower-case hexadecimal without leading zeros.
fn push_group(group: u16, out: &mut String) {
    let digits = group.to_be_bytes().map(hex_pair);
    let zeros = usize::try_from(group.leading_zeros() / 4).unwrap_or(0).min(3);
    out.extend(digits.iter().flatten().skip(zeros).copied().map(char::from));
}
