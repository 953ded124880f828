//! Settings from environment variables.

use super::error::ConfigError;
use super::url::percent_encode;
use std::collections::BTreeMap;

/// The variables of the process, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment(pub(super) BTreeMap<String, String>);

impl Environment {
    /// The variables of this process that are UTF-8; no setting has another one.
    pub(super) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(variables.collect())
    }

    /// Name of the variable, dotted key and value, in order of precedence: well-known names first,
    /// `ECLUSA__` over them.
    pub(super) fn values(&self) -> Result<Vec<(String, String, String)>, ConfigError> {
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
        for name in self.0.keys() {
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
        if let Some(value) = self.0.get(name).filter(|v| !v.is_empty()) {
            return Ok(Some(value.clone()));
        }
        match self.0.get(&format!("{name}_FILE")) {
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
