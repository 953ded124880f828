//! What calls cost that wait, and get nothing.

use crate::Arguments;
use crate::client::{Accept, Connection};
use crate::database::quantile;
use crate::messages;
use crate::place::Place;
use crate::server::Server;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

/// Calls that begin in a second.
const BEGUN: u32 = 500;
/// Longer than a call waits: all have been asked again then.
const SETTLED: Duration = Duration::from_secs(10);
/// Files that are open besides those of the connections.
const FILES: usize = 200;

/// What became of the calls.
#[derive(Default)]
struct Outcomes {
    /// How long those took that ended with 204.
    waited: RefCell<Vec<Duration>>,
    /// Answers other than 204.
    refused: Cell<usize>,
    first_refusal: RefCell<Option<String>>,
}

impl Outcomes {
    fn refuse(&self, text: String) {
        self.refused.set(self.refused.get() + 1);
        self.first_refusal.borrow_mut().get_or_insert(text);
    }
}

/// Waits again and again. What is refused is asked again after a while, as by any client.
async fn wait(mut connection: Connection, ispb: String, outcomes: Rc<Outcomes>) {
    let mut path = messages::start(&ispb);
    loop {
        let began = Instant::now();
        let answer = connection.get(&path).await;
        match answer.status {
            204 => {
                outcomes.waited.borrow_mut().push(began.elapsed());
                path = answer.next();
            }
            200 => panic!("there is no message: {}", answer.text()),
            status => {
                outcomes.refuse(answer.text());
                if status == 410 {
                    path = messages::start(&ispb);
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// How many files this process, and so the server, may have open.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX)
}

async fn measure(arguments: &Arguments, place: &Place, server: &Server, outcomes: &Outcomes) {
    outcomes.waited.borrow_mut().clear();
    let before = place.processor(server).await;
    let began = Instant::now();
    sleep(arguments.time).await;
    let used = place.processor(server).await.since(before);
    let seconds = began.elapsed().as_secs_f64();
    let mut waited = outcomes.waited.take();
    waited.sort();
    let percent = |used: f64| used / seconds * 100.0;
    println!(
        "in a second: {:.0} calls end and {:.1} % of a core in the server, {:.1} % in PostgreSQL, {:.1} % in this process; \
         a call waits p50 {:.2} s, most {:.2} s; {} refused",
        waited.len() as f64 / seconds,
        percent(used.server),
        percent(used.postgres),
        percent(used.own),
        quantile(&waited, 0.5).as_secs_f64(),
        quantile(&waited, 1.0).as_secs_f64(),
        outcomes.refused.get()
    );
}

pub async fn run(arguments: &Arguments) {
    let (polls, of_ispb) = (arguments.polls, arguments.collectors);
    let needed = 2 * polls + FILES;
    assert!(
        files() >= needed,
        "{polls} calls need {needed} open files: ulimit -n {needed}"
    );
    let settings = format!(
        "http.max_connections = {}\npix.slots = {}\n",
        4_096.max(polls + 100),
        6.max(of_ispb)
    );
    let place = Place::create(arguments, settings).await;
    let server = place.server("server").await;
    // So that what the first call of a collector needs is there.
    let mut first = Connection::open(&server.target, Accept::Many).await;
    let answer = first.get(&messages::start("00000000")).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let path = answer.next();
    first.delete(&path).await;
    let before = server.usage().resident;

    let outcomes = Rc::new(Outcomes::default());
    let mut waiting = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / BEGUN);
    for n in 0..polls {
        tick.tick().await;
        let connection = Connection::open(&server.target, Accept::Many).await;
        let ispb = messages::ispb(n / of_ispb);
        waiting.spawn_local(wait(connection, ispb, Rc::clone(&outcomes)));
    }
    let measuring = async {
        server.until_level("sessions", polls).await;
        sleep(SETTLED).await;
        let grown = server.usage().resident.saturating_sub(before);
        println!(
            "{polls} calls wait, {of_ispb} for each ISPB: {:.1} MiB more than {:.1} MiB are resident, {:.2} KiB a call",
            grown as f64 / (1 << 20) as f64,
            before as f64 / (1 << 20) as f64,
            grown as f64 / 1024.0 / polls as f64
        );
        measure(arguments, &place, &server, &outcomes).await;
    };
    tokio::select! {
        () = measuring => {}
        Some(ended) = waiting.join_next() => ended.expect("a call that waits"),
    }
    if let Some(refusal) = outcomes.first_refusal.take() {
        println!("the first refusal: {refusal}");
    }
    drop(waiting);
    server.stop().await;
    place.drop().await;
}
