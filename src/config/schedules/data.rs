//! Payloads in TOML.

use serde_json::{Map, Number, Value};

/// A table as a JSON object. A date or time becomes its text.
///
/// # Errors
/// What JSON has no form for.
pub(super) fn to_json(table: &toml::Table) -> Result<Value, String> {
    let members = table
        .iter()
        .map(|(key, value)| Ok((key.clone(), value_to_json(value)?)))
        .collect::<Result<Map<_, _>, String>>()?;
    Ok(Value::Object(members))
}

pub(in crate::config) fn value_to_json(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| format!("has {number}, which JSON cannot express"))?,
        toml::Value::Boolean(flag) => Value::from(*flag),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(items) => {
            let items = items.iter().map(value_to_json);
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => to_json(table)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_value_has_its_json() {
        let text = "a = 1\nb = 1.5\nc = [true, \"x\"]\nd.e = 2026-01-31T09:30:00Z";
        let json = to_json(&text.parse().unwrap()).unwrap();
        let expected =
            json!({"a": 1, "b": 1.5, "c": [true, "x"], "d": {"e": "2026-01-31T09:30:00Z"}});
        assert_eq!(json, expected);
        assert!(to_json(&"a = [inf]".parse().unwrap()).is_err());
    }
}
