//! Values of every supported type, as input texts: the edges often, everything else sometimes. One seed makes one table.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Rows of one INSERT.
const ROWS_PER_INSERT: usize = 50;

pub(super) const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'größer', 'with ''quote''', 'a,b');
    CREATE DOMAIN positive AS numeric(12,3) CHECK (VALUE > 0);
    CREATE DOMAIN more_positive AS positive;
    CREATE DOMAIN day_text AS text;
    CREATE TYPE pair AS (a timestamp, b text);";

/// A column: its declared type, and the input texts that it gets.
pub(super) struct Column {
    declared: &'static str,
    values: BoxedStrategy<String>,
}

pub(super) fn create_table(columns: &[Column]) -> String {
    let declared = columns.iter().enumerate().map(|(index, column)| format!(", c{index} {}", column.declared));
    format!(
        "CREATE TABLE public.arbitrary (id bigint PRIMARY KEY, happened timestamptz NOT NULL{})",
        declared.collect::<String>()
    )
}

pub(super) fn inserts(columns: &[Column], seed: u64, rows: u32) -> Vec<String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let mut pick = |values: &BoxedStrategy<String>| values.new_tree(&mut runner).unwrap().current();
    let happened = happened();
    let rows: Vec<String> = (0..rows)
        .map(|id| {
            let mut row = format!("({id}, {}", literal(&pick(&happened)));
            for column in columns {
                let value = pick(&column.values);
                row.push_str(", ");
                if value == NULL { row.push_str("NULL") } else { row.push_str(&literal(&value)) }
            }
            row + ")"
        })
        .collect();
    rows.chunks(ROWS_PER_INSERT)
        .map(|rows| format!("INSERT INTO public.arbitrary VALUES {}", rows.join(",\n")))
        .collect()
}

/// Stands for SQL's NULL; no generated text is this one.
const NULL: &str = "\u{1}NULL";

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Few days, because each is a folder; their first and last microseconds often.
fn happened() -> BoxedStrategy<String> {
    let day = select(vec!["0001-01-01", "0099-12-31", "1969-12-31", "1970-01-01", "2024-02-29", "9999-12-31"]);
    let clock = prop_oneof![Just("00:00:00".to_owned()), Just("23:59:59.999999".to_owned()), clock()];
    (day, clock).prop_map(|(day, clock)| format!("{day} {clock}+00")).boxed()
}

fn clock() -> impl Strategy<Value = String> + Clone {
    (0..24_u32, 0..60_u32, 0..60_u32, prop_oneof![Just(0_u32), Just(500_000), 0..1_000_000_u32])
        .prop_map(|(hour, minute, second, micros)| format!("{hour:02}:{minute:02}:{second:02}.{micros:06}"))
}

/// A column that is NULL now and then.
fn column(declared: &'static str, values: impl Strategy<Value = String> + 'static) -> Column {
    Column { declared, values: prop_oneof![12 => values, 1 => Just(NULL.to_owned())].boxed() }
}

fn edges(edges: &[&str]) -> impl Strategy<Value = String> + Clone + use<> {
    select(edges.iter().map(|edge| (*edge).to_owned()).collect::<Vec<_>>())
}

fn one_of<A, B>(some: A, other: B) -> BoxedStrategy<String>
where
    A: Strategy<Value = String> + 'static,
    B: Strategy<Value = String> + 'static,
{
    prop_oneof![some, other].boxed()
}

/// Every character but NUL, the awkward ones often.
fn text() -> BoxedStrategy<String> {
    let awkward = select(
        "'\"\\,;{}()[]<> \t\n\r\u{b}\u{1b}\u{7f}\u{85}\u{a0}\u{2028}\u{feff}\u{fffd}\u{ffff}\u{10ffff}é日🎉N."
            .chars()
            .collect::<Vec<_>>(),
    );
    let character = prop_oneof![awkward, any::<char>().prop_filter("no NUL", |character| *character != '\0')];
    let arbitrary = vec(character, 0..24).prop_map(|characters| characters.into_iter().collect::<String>());
    let long = (any::<u8>(), 2_000..9_000_usize).prop_map(|(byte, count)| format!("{byte:02x}é").repeat(count));
    prop_oneof![8 => arbitrary, 2 => edges(&["", " ", "NULL", "\\N", "\\.", "null", "\"", "''", "{}", "\u{feff}"]), 1 => long].boxed()
}

fn integer(min: i64, max: i64) -> BoxedStrategy<String> {
    prop_oneof![select(vec![min, min + 1, -1, 0, 1, max - 1, max]), min..=max]
        .prop_map(|value| value.to_string())
        .boxed()
}

