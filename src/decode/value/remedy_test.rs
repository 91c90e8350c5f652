//! Every rule that a value can break, with what an operator can do about it.

use super::ValueError;
use crate::base::Classify;
use crate::base::remedies::{Case, assert_line, assert_remedies, every_variant};

/// The words are the rule; [`ValueError::remedy`] adds the way out.
pub(crate) fn every() -> Vec<Case<ValueError>> {
    every_variant!(ValueError {
        Definite ["not a well-formed date"] Malformed { kind: "date" };
        Definite ["not UTF-8"] NotUtf8;
        Definite ["an infinite date", "years 1 to 9999"] Infinite { kind: "date" };
        Definite ["a date before the year 1", "years 1 to 9999"] BeforeYearOne { kind: "date" };
        Definite ["a date after the year 9999", "years 1 to 9999"] AfterYear9999 { kind: "date" };
        Definite ["NaN or infinity", "finite numbers"] DecimalNotFinite;
        Definite ["numeric(5,2)"] DecimalTooLong { precision: 5, scale: 2 };
        Definite ["outside UTC"] NotUtc;
        Definite ["binary form"] BinaryNotUnderstood;
        Definite ["format version 9"] JsonbVersion { version: 9 };
    })
}

/// No wildcard: a new rule needs its remedy.
fn remedy(error: ValueError, dates_the_row: bool) -> &'static [&'static str] {
    match error {
        ValueError::Infinite { .. }
        | ValueError::BeforeYearOne { .. }
        | ValueError::AfterYear9999 { .. }
        | ValueError::DecimalNotFinite
            if dates_the_row =>
        {
            &["no day can hold the row", "`lakebed skip`", "on_error = \"park\""]
        }
        ValueError::Infinite { .. }
        | ValueError::BeforeYearOne { .. }
        | ValueError::AfterYear9999 { .. }
        | ValueError::DecimalNotFinite => &["text_columns of its [[table]]", "`lakebed skip`", "on_error = \"park\""],
        ValueError::NotUtf8 => &["`lakebed skip`", "on_error = \"park\"", "encoding UTF8"],
        ValueError::NotUtc => &["the connection needs TimeZone UTC"],
        ValueError::BinaryNotUnderstood => &["the stream needs the option binary 'false'"],
        ValueError::JsonbVersion { .. } => &["use a supported server, PostgreSQL 14 to 18"],
        ValueError::Malformed { .. } | ValueError::DecimalTooLong { .. } => &["report this with the server's version"],
    }
}

#[test]
fn every_rule_has_a_remedy() {
    let cases = every();
    assert_remedies(&cases);
    for Case { error, .. } in cases {
        for dates_the_row in [false, true] {
            assert_line(error.remedy(dates_the_row), remedy(error, dates_the_row));
        }
        assert_eq!(error.retry_class(), crate::base::RetryClass::Definite);
    }
}
