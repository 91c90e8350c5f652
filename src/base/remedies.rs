//! What every room's tests ask of every error that a person can meet: one line, of what it happened to, with its remedy.

use super::{Classify, RetryClass};
use std::error::Error;

/// Stands for a password or a cell's contents in whatever an error is made of.
pub(crate) const CANARY: &str = "canary-2b7e";

/// An error, and what is expected of it.
#[derive(Debug)]
pub(crate) struct Case<E> {
    pub(crate) error: E,
    pub(crate) class: RetryClass,
    /// What it names; the remedy comes last.
    pub(crate) words: &'static [&'static str],
}

impl<E> Case<E> {
    /// The same words out of an error that wraps this one.
    pub(crate) fn wrapped<W>(self, wrap: impl FnOnce(E) -> W) -> Case<W> {
        Case { error: wrap(self.error), class: self.class, words: self.words }
    }
}

/// A case of every variant, each written `Class ["name", "remedy"] Variant { field: value };`. A variant that is not listed does
/// not compile.
macro_rules! every_variant {
    ($kind:ident { $($class:ident $words:tt $variant:ident $({ $($named:tt)* })? $(( $($positional:tt)* ))?;)+ }) => {{
        fn _none_is_left_out(error: &$kind) {
            match error { $($kind::$variant { .. } => {})+ }
        }
        vec![$($crate::base::remedies::Case {
            error: $kind::$variant $({ $($named)* })? $(( $($positional)* ))?,
            class: $crate::base::RetryClass::$class,
            words: &$words,
        }),+]
    }};
}
pub(crate) use every_variant;

/// Every case says what it has to.
#[track_caller]
pub(crate) fn assert_remedies<E: Error + Classify>(cases: &[Case<E>]) {
    for case in cases {
        let message = case.error.to_string();
        assert_eq!(case.error.retry_class(), case.class, "{message}");
        assert_line(&message, case.words);
        assert!(case.class == RetryClass::Transient || !case.words.is_empty(), "no remedy is expected of {message}");
    }
}

/// One line with these words, and without any contents.
#[track_caller]
pub(crate) fn assert_line(message: &str, words: &[&str]) {
    assert!(!message.chars().any(char::is_control), "more than one line: {message:?}");
    assert!(!message.contains(CANARY), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