fn digits(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = String> {
    let digit = prop_oneof![2 => Just(0_u8), 1 => Just(9), 2 => 0..10_u8];
    vec(digit, count).prop_map(|digits| digits.iter().map(u8::to_string).collect())
}

fn numeric(whole: usize, fraction: usize) -> BoxedStrategy<String> {
    (any::<bool>(), digits(1..=whole), digits(0..=fraction))
        .prop_map(|(negative, whole, fraction)| {
            format!(
                "{}{whole}{}{fraction}",
                if negative { "-" } else { "" },
                if fraction.is_empty() { "" } else { "." }
            )
        })
        .boxed()
}

fn huge_numeric() -> BoxedStrategy<String> {
    let edges =
        edges(&["NaN", "Infinity", "-Infinity", "0", "0.0000", "-0.00", "1e-1000", "1e1000", "1e131071", "-1e-16383"]);
    prop_oneof![edges, numeric(60, 40), numeric(1_000, 1_000)].boxed()
}

fn double() -> BoxedStrategy<String> {
    let bits = any::<u64>().prop_map(f64::from_bits);
    let near = select(vec![f64::MAX, f64::MIN_POSITIVE, 5e-324, 2.225_073_858_507_201e-308, 1e15, 1e-5, 0.1, -0.0]);
    let value = prop_oneof![bits, near, any::<i32>().prop_map(f64::from)];
    one_of(
        value.prop_map(|value| float_text(value, &format!("{value:e}"))),
        edges(&["NaN", "Infinity", "-Infinity", "-0"]),
    )
}

fn single() -> BoxedStrategy<String> {
    let bits = any::<u32>().prop_map(f32::from_bits);
    let near = select(vec![f32::MAX, f32::MIN_POSITIVE, 1e-45, 1.175_494_2e-38, 1e6, 0.1, -0.0]);
    let text = prop_oneof![bits, near].prop_map(|value| float_text(f64::from(value), &format!("{value:e}")));
    one_of(text, edges(&["NaN", "Infinity", "-Infinity", "-0"]))
}

fn float_text(value: f64, finite: &str) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        format!("{}Infinity", if value < 0.0 { "-" } else { "" })
    } else {
        finite.to_owned()
    }
}

fn date() -> BoxedStrategy<String> {
    let arbitrary = (1..=9999_u32, 1..=12_u32, 1..=28_u32).prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}"));
    let edges = ["0001-01-01", "9999-12-31", "1969-12-31", "1582-10-10", "1900-02-28", "2000-02-29", "0004-02-29"];
    one_of(arbitrary, self::edges(&edges))
}

fn moment() -> BoxedStrategy<String> {
    let clock = prop_oneof![Just("23:59:59.999999".to_owned()), Just("00:00:00".to_owned()), clock()];
    // A leap second is read as the next minute's first, which may not leave the year 9999.
    let leap = Just("2016-12-31 23:59:60".to_owned());
    one_of((date(), clock).prop_map(|(date, clock)| format!("{date} {clock}")), leap)
}

/// What only a string can hold, as it stands inside of arrays, composites and ranges.
fn any_moment() -> BoxedStrategy<String> {
    let edges = edges(&[
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00 BC",
        "4713-01-01 00:00:00 BC",
        "294276-12-31 23:59:59.999999",
    ]);
    one_of(moment(), edges)
}

fn address() -> BoxedStrategy<String> {
    let four =
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(bytes, bits)| format!("{}/{bits}", std::net::Ipv4Addr::from(bytes)));
    let group = prop_oneof![Just(0_u16), any::<u16>()];
    let six = (vec(group, 8), 0..=128_u8).prop_map(|(groups, bits)| {
        let groups: [u16; 8] = groups.try_into().unwrap();
        format!("{}/{bits}", std::net::Ipv6Addr::from(groups))
    });
    let edges = edges(&[
        "0.0.0.0",
        "255.255.255.255/0",
        "::",
        "::1",
        "::ffff:1.2.3.4",
        "::1.2.3.4/96",
        "1:2:0:0:3::",
        "ffff::/1",
    ]);
    prop_oneof![four, six, edges].boxed()
}

/// The host's bits cut off, as cidr asks for.
fn network() -> BoxedStrategy<String> {
    let four = (any::<u32>(), 0..=32_u32).prop_map(|(address, bits)| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        format!("{}/{bits}", std::net::Ipv4Addr::from(address & mask))
    });
    let six = (any::<u128>(), 0..=128_u32).prop_map(|(address, bits)| {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        format!("{}/{bits}", std::net::Ipv6Addr::from(address & mask))
    });
    one_of(four, six)
}

