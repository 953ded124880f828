//! Settings of schemas: one entry for each version of a type's schema.

use super::schedules::data::value_to_json;
use super::{Invalid, Settings};
use crate::event::schemas::{
    MAX_BYTES, OnInvalid, SchemaDocument, SchemaVersion, Schemas, TypeSchemas, Upcast, UpcastPath,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest event type, as `ingest.max_field_bytes` allows.
const MAX_TYPE: usize = 1_280;
/// Most entries.
const MAX_SCHEMAS: usize = 1_000;
/// Most steps of one version.
const MAX_STEPS: usize = 100;

/// `[[schemas]]`: one version of the schema of an event type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaSettings {
    #[serde(rename = "type")]
    pub event_type: String,
    pub version: i16,
    /// Path of the document, relative to the settings file.
    pub file: Option<PathBuf>,
    /// The document itself, in place of a file.
    pub schema: Option<String>,
    /// The same for all versions of a type.
    pub on_invalid: Option<OnInvalid>,
    /// What makes a payload of this version from one of the version before.
    #[serde(default)]
    pub upcast: Vec<UpcastSettings>,
    pub compatible: Option<Compatible>,
}

/// Overrules what the comparison with the version before says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatible {
    Declared,
}

/// One step of an upcast.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpcastSettings {
    /// The old path and the new one.
    Rename([String; 2]),
    /// The member gets the value.
    Set(PathValue),
    /// The member gets the value if it is absent.
    Default(PathValue),
    Remove(String),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathValue {
    pub path: String,
    pub value: toml::Value,
}

impl UpcastSettings {
    fn step(&self) -> Result<Upcast, String> {
        let path = |text: &str| {
            UpcastPath::parse(text)
                .map_err(|reason| format!("has the path {text:?}, which {reason}"))
        };
        let set = |set: &PathValue, only_absent| {
            let value = value_to_json(&set.value)?;
            let value =
                RawValue::from_string(value.to_string()).map_err(|error| error.to_string())?;
            Ok(Upcast::Set {
                path: path(&set.path)?,
                value,
                only_absent,
            })
        };
        match self {
            UpcastSettings::Set(value) => set(value, false),
            UpcastSettings::Default(value) => set(value, true),
            UpcastSettings::Remove(member) => Ok(Upcast::Remove(path(member)?)),
            UpcastSettings::Rename([from, to]) => {
                let (from, to) = (path(from)?, path(to)?);
                if !from.can_move_to(&to) {
                    return Err(
                        "renames across *: both paths must be the same up to their last *"
                            .to_owned(),
                    );
                }
                Ok(Upcast::Rename { from, to })
            }
        }
    }
}

