//! Which rule a value broke; never the value itself, which may be personal data.

use crate::base::{Classify, RetryClass};

/// A value cannot be stored exactly, or its bytes are not the form of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a form that the type's output or send function produces under the pinned settings.
    #[error("it is not a well-formed {kind}; report this with the server's version")]
    Malformed {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// Not UTF-8.
    #[error("it is not UTF-8; the connection needs client_encoding UTF8 and a database that is not SQL_ASCII")]
    NotUtf8,
    /// `infinity` or `-infinity`.
    #[error("an infinite {kind} does not fit the lake's type; take the table out of the pipeline file")]
    Infinite {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// Before 0001-01-01.
    #[error("a {kind} before the year 1 does not fit the lake's type; take the table out of the pipeline file")]
    BeforeYearOne {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// After 9999-12-31.
    #[error("a {kind} after the year 9999 does not fit the lake's type; take the table out of the pipeline file")]
    AfterYear9999 {
        /// The PostgreSQL type.
        kind: &'static str,
    },
    /// NaN or an infinity in a `numeric(p,s)`.
    #[error("a numeric NaN or infinity does not fit the lake's decimal; take the table out of the pipeline file")]
    DecimalNotFinite,
    /// More digits than declared.
    #[error(
        "a numeric has more digits than the column's numeric({precision},{scale}); report this with the server's version"
    )]
    DecimalTooLong {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// A `timestamptz` text with another offset than UTC's.
    #[error("a timestamptz was printed outside UTC; the connection needs TimeZone UTC")]
    NotUtc,
    /// A type whose send form is not read here.
    #[error("its type came in binary form, which is not read; the stream needs the option binary 'false'")]
    BinaryNotUnderstood,
    /// A `jsonb` of a later format.
    #[error("a jsonb has the unknown format version {version}; use a supported server, PostgreSQL 14 to 18")]
    JsonbVersion {
        /// The version byte.
        version: u8,
    },
}

impl Classify for ValueError {
    /// The row stays as it is, so always definite.
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}