/// `escapes` lets in a \u0000, which json keeps as it was written and jsonb refuses.
fn json(escapes: bool) -> BoxedStrategy<String> {
    let number = prop_oneof![
        digits(1..=1_000).prop_map(|digits| format!("1{digits}")),
        numeric(1, 200).prop_map(|text| text.replace("-", "-1."))
    ];
    let leaf = prop_oneof![
        text().prop_map(|text| json_string(&text)),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0.0".to_owned()),
        Just("1e100".to_owned()),
        number.prop_filter("one point", |text| text.matches('.').count() < 2)
    ];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        let member = (text(), inner.clone()).prop_map(|(key, value)| format!("{}: {value}", json_string(&key)));
        prop_oneof![
            vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    let odd = if escapes {
        edges(&[r#""\u0000""#, r#"{"a" :  1, "a": 2}"#, r#" "\ud83c\udf89" "#])
    } else {
        edges(&[r#""\u0001""#, r#"{"a" : 1, "a": 2}"#, r#" "\ud83c\udf89" "#])
    };
    prop_oneof![4 => tree, 1 => odd].boxed()
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// An element of an array's or composite's input text.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn bytes_text() -> BoxedStrategy<String> {
    vec(any::<u8>(), 0..40)
        .prop_map(|bytes| bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")))
        .boxed()
}

fn short_text(characters: usize) -> BoxedStrategy<String> {
    text().prop_map(move |text| text.chars().take(characters).collect()).boxed()
}

/// Columns whose send form is read, so that the stream is binary.
pub(super) fn with_binary_form() -> Vec<Column> {
    let uuid = any::<[u8; 16]>().prop_map(|bytes| uuid::Uuid::from_bytes(bytes).to_string());
    let mac = any::<[u8; 6]>().prop_map(|bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"));
    vec![
        column("bool", edges(&["t", "f"])),
        column("int2", integer(i16::MIN.into(), i16::MAX.into())),
        column("int4", integer(i32::MIN.into(), i32::MAX.into())),
        column("int8", integer(i64::MIN, i64::MAX)),
        column("float4", single()),
        column("float8", double()),
        column("numeric(38,10)", numeric(28, 10)),
        column("numeric(38,38)", digits(1..=38).prop_map(|digits| format!("-0.{digits}"))),
        column("numeric(5)", numeric(5, 0)),
        column("numeric", huge_numeric()),
        column("numeric(60,20)", one_of(numeric(40, 20), edges(&["NaN"]))),
        // Seven digits could round up to more than the type holds.
        column("numeric(5,-2)", numeric(6, 3)),
        column("date", date()),
        column("time", one_of(clock(), edges(&["24:00:00", "00:00:00", "23:59:60"]))),
        column("time(3)", clock()),
        column("timestamp", moment()),
        column("timestamptz", moment().prop_map(|moment| moment + "+00")),
        column("uuid", uuid),
        column("inet", address()),
        column("cidr", network()),
        column("macaddr", mac),
        column("json", json(true)),
        column("jsonb", json(false)),
        column("bytea", bytes_text()),
        column("text", text()),
        column("varchar(9)", short_text(9)),
        column("char(7)", short_text(7)),
        column("mood", edges(&["calm", "größer", "with 'quote'", "a,b"])),
        column("more_positive", edges(&["0.001", "1", "999999999.999"])),
        column("day_text", text()),
    ]
}

/// Those, and columns of which only the text is read: the stream is text then.
pub(super) fn every_column() -> Vec<Column> {
    let element = prop_oneof![text().prop_map(|text| quoted(&text)), Just("NULL".to_owned())];
    let moments = vec(any_moment().prop_map(|moment| quoted(&moment)), 0..4);
    let pair = (any_moment(), text()).prop_map(|(moment, text)| format!("({},{})", quoted(&moment), quoted(&text)));
    let bit = || select(vec!['0', '1']);
    let interval =
        (any::<i16>(), any::<i16>(), clock()).prop_map(|(m, d, clock)| format!("{m} months {d} days -{clock}"));
    let span = (any::<i32>(), any::<u16>())
        .prop_map(|(low, width)| format!("[{low},{})", low.saturating_add(i32::from(width))));
    let odd_interval =
        edges(&["0", "1 year -2 days 03:04:05.000006", "178000000 years", "-178000000 years", "00:00:00.000001"]);
    let nested = vec(vec(digits(1..=20), 2), 1..3).prop_map(|rows| {
        let rows: Vec<String> = rows.iter().map(|row| format!("{{{}}}", row.join(","))).collect();
        format!("{{{}}}", rows.join(","))
    });
    let mut columns = with_binary_form();
    columns.extend([
        column("text[]", vec(element, 0..5).prop_map(|elements| format!("{{{}}}", elements.join(",")))),
        column("timestamp[]", moments.prop_map(|moments| format!("{{{}}}", moments.join(",")))),
        column("numeric[]", one_of(nested, edges(&["{NaN,Infinity,-Infinity}", "{}", "[0:1]={1,2}"]))),
        column("pair", one_of(pair, edges(&["(,)", "(infinity,\"\")"]))),
        column("int4range", one_of(span, edges(&["empty", "(,)", "[1,5)", "(,5)"]))),
        column("tsrange", edges(&["[-infinity,infinity]", "[\"0044-03-15 00:00:00 BC\",2026-01-01)", "empty"])),
        column("int4multirange", edges(&["{}", "{[1,3),[5,7)}"])),
        column("bit(5)", vec(bit(), 5).prop_map(String::from_iter)),
        column("varbit", vec(bit(), 0..40).prop_map(String::from_iter)),
        column("interval", one_of(interval, odd_interval)),
        column("timetz", edges(&["24:00:00+09", "00:00:00-15:59:59", "12:34:56.7+05:30"])),
        column("macaddr8", edges(&["08:00:2b:01:02:03:04:05"])),
        column("point", edges(&["(1.5,-0)", "(NaN,Infinity)"])),
        column("date[]", edges(&["{infinity,-infinity,\"0044-03-15 BC\",5874897-12-31}", "{}"])),
    ]);
    columns
}
