//! Which rule a value broke; never the value itself, which may be personal data.

use crate::base::{Classify, RetryClass};

/// A value cannot be stored exactly, or its bytes are not the form of its type. The message is the rule; what can be done about
/// it is [`ValueError::remedy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a form that the type's output or send function produces under the pinned settings.
    #[error("it is not a well-formed {kind}")]
    Malformed {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// Not UTF-8: possible in a database whose encoding is SQL_ASCII, which checks nothing.
    #[error("its bytes are not UTF-8, as every string of the lake is")]
    NotUtf8,
    /// `infinity` or `-infinity`.
    #[error("an infinite {kind} does not fit the lake's type, which holds the years 1 to 9999")]
    Infinite {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// Before 0001-01-01.
    #[error("a {kind} before the year 1 does not fit the lake's type, which holds the years 1 to 9999")]
    BeforeYearOne {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// After 9999-12-31.
    #[error("a {kind} after the year 9999 does not fit the lake's type, which holds the years 1 to 9999")]
    AfterYear9999 {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// NaN or an infinity in a `numeric(p,s)`.
    #[error("a numeric NaN or infinity does not fit the lake's decimal, which holds finite numbers")]
    DecimalNotFinite,
    /// More digits than declared.
    #[error("a numeric has more digits than the column's numeric({precision},{scale})")]
    DecimalTooLong {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// A `timestamptz` text with another offset than UTC's.
    #[error("a timestamptz was printed outside UTC")]
    NotUtc,
    /// A type whose send form is not read here.
    #[error("its type came in binary form, which is not read")]
    BinaryNotUnderstood,
    /// A `jsonb` of a later format.
    #[error("a jsonb has the unknown format version {version}")]
    JsonbVersion {
        /// The version byte.
        version: u8,
    },
}

impl ValueError {
    /// What an operator can do. `dates_the_row` for the partition column, which cannot become text: it names the row's folder.
    pub fn remedy(self, dates_the_row: bool) -> &'static str {
        match self {
            _ if self.is_misfit() && dates_the_row => {
                "no day can hold the row: step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
            }
            _ if self.is_misfit() => {
                "name the column in text_columns of its [[table]] and set the lake table up anew, or step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
            }
            Self::NotUtf8 => {
                "step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\"; only a database of encoding UTF8 keeps such bytes out"
            }
            Self::NotUtc => "the connection needs TimeZone UTC",
            Self::BinaryNotUnderstood => "the stream needs the option binary 'false'",
            Self::JsonbVersion { .. } => "use a supported server, PostgreSQL 14 to 18",
            _ => "report this with the server's version",
        }
    }

    /// Whether it is a sound value that the lake's type cannot hold, though a string could.
    pub fn is_misfit(self) -> bool {
        matches!(
            self,
            Self::Infinite { .. } | Self::BeforeYearOne { .. } | Self::AfterYear9999 { .. } | Self::DecimalNotFinite
        )
    }
}

impl Classify for ValueError {
    /// The row stays as it is, so always definite.
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}
