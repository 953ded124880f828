//! Settings of captures.

use super::Invalid;
use super::reactions::check_name;
use super::urls::{not_postgres, read_url};
use bytesize::ByteSize;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// Rows of a chunk of a snapshot, at most.
const MOST_ROWS: usize = 100_000;
/// PostgreSQL's limit of a name, less the prefix of slot and publication.
const LONGEST: usize = 50;
/// PostgreSQL's limit of a slot's name.
const LONGEST_SLOT: usize = 63;

const NO_URL: &str =
    "is empty, and so is store.url; set it to the PostgreSQL whose changes are wanted";

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureEnvelope {
    /// The row's values beside `op`, `ts_ms`, `lsn`, `table` and `key`.
    #[default]
    Flat,
    /// Debezium's.
    Debezium,
}

/// Columns with another treatment than the rest, each as `schema.table.column`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureColumns {
    /// They are never read.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Their values are replaced.
    #[serde(default)]
    pub mask: Vec<String>,
}

/// `[[captures]]`: tables whose changes are events.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureSettings {
    /// As a reaction's. It is part of the events' ids.
    pub name: String,
    /// The name of the slot and of the publication; `eclusa_` and the capture's name unless given.
    pub slot: Option<String>,
    /// The captured PostgreSQL; empty for that of the store.
    #[serde(default)]
    pub url: String,
    /// A file with the URL.
    pub url_file: Option<PathBuf>,
    /// Each with its schema, such as `public.product`.
    pub tables: Vec<String>,
    #[serde(default)]
    pub envelope: CaptureEnvelope,
    #[serde(default)]
    pub columns: CaptureColumns,
    /// Whether the rows that are there already are read first.
    #[serde(default = "yes")]
    pub snapshot: bool,
    /// Rows that a snapshot reads at a time, at most.
    #[serde(default = "two_thousand")]
    pub chunk_rows: usize,
    /// Bytes of log that the slot may keep before the alarm.
    #[serde(default = "ten_gib")]
    pub max_lag: ByteSize,
}

/// Without the URL, which has a password.
impl fmt::Debug for CaptureSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureSettings")
            .field("name", &self.name)
            .field("slot", &self.slot)
            .field("url_file", &self.url_file)
            .field("tables", &self.tables)
            .field("envelope", &self.envelope)
            .field("columns", &self.columns)
            .field("snapshot", &self.snapshot)
            .field("chunk_rows", &self.chunk_rows)
            .field("max_lag", &self.max_lag)
            .finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}

fn two_thousand() -> usize {
    2_000
}

fn ten_gib() -> ByteSize {
    ByteSize::gib(10)
}

impl CaptureSettings {
    /// The URL of the captured database; `store` is that of the store.
    ///
    /// # Errors
    /// As of [`CaptureSettings::keyed_database`].
    pub fn database(&self, store: &str) -> Result<String, Invalid> {
        let (_, url) = self
            .keyed_database(store)
            .map_err(|flaw| Invalid::new(&format!("captures.{}", flaw.key), flaw.reason))?;
        Ok(url)
    }

    /// The same with the key that it comes from, `url` or `url_file`.
    ///
    /// # Errors
    /// The file cannot be read, or there is no URL of PostgreSQL.
    pub fn keyed_database(&self, store: &str) -> Result<(&'static str, String), Invalid> {
        let (key, url) = match &self.url_file {
            Some(path) => ("url_file", read_url(path)?),
            None if self.url.is_empty() && store.is_empty() => {
                return Err(Invalid::new("url", NO_URL));
            }
            None if self.url.is_empty() => ("url", store.to_owned()),
            None => ("url", self.url.clone()),
        };
        match not_postgres(&url) {
            Some(reason) if key == "url_file" => {
                let reason = format!("names a file with a URL that {reason}");
                Err(Invalid::new(key, reason))
            }
            Some(reason) => Err(Invalid::new(key, reason)),
            None => Ok((key, url)),
        }
    }

