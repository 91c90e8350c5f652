//! Every type of the lake in every format, and what is awkward: NULL against '', quotes, newlines, Japanese, a closed pipe.

use super::*;
use deltalake::arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use deltalake::arrow::datatypes::{Int32Type, UInt16Type};

fn written(format: Format, batch: &RecordBatch) -> String {
    let mut bytes = Vec::new();
    let mut writer = ResultWriter::new(format, &mut bytes);
    writer.begin(batch.schema_ref()).unwrap();
    writer.rows(batch).unwrap();
    writer.end().unwrap();
    assert_eq!(writer.finish().unwrap(), batch.num_rows() as u64);
    String::from_utf8(bytes).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn texts(values: &[Option<&str>]) -> RecordBatch {
    batch(vec![
        ("a", Arc::new(StringViewArray::from(values.to_vec()))),
        ("b", Arc::new(StringArray::from(values.to_vec()))),
    ])
}

const NOON: i64 = 1_717_243_200_000_000;

/// One value and one NULL of every type that `arrow_schema` makes of a PostgreSQL column, and the types of year/month/day.
fn every_type() -> RecordBatch {
    let utc = |array: TimestampMicrosecondArray| Arc::new(array.with_timezone("UTC"));
    let decimal = Decimal128Array::from(vec![Some(99_999_999_999_999_999_999_999_999_999_999_999_990), None]);
    batch(vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("int2", Arc::new(Int16Array::from(vec![Some(i16::MIN), None]))),
        ("int4", Arc::new(Int32Array::from(vec![Some(i32::MAX), None]))),
        ("int8", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
        ("float4", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
        ("float8", Arc::new(Float64Array::from(vec![Some(1e300), None]))),
        ("numeric", Arc::new(decimal.with_precision_and_scale(38, 10).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![Some(19_875), None]))),
        ("timestamp", utc(TimestampMicrosecondArray::from(vec![Some(NOON - 1), None]))),
        ("bytea", Arc::new(BinaryViewArray::from(vec![Some(&[0_u8, 255][..]), None]))),
        ("text", Arc::new(StringViewArray::from(vec![Some("x"), None]))),
        ("year", Arc::new([Some("2024"), None].into_iter().collect::<DictionaryArray<UInt16Type>>())),
    ])
}

#[test]
fn every_type_is_exact_in_csv() {
    let expected = "bool,int2,int4,int8,float4,float8,numeric,date,timestamp,bytea,text,year\n\
        true,-32768,2147483647,9007199254740993,0.1,1e300,9999999999999999999999999999.9999999990,2024-06-01,\
        2024-06-01 11:59:59.999999Z,00ff,x,2024\n,,,,,,,,,,,\n";
    assert_eq!(written(Format::Csv, &every_type()), expected);
}

#[test]
fn every_type_is_exact_in_json() {
    let json = written(Format::Json, &every_type());
    let expected = "[\n{\"bool\":true,\"int2\":-32768,\"int4\":2147483647,\"int8\":9007199254740993,\"float4\":0.1,\
        \"float8\":1e300,\"numeric\":9999999999999999999999999999.9999999990,\"date\":\"2024-06-01\",\
        \"timestamp\":\"2024-06-01T11:59:59.999999Z\",\"bytea\":\"00ff\",\"text\":\"x\",\"year\":\"2024\"},\n";
    assert!(json.starts_with(expected), "{json}");
    let parsed: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&json).unwrap();
    assert!(parsed.len() == 2 && parsed[1].len() == 12 && parsed[1].values().all(serde_json::Value::is_null));
}

#[test]
fn a_table_is_aligned_and_shows_null() {
    let rows = batch(vec![
        ("type", Arc::new(StringArray::from(vec![Some("ログイン失敗"), Some(""), None]))),
        ("event_count", Arc::new(Int64Array::from(vec![Some(5), Some(-12), None]))),
    ]);
    let expected = "     type     | event_count\n--------------+-------------\n ログイン失敗 |           5\n              \
        |         -12\n <null>       |      <null>\n(3 rows)\n";
    assert_eq!(written(Format::Table, &rows), expected);
    assert!(written(Format::Table, &rows.slice(0, 1)).ends_with("(1 row)\n"));
}

