//! Load on a server that is running already. Nothing is known of its process and its store, so
//! there are no yardsticks; whether it kept its word it is asked itself.

use super::figures::Figures;
use super::http::Target;
use super::load;
use super::load::Load;
use super::progress::Progress;
use anyhow::Context as _;
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// How long the server may take until an event can be read.
const WAIT: &str = "5s";

/// What a server did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Against {
    pub figures: Figures,
    /// Accepted events that the server was asked for.
    pub asked: u64,
    /// Those that it does not have.
    pub missing: u64,
    /// Why it could not be asked, if it could not.
    pub not_asked: Option<String>,
}

impl Against {
    /// Whether it kept its word, as far as it was asked.
    pub fn holds(&self) -> bool {
        self.not_asked.is_none()
            && self.missing == 0
            && self.figures.get("strange") == Some(0.0)
            && self.figures.get("accepted") > Some(0.0)
    }

    /// The figures as lines.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (name, what) in [
            ("accepted_rate", "events accepted a second"),
            ("accepted", "events accepted"),
            ("p50_ms", "half of the answers within, ms"),
            ("p99_ms", "99 % of the answers within, ms"),
            ("p999_ms", "99.9 % of the answers within, ms"),
            ("max_ms", "slowest answer, ms"),
            ("refused", "requests refused"),
            ("broken", "requests without an answer"),
            ("strange", "answers that do not name their events"),
        ] {
            if let Some(value) = self.figures.get(name) {
                text.push_str(&format!("{what:38} {value:>12.2}\n"));
            }
        }
        match &self.not_asked {
            Some(reason) => text.push_str(&format!("not verified: {reason}\n")),
            None => text.push_str(&format!(
                "verified: of {} accepted events that were asked for, {} are missing\n",
                self.asked, self.missing
            )),
        }
        text
    }
}

/// Sends the load, and then asks for `sample` of the events that were accepted.
///
/// # Errors
/// When the server cannot be reached.
pub async fn run(load: &Load, warmup: Duration, sample: usize) -> anyhow::Result<Against> {
    load.target
        .connect()
        .await
        .with_context(|| format!("cannot connect to {}", load.target.host))?;
    let progress = Progress::new(1);
    progress.step();
    let warm = Load {
        duration: warmup,
        ..load.clone()
    };
    let warmed = load::send(&warm, &progress.timed("warming up", warmup)).await?;
    let sent = load::send(load, &progress.timed("load", load.duration)).await?;
    let mut figures = Figures::default();
    for (name, value) in [
        ("accepted_rate", sent.rate()),
        ("accepted", sent.accepted.len() as f64),
        ("p50_ms", sent.latency.at(0.5)),
        ("p99_ms", sent.latency.at(0.99)),
        ("p999_ms", sent.latency.at(0.999)),
        ("max_ms", sent.latency.max()),
        ("refused", sent.refused as f64),
        ("broken", sent.broken as f64),
        ("strange", (warmed.strange + sent.strange) as f64),
    ] {
        figures.set(name, value);
    }
    let mut against = Against {
        figures,
        asked: 0,
        missing: 0,
        not_asked: None,
    };
    let accepted = [warmed.accepted, sent.accepted].concat();
    ask(&load.target, &accepted, sample, &mut against).await?;
    Ok(against)
}

/// Asks for events evenly spread over those accepted.
async fn ask(
    target: &Target,
    accepted: &[Uuid],
    sample: usize,
    against: &mut Against,
) -> anyhow::Result<()> {
    let step = (accepted.len() / sample.max(1)).max(1);
    for id in accepted.iter().rev().step_by(step).take(sample) {
        let (status, _) = target.get(&format!("/v1/events/{id}?wait={WAIT}")).await?;
        match status {
            200 => against.asked += 1,
            404 => {
                against.asked += 1;
                against.missing += 1;
            }
            other => {
                against.not_asked = Some(format!(
                    "the server answers {other} to GET /v1/events/ID; a key with the scope read is \
                     needed for it"
                ));
                break;
            }
        }
    }
    Ok(())
}
