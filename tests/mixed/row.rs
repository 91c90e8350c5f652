//! One version of a row as the model knows it, and the SQL that makes it so.

use crate::support::dice::Dice;
use crate::support::{Value, load};
use sha2::{Digest, Sha256};

/// Columns that a table gets and loses in a run.
pub const EXTRAS: usize = 4;
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What tells one version from another. Every other column of a row never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image {
    pub id: u64,
    /// The replica identity of the plain table; nothing elsewhere.
    pub code: u64,
    /// Microseconds since 1970.
    pub at: i64,
    /// Its text is short: it is sent with every version.
    pub label: u32,
    /// Its text is mostly long and cannot be compressed: it is not sent unless it changes.
    pub body: u64,
    pub more: Option<u64>,
    pub extras: [Option<u32>; EXTRAS],
}

/// One of the tables: which of its columns play which part.
pub struct Kind {
    pub table: &'static str,
    label: &'static str,
    body: &'static str,
    pub more: Option<&'static str>,
    code: Option<&'static str>,
    pub at: &'static str,
    pub by: &'static str,
    /// Columns that every row has alike.
    constant: &'static [(&'static str, &'static str)],
    /// Of a hundred bodies, so many are long.
    long_percent: u64,
    /// Days back from today on which rows are; the second range has no leaves in the beginning.
    pub days: [(i64, i64); 2],
    /// Ids ascend, as those of a newer kind of UUID do, so that files can be told apart by their bounds.
    pub ascending: bool,
}

pub const KINDS: [Kind; 3] = [
    Kind {
        table: "security_event",
        label: "description",
        body: "detail",
        more: Some("user_agent"),
        code: None,
        at: "created_at",
        by: "day",
        constant: &[
            ("type", "'login_success'"),
            ("tenant_id", "'00000000-0000-4000-8000-000000000001'"),
            ("tenant_name", "'tenant, \"quoted\"'"),
            ("client_id", "'client'"),
            ("client_name", "'日本語'"),
            ("user_name", "''"),
            ("ip_address", "'192.0.2.1'"),
        ],
        long_percent: 15,
        days: [(-1, 3), (10, 12)],
        ascending: false,
    },
    Kind {
        table: "security_event_hook_results",
        label: "status",
        body: "security_event_payload",
        more: Some("security_event_hook_execution_payload"),
        code: None,
        at: "created_at",
        by: "day",
        constant: &[
            ("tenant_id", "'00000000-0000-4000-8000-000000000001'"),
            ("security_event_id", "'00000000-0000-4000-8000-000000000002'"),
            ("security_event_type", "'login_success'"),
            ("security_event_hook", "'webhook'"),
            ("updated_at", "'2026-01-01 00:00:00.000001'"),
        ],
        long_percent: 100,
        days: [(-1, 3), (10, 12)],
        ascending: true,
    },
    Kind {
        table: PLAIN,
        label: "note",
        body: "body",
        more: None,
        code: Some("code"),
        at: "happened_at",
        by: "month",
        constant: &[],
        long_percent: 40,
        days: [(0, 3), (25, 70)],
        ascending: false,
    },
];

/// A table of our own: no partitions in the source, months in the lake, and rows are named by another index than the primary key.
pub const PLAIN: &str = "plain";
pub const CREATE_PLAIN: &str = "
    CREATE TABLE public.plain (id bigint PRIMARY KEY, code varchar(40) NOT NULL, note varchar(40) NOT NULL, body text NOT NULL,
        happened_at timestamptz NOT NULL);
    CREATE UNIQUE INDEX plain_code ON public.plain (code);
    ALTER TABLE public.plain REPLICA IDENTITY USING INDEX plain_code;";

pub fn extra_name(extra: usize) -> String {
    format!("extra_{extra}")
}

impl Kind {
    pub fn name(&self) -> String {
        format!("public.{}", self.table)
    }

    /// Whether the body's text is long enough to be stored out of line.
    pub fn body_is_long(&self, body: u64) -> bool {
        body % 100 < self.long_percent
    }

    fn body_text(&self, body: u64) -> String {
        let length = if self.body_is_long(body) { 3_000 + body % 3_000 } else { 20 + body % 200 };
        let text = noise(body, length);
        if self.body == "body" { text } else { format!("{{\"p\": \"{text}\"}}") }
    }

    /// Of the events it is short, of the hook results as long as the body.
    fn more_text(&self, more: u64) -> String {
        match self.more {
            Some("user_agent") => noise(more, 5 + more % 20),
            _ => format!("{{\"r\": \"{}\"}}", noise(more, 3_000 + more % 2_000)),
        }
    }

