//! Whether trying again can help: the one question that a caller asks of another room's error.

/// What an error means for whoever could try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// The same call may succeed later: a lost connection, a busy store.
    Transient,
    /// The same call fails until somebody acts; the message names the remedy.
    Definite,
}

/// An error that knows its class. Types decide it, never the text of a message.
pub trait Classify {
    /// The class of this very error.
    fn retry_class(&self) -> RetryClass;
}
