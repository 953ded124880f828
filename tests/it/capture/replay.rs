//! Replaying records: the tables that they make.

use super::shop::TABLES;
use crate::harness::connect;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};

/// Members of a record that are no columns.
const META: [&str; 8] = [
    "op",
    "ts_ms",
    "lsn",
    "table",
    "key",
    "oldKey",
    "unchanged",
    "before",
];

/// Tables as their records tell.
#[derive(Debug, Default, PartialEq)]
pub struct Replayed(pub BTreeMap<String, BTreeMap<i64, Map<String, Value>>>);

impl Replayed {
    /// What these records make, in their order.
    pub fn of(records: &[Value]) -> Self {
        let mut replayed = Self::default();
        for record in records {
            replayed.apply(&record["eventData"]);
        }
        replayed
    }

    fn apply(&mut self, record: &Value) {
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        let key = |name: &str| record[name]["id"].as_i64();
        let rows = self.0.entry(text("table")).or_default();
        let id = key("key");
        match &*text("op") {
            "t" => rows.clear(),
            "d" => drop(rows.remove(&id.unwrap())),
            "c" | "r" | "u" => {
                let before = rows
                    .remove(&key("oldKey").or(id).unwrap())
                    .unwrap_or_default();
                let members = record.as_object().unwrap().iter();
                let mut row: Map<String, Value> = members
                    .filter(|(name, _)| !META.contains(&name.as_str()))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                for name in record["unchanged"].as_array().into_iter().flatten() {
                    let name = name.as_str().unwrap();
                    // Of a row that the snapshot has not read yet, which it will.
                    let value = before.get(name).cloned().unwrap_or_default();
                    row.insert(name.to_owned(), value);
                }
                rows.insert(id.unwrap(), row);
            }
            other => panic!("{other}"),
        }
    }

    /// What the tables have.
    pub async fn source(url: &str) -> Self {
        let client = connect(url).await;
        let mut tables = BTreeMap::new();
        for table in TABLES {
            let all = format!("SELECT id, to_jsonb(t)::text AS row FROM {table} AS t");
            let rows = client.query(&all, &[]).await.unwrap();
            let rows = rows.iter().map(|row| {
                let object: Value = serde_json::from_str(row.get("row")).unwrap();
                (row.get("id"), object.as_object().unwrap().clone())
            });
            tables.insert(table.to_owned(), rows.collect());
        }
        Self(tables)
    }
}

/// Checks that these records make what the tables have, and that none is there twice. A record that was made before a
/// column was added has no such column, and may.
pub async fn assert_replayed(records: &[Value], url: &str) {
    let (mut replayed, source) = (Replayed::of(records), Replayed::source(url).await);
    for table in TABLES {
        let rows = replayed.0.entry(table.to_owned()).or_default();
        for (id, row) in rows.iter_mut() {
            if source.0[table]
                .get(id)
                .is_some_and(|row| row.contains_key("note"))
            {
                row.entry("note").or_insert(Value::Null);
            }
        }
        for (id, wanted) in &source.0[table] {
            assert_eq!(
                rows.get(id),
                Some(wanted),
                "{table} {id}{}",
                history(records, table, *id)
            );
        }
        for id in rows.keys() {
            let is_there = source.0[table].contains_key(id);
            assert!(
                is_there,
                "{table} {id} is deleted{}",
                history(records, table, *id)
            );
        }
    }
    let ids: HashSet<&str> = ids(records).collect();
    assert_eq!(ids.len(), records.len(), "no record is there twice");
}

/// The ids of records, in their order.
pub fn ids(records: &[Value]) -> impl Iterator<Item = &str> {
    records.iter().map(|record| record["id"].as_str().unwrap())
}

/// What the records say of a row, for the message of a failure; without what is long.
fn history(records: &[Value], table: &str, id: i64) -> String {
    let mut lines = String::new();
    for record in records.iter().map(|record| &record["eventData"]) {
        let is_its = record["key"]["id"] == id || record["oldKey"]["id"] == id;
        if record["table"] == table && (is_its || record["op"] == "t") {
            let mut record = record.clone();
            if let Some(body) = record["body"].as_str() {
                record["body"] = body.chars().take(12).collect::<String>().into();
            }
            lines = format!("{lines}\n{record}");
        }
    }
    lines
}
