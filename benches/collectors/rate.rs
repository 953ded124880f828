//! How fast messages are collected that are there.

use crate::Arguments;
use crate::behind;
use crate::client::{Accept, Answer, Connection};
use crate::messages::{self, Sender};
use crate::place::Place;
use crate::server::Server;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long the server may take to count the last acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers without messages, one after the other, while there are messages.
const MISSED: usize = 5;

/// An ISPB whose messages are collected.
struct Key {
    ispb: String,
    /// Messages that were not handed out.
    left: Cell<usize>,
}

/// What all collectors of the run know.
struct Shared {
    /// The first number.
    first: usize,
    /// How often each number came.
    came: RefCell<Vec<u8>>,
    answers: Cell<usize>,
    /// ISPBs with messages that are not acknowledged.
    open: Cell<usize>,
    done: Notify,
}

impl Shared {
    /// Takes the messages of an answer; whether they are the last ones of their ISPB.
    fn take(&self, key: &Key, answer: &Answer<'_>) -> bool {
        let mut came = self.came.borrow_mut();
        let mut left = key.left.get();
        for number in messages::numbers(answer.body) {
            let place = number.checked_sub(self.first);
            let times = place.and_then(|place| came.get_mut(place));
            let times = times.unwrap_or_else(|| panic!("{number} was collected before"));
            *times = times.saturating_add(1);
            left = left.saturating_sub(1);
        }
        self.answers.set(self.answers.get() + 1);
        key.left.replace(left) > 0 && left == 0
    }

    /// Waits until the messages of all ISPBs are acknowledged.
    async fn acknowledged(&self) {
        while self.open.get() > 0 {
            self.done.notified().await;
        }
    }
}

/// Collects until there is nothing left. The collector that gets the last messages of the ISPB acknowledges them by
/// ending its stream: a call that waits for others would not say when it has.
async fn collect(mut connection: Connection, key: Rc<Key>, shared: Rc<Shared>) {
    let mut path = messages::start(&key.ispb);
    let mut missed = 0;
    loop {
        let answer = connection.get(&path).await;
        let was_idle = answer.status == 204;
        let was_last = match answer.status {
            200 => shared.take(&key, &answer),
            204 => false,
            _ => panic!("{}", answer.text()),
        };
        path = answer.next();
        if key.left.get() > 0 {
            // The last ones may be on their way to others; but not each time.
            missed = if was_idle { missed + 1 } else { 0 };
            assert!(missed < MISSED, "messages of {} do not come", key.ispb);
            continue;
        }
        if was_last || was_idle {
            let answer = connection.delete(&path).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        if was_last {
            shared.open.set(shared.open.get() - 1);
            shared.done.notify_one();
        }
        if was_last || was_idle {
            return;
        }
    }
}

/// Opens the collectors' connections before the clock runs.
async fn collectors(
    arguments: &Arguments,
    server: &Server,
    keys: &[Rc<Key>],
) -> Vec<(Connection, Rc<Key>)> {
    let accept = match arguments.single {
        true => Accept::One,
        false => Accept::Many,
    };
    let mut all = Vec::new();
    for _ in 0..arguments.collectors {
        // So that the first calls are not all for the same ISPB.
        for key in keys {
            let connection = Connection::open(&server.target, accept).await;
            all.push((connection, Rc::clone(key)));
        }
    }
    all
}

pub async fn run(arguments: &Arguments) {
    let (ispbs, total) = (arguments.ispbs, arguments.messages);
    let settings = format!(
        "http.max_connections = {}\npix.slots = {}\n",
        4_096.max(ispbs * arguments.collectors + 100),
        6.max(arguments.collectors)
    );
    let place = Place::create(arguments, settings).await;
    let holder = place.connect().await;
    if arguments.snapshot {
        let holder = holder.as_ref().expect("--snapshot needs --url");
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM streams";
        holder.batch_execute(snapshot).await.expect("a snapshot");
    }
    let mut server = place.server("server").await;
    if arguments.behind > 0 {
        server.stop().await;
        behind::leave(&place, arguments.behind, ispbs, arguments.snapshot).await;
        server = place.server("server").await;
    }
    let first = arguments.behind;
    let mut sender = Sender::connect(&server.target).await;
    sender.spread(first..first + total, ispbs).await;
    server.until_level("waiting", total).await;
    // What follows the writes of the messages is over then, such as positions of followers.
    sleep(Duration::from_secs(2)).await;

    let mut counts = vec![0; ispbs];
    (first..first + total).for_each(|n| counts[n % ispbs] += 1);
    let keys = counts.iter().enumerate().map(|(at, count)| {
        Rc::new(Key {
            ispb: messages::ispb(at),
            left: Cell::new(*count),
        })
    });
    let keys: Vec<Rc<Key>> = keys.collect();
    let shared = Rc::new(Shared {
        first,
        came: RefCell::new(vec![0; total]),
        answers: Cell::default(),
        open: Cell::new(counts.iter().filter(|count| **count > 0).count()),
        done: Notify::new(),
    });
    let ready = collectors(arguments, &server, &keys).await;
    let before = place.processor(&server).await;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (connection, key) in ready {
        running.spawn_local(collect(connection, key, Rc::clone(&shared)));
    }
    let failing = async {
        while let Some(ended) = running.join_next().await {
            ended.expect("a collector");
        }
        // The last one to end may be the one that is waited for.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = shared.acknowledged() => {}
        () = failing => {}
    }
    // Also what calls have acknowledged that wait now.
    let counted = async {
        while server.acknowledged().await < total {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let counted = timeout(PATIENCE, counted).await;
    let time = began.elapsed();
    counted.expect("all are acknowledged");
    let used = place.processor(&server).await.since(before);
    let once = shared.came.borrow().iter().filter(|n| **n == 1).count();
    assert_eq!(once, total, "each message comes once");
    let with = |given: bool, text: &'static str| if given { text } else { "" };
    println!(
        "{total} messages, {ispbs} ISPBs x {} collectors, {} behind{}{}: {:.0}/s, {:.1} messages an answer; \
         processor: server {:.2} s, PostgreSQL {:.2} s, {:.1} us a message; this process {:.2} s",
        arguments.collectors,
        arguments.behind,
        with(arguments.snapshot, ", a snapshot held open"),
        with(arguments.single, ", one at a time"),
        total as f64 / time.as_secs_f64(),
        total as f64 / shared.answers.get() as f64,
        used.server,
        used.postgres,
        used.measured() / total as f64 * 1e6,
        used.own,
    );
    drop(running);
    server.stop().await;
    drop(holder);
    place.drop().await;
}
