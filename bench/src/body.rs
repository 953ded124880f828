//! The events that the load consists of: built once, and only their ids and numbers changed from
//! one to the next, so that making them costs next to nothing.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::{Builder, Uuid};

/// Users and sessions that the events are spread over.
const USERS: u64 = 10_000;
/// Bytes of an event's text unless asked otherwise.
pub const DEFAULT_BYTES: usize = 300;

/// The layout of one event's text: fixed parts, and what changes between them.
const BEFORE_ID: &str = r#"{"id":""#;
const BEFORE_USER: &str = r#"","userId":"user-"#;
const BEFORE_SESSION: &str = r#"","eventType":"bench.event","sessionId":"session-"#;
const BEFORE_NUMBER: &str = r#"","eventData":{"path":"/catalogue/lamps","position":17,"amount":129.90,"currency":"EUR","number":1"#;
const BEFORE_NOTE: &str = r#","note":""#;
const END_OF_DATA: &str = r#""}"#;
const ID: usize = 36;
const USER: usize = 4;
const SESSION: usize = 6;
const NUMBER: usize = 9;

/// Makes UUIDv7 ids that no other source makes: the time, and a counter that is this source's own.
#[derive(Debug)]
pub struct Ids {
    random: [u8; 3],
    source: u16,
    counter: u64,
}

impl Ids {
    /// For one source of ids among several in a run.
    pub fn new(source: u16) -> Self {
        Self {
            random: rand::random(),
            source,
            counter: 0,
        }
    }

    /// The next id, and its number.
    pub fn make(&mut self) -> (Uuid, u64) {
        self.counter += 1;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let [_, _, _, c0, c1, c2, c3, c4] = self.counter.to_be_bytes();
        let [s0, s1] = self.source.to_be_bytes();
        let [r0, r1, r2] = self.random;
        // Version and variant take the upper bits of the first and third byte (RFC 9562, 5.7), so
        // what tells ids apart stands in the others. Ids of one source grow also within a
        // millisecond.
        let tail = [r0, s1, r1, c0, c1, c2, c3, c4, s0, r2];
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let id = Builder::from_unix_timestamp_millis(millis, &tail).into_uuid();
        (id, self.counter)
    }
}

/// Text with room for events that change, such as a request with its head.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Vec<u8>,
    /// Where each event begins.
    items: Vec<usize>,
}

impl Body {
    /// One event (`array` 0) or an array of `array` events, each about `event_bytes` long, with
    /// `extra` (such as `,"source":"http"`) as further members.
    pub fn new(array: usize, event_bytes: usize, extra: &str) -> Self {
        let item = item(event_bytes, extra);
        let mut body = Self {
            bytes: Vec::with_capacity((item.len() + 1) * array.max(1) + 2),
            items: Vec::with_capacity(array.max(1)),
        };
        if array > 0 {
            body.bytes.push(b'[');
        }
        for place in 0..array.max(1) {
            if place > 0 {
                body.bytes.push(b',');
            }
            body.items.push(body.bytes.len());
            body.bytes.extend_from_slice(&item);
        }
        if array > 0 {
            body.bytes.push(b']');
        }
        body
    }

    /// The same behind a head, such as a request's.
    pub fn behind(mut self, head: &[u8]) -> Self {
        self.bytes.splice(0..0, head.iter().copied());
        for item in &mut self.items {
            *item += head.len();
        }
        self
    }