    /// The name of the slot and of the publication: lower-case letters, digits and underscores.
    pub fn slot_name(&self) -> String {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '_',
        };
        let own = || {
            format!(
                "eclusa_{}",
                self.name.chars().map(plain).collect::<String>()
            )
        };
        self.slot.clone().unwrap_or_else(own)
    }

    fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        let mut flaw = |key: &str, reason: String| {
            found.push(Invalid::new(&format!("{at}.{key}"), reason));
        };
        if let Err(invalid) = check_name(&self.name) {
            flaw("name", invalid.reason);
        } else if self.name.len() > LONGEST {
            flaw("name", format!("has more than {LONGEST} characters"));
        }
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
        if let Some(slot) = &self.slot
            && (slot.is_empty() || slot.len() > LONGEST_SLOT || !slot.chars().all(plain))
        {
            let reason = format!(
                "is {slot:?}; a slot's name has 1 to {LONGEST_SLOT} lower-case letters, digits and underscores"
            );
            flaw("slot", reason);
        }
        if !self.url.is_empty() && self.url_file.is_some() {
            flaw(
                "url",
                "is set, and url_file too; remove one of them".to_owned(),
            );
        } else if !self.url.is_empty()
            && let Some(reason) = not_postgres(&self.url)
        {
            flaw("url", reason.to_owned());
        }
        if self.tables.is_empty() {
            let reason = "must name at least one table, such as [\"public.product\"]";
            flaw("tables", reason.to_owned());
        }
        for (index, table) in self.tables.iter().enumerate() {
            if parts::<2>(table).is_none() {
                let reason =
                    format!("has {table:?}; write the schema too, such as \"public.product\"");
                flaw("tables", reason);
            }
            if self.tables.iter().take(index).any(|other| other == table) {
                flaw("tables", format!("has {table:?} twice"));
            }
        }
        for (key, columns) in [
            ("columns.exclude", &self.columns.exclude),
            ("columns.mask", &self.columns.mask),
        ] {
            for column in columns {
                let table = parts(column).map(|[schema, table, _]| format!("{schema}.{table}"));
                if !table.is_some_and(|table| self.tables.contains(&table)) {
                    let reason = format!(
                        "has {column:?}, which is no column of a table of this capture; write schema.table.column"
                    );
                    flaw(key, reason);
                }
            }
        }
        if !(1..=MOST_ROWS).contains(&self.chunk_rows) {
            let reason = format!(
                "is {}, but must lie between 1 and {MOST_ROWS}",
                self.chunk_rows
            );
            flaw("chunk_rows", reason);
        }
    }

    /// The columns of a table that a list names.
    pub fn of_table(list: &[String], table: &str) -> Vec<String> {
        let column = |name: &String| {
            let rest = name.strip_prefix(table)?.strip_prefix('.')?;
            Some(rest.to_owned())
        };
        list.iter().filter_map(column).collect()
    }
}

/// The parts of a dotted name, none of them empty; the last one has the rest.
fn parts<const N: usize>(name: &str) -> Option<[&str; N]> {
    let parts: Vec<&str> = name.splitn(N, '.').collect();
    let parts = parts.try_into().ok();
    parts.filter(|parts: &[&str; N]| parts.iter().all(|part| !part.is_empty()))
}

/// Adds what is invalid in the captures, and names that several have.
pub(super) fn validate(captures: &[CaptureSettings], store: &str, found: &mut Vec<Invalid>) {
    for (index, capture) in captures.iter().enumerate() {
        let at = format!("captures[{index}]");
        capture.validate(&at, found);
        if capture.url.is_empty() && capture.url_file.is_none() && store.is_empty() {
            found.push(Invalid::new(&format!("{at}.url"), NO_URL));
        }
        let mut earlier = captures.iter().take(index);
        if earlier.any(|other| other.name == capture.name) {
            let reason = format!("is {:?}, as another capture's", capture.name);
            found.push(Invalid::new(&format!("{at}.name"), reason));
        }
        let slot = capture.slot_name();
        let mut earlier = captures.iter().take(index);
        if let Some(other) =
            earlier.find(|other| other.name != capture.name && other.slot_name() == slot)
        {
            let reason = format!(
                "is {slot:?} for the captures {:?} and {:?}; give one of them a slot of its own",
                other.name, capture.name
            );
            found.push(Invalid::new(&format!("{at}.slot"), reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(captures: &[(&str, Option<&str>)]) -> Vec<Invalid> {
        let capture = |(name, slot): &(&str, Option<&str>)| {
            let slot = slot.map_or_else(String::new, |slot| format!("slot = {slot:?}"));
            let text = format!("name = {name:?}\ntables = [\"public.product\"]\n{slot}");
            toml::from_str(&text).unwrap()
        };
        let captures: Vec<CaptureSettings> = captures.iter().map(capture).collect();
        let mut found = Vec::new();
        validate(&captures, "postgres://u@h/d", &mut found);
        found
    }

    #[test]
    fn each_capture_has_a_slot_of_its_own() {
        for captures in [
            [("a-b", None), ("a_b", None)],
            [("a", Some("eclusa_b")), ("b", None)],
            [("a", Some("one")), ("b", Some("one"))],
        ] {
            let found = found(&captures);
            let [invalid] = found.as_slice() else {
                panic!("{captures:?}: {found:?}");
            };
            assert_eq!(invalid.key, "captures[1].slot");
            for (name, _) in captures {
                let quoted = format!("{name:?}");
                assert!(invalid.reason.contains(&quoted), "{}", invalid.reason);
            }
            assert!(invalid.reason.contains("a slot of its own"));
        }
        assert_eq!(found(&[("a-b", None), ("a_b", Some("other"))]), []);
        let same: Vec<String> = found(&[("a", None), ("a", None)])
            .into_iter()
            .map(|invalid| invalid.key)
            .collect();
        assert_eq!(same, ["captures[1].name"]);
    }
}
