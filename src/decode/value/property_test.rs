//! D3: the text and the send form of one value give one result, whatever the value.

use super::*;
use chrono::{DateTime, NaiveDate};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;
const FIRST_MICRO: i64 = -719_162 * 86_400_000_000;
const LAST_MICRO: i64 = 2_932_897 * 86_400_000_000 - 1;

type Print = fn(Encoded<'_>, &mut String) -> Result<(), ValueError>;

fn printed(print: Print, encoded: Encoded<'_>) -> String {
    let mut out = String::new();
    print(encoded, &mut out).unwrap();
    out
}

/// numeric_send of `whole.fraction`, digits only.
fn numeric_sent(negative: bool, whole: &str, fraction: &str) -> Vec<u8> {
    let padded_whole = format!("{whole:0>width$}", width = whole.len().next_multiple_of(4));
    let padded_fraction = format!("{fraction:0<width$}", width = fraction.len().next_multiple_of(4));
    let digits = padded_whole.clone() + &padded_fraction;
    let groups: Vec<i16> = digits.as_bytes().chunks(4).map(|group| text_of(group).parse().unwrap()).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups[leading..].iter().rev().take_while(|group| **group == 0).count();
    let sent = &groups[leading..groups.len() - trailing];
    let weight = i16::try_from(padded_whole.len() / 4).unwrap() - 1 - i16::try_from(leading).unwrap();
    let sign = if negative && !sent.is_empty() { 0x4000 } else { 0 };
    let count = i16::try_from(sent.len()).unwrap();
    let header = [count, if sent.is_empty() { 0 } else { weight }, sign, i16::try_from(fraction.len()).unwrap()];
    header.iter().chain(sent).flat_map(|word| word.to_be_bytes()).collect()
}

fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn numeric_parts(whole_digits: usize, fraction_digits: usize) -> impl Strategy<Value = (bool, String, String)> {
    let digits = |count| vec(prop_oneof![3 => Just(0_u8), 1 => Just(9), 3 => 0..10_u8], count);
    (any::<bool>(), digits(1..whole_digits + 1), digits(0..fraction_digits + 1)).prop_map(
        |(negative, whole, fraction)| {
            let join = |digits: Vec<u8>| digits.iter().map(u8::to_string).collect::<String>();
            let whole = join(whole).trim_start_matches('0').to_owned();
            let fraction = join(fraction);
            let zero = whole.is_empty() && fraction.trim_matches('0').is_empty();
            (negative && !zero, if whole.is_empty() { "0".to_owned() } else { whole }, fraction)
        },
    )
}

fn numeric_text((negative, whole, fraction): &(bool, String, String)) -> String {
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{whole}{point}{fraction}", if *negative { "-" } else { "" })
}

/// The text of a float under extra_float_digits 3, up to how the exponent's sign is written.
fn float_text(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => format!("{value:e}"),
    }
}

/// Zeros at the end of a fraction are not printed; a whole second has none.
fn clock(micros: i64) -> String {
    let moment = DateTime::from_timestamp_micros(micros).unwrap();
    let text = moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    text.strip_suffix(".000000").unwrap_or(text.trim_end_matches('0')).to_owned()
}

