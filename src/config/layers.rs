//! Where settings come from: built-in defaults, a file, the environment, flags, each over the one
//! before. The defaults name every key there is, so a key they lack is unknown.

use super::{DEFAULTS, Invalid, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Read when no file is named, if it is there.
const DEFAULT_FILE: &str = "eclusa.toml";
/// Keys whose values are never shown.
const SECRETS: [&str; 2] = ["store.url", "broker.url"];

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file, or a value in the environment, is not TOML.
    #[error("{origin} is not valid: {reason}")]
    Syntax {
        /// Which source.
        origin: String,
        /// The parser's message.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin} sets {key}, which is not a setting{}", nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean {n}?")))]
    UnknownKey {
        /// Which source.
        origin: String,
        /// The dotted key.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// Values that break rules.
    #[error("{}", .0.iter().map(|i| format!("{} {}", i.key, i.reason)).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Invalid>),
}

/// The sources of the settings; kept, so that they can be read again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    text: Option<String>,
    environment: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
}

impl Sources {
    /// The file named (or `./eclusa.toml` if it exists), this process's environment, and flags as
    /// pairs of dotted key and value.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let default = Path::new(DEFAULT_FILE);
        Self {
            file: file.or_else(|| default.exists().then(|| default.to_owned())),
            text: None,
            // What is not UTF-8 is not meant for us.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            flags,
        }
    }

    /// Only this TOML text over the defaults.
    pub fn from_text(text: &str) -> Self {
        Self {
            text: Some(text.to_owned()),
            ..Self::default()
        }
    }

    /// The same with flags over it, as pairs of dotted key and value.
    pub fn with_flags(mut self, flags: Vec<(String, String)>) -> Self {
        self.flags = flags;
        self
    }

    /// The settings file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Merges the sources and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`], which names the source, the key and what to do.
    pub fn load(&self) -> Result<Settings, ConfigError> {
        let table = self.merge()?;
        let settings: Settings =
            Value::Table(table)
                .try_into()
                .map_err(|error: toml::de::Error| ConfigError::Syntax {
                    origin: "a setting".to_owned(),
                    reason: error.to_string().trim().to_owned(),
                })?;
        let invalid = settings.validate();
        if invalid.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::Invalid(invalid))
        }
    }

    /// The merged settings as TOML, secrets hidden.
    ///
    /// # Errors
    /// As [`Sources::load`], except that values are not checked.
    pub fn show(&self) -> Result<String, ConfigError> {
        let mut table = self.merge()?;
        for key in SECRETS {
            if let Some(Value::String(text)) = find_mut(&mut table, key)
                && !text.is_empty()
            {
                *text = hide_password(text);
            }
        }
        toml::to_string(&table).map_err(|error| ConfigError::Syntax {
            origin: "the merged settings".to_owned(),
            reason: error.to_string(),
        })
    }

    fn merge(&self) -> Result<Table, ConfigError> {
        let defaults = parse(DEFAULTS, "config/eclusa.toml")?;
        let mut table = defaults.clone();
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
                path: path.clone(),
                source,
            })?;
            let origin = path.display().to_string();
            overlay(&mut table, parse(&text, &origin)?, &defaults, &origin, "")?;
        }
        if let Some(text) = &self.text {
            overlay(
                &mut table,
                parse(text, "the text")?,
                &defaults,
                "the text",
                "",
            )?;
        }
        for (name, key, value) in self.environment_values()? {
            set(&mut table, &defaults, &name, &key, &value)?;
        }
        for (key, value) in &self.flags {
            set(&mut table, &defaults, "the command line", key, value)?;
        }
        Ok(table)
    }

    /// Name of the variable, dotted key and value, in order of precedence: well-known names first,
    /// `ECLUSA__` over them.
    fn environment_values(&self) -> Result<Vec<(String, String, String)>, ConfigError> {
        let mut values = Vec::new();
        for (name, key) in [
            ("NODE_ENV", "environment"),
            ("ECLUSA_ENV", "environment"),
            ("PORT", "http.port"),
            ("DATABASE_URL", "store.url"),
            ("RABBITMQ_URL", "broker.url"),
            ("RABBITMQ_QUEUE", "broker.queue"),
            ("MAX_RETRY_ATTEMPTS", "retry.max_attempts"),
            ("ECLUSA_LOG", "log.filter"),
        ] {
            if let Some(value) = self.variable(name)? {
                values.push((name.to_owned(), key.to_owned(), value));
            }
        }
        if let Some(host) = self.variable("DB_HOST")?
            && self.variable("DATABASE_URL")?.is_none()
        {
            values.push((
                "DB_HOST".to_owned(),
                "store.url".to_owned(),
                self.url_of_parts(&host)?,
            ));
        }
        for name in self.environment.keys() {
            let Some(rest) = name.strip_prefix("ECLUSA__") else {
                continue;
            };
            let rest = rest.strip_suffix("_FILE").unwrap_or(rest);
            let plain = format!("ECLUSA__{rest}");
            let key = rest.to_lowercase().replace("__", ".");
            if let Some(value) = self.variable(&plain)? {
                values.push((plain, key, value));
            }
        }
        Ok(values)
    }

    /// A variable, or the contents of the file that `NAME_FILE` names. Empty counts as absent: it
    /// is what a compose file makes of a variable that is not set.
    fn variable(&self, name: &str) -> Result<Option<String>, ConfigError> {
        if let Some(value) = self.environment.get(name).filter(|v| !v.is_empty()) {
            return Ok(Some(value.clone()));
        }
        match self.environment.get(&format!("{name}_FILE")) {
            Some(path) if !path.is_empty() => std::fs::read_to_string(path)
                .map(|text| Some(text.trim_end_matches(['\r', '\n']).to_owned()))
                .map_err(|source| ConfigError::File {
                    path: path.into(),
                    source,
                }),
            _ => Ok(None),
        }
    }

    fn url_of_parts(&self, host: &str) -> Result<String, ConfigError> {
        let part = |name: &str, default: &str| -> Result<String, ConfigError> {
            Ok(self.variable(name)?.unwrap_or_else(|| default.to_owned()))
        };
        let user = percent_encode(&part("DB_USER", "postgres")?);
        let password = part("DB_PASSWORD", "")?;
        let password = if password.is_empty() {
            String::new()
        } else {
            format!(":{}", percent_encode(&password))
        };
        Ok(format!(
            "postgres://{user}{password}@{host}:{}/{}",
            part("DB_PORT", "5432")?,
            percent_encode(&part("DB_NAME", "eclusa")?),
        ))
    }
}

