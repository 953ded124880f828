//! The reference model: what clients sent and what they were promised, against what the log has.
//!
//! It knows nothing of batches, queues and retries. Whatever happened in between, every event that
//! was answered with a yes must be one row, or one dead letter, with the content that was sent; and
//! no row may be there that nobody sent.

use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use eclusa::event::id::of_producer;
use serde_json::Value;
use uuid::Uuid;

use super::connect;

/// Whose the events are that come without an API key.
const PRODUCER: &str = "default";
/// Rows fetched at once.
const PAGE: i64 = 10_000;

/// Where the rows are read.
#[derive(Clone, Copy)]
pub enum Log<'a> {
    /// In the database itself, by its URL.
    Postgres(&'a str),
    /// Through the listing of a running Eclusa, by its URL.
    Http(&'a str),
}

struct Sent {
    checksum: u64,
    /// Whether it said when it happened; if not, the row says when it came.
    timed: bool,
    taken: bool,
}

/// Everything sent so far.
#[derive(Default)]
pub struct Model {
    events: Mutex<HashMap<String, Sent>>,
    /// Ids by user, in the order in which the log must have them.
    orders: Mutex<HashMap<String, Vec<String>>>,
}

/// What a check found. Each list holds ids.
#[derive(Debug, Default)]
pub struct Findings {
    pub taken: usize,
    pub rows: usize,
    pub dead: HashSet<String>,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub altered: Vec<String>,
    pub unsent: Vec<String>,
    /// Behind a later event of the same user.
    pub swapped: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        let lists = [
            &self.lost,
            &self.doubled,
            &self.altered,
            &self.unsent,
            &self.swapped,
        ];
        lists.iter().all(|list| list.is_empty())
    }

    /// Nothing lost, doubled, altered or invented, and nothing dead-lettered.
    #[track_caller]
    pub fn assert_all_rows(&self) {
        self.assert_clean();
        assert!(self.dead.is_empty(), "dead letters: {:?}", self.dead);
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        let some = |list: &[String]| format!("{} {:?}", list.len(), &list[..list.len().min(5)]);
        assert!(
            self.is_clean(),
            "of {} taken: lost {}, doubled {}, altered {}, never sent {}, out of order {}",
            self.taken,
            some(&self.lost),
            some(&self.doubled),
            some(&self.altered),
            some(&self.unsent),
            some(&self.swapped)
        );
    }
}

impl Model {
    /// To be called before the first byte of the event leaves.
    pub fn sending(&self, event: &Value, source: &str) {
        let text = |key: &str| event[key].as_str();
        let time = text("timestamp").map(|time| time.parse().expect("RFC 3339"));
        let sent = Sent {
            checksum: checksum(
                text("userId"),
                text("eventType").unwrap_or_default(),
                text("sessionId"),
                time,
                source,
                &event["eventData"],
            ),
            timed: time.is_some(),
            taken: false,
        };
        let id = text("id").expect("events of the model have ids").to_owned();
        if let Slot::Vacant(slot) = self.events.lock().unwrap().entry(id) {
            slot.insert(sent);
        }
    }

    /// The client heard that the event is safe.
    pub fn taken(&self, event: &Value) {
        let mut events = self.events.lock().unwrap();
        let id = event["id"].as_str().expect("has an id");
        events.get_mut(id).expect("was sent").taken = true;
    }

    /// The log must have these behind all that were taken in order before, each user's in their order.
    pub fn taken_in_order(&self, events: &[Value]) {
        let mut orders = self.orders.lock().unwrap();
        for event in events {
            let text = |key: &str| event[key].as_str().expect("a text").to_owned();
            orders.entry(text("userId")).or_default().push(text("id"));
        }
    }

    /// The ids that the log has behind a later one of the same user.
    fn swapped(&self, places: &HashMap<String, usize>) -> Vec<String> {
        let mut swapped = Vec::new();
        for ids in self.orders.lock().unwrap().values() {
            let mut last = 0;
            for id in ids {
                // One that is lost is found elsewhere.
                let Some(place) = places.get(id) else {
                    continue;
                };
                if *place < last {
                    swapped.push(id.clone());
                }
                last = last.max(*place);
            }
        }
        swapped
    }

    /// Reads the whole log, field by field.
    pub async fn check(&self, log: Log<'_>) -> Findings {
        let mut reading = Reading {
            ordered: !self.orders.lock().unwrap().is_empty(),
            ..Reading::default()
        };
        match log {
            Log::Postgres(url) => self.read_postgres(url, &mut reading).await,
            Log::Http(url) => self.read_http(url, &mut reading).await,
        }
        let mut findings = reading.findings;
        findings.swapped = self.swapped(&reading.places);
        let events = self.events.lock().unwrap();
        for (id, _) in events.iter().filter(|(_, sent)| sent.taken) {
            findings.taken += 1;
            let row = reading.ids.contains(id);
            let event_id = Uuid::parse_str(id).unwrap_or_else(|_| of_producer(PRODUCER, id));
            let dead = findings.dead.contains(&event_id.to_string());
            match (row, dead) {
                (false, false) => findings.lost.push(id.clone()),
                (true, true) => findings.doubled.push(id.clone()),
                _ => {}
            }
        }
        findings
    }