#[test]
fn null_and_the_empty_string_differ_in_every_format() {
    let rows = texts(&[None, Some("")]);
    assert_eq!(written(Format::Csv, &rows), "a,b\n,\n\"\",\"\"\n");
    assert_eq!(written(Format::Json, &rows), "[\n{\"a\":null,\"b\":null},\n{\"a\":\"\",\"b\":\"\"}\n]\n");
    assert!(written(Format::Table, &rows).contains(" <null> | <null>\n        | \n"));
}

#[test]
fn a_lone_null_is_a_row_for_every_csv_reader() {
    let rows = batch(vec![("a", Arc::new(StringArray::from(vec![None, Some("x"), Some("")])) as ArrayRef)]);
    assert_eq!(written(Format::Csv, &rows), "a\n\"\"\nx\n\"\"\n");
}

#[test]
fn json_refuses_two_columns_of_one_name() {
    let field = |name: &str| Field::new(name, DataType::Int32, true);
    let schema = Schema::new(vec![field("id"), field("type"), field("id")]);
    let error = ResultWriter::new(Format::Json, Vec::new()).begin(&schema).unwrap_err().to_string();
    assert!(error.contains("two columns \"id\"") && error.contains("AS"), "{error}");
    for format in [Format::Csv, Format::Table] {
        ResultWriter::new(format, Vec::new()).begin(&schema).unwrap();
    }
}

#[test]
fn csv_quotes_what_needs_it() {
    for (value, field) in [
        ("plain", "plain"),
        ("a,b", "\"a,b\""),
        ("say \"x\"", "\"say \"\"x\"\"\""),
        ("two\nlines", "\"two\nlines\""),
        ("two\r\nlines", "\"two\r\nlines\""),
        (" padded ", "\" padded \""),
        ("日本語🔑", "日本語🔑"),
        ("NULL", "NULL"),
    ] {
        assert_eq!(written(Format::Csv, &texts(&[Some(value)])), format!("a,b\n{field},{field}\n"));
    }
    let named = batch(vec![("a,\"b\"", Arc::new(Int32Array::from(vec![1])))]);
    assert_eq!(written(Format::Csv, &named), "\"a,\"\"b\"\"\"\n1\n");
}

#[test]
fn json_strings_come_back_as_they_were() {
    for value in ["\"\\\n\r\t\u{1}", "日本語🔑", "{\"a\": [1, 2]}", "\u{2028}</script>"] {
        let json = written(Format::Json, &texts(&[Some(value)]));
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed[0]["a"], value);
        assert_eq!(json.lines().count(), 3, "one row a line");
    }
}

#[test]
fn numbers_without_a_json_number_are_strings() {
    let odd = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e16, 1e15, 0.00001, 1.5e-7, f64::MIN_POSITIVE];
    let json = written(Format::Json, &batch(vec![("x", Arc::new(Float64Array::from(odd)))]));
    let cells: Vec<&str> = json.lines().filter_map(|line| line.split_once(':').map(|(_, cell)| cell)).collect();
    let expected = "\"NaN\"}, \"Infinity\"}, \"-Infinity\"}, -0}, 1e16}, 1000000000000000}, 0.00001}, 1.5e-7}, \
        2.2250738585072014e-308}";
    assert_eq!(cells.join(" "), expected);
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
}

#[test]
fn a_timestamp_keeps_its_digits_and_names_its_zone() {
    let tokyo = TimestampMicrosecondArray::from(vec![NOON]).with_timezone("Asia/Tokyo");
    let rows = batch(vec![
        ("tokyo", Arc::new(tokyo)),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![NOON]))),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![NOON * 1_000 + 1]).with_timezone("+00:00"))),
        ("early", Arc::new(TimestampMicrosecondArray::from(vec![-62_135_596_800_000_000]).with_timezone("UTC"))),
    ]);
    assert_eq!(
        written(Format::Csv, &rows).lines().nth(1).unwrap(),
        "2024-06-01 21:00:00.000000+09:00,2024-06-01 12:00:00.000000,2024-06-01 12:00:00.000000001Z,\
         0001-01-01 00:00:00.000000Z"
    );
    assert!(written(Format::Json, &rows).contains(
        "{\"tokyo\":\"2024-06-01T12:00:00.000000Z\",\"local\":\"2024-06-01T12:00:00.000000\",\
         \"nanos\":\"2024-06-01T12:00:00.000000001Z\",\"early\":\"0001-01-01T00:00:00.000000Z\"}"
    ));
}

