//! A receiver of webhooks that counts how often each run was started.

use super::receiver::Receiver;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How often each run was started, by its id.
type Counts = Arc<Mutex<BTreeMap<String, u32>>>;

pub struct Starts {
    pub receiver: Receiver,
    counts: Counts,
    /// From which start of a run on there is no answer.
    held_from: watch::Sender<u32>,
}

impl Starts {
    /// `status` of the answer is that for the run with this id at its nth start.
    pub async fn count(status: impl Fn(&str, u32) -> u16 + Send + Sync + 'static) -> Self {
        let (counts, held_from) = (Counts::default(), watch::Sender::new(u32::MAX));
        let (kept, holds) = (Arc::clone(&counts), held_from.subscribe());
        let receiver = Receiver::start_slow(move |request| {
            let id = request.headers().get("webhook-id").unwrap();
            let id = id.to_str().unwrap().to_owned();
            let nth = {
                let mut counts = kept.lock();
                let nth = counts.entry(id.clone()).or_default();
                *nth += 1;
                *nth
            };
            let status = StatusCode::from_u16(status(&id, nth)).unwrap();
            let mut holds = holds.clone();
            async move {
                // Fails at the end of the test only.
                let _ = holds.wait_for(|from| nth < *from).await;
                HttpResponse::build(status).finish()
            }
        });
        let receiver = receiver.await;
        Self {
            receiver,
            counts,
            held_from,
        }
    }

    /// From the nth start on no run gets an answer until [`Starts::release`].
    pub fn hold_from(&self, nth: u32) {
        self.held_from.send_replace(nth);
    }

    pub fn release(&self) {
        self.held_from.send_replace(u32::MAX);
    }

    /// How many runs were started so many times.
    pub fn at_least(&self, nth: u32) -> u32 {
        let counts = self.counts.lock();
        counts
            .values()
            .map(|starts| u32::from(*starts >= nth))
            .sum()
    }

    /// The settings of a webhook here.
    pub fn webhook(&self) -> Value {
        json!({
            "url": format!("http://127.0.0.1:{}/hook", self.receiver.port),
            "secret": SECRET,
            "allow_private": true,
        })
    }

    pub fn all(&self) -> BTreeMap<String, u32> {
        self.counts.lock().clone()
    }

    pub fn total(&self) -> usize {
        self.counts.lock().values().sum::<u32>() as usize
    }
}