fn parse(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| {
        // The parser's full text quotes the line, which may hold a password.
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        ConfigError::Syntax {
            origin: origin.to_owned(),
            reason: format!("line {line}: {}", error.message()),
        }
    })
}

/// Writes `over` into `table`, refusing keys that `known` lacks.
fn overlay(
    table: &mut Table,
    over: Table,
    known: &Table,
    origin: &str,
    path: &str,
) -> Result<(), ConfigError> {
    for (name, value) in over {
        let key = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match (known.get(&name), value) {
            (None, _) => return Err(unknown(origin, &key)),
            (Some(Value::Table(known)), Value::Table(value)) => {
                if let Some(Value::Table(inner)) = table.get_mut(&name) {
                    overlay(inner, value, known, origin, &key)?;
                }
            }
            (Some(Value::Table(_)), _) => {
                return Err(ConfigError::Syntax {
                    origin: origin.to_owned(),
                    reason: format!("{key} is a section, not a value"),
                });
            }
            (Some(default), value) if !same_kind(default, &value) => {
                return Err(ConfigError::Syntax {
                    origin: origin.to_owned(),
                    reason: format!(
                        "{key} must be {}, such as {default}, not {}",
                        kind(default),
                        kind(&value)
                    ),
                });
            }
            (Some(_), value) => {
                table.insert(name, value);
            }
        }
    }
    Ok(())
}

/// Writes one value given as text, read as the kind of value the key has by default.
fn set(
    table: &mut Table,
    defaults: &Table,
    origin: &str,
    key: &str,
    text: &str,
) -> Result<(), ConfigError> {
    let mut known = defaults.clone();
    let default = match find_mut(&mut known, key) {
        Some(Value::Table(_)) | None => return Err(unknown(origin, key)),
        Some(default) => default.clone(),
    };
    let value = match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        _ => format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut parsed| parsed.remove("value"))
            .filter(|value| same_kind(&default, value)),
    };
    let value = value.ok_or_else(|| ConfigError::Syntax {
        origin: origin.to_owned(),
        reason: format!(
            "{key} must be {}, such as {default}, not {text:?}",
            kind(&default)
        ),
    })?;
    if let Some(slot) = find_mut(table, key) {
        *slot = value;
    }
    Ok(())
}

fn find_mut<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((first, rest)) => match table.get_mut(first)? {
            Value::Table(inner) => find_mut(inner, rest),
            _ => None,
        },
    }
}

fn same_kind(default: &Value, value: &Value) -> bool {
    std::mem::discriminant(default) == std::mem::discriminant(value)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        _ => "another kind of value",
    }
}

fn unknown(origin: &str, key: &str) -> ConfigError {
    let mut keys = Vec::new();
    if let Ok(defaults) = DEFAULTS.parse::<Table>() {
        collect_keys(&defaults, "", &mut keys);
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let nearest = keys
        .into_iter()
        .map(|known| {
            // A right name in the wrong section is as near as a misspelt one in the right section.
            let distance = strsim::damerau_levenshtein(&known, key)
                .min(strsim::damerau_levenshtein(&last(&known), &last(key)) + 1);
            (distance, known)
        })
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, known)| known);
    ConfigError::UnknownKey {
        origin: origin.to_owned(),
        key: key.to_owned(),
        nearest,
    }
}

fn collect_keys(table: &Table, path: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            Value::Table(inner) => collect_keys(inner, &key, keys),
            _ => keys.push(key),
        }
    }
}

/// `scheme://user:***@host/...`: a URL that may be shown. What has no recognisable place for a
/// password is hidden whole if it has an `@` or a parameter that could be one.
pub fn hide_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) if query.contains("password") => (rest, "?***".to_owned()),
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