    /// Gives every event a new id and number, and appends the ids to `made`.
    pub fn renew(&mut self, ids: &mut Ids, made: &mut Vec<Uuid>) {
        for at in &self.items {
            let (id, number) = ids.make();
            made.push(id);
            let mut at = at + BEFORE_ID.len();
            if let Some(slot) = self.bytes.get_mut(at..at + ID) {
                id.hyphenated().encode_lower(slot);
            }
            at += ID + BEFORE_USER.len();
            digits(self.bytes.get_mut(at..at + USER), number % USERS);
            at += USER + BEFORE_SESSION.len();
            digits(self.bytes.get_mut(at..at + SESSION), number % (USERS * 10));
            at += SESSION + BEFORE_NUMBER.len();
            digits(self.bytes.get_mut(at..at + NUMBER), number);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn events(&self) -> usize {
        self.items.len()
    }
}

/// One event's text, with zeros where something will stand.
fn item(event_bytes: usize, extra: &str) -> Vec<u8> {
    let zeros = |count: usize| "0".repeat(count);
    let mut text = [
        BEFORE_ID,
        &zeros(ID),
        BEFORE_USER,
        &zeros(USER),
        BEFORE_SESSION,
        &zeros(SESSION),
        BEFORE_NUMBER,
        &zeros(NUMBER),
        BEFORE_NOTE,
    ]
    .concat();
    let note = event_bytes.saturating_sub(text.len() + END_OF_DATA.len() + 1);
    text.push_str(&"x".repeat(note));
    text.push_str(END_OF_DATA);
    text.push_str(extra);
    text.push('}');
    text.into_bytes()
}

/// The payload of an event as the store gets it, with a number that changes.
#[derive(Debug)]
pub struct Payload {
    text: String,
    number: Range<usize>,
}

impl Payload {
    /// The payload of an event of so many bytes.
    pub fn new(event_bytes: usize) -> Self {
        let item = item(event_bytes, "");
        let text = String::from_utf8_lossy(&item);
        let data = text
            .split_once(r#""eventData":"#)
            .and_then(|(_, data)| data.strip_suffix('}'))
            .unwrap_or("{}")
            .to_owned();
        // Behind the 1 that the number begins with.
        let number = data.find(r#""number":1"#).map_or(0, |at| at + 10);
        Self {
            text: data,
            number: number..number + NUMBER,
        }
    }

    /// The payload of the event with this number.
    pub fn of(&mut self, number: u64) -> &str {
        let digits = format!("{:09}", number % 1_000_000_000);
        self.text.replace_range(self.number.clone(), &digits);
        &self.text
    }
}

/// User and session of the event with a number.
pub fn user_and_session(number: u64) -> (String, String) {
    (
        format!("user-{:04}", number % USERS),
        format!("session-{:06}", number % (USERS * 10)),
    )
}

/// Writes a number in decimal, filling the slot from the right.
fn digits(slot: Option<&mut [u8]>, mut number: u64) {
    for place in slot.into_iter().flatten().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    #[test]
    fn events_are_of_the_size_asked_for_and_differ() {
        let mut ids = Ids::new(7);
        let mut made = Vec::new();
        let mut body = Body::new(0, DEFAULT_BYTES, "").behind(b"head");
        for n in 1..=3_u64 {
            body.renew(&mut ids, &mut made);
            let text = std::str::from_utf8(&body.bytes()[4..]).unwrap();
            assert_eq!(text.len(), DEFAULT_BYTES);
            let event: Value = serde_json::from_str(text).unwrap();
            assert_eq!(event["id"], made.last().unwrap().to_string());
            assert_eq!(event["userId"], format!("user-{n:04}"));
            let data = &event["eventData"];
            assert_eq!(data["number"], 1_000_000_000 + n);
            let alone = Payload::new(DEFAULT_BYTES).of(n).to_owned();
            assert!(text.contains(&alone), "{alone} in {text}");
        }
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 3);
    }

    #[test]
    fn an_array_holds_as_many_events_each_with_its_extra_members() {
        let mut body = Body::new(3, 400, r#","source":"http""#);
        let mut made = Vec::new();
        body.renew(&mut Ids::new(0), &mut made);
        let list: Vec<Value> = serde_json::from_slice(body.bytes()).unwrap();
        let ids: Vec<String> = made.iter().map(Uuid::to_string).collect();
        assert_eq!(list.len(), 3);
        for (event, id) in list.iter().zip(ids) {
            assert_eq!(event["id"], id);
            assert_eq!(event["source"], "http");
        }
    }

    #[test]
    fn ids_are_of_version_7_grow_and_are_not_those_of_another_source() {
        let mut one = Ids::new(1);
        let ids: Vec<Uuid> = (0..1_000).map(|_| one.make().0).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        // Whatever the time and the random part: the rest differs already.
        let rest = |id: &Uuid| {
            (
                id.as_bytes()[7],
                id.as_bytes()[14],
                id.as_bytes()[9..14].to_vec(),
            )
        };
        let all: HashSet<_> = (0..=u16::MAX)
            .map(|source| rest(&Ids::new(source).make().0))
            .collect();
        assert_eq!(all.len(), 1 << 16);
    }
}
