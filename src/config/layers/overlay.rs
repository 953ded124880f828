//! One source of settings laid over another. The defaults name every key there is, so a key they lack
//! is unknown.

use super::error::ConfigError;
use crate::config::DEFAULTS;
use toml::{Table, Value};

pub(super) fn parse(text: &str, origin: &str) -> Result<Table, ConfigError> {
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
pub(super) fn overlay(
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
pub(super) fn set(
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

pub(super) fn find_mut<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
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
