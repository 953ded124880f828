//! The TOML file an [`App`](super::App) is started with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Dotted keys and their values; every change rewrites the file.
pub struct Settings {
    file: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Settings {
    pub fn new(file: PathBuf, values: BTreeMap<String, Value>) -> Self {
        let settings = Self { file, values };
        settings.write();
        settings
    }

    pub fn set(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
        self.write();
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// Beside and renamed over, as editors and Kubernetes do: nobody reads half a file.
    fn write(&self) {
        let text: String = self
            .values
            .iter()
            .map(|(key, value)| format!("{key} = {}\n", toml(value)))
            .collect();
        let beside = self.file.with_extension("new");
        fs::write(&beside, text).expect("own folder");
        fs::rename(&beside, &self.file).expect("own folder");
    }
}

/// JSON's numbers, booleans and strings are TOML as they stand; arrays and tables nearly are.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{} = {}", Value::from(key.as_str()), toml(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        other => other.to_string(),
    }
}
