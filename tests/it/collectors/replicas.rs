//! Collectors of one ISPB on two replicas, also while replicas, collectors and answers are lost.

use super::{Answer, Api, SOON, example, fresh_ispb, start};
use crate::harness::{App, Postgres, eventually};
use futures::future::join_all;
use reqwest::StatusCode;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const DRAINED: Duration = Duration::from_secs(120);
/// Well below what a poll takes without a message.
const QUICK: Duration = Duration::from_secs(4);

/// In the suite few; many by hand.
pub fn number(by_default: usize) -> usize {
    let given = std::env::var("ECLUSA_TEST_MESSAGES").ok();
    given.map_or(by_default, |number| number.parse().unwrap())
}

/// In parts of at most as many as the generator makes at a time.
pub async fn make(api: &Api, ispb: &str, number: usize) {
    let mut left = number;
    while left > 0 {
        let part = left.min(100);
        api.make(ispb, part as u32).await;
        left -= part;
    }
}

async fn ask(api: &Api, path: &str, many: bool) -> Answer {
    if many {
        api.many(path).await
    } else {
        api.get(path).await
    }
}

/// Collects until told to stop; its calls go to the two replicas in turn. Returns what it got, in its order.
async fn collect(
    apis: &[Api; 2],
    ispb: &str,
    many: bool,
    stop: &AtomicBool,
    got: &AtomicUsize,
) -> Vec<String> {
    let (mut seen, mut calls) = (Vec::new(), usize::from(many));
    let mut path = start(ispb);
    while !stop.load(Ordering::Relaxed) {
        calls += 1;
        let answer = ask(&apis[calls % 2], &path, many).await;
        if answer.status == StatusCode::OK {
            let ids = answer.ids();
            got.fetch_add(ids.len(), Ordering::Relaxed);
            seen.extend(ids);
        }
        path = answer.next();
    }
    assert_eq!(apis[calls % 2].delete(&path).await.status, StatusCode::OK);
    seen
}