    async fn read_postgres(&self, url: &str, reading: &mut Reading) {
        let client = connect(url).await;
        let sql =
            "SELECT id, event_id, original_id, user_id, event_type, session_id, \"timestamp\",
                          source, event_data::text
                   FROM user_interactions WHERE id > $1 ORDER BY id LIMIT $2";
        let mut after = 0i64;
        loop {
            let rows = client.query(sql, &[&after, &PAGE]).await.expect("rows");
            let Some(last) = rows.last() else { break };
            after = last.get(0);
            for row in &rows {
                let data: &str = row.get(8);
                self.row(
                    reading,
                    Row {
                        event_id: row.get(1),
                        original_id: row.get(2),
                        user_id: row.get(3),
                        event_type: row.get(4),
                        session_id: row.get(5),
                        timestamp: row.get(6),
                        source: row.get(7),
                        data: &serde_json::from_str(data).expect("jsonb"),
                    },
                );
            }
        }
        let there = "SELECT 1 FROM pg_tables WHERE tablename = 'dead_letters'";
        if client.query(there, &[]).await.expect("tables").is_empty() {
            return;
        }
        // One that was sent again is where the event is now: a row, or dead again.
        let sql = "SELECT event_id::text FROM dead_letters
                   WHERE event_id IS NOT NULL AND state = 'dead'";
        for row in client.query(sql, &[]).await.expect("dead letters") {
            reading.dead(row.get(0));
        }
    }

    async fn read_http(&self, url: &str, reading: &mut Reading) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut cursor = String::new();
        loop {
            let path = format!("{url}/v1/events?limit=1000{cursor}");
            let page = client.get(&path).send().await.expect("listing");
            let page: Value = page.json().await.expect("listing");
            for event in page["events"].as_array().expect("events") {
                let text = |key: &str| event[key].as_str();
                self.row(
                    reading,
                    Row {
                        event_id: text("id").unwrap().parse().unwrap(),
                        original_id: text("originalId"),
                        user_id: text("userId"),
                        event_type: text("eventType").unwrap(),
                        session_id: text("sessionId"),
                        timestamp: text("timestamp").unwrap().parse().unwrap(),
                        source: text("source").unwrap(),
                        data: &event["eventData"],
                    },
                );
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut cursor = String::new();
        loop {
            let path = format!("{url}/v1/dead-letters?state=dead&limit=1000{cursor}");
            let page = client.get(&path).send().await.expect("dead letters");
            if page.status() == 404 {
                return;
            }
            let page: Value = page.json().await.expect("dead letters");
            let letters = page.as_object().expect("a page").values();
            for letter in letters.filter_map(Value::as_array).flatten() {
                if let Some(id) = letter["eventId"].as_str() {
                    reading.dead(id.to_owned());
                }
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return,
            }
        }
    }

    fn row(&self, reading: &mut Reading, row: Row<'_>) {
        let findings = &mut reading.findings;
        findings.rows += 1;
        let id = row
            .original_id
            .map_or_else(|| row.event_id.to_string(), str::to_owned);
        if reading.ordered {
            reading.places.insert(id.clone(), findings.rows);
        }
        let events = self.events.lock().unwrap();
        match events.get(&id) {
            None => findings.unsent.push(id.clone()),
            Some(sent) => {
                let checksum = checksum(
                    row.user_id,
                    row.event_type,
                    row.session_id,
                    sent.timed.then_some(row.timestamp),
                    row.source,
                    row.data,
                );
                if checksum != sent.checksum {
                    findings.altered.push(id.clone());
                }
            }
        }
        if !reading.event_ids.insert(row.event_id) || !reading.ids.insert(id.clone()) {
            findings.doubled.push(id);
        }
    }
}

/// A check under way.
#[derive(Default)]
struct Reading {
    findings: Findings,
    /// Of each row, by id, if the order matters. Rows are read in the order of the log.
    places: HashMap<String, usize>,
    ordered: bool,
    ids: HashSet<String>,
    event_ids: HashSet<Uuid>,
}

impl Reading {
    fn dead(&mut self, event_id: String) {
        if !self.findings.dead.insert(event_id.clone()) {
            self.findings.doubled.push(event_id);
        }
    }
}

struct Row<'a> {
    event_id: Uuid,
    original_id: Option<&'a str>,
    user_id: Option<&'a str>,
    event_type: &'a str,
    session_id: Option<&'a str>,
    timestamp: DateTime<Utc>,
    source: &'a str,
    data: &'a Value,
}

/// Equal exactly if every field means the same.
fn checksum(
    user_id: Option<&str>,
    event_type: &str,
    session_id: Option<&str>,
    timestamp: Option<DateTime<Utc>>,
    source: &str,
    data: &Value,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    let micros = timestamp.map(|time| time.timestamp_micros());
    (user_id, event_type, session_id, micros, source).hash(&mut hasher);
    hash_json(data, &mut hasher);
    hasher.finish()
}

/// Equal for JSON-equal values: the order of members and the spelling of numbers don't count,
/// since jsonb keeps neither.
fn hash_json(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Null => 0u8.hash(hasher),
        Value::Bool(bool) => bool.hash(hasher),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.unsigned_abs() > 1 << 53 => whole.hash(hasher),
            _ => number.as_f64().map(f64::to_bits).hash(hasher),
        },
        Value::String(text) => text.hash(hasher),
        Value::Array(items) => {
            items.len().hash(hasher);
            items.iter().for_each(|item| hash_json(item, hasher));
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            members.len().hash(hasher);
            for (key, value) in members {
                key.hash(hasher);
                hash_json(value, hasher);
            }
        }
    }
}
