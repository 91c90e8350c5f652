//! PostgreSQL, or the line to it, fails under a running pipeline.
