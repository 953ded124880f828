//! Changes of accounts, as many a second as are wanted.

use crate::Arguments;
use crate::database::connect;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Changes rows until it is dropped, or told to end.
pub struct Load {
    writers: JoinSet<()>,
    made: Rc<Cell<usize>>,
    ends: Rc<Cell<bool>>,
}

impl Load {
    /// Each writer has a range of rows, and changes `each` rows in a transaction. `rate` is that of all together.
    pub async fn start(url: &str, arguments: &Arguments, rate: usize) -> Self {
        let (made, ends) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let mut writers = JoinSet::new();
        let each = arguments.each;
        let of_writer = arguments.rows / arguments.writers;
        assert!(of_writer >= each, "too few rows for so many writers");
        for writer in 0..arguments.writers {
            let client = connect(url).await;
            let sql = "UPDATE account SET balance = balance + 1.25 WHERE id BETWEEN $1 AND $2";
            let statement = client.prepare(sql).await.unwrap();
            let (made, ends) = (Rc::clone(&made), Rc::clone(&ends));
            let pause = Duration::from_secs(1) * (each * arguments.writers) as u32 / rate as u32;
            writers.spawn_local(async move {
                let mut tick = interval(pause);
                // What was late is made up for, as by users who do not wait for each other.
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut next = 0;
                while !ends.get() {
                    tick.tick().await;
                    if next + each > of_writer {
                        next = 0;
                    }
                    let first = (writer * of_writer + next + 1) as i64;
                    let last = first + each as i64 - 1;
                    let done = client.execute(&statement, &[&first, &last]).await;
                    made.set(made.get() + done.expect("a change") as usize);
                    next += each;
                }
            });
        }
        Self {
            writers,
            made,
            ends,
        }
    }

    /// Changes that are committed.
    pub fn made(&self) -> usize {
        self.made.get()
    }

    /// Ends the writers, and tells how many changes they made.
    pub async fn end(mut self) -> usize {
        self.ends.set(true);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer");
        }
        self.made.get()
    }
}

/// Makes so many changes as fast as the database takes them; the time they took.
pub async fn at_once(url: &str, arguments: &Arguments) -> Duration {
    let began = Instant::now();
    let load = Load::start(url, arguments, 1_000_000_000).await;
    while load.made() < arguments.changes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    load.end().await;
    began.elapsed()
}