    /// The columns that change, with their values as literals.
    fn values(&self, image: &Image, live: &[bool; EXTRAS]) -> Vec<(String, String)> {
        let id = if self.code.is_some() { image.id.to_string() } else { format!("'{}'", uuid_of(image.id)) };
        let mut values = vec![("id".to_owned(), id), (self.at.to_owned(), format!("'{}'", self.at_text(image.at)))];
        values.push((self.label.to_owned(), format!("'v{}'", image.label)));
        values.push((self.body.to_owned(), format!("'{}'", self.body_text(image.body))));
        if let Some(more) = self.more {
            values.push((
                more.to_owned(),
                image.more.map_or(NULL.to_owned(), |more| format!("'{}'", self.more_text(more))),
            ));
        }
        if let Some(code) = self.code {
            values.push((code.to_owned(), format!("'{}'", code_text(image.code))));
        }
        for extra in (0..EXTRAS).filter(|extra| live[*extra]) {
            let value = image.extras[extra].map_or(NULL.to_owned(), |value| format!("'x{value}'"));
            values.push((extra_name(extra), value));
        }
        values
    }

    pub fn at_text(&self, at: i64) -> String {
        let text = chrono::DateTime::from_timestamp_micros(at).unwrap().format("%Y-%m-%d %H:%M:%S%.6f").to_string();
        if self.by == "month" { text + "+00" } else { text }
    }

    pub fn insert(&self, image: &Image, live: &[bool; EXTRAS]) -> String {
        let mut values = self.values(image, live);
        values.extend(self.constant.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (names, values): (Vec<String>, Vec<String>) = values.into_iter().unzip();
        format!("INSERT INTO {} ({}) VALUES ({});\n", self.name(), names.join(", "), values.join(", "))
    }

    /// Sets what differs; the label to itself where nothing does.
    pub fn update(&self, before: &Image, after: &Image, live: &[bool; EXTRAS]) -> String {
        let values = self.values(before, live).into_iter().zip(self.values(after, live));
        let differing =
            values.filter(|(before, after)| before != after).map(|(_, (name, value))| format!("{name} = {value}"));
        let mut set: Vec<String> = differing.collect();
        if set.is_empty() {
            set.push(format!("{0} = {0}", self.label));
        }
        format!("UPDATE {} SET {} WHERE {};\n", self.name(), set.join(", "), self.key(before))
    }

    /// One statement for many rows.
    pub fn relabel(&self, images: &[Image], label: u32) -> String {
        format!("UPDATE {} SET {} = 'v{label}' WHERE {};\n", self.name(), self.label, self.keys(images))
    }

    pub fn delete(&self, images: &[Image]) -> String {
        format!("DELETE FROM {} WHERE {};\n", self.name(), self.keys(images))
    }

    fn key(&self, image: &Image) -> String {
        if self.code.is_some() {
            return format!("id = {}", image.id);
        }
        format!("id = '{}' AND {} = '{}'", uuid_of(image.id), self.at, self.at_text(image.at))
    }

    fn keys(&self, images: &[Image]) -> String {
        images.iter().map(|image| format!("({})", self.key(image))).collect::<Vec<_>>().join(" OR ")
    }

    /// What tells versions apart, as [`Self::shown`] has it.
    pub fn shown_columns(&self) -> Vec<(&'static str, Value)> {
        let mut columns = vec![("id", Value::Text), (self.at, Value::Micros), (self.label, Value::Text)];
        columns.push((self.body, Value::Digest));
        columns.extend(self.more.map(|more| (more, Value::Digest)));
        columns.extend(self.code.map(|code| (code, Value::Text)));
        columns.extend(["extra_0", "extra_1", "extra_2", "extra_3"].map(|extra| (extra, Value::Text)));
        columns
    }

    pub fn shown(&self, image: &Image) -> Vec<Option<String>> {
        let id = if self.code.is_some() { image.id.to_string() } else { uuid_of(image.id) };
        let mut shown = vec![Some(id), Some(image.at.to_string()), Some(format!("v{}", image.label))];
        shown.push(Some(digest(&self.body_text(image.body))));
        if self.more.is_some() {
            shown.push(image.more.map(|more| digest(&self.more_text(more))));
        }
        if self.code.is_some() {
            shown.push(Some(code_text(image.code)));
        }
        shown.extend(image.extras.map(|extra| extra.map(|value| format!("x{value}"))));
        shown
    }

    /// The model's rows as the server has them: key and label.
    pub fn select(&self) -> String {
        format!(
            "SELECT id::text, (extract(epoch FROM {}) * 1000000)::int8::text, {} FROM {}",
            self.at,
            self.label,
            self.name()
        )
    }
}

const NULL: &str = "NULL";

pub fn uuid_of(id: u64) -> String {
    let hex = format!("{:032x}", u128::from(id) << 64 | 0x8000_0000_0000_0000);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn code_text(code: u64) -> String {
    format!("code-{code:x}")
}

/// Text that neither pglz nor lz4 makes much smaller.
fn noise(seed: u64, length: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut dice = Dice::new(seed);
    (0..length).map(|_| char::from(LETTERS[dice.index(LETTERS.len())])).collect()
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The customer's tables without their secondary indexes, and the plain one.
pub async fn create(cluster: &lakebed::demo::Cluster, database: &str) {
    load::drop_indexes(cluster, database).await;
    cluster.execute(database, CREATE_PLAIN).await.unwrap();
}
