//! W1, W3, B2, L2: what happens between PostgreSQL, lakebed and the store when one of them, or the line between them, fails.

mod proxy;
mod source;
mod store;
