//! The validated pipeline: every value in its own type, every rule between values already checked.

use super::cron::Schedule;
use super::expand::{Lookup, expand};
use super::raw::{RawArchive, RawBuffer, RawPipeline, RawSnapshot, RawTable};
use super::sections::{
    ArchiveSection, BufferSection, LakeSection, OnError, OnTruncate, QuerySection, SnapshotSection, SourceSection,
    StatusSection, TableSection,
};
use crate::base::PartitionBy;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// What is wrong with the pipeline file, in one line. Always definite: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the pipeline file {path}: {reason}; name another with --pipeline or LAKEBED_PIPELINE")]
    Unreadable {
        /// As given on the command line.
        path: String,
        /// The operating system's reason.
        reason: String,
    },
    /// Not TOML, a wrong type, or an unknown or missing key.
    #[error("{path}, line {line}: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// One line, from the TOML parser.
        reason: String,
    },
    /// A value that breaks a rule.
    #[error("{path}: {key} {reason}")]
    Value {
        /// The file.
        path: String,
        /// `[section].key`
        key: String,
        /// What is wrong and what would be right; never the value of a URL or an option.
        reason: String,
    },
}

/// One pipeline: one slot of one database, into one lake.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The database that is followed.
    pub source: SourceSection,
    /// Where the tables are kept.
    pub lake: LakeSection,
    /// At least one; names are unique, and so are the lake folders.
    pub tables: Vec<TableSection>,
    /// When rows are flushed, and how much memory they may take until then.
    pub buffer: BufferSection,
    /// The schema that partman moves old partitions to.
    pub archive: ArchiveSection,
    /// Where the status page listens.
    pub status: StatusSection,
    /// Names for analysts.
    pub query: QuerySection,
    /// How what exists already is copied.
    pub snapshot: SnapshotSection,
}

impl Pipeline {
    /// Reads and validates a pipeline file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: shown.clone(), reason: error.to_string() })?;
        Self::parse(&text, &shown, &|name| std::env::var(name).ok())
    }

    /// Validates the text of a pipeline file; `path` is for messages, `lookup` fills `${VAR}`.
    pub fn parse(text: &str, path: &str, lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let raw: RawPipeline = toml::from_str(text).map_err(|error| syntax(text, path, &error))?;
        let check = Checker { path, lookup };
        Ok(Self {
            source: check.source(&raw)?,
            lake: check.lake(&raw)?,
            tables: check.tables(&raw.tables)?,
            buffer: check.buffer(&raw.buffer)?,
            archive: check.archive(&raw.archive)?,
            status: StatusSection {
                listen: check.parsed(
                    "[status].listen",
                    raw.status.listen.as_deref().unwrap_or("127.0.0.1:9187"),
                    "must be an address and port such as 127.0.0.1:9187",
                )?,
            },
            query: QuerySection { database: check.database(raw.query.database.as_deref())? },
            snapshot: check.snapshot(&raw.snapshot)?,
        })
    }
}

/// The parser's message can span lines and quote the text; only its first line and the place are kept.
fn syntax(text: &str, path: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    let reason = without_value(error.message().lines().next().unwrap_or("not valid TOML"));
    ConfigError::Syntax { path: path.to_owned(), line, reason }
}

/// "invalid type: integer `12345`, expected a string" without the number: keys are named, values are not.
fn without_value(message: &str) -> String {
    if !["invalid type: ", "invalid value: "].iter().any(|beginning| message.starts_with(beginning)) {
        return message.to_owned();
    }
    let kind = message.split(['`', '"', ',']).next().unwrap_or_default().trim_end();
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{kind}, expected {expected}"),
        None => kind.to_owned(),
    }
}

/// Validation of single values, with the file's name and the variables at hand.
struct Checker<'a> {
    path: &'a str,
    lookup: Lookup<'a>,
}

/// Longest name that PostgreSQL keeps (NAMEDATALEN - 1).
const NAME_MAX_BYTES: usize = 63;
const MIB: u64 = 1024 * 1024;
/// Behind a table's folder: the folder of its journal.
const JOURNAL_SUFFIX: &str = "__changes";