#[test]
fn a_time_beyond_the_calendar_is_an_error_that_names_its_column() {
    let rows = batch(vec![("seen", Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX])))]);
    let mut writer = ResultWriter::new(Format::Csv, Vec::new());
    writer.begin(rows.schema_ref()).unwrap();
    let error = writer.rows(&rows).unwrap_err().to_string();
    assert!(error.contains("\"seen\"") && !error.contains(&i64::MAX.to_string()), "{error}");
}

#[test]
fn nested_values_are_json_everywhere() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a\"b"), None]));
    let record = StructArray::from(vec![(Arc::new(Field::new("name", DataType::Utf8, true)), names)]);
    let rows =
        batch(vec![("list", Arc::new(list)), ("record", Arc::new(record)), ("none", Arc::new(NullArray::new(2)))]);
    let json = written(Format::Json, &rows);
    let row = "{\"list\":[1,null],\"record\":{\"name\":\"a\\\"b\"},\"none\":null}";
    assert!(json.contains(row) && json.contains("{\"list\":null,\"record\":{\"name\":null},\"none\":null}"), "{json}");
    assert!(written(Format::Csv, &rows).contains("\"[1,null]\",\"{\"\"name\"\":\"\"a\\\"\"b\"\"}\",\n"));
}

#[test]
fn a_terminal_is_not_commanded_by_a_row() {
    let table = written(Format::Table, &texts(&[Some("a\n\u{1b}[2J\u{202e}b")]));
    assert!(table.contains("a\\n\\u{1b}[2J\\u{202e}b") && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn a_long_table_keeps_the_widths_of_its_start() {
    let mut values = vec![Some("x"); 2_500];
    values[2_000] = Some("wider than before");
    let table = written(Format::Table, &texts(&values));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 2_500 + 1);
    assert_eq!((lines[2], lines[2_002]), (" x | x", " wider than before | wider than before"));
}

#[test]
fn answers_are_set_apart_and_an_empty_one_is_complete() {
    let rows = batch(vec![("n", Arc::new(Int32Array::from(Vec::<i32>::new())))]);
    for (format, expected) in [
        (Format::Table, " n\n---\n(0 rows)\n\n n\n---\n(0 rows)\n"),
        (Format::Csv, "n\n\nn\n"),
        (Format::Json, "[]\n[]\n"),
    ] {
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(format, &mut bytes);
        for _ in 0..2 {
            writer.begin(rows.schema_ref()).unwrap();
            writer.rows(&rows).unwrap();
            writer.end().unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}

#[test]
fn an_answer_that_broke_off_is_not_closed() {
    for format in [Format::Table, Format::Json] {
        let mut bytes = Vec::new();
        let mut writer = ResultWriter::new(format, &mut bytes);
        let rows = texts(&[Some("seen")]);
        writer.begin(rows.schema_ref()).unwrap();
        writer.rows(&rows).unwrap();
        writer.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("seen") && !text.contains("row)") && !text.contains("\n]"), "{text}");
    }
}

/// A pipe whose reader left after the first write.
struct Closing(bool);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_told_from_a_failed_one() {
    let rows = texts(&[Some("x")]);
    for format in [Format::Table, Format::Csv, Format::Json] {
        let mut writer = ResultWriter::new(format, Closing(true));
        let result = writer.begin(rows.schema_ref()).and_then(|()| writer.rows(&rows)).and_then(|()| writer.end());
        assert!(matches!(result, Err(OutputError::Closed)), "{format:?}");
    }
}
