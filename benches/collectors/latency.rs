//! How soon a collector that waits gets a message.

use crate::Arguments;
use crate::client::{Accept, Connection};
use crate::database::quantile;
use crate::messages::{self, Sender};
use crate::place::Place;
use crate::server::Server;
use rand::Rng;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a call waits at least, and at most, before a message comes, in milliseconds: the longer nothing comes, the
/// less often the server looks.
const PAUSE: std::ops::Range<u64> = 100..600;
/// A process looks only now and then whether there are others that follow the log.
const ACQUAINTED: Duration = Duration::from_secs(10);

/// One call waits, one message is sent, and so on. The case has an ISPB of its own.
async fn measure(what: &str, tries: usize, case: usize, from: &Server, to: &Server) {
    let ispb = messages::ispb(case);
    let mut sender = Sender::connect(&from.target).await;
    let mut collector = Connection::open(&to.target, Accept::Many).await;
    let mut path = messages::start(&ispb);
    let mut times = Vec::with_capacity(tries);
    // The first one is not timed: with it everything is connected.
    for number in case * (tries + 1)..(case + 1) * (tries + 1) {
        let sending = async {
            let pause = rand::rng().random_range(PAUSE);
            sleep(Duration::from_millis(pause)).await;
            sender.one(number, &ispb).await;
            Instant::now()
        };
        let waiting = async {
            let answer = collector.get(&path).await;
            let at = Instant::now();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let got: Vec<usize> = messages::numbers(answer.body).collect();
            assert_eq!(got, [number], "what was sent comes once");
            (at, answer.next())
        };
        let (committed, (collected, next)) = tokio::join!(sending, waiting);
        path = next;
        // Both answers come to this process, and the collector's may overtake the sender's.
        times.push(collected.saturating_duration_since(committed));
    }
    let answer = collector.delete(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    times.remove(0);
    times.sort();
    let ms = |part| quantile(&times, part).as_secs_f64() * 1e3;
    println!(
        "{what}: {tries} messages, commit to answer p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
}

pub async fn run(arguments: &Arguments) {
    let place = Place::create(arguments, String::new()).await;
    let tries = arguments.tries;
    let first = place.server("first").await;
    measure("on the same replica", tries, 0, &first, &first).await;
    if place.database.is_some() {
        let second = place.server("second").await;
        sleep(ACQUAINTED).await;
        let what = "on another replica than the sender's and the follower's";
        measure(what, tries, 1, &first, &second).await;
        let what = "on the follower's replica, from another";
        measure(what, tries, 2, &second, &first).await;
        second.stop().await;
    }
    first.stop().await;
    place.drop().await;
}
