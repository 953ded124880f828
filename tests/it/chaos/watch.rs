//! Looks at the running processes all the time: memory, and events they knew already.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::world::World;
use crate::harness::{Metrics, memory_of};

const LOOK: Duration = Duration::from_millis(500);
/// A process that is stopped answers nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// Over the whole run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Most bytes one process had.
    pub peak_memory: u64,
    /// Events that came again and were known. What a process counted in the moments before it was
    /// killed is not in it.
    pub duplicates: u64,
}

pub struct Watch {
    pids: Arc<Mutex<Vec<i32>>>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub fn start(world: &World) -> Self {
        let pids = Arc::new(Mutex::new(world.pids()));
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(look(world.urls(), Arc::clone(&pids), Arc::clone(&seen)));
        Self { pids, seen, task }
    }

    /// After processes were started anew.
    pub fn follow(&self, world: &World) {
        *self.pids.lock().unwrap() = world.pids();
    }

    pub fn stop(self) -> Seen {
        self.task.abort();
        *self.seen.lock().unwrap()
    }
}

async fn look(urls: Vec<String>, pids: Arc<Mutex<Vec<i32>>>, seen: Arc<Mutex<Seen>>) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    let client = client.build().unwrap();
    let mut known = vec![0; urls.len()];
    loop {
        for (url, known) in urls.iter().zip(&mut known) {
            let Some(count) = duplicates(&client, url).await else {
                continue;
            };
            // A count that fell is a new process's.
            let more = count.checked_sub(*known).unwrap_or(count);
            seen.lock().unwrap().duplicates += more;
            *known = count;
        }
        let sizes = pids
            .lock()
            .unwrap()
            .clone()
            .into_iter()
            .filter_map(memory_of);
        let peak = sizes.max().unwrap_or_default();
        {
            let mut seen = seen.lock().unwrap();
            seen.peak_memory = seen.peak_memory.max(peak);
        }
        sleep(LOOK).await;
    }
}

async fn duplicates(client: &reqwest::Client, url: &str) -> Option<u64> {
    let response = client.get(format!("{url}/metrics")).send().await.ok()?;
    let metrics = Metrics::parse(&response.text().await.ok()?);
    Some(metrics.sum("eclusa_events_duplicate_total", &[]) as u64)
}