/// The order in which the store has the messages.
async fn order(url: &str) -> HashMap<String, i64> {
    let sql = "SELECT end_to_end_id, id FROM pix_messages";
    let rows = Postgres::shared().await.query(url, sql, &[]).await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn six_collectors_on_two_replicas_get_each_message_once_and_in_order() {
    let number = number(600);
    let url = Postgres::shared().await.database().await;
    let replicas = join_all((0..2).map(|_| App::builder().postgres(&url).start())).await;
    let apis = [Api::of(&replicas[0]), Api::of(&replicas[1])];
    let ispb = fresh_ispb();
    let (stop, got) = (AtomicBool::new(false), AtomicUsize::new(0));
    let collecting = join_all((0..6).map(|n| collect(&apis, &ispb, n % 2 == 0, &stop, &got)));
    let (ispb_of, apis_of, stop_of, got_of) = (&ispb, &apis, &stop, &got);
    let making = async move {
        let six = async || (apis_of[0].level(ispb_of).await.1.len() == 6).then_some(());
        eventually(DRAINED, "six collect", six).await;
        // A seventh is refused on either replica, all the while.
        let refused = async {
            let mut tries = 0;
            while !stop_of.load(Ordering::Relaxed) {
                let seventh = apis_of[tries % 2].get(&start(ispb_of)).await;
                seventh.assert_problem(StatusCode::TOO_MANY_REQUESTS);
                tries += 1;
            }
            assert!(tries > 10, "{tries}");
        };
        let arriving = async {
            make(&apis_of[0], ispb_of, number).await;
            let all = async || (got_of.load(Ordering::Relaxed) >= number).then_some(());
            eventually(DRAINED, "all are collected", all).await;
            stop_of.store(true, Ordering::Relaxed);
        };
        tokio::join!(refused, arriving);
    };
    let (collected, ()) = tokio::join!(collecting, making);
    let order = order(&url).await;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in &collected {
        let places: Vec<i64> = seen.iter().map(|id| order[id]).collect();
        assert!(places.is_sorted(), "out of order within a stream");
        seen.iter()
            .for_each(|id| *counts.entry(id).or_default() += 1);
    }
    assert_eq!((counts.len(), counts.values().max()), (number, Some(&1)));
    assert_eq!(apis[0].level(&ispb).await, (0, vec![]));
}

/// A collector that loses answers, and what it knows.
#[derive(Default)]
struct Known {
    path: String,
    /// Of the last answer that it has.
    last: Vec<String>,
    acknowledged: HashSet<String>,
    /// Of an answer whose acknowledgement may have been lost.
    unknown: HashSet<String>,
}

impl Known {
    fn begin(&mut self, ispb: &str) {
        self.unknown.extend(std::mem::take(&mut self.last));
        self.path = start(ispb);
    }

    fn take(&mut self, answer: &Answer) {
        self.acknowledged.extend(std::mem::take(&mut self.last));
        if answer.status == StatusCode::OK {
            self.last = answer.ids();
        }
        let again = self.last.iter().find(|id| self.acknowledged.contains(*id));
        assert_eq!(again, None, "it was acknowledged");
        self.path = answer.next();
    }
}

#[tokio::test]
async fn killed_replicas_and_lost_answers_lose_nothing_and_nothing_acknowledged_comes_again() {
    let number = number(300);
    let url = Postgres::shared().await.database().await;
    let builder = || App::builder().postgres(&url).set("pix.idle", "2s");
    let mut dying = builder().start().await;
    let staying = builder().start().await;
    let (api, ispb) = (Api::of(&staying), fresh_ispb());
    make(&api, &ispb, number).await;
    let mut known = Known::default();
    known.begin(&ispb);
    for call in 1.. {
        if call % 5 == 0 {
            // The answer is lost, and whether the call was carried out is not known.
            let doomed = Api::of(&dying);
            let lost = doomed
                .client
                .get(format!("{}{}", doomed.url, known.path))
                .send();
            let killing = async { dying.kill9() };
            let (lost, ()) = tokio::join!(tokio::time::timeout(SOON, lost), killing);
            drop(lost);
            dying.start_again().await;
        }
        // A repeat gets the same answer from the other replica, unless the session has lapsed meanwhile.
        let answer = api.many(&known.path).await;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => known.take(&answer),
            StatusCode::GONE | StatusCode::TOO_MANY_REQUESTS => known.begin(&ispb),
            _ => panic!("{answer:?}"),
        }
        if call % 7 == 0 {
            // A collector ends with an answer in hand.
            known.begin(&ispb);
        }
        if answer.status == StatusCode::NO_CONTENT && api.level(&ispb).await == (0, vec![0]) {
            break;
        }
    }
    known.unknown.extend(known.last);
    let all: HashSet<&String> = known.acknowledged.union(&known.unknown).collect();
    assert_eq!(all.len(), number);
    let sql = "SELECT count(*) FROM stream_messages";
    let left: i64 = Postgres::shared().await.query(&url, sql, &[]).await[0].get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_message_that_is_committed_while_a_poll_waits_is_answered_on_either_replica() {
    let url = Postgres::shared().await.database().await;
    let replicas = join_all((0..2).map(|_| App::builder().postgres(&url).start())).await;
    let apis = [Api::of(&replicas[0]), Api::of(&replicas[1])];
    for (polled, told) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let ispb = fresh_ispb();
        let path = start(&ispb);
        let message = example(&ispb);
        let polling = async {
            let answer = apis[polled].many(&path).await;
            (answer, Instant::now())
        };
        let telling = async {
            let waits = async || (apis[told].level(&ispb).await.1 == [0]).then_some(());
            eventually(SOON, "a poll waits", waits).await;
            let answer = apis[told].tell(&message).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED);
            Instant::now()
        };
        let ((answer, answered), committed) = tokio::join!(polling, telling);
        assert_eq!(answer.json(), serde_json::json!([message]));
        let took = answered.saturating_duration_since(committed);
        assert!(took < QUICK, "{took:?}, polled {polled}, told {told}");
    }
}

#[tokio::test]
async fn a_poll_that_another_replica_has_taken_over_or_ended_ends_with_a_410() {
    let url = Postgres::shared().await.database().await;
    let builder = || App::builder().postgres(&url).set("pix.wait", "3s");
    let replicas = join_all((0..2).map(|_| builder().start())).await;
    let apis = [Api::of(&replicas[0]), Api::of(&replicas[1])];
    for taken_over in [true, false] {
        let ispb = fresh_ispb();
        apis[0].make(&ispb, 1).await;
        let path = apis[0].get(&start(&ispb)).await.next();
        let other = async {
            let waits = async || (apis[1].level(&ispb).await.1 == [0]).then_some(());
            eventually(SOON, "a poll waits", waits).await;
            match taken_over {
                true => apis[1].get(&path).await,
                false => apis[1].delete(&path).await,
            }
        };
        let (polled, other) = tokio::join!(apis[0].get(&path), other);
        polled.assert_problem(StatusCode::GONE);
        match taken_over {
            // The stream goes on there.
            true => {
                assert_eq!(other.status, StatusCode::NO_CONTENT, "{other:?}");
                apis[0].make(&ispb, 1).await;
                assert_eq!(apis[0].get(&other.next()).await.ids().len(), 1);
            }
            false => assert_eq!(other.status, StatusCode::OK, "{other:?}"),
        }
    }
}
