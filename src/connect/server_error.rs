//! An ErrorResponse of the server, kept with its SQLSTATE: the code decides what happens, the text is for people.

use crate::base::{Classify, RetryClass};
use std::fmt;

/// SQLSTATEs that mean something to lakebed (appendix A of PostgreSQL's manual).
pub mod sqlstate {
    /// invalid_password
    pub const INVALID_PASSWORD: &str = "28P01";
    /// invalid_authorization_specification: no such role, no pg_hba.conf entry, certificate of another role.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// invalid_catalog_name: no such database.
    pub const UNKNOWN_DATABASE: &str = "3D000";
    /// insufficient_privilege
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// undefined_object: no such slot, no such publication.
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// duplicate_object: the slot exists.
    pub const DUPLICATE_OBJECT: &str = "42710";
    /// object_in_use: the slot has a consumer.
    pub const OBJECT_IN_USE: &str = "55006";
    /// object_not_in_prerequisite_state: wal_level, a lost slot, a slot of another database.
    pub const WRONG_STATE: &str = "55000";
    /// feature_not_supported: among others, a standby that cannot decode.
    pub const NOT_SUPPORTED: &str = "0A000";
    /// configuration_limit_exceeded: max_replication_slots.
    pub const CONFIGURATION_LIMIT: &str = "53400";
    /// internal_error: a fault of the server.
    pub const INTERNAL_ERROR: &str = "XX000";
}

/// What the server answered. The DETAIL field is not kept: it may hold a row's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Five characters; empty when the server sent none.
    pub sqlstate: String,
    /// The server's primary message on one line.
    pub message: String,
}

impl ServerError {
    /// From the fields of an ErrorResponse body (section 55.8 of PostgreSQL's manual); total over arbitrary bytes.
    pub fn from_fields(body: &[u8]) -> Self {
        let mut error = Self { sqlstate: String::new(), message: "no message".to_owned() };
        for field in body.split(|byte| *byte == 0) {
            match field.split_first() {
                Some((b'C', code)) => error.sqlstate = one_line(&String::from_utf8_lossy(code)),
                Some((b'M', text)) => error.message = one_line(&String::from_utf8_lossy(text)),
                _ => {}
            }
        }
        error
    }

    /// From the body of a NoticeResponse, if it is a warning; the fields are those of an ErrorResponse.
    pub fn from_warning(body: &[u8]) -> Option<Self> {
        // V is the severity in English, whatever lc_messages says.
        body.split(|byte| *byte == 0).any(|field| field == b"VWARNING").then(|| Self::from_fields(body))
    }

    /// Whether the server said exactly this.
    pub fn is(&self, sqlstate: &str) -> bool {
        self.sqlstate == sqlstate
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self { sqlstate: error.code().code().to_owned(), message: one_line(error.message()) }
    }
}

fn one_line(text: &str) -> String {
    text.replace(|character: char| character.is_control(), " ")
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

/// Connection faults (08), lack of resources (53 without the configured limits), shutdown and start-up (57P), deadlock and
/// serialization (40), and the system's own IO errors (58) pass; everything else needs somebody.
impl Classify for ServerError {
    fn retry_class(&self) -> RetryClass {
        let passing = ["08", "40", "53", "57P", "58"].iter().any(|class| self.sqlstate.starts_with(class));
        let database_dropped = self.is("57P04");
        if passing && !database_dropped && !self.is(sqlstate::CONFIGURATION_LIMIT) {
            RetryClass::Transient
        } else {
            RetryClass::Definite
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_code_decides_the_class() {
        let class = |code: &str| ServerError { sqlstate: code.to_owned(), message: String::new() }.retry_class();
        for code in ["57P01", "57P03", "53300", "08006", "40001", "58030"] {
            assert_eq!(class(code), RetryClass::Transient, "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42704", "55006", "53400", "57014", "57P04", ""] {
            assert_eq!(class(code), RetryClass::Definite, "{code}");
        }
    }

    #[test]
    fn fields_are_read_and_stay_on_one_line() {
        let error = ServerError::from_fields(b"SFATAL\0VFATAL\0C28P01\0Mpassword\nrefused\0Dsecret row\0\0");
        assert_eq!(error.to_string(), "password refused (SQLSTATE 28P01)");
    }

    proptest! {
        #[test]
        fn any_bytes_make_an_error(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(!ServerError::from_fields(&body).to_string().contains('\n'));
        }
    }
}
