use super::*;
use lapin::types::FieldArray;

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn letter() -> DeadLetter {
    let failure = Failure {
        at: item::now(),
        cause: "poison".to_owned(),
        error: "refused".to_owned(),
        sqlstate: Some("23514".to_owned()),
        attempts: 2,
    };
    let mut headers = Map::new();
    headers.insert("CC".to_owned(), vec!["elsewhere"].into());
    headers.insert(frame::VERSION_HEADER.to_owned(), 2.into());
    DeadLetter {
        event_id: Some(Uuid::new_v4()),
        event_type: Some("order.placed".to_owned()),
        content_type: Some("application/json".to_owned()),
        message_id: Some("m-1".to_owned()),
        frame: true,
        headers,
        ..DeadLetter::new(Uuid::now_v7(), failure, "eclusa.events", b"[1]".to_vec())
    }
}

#[test]
fn a_letter_comes_back_from_the_queue_as_it_went() {
    let letter = letter();
    let properties = properties(&letter);
    let headers = properties.headers().clone().unwrap();
    assert!(
        headers.inner().get("CC").is_none(),
        "the broker would act on it"
    );
    let back = read(letter.body.clone(), &properties, MissingId::Random);
    assert_eq!(back, letter);
    assert_eq!(
        header(&properties_of(&back), frame::VERSION_HEADER),
        Some(2)
    );
}

#[test]
fn what_the_broker_put_aside_says_why_and_is_one_letter_however_often_it_comes() {
    let mut death = FieldTable::default();
    death.insert("reason".into(), long("expired"));
    death.insert("queue".into(), long("eclusa.events"));
    death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
    let mut headers = FieldTable::default();
    let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_message_id("m-1".into());
    let first = read(b"{}".to_vec(), &properties, MissingId::Random);
    assert_eq!(first.failure.cause, "expired");
    assert_eq!(first.origin, "eclusa.events");
    assert_eq!(first.failure.at.timestamp(), 1_700_000_000);
    assert_eq!(first.headers["x-death"][0]["reason"], "expired");
    assert_eq!(first, read(b"{}".to_vec(), &properties, MissingId::Random));
}

#[test]
fn a_message_of_somebody_else_does_not_end_in_a_letter_it_names() {
    let victim = Uuid::now_v7();
    let mut headers = FieldTable::default();
    headers.insert(LETTER_HEADER.into(), long(&victim.to_string()));
    let foreign = BasicProperties::default().with_headers(headers.clone());
    assert_eq!(letter_of(&foreign), None);
    let version = AMQPValue::LongLongInt(frame::VERSION);
    headers.insert(frame::VERSION_HEADER.into(), version);
    let replayed = BasicProperties::default().with_headers(headers);
    assert_eq!(letter_of(&replayed), Some(victim));
}

#[test]
fn only_what_is_known_to_be_the_same_message_is_the_same_letter() {
    let none = BasicProperties::default();
    let named = none.clone().with_message_id("m-1".into());
    let id = |properties, body: &[u8], item, missing_id| id_of(properties, body, item, missing_id);
    let random = MissingId::Random;
    assert_eq!(
        id(&named, b"a", Some(1), random),
        id(&named, b"a", Some(1), random)
    );
    assert_ne!(
        id(&named, b"a", Some(1), random),
        id(&named, b"a", Some(2), random)
    );
    assert_ne!(id(&none, b"a", None, random), id(&none, b"a", None, random));
    let content = MissingId::Content;
    assert_eq!(
        id(&none, b"a", None, content),
        id(&none, b"a", None, content)
    );
}