impl SchemaSettings {
    /// Reads and compiles this version.
    fn compile(&self, folder: Option<&Path>) -> Result<SchemaVersion, Vec<Invalid>> {
        let mut found = Vec::new();
        let text = match (&self.file, &self.schema) {
            (Some(file), None) => {
                let path = folder.map_or_else(|| file.clone(), |folder| folder.join(file));
                read(&path).map_err(|reason| Invalid::new("file", reason))
            }
            (None, Some(text)) => Ok(text.clone()),
            (None, None) => Err(Invalid::new(
                "file",
                "is missing; name a file, or write the schema into `schema`",
            )),
            (Some(_), Some(_)) => Err(Invalid::new("file, schema", "are both set; keep one")),
        };
        let key = if self.file.is_some() {
            "file"
        } else {
            "schema"
        };
        let document = text.and_then(|text| {
            SchemaDocument::compile(text)
                .map_err(|reason| Invalid::new(key, format!("the schema {reason}")))
        });
        if self.upcast.len() > MAX_STEPS {
            let reason = format!(
                "has {} steps, at most {MAX_STEPS} are taken",
                self.upcast.len()
            );
            found.push(Invalid::new("upcast", reason));
        }
        let mut upcast = Vec::new();
        for (place, step) in self.upcast.iter().enumerate() {
            match step.step() {
                Ok(step) => upcast.push(step),
                Err(reason) => found.push(Invalid::new(&format!("upcast[{place}]"), reason)),
            }
        }
        match document {
            Ok(document) if found.is_empty() => Ok(SchemaVersion {
                document,
                upcast,
                is_declared_compatible: self.compatible.is_some(),
            }),
            Ok(_) => Err(found),
            Err(invalid) => Err([vec![invalid], found].concat()),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let mut text = String::new();
    // One more than is allowed, which the compiler then refuses.
    let mut file = std::fs::File::open(path)
        .map_err(unreadable)?
        .take(MAX_BYTES as u64 + 1);
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

impl Settings {
    /// Reads and compiles the schemas; those of before stay if there is a flaw. Files are looked for from
    /// `folder`, or from the working directory.
    pub(super) fn compile_schemas(&mut self, folder: Option<&Path>) -> Vec<Invalid> {
        match compile(&self.schemas, folder) {
            Ok(schemas) => {
                self.compiled_schemas = schemas;
                Vec::new()
            }
            Err(found) => found,
        }
    }

    /// Takes the schemas of other settings.
    pub(super) fn take_schemas(&mut self, other: &Settings) {
        self.schemas.clone_from(&other.schemas);
        self.compiled_schemas = other.compiled_schemas.clone();
    }
}

fn compile(settings: &[SchemaSettings], folder: Option<&Path>) -> Result<Schemas, Vec<Invalid>> {
    if settings.len() > MAX_SCHEMAS {
        let reason = format!(
            "has {} entries, at most {MAX_SCHEMAS} are taken",
            settings.len()
        );
        return Err(vec![Invalid::new("schemas", reason)]);
    }
    let mut found = Vec::new();
    let mut types: BTreeMap<&str, BTreeMap<i16, (usize, SchemaVersion)>> = BTreeMap::new();
    for (index, entry) in settings.iter().enumerate() {
        let at =
            |flaw: Invalid| Invalid::new(&format!("schemas[{index}].{}", flaw.key), flaw.reason);
        let name = entry.event_type.as_str();
        if name.is_empty() || name.len() > MAX_TYPE || name.contains('\0') {
            let reason = format!("is {name:?}, which no event type can be");
            found.push(at(Invalid::new("type", reason)));
        }
        if entry.version < 1 {
            let reason = format!("is {}, but versions are counted from 1", entry.version);
            found.push(at(Invalid::new("version", reason)));
        }
        match entry.compile(folder) {
            Err(flaws) => found.extend(flaws.into_iter().map(at)),
            Ok(version) => {
                let versions = types.entry(name).or_default();
                if let Some((other, _)) = versions.insert(entry.version, (index, version)) {
                    let reason = format!(
                        "is {}, as of schemas[{other}] for the same type",
                        entry.version
                    );
                    found.push(at(Invalid::new("version", reason)));
                }
            }
        }
    }
    let mut made = Vec::new();
    for (name, versions) in types {
        let numbers: Vec<i16> = versions.keys().copied().collect();
        for pair in numbers.windows(2) {
            if let [before, after] = pair
                && before.checked_add(1) != Some(*after)
            {
                let index = versions.get(after).map_or(0, |(index, _)| *index);
                let reason = format!(
                    "is {after}, but of {name:?} the version before is {before}; versions follow each other \
                     without a gap, and only the oldest may be left out"
                );
                found.push(Invalid::new(&format!("schemas[{index}].version"), reason));
            }
        }
        let oldest = numbers.first().copied().unwrap_or(1);
        let on_invalid = on_invalid(name, settings, &mut found);
        if let Some((index, version)) = versions.get(&oldest)
            && version.is_declared_compatible
        {
            let reason = "is set for the oldest version, which has none before it";
            found.push(Invalid::new(
                &format!("schemas[{index}].compatible"),
                reason,
            ));
        }
        let versions = versions.into_values().map(|(_, version)| version).collect();
        made.push(TypeSchemas::new(
            name.to_owned(),
            on_invalid,
            oldest,
            versions,
        ));
    }
    match found.is_empty() {
        true => Ok(Schemas::new(made)),
        false => Err(found),
    }
}

/// What the versions of a type say that say something.
fn on_invalid(name: &str, settings: &[SchemaSettings], found: &mut Vec<Invalid>) -> OnInvalid {
    let said = settings
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.event_type == name)
        .filter_map(|(index, entry)| Some((index, entry.on_invalid?)));
    let mut first = None;
    for (index, one) in said {
        if *first.get_or_insert(one) != one {
            let reason = format!(
                "differs from another version of {name:?}; it holds for the type, so write it once, or the same"
            );
            found.push(Invalid::new(
                &format!("schemas[{index}].on_invalid"),
                reason,
            ));
        }
    }
    first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, Settings, Sources};

    fn load(text: &str) -> Result<Settings, Vec<(String, String)>> {
        match Sources::from_text(text).load() {
            Ok(settings) => Ok(settings),
            Err(ConfigError::Invalid(found)) => {
                Err(found.into_iter().map(|one| (one.key, one.reason)).collect())
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn entry(version: i16, more: &str) -> String {
        format!("[[schemas]]\ntype = \"order.placed\"\nversion = {version}\n{more}\n")
    }

    const ANY: &str = "schema = '{}'";

    #[test]
    fn versions_are_compiled() {
        let text = [
            entry(
                2,
                "schema = '{\"required\": [\"a\"]}'\non_invalid = \"quarantine\"",
            ),
            entry(
                3,
                "schema = '{}'\nupcast = [{ rename = [\"a\", \"b\"] }, { set = { path = \"c\", value = 1 } }, \
                      { default = { path = \"d\", value = [1.5] } }, { remove = \"e\" }]",
            ),
        ];
        let settings = load(&text.concat()).unwrap();
        let schemas = settings.event_schemas().of_type("order.placed").unwrap();
        assert_eq!((schemas.oldest(), schemas.newest()), (2, 3));
        assert!(schemas.check(None, "{\"a\":1}").is_ok());
        assert!(schemas.check(Some(3), "{}").is_ok());
        let broken = schemas.check(Some(2), "{}").unwrap_err();
        assert_eq!(
            (broken[0].pointer.as_str(), broken[0].rule.as_str()),
            ("", "/required")
        );
        assert!(
            schemas.check(Some(1), "{}").unwrap_err()[0]
                .reason
                .contains("2 to 3")
        );
        assert!(settings.event_schemas().of_type("other").is_none());
    }

    #[test]
    fn what_is_invalid_is_named() {
        let cases = [
            (entry(0, ANY), "schemas[0].version", "from 1"),
            (entry(1, ""), "schemas[0].file", "missing"),
            (
                entry(1, "file = \"a\"\nschema = \"{}\""),
                "schemas[0].file, schema",
                "keep one",
            ),
            (
                entry(1, "file = \"/none/of/this.json\""),
                "schemas[0].file",
                "cannot be read",
            ),
            (
                entry(1, "schema = \"{\""),
                "schemas[0].schema",
                "not valid JSON",
            ),
            (
                entry(1, "schema = '[]'"),
                "schemas[0].schema",
                "JSON object",
            ),
            (
                entry(1, "schema = '{\"type\": 5}'"),
                "schemas[0].schema",
                "no valid JSON Schema",
            ),
            (
                entry(1, "schema = '{\"$ref\": \"http://a/b\"}'"),
                "schemas[0].schema",
                "nothing is fetched",
            ),
            (
                entry(1, "schema = '{\"$schema\": \"http://a/b\"}'"),
                "schemas[0].schema",
                "dialect",
            ),
            (
                entry(1, "schema = '{\"pattern\": \"(?=a)\"}'"),
                "schemas[0].schema",
                "no valid JSON Schema",
            ),
            (
                entry(1, "schema = '{}'\nupcast = [{ remove = \"\" }]"),
                "schemas[0].upcast[0]",
                "empty",
            ),
            (
                entry(
                    1,
                    "schema = '{}'\nupcast = [{ rename = [\"/a/*/b\", \"/c/*/b\"] }]",
                ),
                "schemas[0].upcast[0]",
                "across *",
            ),
            (
                entry(1, ANY) + &entry(3, ANY),
                "schemas[1].version",
                "without a gap",
            ),
            (
                entry(1, ANY) + &entry(1, ANY),
                "schemas[1].version",
                "schemas[0]",
            ),
            (
                entry(1, "schema = '{}'\ncompatible = \"declared\""),
                "schemas[0].compatible",
                "oldest",
            ),
            (
                entry(1, "schema = '{}'\non_invalid = \"refuse\"")
                    + &entry(2, "schema = '{}'\non_invalid = \"quarantine\""),
                "schemas[1].on_invalid",
                "holds for the type",
            ),
            (
                entry(1, ANY).replace("order.placed", ""),
                "schemas[0].type",
                "no event type",
            ),
        ];
        for (text, key, words) in cases {
            let found = load(&text).map(|_| ()).unwrap_err();
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].0, key, "{text}");
            assert!(found[0].1.contains(words), "{text}: {}", found[0].1);
        }
    }

    #[test]
    fn a_schedule_whose_event_breaks_its_schema_is_refused() {
        let schedule = "[[schedules]]\nname = \"n\"\ncron = \"0 3 * * *\"\nevent_type = \"order.placed\"\n\
                        event_data = { total = -1 }\n";
        let schema = entry(
            1,
            "schema = '{\"properties\": {\"total\": {\"minimum\": 0}}}'",
        );
        let found = load(&format!("{schedule}{schema}"))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(found[0].0, "schedules[0].event_data");
        assert!(found[0].1.contains("\"/total\""), "{found:?}");
    }
}
