//! A large log from its beginning: flights and weather of 2013, if `FLIGHTS` names the file.

use super::{Ask, log_of};
use crate::collectors::on;
use crate::followers::Place;
use crate::harness::{eclusa, told};
use std::collections::BTreeMap;
use std::time::Instant;
use uuid::Uuid;

mod on_postgres {
    #[actix_rt::test]
    #[ignore = "needs the file that FLIGHTS names; see docs/TOPICS.md"]
    async fn all_come_in_the_order_of_the_log() {
        super::replay(&crate::followers::Place::postgres().await).await;
    }
}

mod on_sqlite {
    #[actix_rt::test]
    #[ignore = "needs the file that FLIGHTS names; see docs/TOPICS.md"]
    async fn all_come_in_the_order_of_the_log() {
        super::replay(&crate::followers::Place::sqlite().await).await;
    }
}

async fn replay(place: &Place) {
    const EVENTS: usize = 690_237;
    let file = std::env::var("FLIGHTS").expect("FLIGHTS names the file");
    let setting = match (&place.url, &place.folder) {
        (Some(url), _) => format!("store.url={url}"),
        (None, folder) => format!("data_dir={}", folder.as_ref().unwrap().path().display()),
    };
    let began = Instant::now();
    let mut import = eclusa(&["events", "import", &file, "--set", &setting]);
    let output = tokio::task::spawn_blocking(move || import.output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let imported = began.elapsed();
    let app = on(place).start().await;
    let began = Instant::now();
    let ask = Ask {
        ndjson: true,
        ..Ask::from("beginning").until_the_end()
    };
    let mut response = ask.send(&app).await;
    let (mut text, mut seen, mut last) = (Vec::new(), Vec::<Uuid>::with_capacity(EVENTS), 0_i64);
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    let mut ended = false;
    while let Some(part) = response.chunk().await.unwrap() {
        text.extend_from_slice(&part);
        let Some(end) = memchr::memrchr(b'\n', &text) else {
            continue;
        };
        let rest = text.split_off(end + 1);
        for line in std::mem::replace(&mut text, rest).split(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(line).unwrap();
            ended |=
                line.contains("\"end\":{\"detail\"") || line.contains("\"reason\":\"finished\"");
            let Some((position, event)) = line.split_once("\",\"event\":") else {
                continue;
            };
            let position: i64 = position.rsplit_once('-').unwrap().1.parse().unwrap();
            assert!(position > last);
            last = position;
            let of = |name: &str| {
                let (_, value) = event.split_once(&format!("\"{name}\":\"")).unwrap();
                value.split_once('"').unwrap().0.to_owned()
            };
            seen.push(of("id").parse().unwrap());
            *types.entry(of("eventType")).or_default() += 1;
        }
    }
    let read = began.elapsed();
    assert!(ended);
    let expected = [
        ("flight.arrived", 327_346),
        ("flight.cancelled", 8_255),
        ("flight.departed", 328_521),
        ("weather.observed", 26_115),
    ];
    let expected: BTreeMap<String, u64> = expected.map(|(name, n)| (name.to_owned(), n)).into();
    assert_eq!(types, expected);
    let began = Instant::now();
    let list = app.get_json("/v1/topics").await;
    let counted = began.elapsed();
    assert_eq!(list["complete"], true, "{list}");
    let began = Instant::now();
    app.get_json("/v1/topics").await;
    let again = began.elapsed();
    let listed = list["topics"].as_array().unwrap().iter();
    let listed: BTreeMap<String, u64> = listed
        .map(|topic| {
            let name = topic["type"].as_str().unwrap().to_owned();
            (name, topic["events"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(seen, log_of(place, EVENTS).await);
    eprintln!(
        "{EVENTS} events imported in {imported:.1?}, streamed in {read:.1?} ({:.0} a second), their types counted in \
         {counted:.1?}, and again in {again:.1?}",
        EVENTS as f64 / read.as_secs_f64()
    );
}