proptest! {
    #[test]
    fn integers_agree(value: i64) {
        let int = i32::try_from(value >> 32).unwrap();
        let short = i16::try_from(value >> 48).unwrap();
        prop_assert_eq!(int8(Encoded::Text(value.to_string().as_bytes())), Ok(value));
        prop_assert_eq!(int8(Encoded::Binary(&value.to_be_bytes())), Ok(value));
        prop_assert_eq!(int4(Encoded::Text(int.to_string().as_bytes())), Ok(int));
        prop_assert_eq!(int4(Encoded::Binary(&int.to_be_bytes())), Ok(int));
        prop_assert_eq!(int2(Encoded::Text(short.to_string().as_bytes())), Ok(short));
        prop_assert_eq!(int2(Encoded::Binary(&short.to_be_bytes())), Ok(short));
    }

    #[test]
    fn floats_agree_to_the_bit(bits: u64, single_bits: u32) {
        let value = f64::from_bits(bits);
        let text = float8(Encoded::Text(float_text(value).as_bytes())).unwrap();
        prop_assert_eq!(text.to_bits(), float8(Encoded::Binary(&bits.to_be_bytes())).unwrap().to_bits());
        let single = f32::from_bits(single_bits);
        let shortest = if single.is_finite() { format!("{single:e}") } else { float_text(single.into()) };
        let text = float4(Encoded::Text(shortest.as_bytes())).unwrap();
        prop_assert_eq!(text.to_bits(), float4(Encoded::Binary(&single_bits.to_be_bytes())).unwrap().to_bits());
    }

    #[test]
    fn numerics_agree(parts in numeric_parts(60, 40)) {
        let text = numeric_text(&parts);
        let sent = numeric_sent(parts.0, &parts.1, &parts.2);
        prop_assert_eq!(printed(numeric, Encoded::Text(text.as_bytes())), text.clone());
        prop_assert_eq!(printed(numeric, Encoded::Binary(&sent)), text);
    }

    #[test]
    fn decimals_agree(parts in numeric_parts(40, 20), precision in 1..=38_u8, scale in 0..=38_i8) {
        let text = numeric_text(&parts);
        let sent = numeric_sent(parts.0, &parts.1, &parts.2);
        let of_text = decimal(Encoded::Text(text.as_bytes()), precision, scale);
        prop_assert_eq!(decimal(Encoded::Binary(&sent), precision, scale), of_text);
        if let Ok(value) = of_text {
            let missing = usize::try_from(scale).unwrap() - parts.2.len();
            let digits = format!("{}{}{}", parts.1, parts.2, "0".repeat(missing));
            let magnitude: u128 = digits.parse().unwrap();
            prop_assert_eq!(value.unsigned_abs(), magnitude);
            prop_assert_eq!(value < 0, parts.0 && magnitude > 0);
        }
    }

    #[test]
    fn dates_agree(days in -719_162..=2_932_896_i32) {
        let text = NaiveDate::from_num_days_from_ce_opt(days + 719_163).unwrap().format("%Y-%m-%d").to_string();
        prop_assert_eq!(date(Encoded::Text(text.as_bytes())), Ok(days));
        prop_assert_eq!(date(Encoded::Binary(&(days - 10_957).to_be_bytes())), Ok(days));
    }

    #[test]
    fn timestamps_agree(micros in FIRST_MICRO..=LAST_MICRO, precision in proptest::sample::select(vec![1, 1000, 1_000_000])) {
        let micros = (micros.div_euclid(precision) * precision).max(FIRST_MICRO);
        let sent = (micros - MICROS_1970_TO_2000).to_be_bytes();
        let text = clock(micros);
        prop_assert_eq!(timestamp(Encoded::Text(text.as_bytes())), Ok(micros));
        prop_assert_eq!(timestamp(Encoded::Binary(&sent)), Ok(micros));
        prop_assert_eq!(timestamptz(Encoded::Text((text + "+00").as_bytes())), Ok(micros));
        prop_assert_eq!(timestamptz(Encoded::Binary(&sent)), Ok(micros));
    }

    #[test]
    fn times_agree(micros in 0..86_400_000_000_i64) {
        let text = &clock(micros)[11..];
        prop_assert_eq!(printed(time, Encoded::Text(text.as_bytes())), text);
        prop_assert_eq!(printed(time, Encoded::Binary(&micros.to_be_bytes())), text);
    }

    #[test]
    fn addresses_agree(octets: [u8; 4], groups in vec(prop_oneof![Just(0), any::<u16>()], 8), bits in 0..=128_u8) {
        let address = Ipv4Addr::from(octets).to_string();
        let bits_4 = bits % 33;
        let sent = [&[2, bits_4, 0, 4][..], &octets].concat();
        let text = if bits_4 == 32 { address } else { format!("{address}/{bits_4}") };
        prop_assert_eq!(printed(inet, Encoded::Binary(&sent)), text);
        let address = Ipv6Addr::from(<[u16; 8]>::try_from(groups).unwrap());
        // Embedded IPv4 addresses are where the standard library prints otherwise: the fixed cases have them.
        prop_assume!(address.to_ipv4().is_none());
        let sent = [&[3, bits, 1, 16][..], &address.octets()].concat();
        prop_assert_eq!(printed(cidr, Encoded::Binary(&sent)), format!("{address}/{bits}"));
    }

    #[test]
    fn bytes_and_uuids_agree(bytes in vec(any::<u8>(), 0..40), id: [u8; 16]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut scratch = Vec::new();
        let text = format!("\\x{hex}");
        prop_assert_eq!(bytea(Encoded::Text(text.as_bytes()), &mut scratch), Ok(&bytes[..]));
        prop_assert_eq!(bytea(Encoded::Binary(&bytes), &mut scratch), Ok(&bytes[..]));
        let expected = ::uuid::Uuid::from_bytes(id).to_string();
        let mut scratch = [0; UUID_TEXT_BYTES];
        prop_assert_eq!(uuid(Encoded::Text(expected.as_bytes()), &mut scratch), Ok(expected.as_str()));
        prop_assert_eq!(uuid(Encoded::Binary(&id), &mut scratch), Ok(expected.as_str()));
    }

    #[test]
    fn d1_arbitrary_bytes_are_a_value_or_an_error(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..40),
            vec(proptest::sample::select(b"0123456789-+:. /abeBCtfNI\\x".to_vec()), 0..40),
        ],
        precision: u8,
        scale: i8,
    ) {
        for encoded in [Encoded::Text(&bytes), Encoded::Binary(&bytes)] {
            let _ = (boolean(encoded), int2(encoded), int4(encoded), int8(encoded), float4(encoded), float8(encoded));
            let _ = (date(encoded), timestamp(encoded), timestamptz(encoded), decimal(encoded, precision, scale));
            let _ = (text(encoded).is_ok(), jsonb(encoded).is_ok(), server_text(encoded).is_ok());
            let _ = (bytea(encoded, &mut Vec::new()).is_ok(), uuid(encoded, &mut [0; UUID_TEXT_BYTES]).is_ok());
            for print in [numeric as Print, time, inet, cidr, macaddr] {
                let _ = print(encoded, &mut String::new());
            }
        }
    }
}
