//! The messages that lakebed writes into the WAL for itself (`pg_logical_emit_message`), and reads back from the stream.

/// Their prefix; the content says which one it is.
pub const MARKER_PREFIX: &str = "lakebed";

/// Content of one that somebody waits for: what was committed before it should be in the lake at once.
pub const RECONCILE_MARKER: &str = "reconcile";

/// How the content of one begins at which a copy of days lands; what follows names the copy.
pub const COPY_MARKER: &str = "copied ";