impl Checker<'_> {
    fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value { path: self.path.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    fn text(&self, key: &str, text: &str) -> Result<String, ConfigError> {
        let value = expand(text, self.lookup).map_err(|reason| self.error(key, reason))?;
        if value.trim().is_empty() { Err(self.error(key, "must not be empty")) } else { Ok(value) }
    }

    fn parsed<T: FromStr>(&self, key: &str, text: &str, rule: &str) -> Result<T, ConfigError> {
        self.text(key, text)?.trim().parse().map_err(|_| self.error(key, rule))
    }

    fn source(&self, raw: &RawPipeline) -> Result<SourceSection, ConfigError> {
        let url = self.text("[source].url", &raw.source.url)?;
        crate::connect::Settings::from_url(&url)
            .map_err(|error| self.error("[source].url", format!("is not usable: {error}")))?;
        let slot = self.text("[source].slot", &raw.source.slot)?;
        let plain = slot.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !plain || slot.len() > NAME_MAX_BYTES {
            let rule = "must be 1 to 63 lower-case letters, digits and underscores (PostgreSQL's rule for slot names)";
            return Err(self.error("[source].slot", rule));
        }
        let publication = self.text("[source].publication", &raw.source.publication)?;
        if publication.len() > NAME_MAX_BYTES {
            return Err(self.error("[source].publication", "must be at most 63 bytes long"));
        }
        Ok(SourceSection {
            url,
            slot,
            publication,
            streaming: raw.source.streaming.unwrap_or(true),
            failover: raw.source.failover.unwrap_or(true),
            heartbeat_interval: self.heartbeat_interval(raw.source.heartbeat_interval.as_deref())?,
        })
    }

    fn heartbeat_interval(&self, raw: Option<&str>) -> Result<Option<Duration>, ConfigError> {
        const KEY: &str = "[source].heartbeat_interval";
        let Some(text) = raw else { return Ok(None) };
        let interval = humantime::parse_duration(self.text(KEY, text)?.trim()).ok();
        let within =
            interval.filter(|interval| (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(interval));
        let rule = "must be a duration from 1s to 1day, such as \"30s\"; leave the line out for no heartbeat";
        within.map(Some).ok_or_else(|| self.error(KEY, rule))
    }

    fn lake(&self, raw: &RawPipeline) -> Result<LakeSection, ConfigError> {
        let text = self.text("[lake].url", &raw.lake.url)?;
        let rule =
            "must be a URL: file:///absolute/folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
        let url = Url::parse(&text).map_err(|_| self.error("[lake].url", rule))?;
        let known = matches!(url.scheme(), "file" | "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss");
        let rooted = if url.scheme() == "file" { url.to_file_path().is_ok() } else { url.host_str().is_some() };
        if !known || !rooted {
            return Err(self.error("[lake].url", rule));
        }
        // The Delta reader decodes a path twice, so a name with a literal % would be looked for elsewhere.
        if url.path().contains("%25") {
            return Err(self.error("[lake].url", "must not have a % in a folder's name"));
        }
        let mut options = BTreeMap::new();
        for (name, value) in &raw.lake.options {
            options.insert(name.clone(), self.text(&format!("[lake.options].{name}"), value)?);
        }
        Ok(LakeSection { url, options })
    }

    fn tables(&self, raw: &[RawTable]) -> Result<Vec<TableSection>, ConfigError> {
        if raw.is_empty() {
            return Err(self.error("[[table]]", "is missing: name at least one table to keep"));
        }
        let mut folders = BTreeSet::new();
        let mut tables = Vec::with_capacity(raw.len());
        for (index, entry) in raw.iter().enumerate() {
            let table = self.table(&format!("[[table]] number {}", index + 1), entry)?;
            // Some stores and readers do not tell cases apart.
            if !folders.insert(table.lake_path().to_lowercase()) {
                let reason = format!(
                    "has {} twice: each table needs a folder of its own in the lake; give a second schema its own pipeline file and lake",
                    table.lake_path()
                );
                return Err(self.error("[[table]]", reason));
            }
            tables.push(table);
        }
        // Beside each table lies its journal; see `lake::journal_path`, which this room may not use.
        let journal = |folder: &String| folders.get(&format!("{folder}{JOURNAL_SUFFIX}"));
        if let Some((folder, clash)) = folders.iter().find_map(|folder| Some((folder, journal(folder)?))) {
            let reason = format!(
                "has {clash}, which is the folder of the changes of {folder}: leave one of the two out, or give it its own pipeline \
                 file and lake"
            );
            return Err(self.error("[[table]]", reason));
        }
        Ok(tables)
    }

    fn table(&self, at: &str, raw: &RawTable) -> Result<TableSection, ConfigError> {
        let key = |name: &str| format!("{at}, {name}");
        let by = self.text(&key("partition_by"), raw.partition_by.as_deref().unwrap_or("day"))?;
        let partition_by = match by.as_str() {
            "day" => PartitionBy::Day,
            "month" => PartitionBy::Month,
            _ => return Err(self.error(&key("partition_by"), "must be \"day\" or \"month\"")),
        };
        let on_error = match self.text(&key("on_error"), raw.on_error.as_deref().unwrap_or("stop"))?.as_str() {
            "stop" => OnError::Stop,
            "park" => OnError::Park,
            _ => return Err(self.error(&key("on_error"), "must be \"stop\" or \"park\"")),
        };
        let truncate = match self.text(&key("truncate"), raw.truncate.as_deref().unwrap_or("refuse"))?.as_str() {
            "refuse" => OnTruncate::Refuse,
            "apply" => OnTruncate::Apply,
            _ => return Err(self.error(&key("truncate"), "must be \"refuse\" or \"apply\"")),
        };
        let zone = raw.time_zone.as_deref().unwrap_or("UTC");
        Ok(TableSection {
            name: self.parsed(&key("name"), &raw.name, "must be schema.table, such as public.security_event")?,
            partition_column: self.text(&key("partition_column"), &raw.partition_column)?,
            partition_by,
            time_zone: self.parsed(&key("time_zone"), zone, "must be an IANA time zone such as UTC or Asia/Tokyo")?,
            on_error,
            truncate,
            text_columns: self.text_columns(&key("text_columns"), raw)?,
            lake_columns: self.lake_columns(&key("lake_columns"), raw)?,
        })
    }

    fn text_columns(&self, key: &str, raw: &RawTable) -> Result<Vec<String>, ConfigError> {
        let mut columns = Vec::with_capacity(raw.text_columns.len());
        for name in &raw.text_columns {
            let name = self.text(key, name)?;
            if name == raw.partition_column {
                return Err(self.error(key, "must not name the partition column: a row's day is read from it"));
            }
            if columns.contains(&name) {
                return Err(self.error(key, format!("has {name} twice")));
            }
            columns.push(name);
        }
        Ok(columns)
    }

    fn lake_columns(&self, key: &str, raw: &RawTable) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut columns = BTreeMap::new();
        for (name, lake_name) in &raw.lake_columns {
            let lake_name = self.text(key, lake_name)?;
            let plain = lake_name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            if !plain {
                let rule = format!("gives {name} a name that some reader refuses: only a-z, 0-9 and _ may stand in it");
                return Err(self.error(key, rule));
            }
            if columns.values().any(|known| *known == lake_name) {
                return Err(self.error(key, format!("gives {lake_name} to two columns")));
            }
            columns.insert(self.text(key, name)?, lake_name);
        }
        Ok(columns)
    }

    fn duration(
        &self,
        key: &str,
        text: &str,
        least: Duration,
        most_hours: u64,
        rule: &str,
    ) -> Result<Duration, ConfigError> {
        let found = humantime::parse_duration(self.text(key, text)?.trim()).ok();
        let most = Duration::from_secs(most_hours * 3600);
        found.filter(|found| (least..=most).contains(found)).ok_or_else(|| self.error(key, rule))
    }

    fn buffer(&self, raw: &RawBuffer) -> Result<BufferSection, ConfigError> {
        let (age, rule) = (raw.max_age.as_deref(), "must be a duration from 100ms to 1h, such as \"10s\"");
        let max_age = self.duration("[buffer].max_age", age.unwrap_or("10s"), Duration::from_millis(100), 1, rule)?;
        let max_bytes = self.bytes("[buffer].max_bytes", raw.max_bytes.as_deref().unwrap_or("64MiB"))?;
        let memory_limit_bytes =
            self.bytes("[buffer].memory_limit", raw.memory_limit.as_deref().unwrap_or("256MiB"))?;
        if max_bytes < MIB {
            return Err(self.error("[buffer].max_bytes", "must be at least 1MiB"));
        }
        if memory_limit_bytes < 128 * MIB || memory_limit_bytes < max_bytes.saturating_mul(2) {
            let rule = "must be at least 128MiB and at least twice [buffer].max_bytes";
            return Err(self.error("[buffer].memory_limit", rule));
        }
        Ok(BufferSection { max_age, max_bytes, memory_limit_bytes })
    }

    fn bytes(&self, key: &str, text: &str) -> Result<u64, ConfigError> {
        let size: bytesize::ByteSize = self.parsed(key, text, "must be a size such as \"64MiB\"")?;
        Ok(size.as_u64())
    }

    fn archive(&self, raw: &RawArchive) -> Result<ArchiveSection, ConfigError> {
        let schedule = self.text("[archive].schedule", raw.schedule.as_deref().unwrap_or("0 3 * * *"))?;
        let Some(schedule) = Schedule::parse(&schedule) else {
            let rule = "must have the five cron fields minute (0-59), hour (0-23), day (1-31), month (1-12) and weekday (0-7), \
                        such as \"0 3 * * *\" (UTC)";
            return Err(self.error("[archive].schedule", rule));
        };
        let schema = self.text("[archive].schema", raw.schema.as_deref().unwrap_or("archive"))?;
        if schema.len() > NAME_MAX_BYTES {
            return Err(self.error("[archive].schema", "must be at most 63 bytes long"));
        }
        if schema.contains(['$', '@']) {
            return Err(self.error("[archive].schema", "must not contain $ or @"));
        }
        if schema.starts_with("pg_") || matches!(schema.as_str(), "information_schema" | "public") {
            let rule = "must be a schema of its own, such as \"archive\": what lies in it is proved and dropped";
            return Err(self.error("[archive].schema", rule));
        }
        let (text, rule) = (raw.proof_interval.as_deref(), "must be a duration from 1s to 24h, such as \"10m\"");
        let least = Duration::from_secs(1);
        let proof_interval = self.duration("[archive].proof_interval", text.unwrap_or("10m"), least, 24, rule)?;
        Ok(ArchiveSection { schema, drop: raw.drop.unwrap_or(true), schedule, proof_interval })
    }

    fn snapshot(&self, raw: &RawSnapshot) -> Result<SnapshotSection, ConfigError> {
        let connections = raw.connections.unwrap_or(2);
        let connections = usize::try_from(connections).ok().filter(|connections| (1..=16).contains(connections));
        let Some(connections) = connections else {
            return Err(self.error("[snapshot].connections", "must be from 1 to 16"));
        };
        let rate = |text: &String| {
            const KEY: &str = "[snapshot].max_bytes_per_second";
            let rate = self.bytes(KEY, text)?;
            let rule = "must be at least 64KiB, such as \"50MiB\"; leave the line out for no limit";
            if rate < 64 * 1024 { Err(self.error(KEY, rule)) } else { Ok(rate) }
        };
        let max_bytes_per_second = raw.max_bytes_per_second.as_ref().map(rate).transpose()?;
        let batch_bytes = self.bytes("[snapshot].batch_bytes", raw.batch_bytes.as_deref().unwrap_or("2GiB"))?;
        if batch_bytes < MIB {
            return Err(self.error("[snapshot].batch_bytes", "must be at least 1MiB"));
        }
        Ok(SnapshotSection { connections, max_bytes_per_second, batch_bytes })
    }

    fn database(&self, raw: Option<&str>) -> Result<Option<String>, ConfigError> {
        let Some(text) = raw else { return Ok(None) };
        let name = self.text("[query].database", text)?;
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if plain {
            Ok(Some(name))
        } else {
            Err(self.error("[query].database", "must be lower-case letters, digits and underscores, as in Athena"))
        }
    }
}

#[cfg(test)]
#[path = "pipeline_test.rs"]
mod tests;
