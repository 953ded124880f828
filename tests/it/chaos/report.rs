//! The verdict, and the counts it rests on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::plan::{Mode, Plan};
use super::strike::Tally;
use super::watch::Seen;
use crate::harness::{Counts, Findings};

const LEAST_RATE: f64 = 2_000.0;
const MEMORY: u64 = 150 << 20;
const STRIKES_PER_MINUTE: f64 = 3.0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Each way in which it did not hold.
    Failed(Vec<String>),
    /// Nothing was shown: why.
    Void(Vec<String>),
}

pub struct Report {
    pub plan: Plan,
    /// How long events were offered.
    pub offering: Duration,
    /// Work went on after every strike.
    pub recovered: bool,
    /// The backlog was worked off.
    pub drained: bool,
    /// What the followers have counted otherwise than the log has it.
    pub miscounted: Vec<String>,
    pub findings: Findings,
    pub counts: Arc<Counts>,
    pub complaints: Vec<String>,
    pub tally: Tally,
    pub seen: Seen,
}

impl Report {
    pub fn verdict(&self) -> Verdict {
        let findings = &self.findings;
        let mut failures = Vec::new();
        let mut must = |holds: bool, failure: String| {
            if !holds {
                failures.push(failure);
            }
        };
        for (name, list) in [
            ("lost", &findings.lost),
            ("doubled", &findings.doubled),
            ("altered", &findings.altered),
            ("never sent", &findings.unsent),
            ("out of order", &findings.swapped),
        ] {
            let some: Vec<_> = list.iter().take(5).collect();
            must(list.is_empty(), format!("{} {name}: {some:?}", list.len()));
        }
        let dead = findings.dead.len();
        must(
            dead == 0,
            format!("{dead} dead letters of events that are good"),
        );
        must(
            self.recovered,
            "work did not go on after the last strike".into(),
        );
        must(self.drained, "the backlog was not worked off".into());
        let some: Vec<_> = self.miscounted.iter().take(5).collect();
        must(
            some.is_empty(),
            format!(
                "{} miscounted by followers: {some:?}",
                self.miscounted.len()
            ),
        );
        let crashes = self.tally.crashes;
        must(
            crashes == 0,
            format!("{crashes} processes ended by themselves"),
        );
        let complaints = &self.complaints;
        must(
            complaints.is_empty(),
            format!("wrong answers: {complaints:?}"),
        );
        let megabytes = self.seen.peak_memory >> 20;
        must(
            self.seen.peak_memory < MEMORY,
            format!("{megabytes} MiB of memory"),
        );
        if !failures.is_empty() {
            return Verdict::Failed(failures);
        }
        let reasons = self.emptiness();
        if reasons.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Void(reasons)
        }
    }

    /// Why a run that broke nothing shows nothing.
    fn emptiness(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let (offered, taken) = (count(&self.counts.offered), count(&self.counts.taken));
        if taken * 2 < offered {
            reasons.push(format!("only {taken} of {offered} events were accepted"));
        }
        let rate = self.rate();
        if rate < LEAST_RATE {
            reasons.push(format!("only {rate:.0} events were offered per second"));
        }
        let least = (self.plan.time.as_secs_f64() / 60.0 * STRIKES_PER_MINUTE).floor();
        for (what, count) in [("kills", self.tally.kills), ("cuts", self.tally.cuts)] {
            if (count as f64) < least {
                reasons.push(format!("only {count} {what} of {least}"));
            }
        }
        reasons
    }

    fn rate(&self) -> f64 {
        count(&self.counts.offered) as f64 / self.offering.as_secs_f64()
    }
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, findings, tally) = (&self.counts, &self.findings, &self.tally);
        let mut line = |name: &str, value: String| writeln!(f, "  {name:<28}{value:>12}");
        line("mode", self.plan.mode.to_string())?;
        line("seed", self.plan.seed.to_string())?;
        line(
            "seconds under load",
            format!("{:.0}", self.offering.as_secs_f64()),
        )?;
        line("events offered", count(&counts.offered).to_string())?;
        line("  per second", format!("{:.0}", self.rate()))?;
        line("events accepted (202)", count(&counts.taken).to_string())?;
        line("given up by clients", count(&counts.given_up).to_string())?;
        line("requests refused (503)", count(&counts.refused).to_string())?;
        line("requests broken off", count(&counts.broken).to_string())?;
        line("rows", findings.rows.to_string())?;
        line("dead letters", findings.dead.len().to_string())?;
        line(
            "duplicates avoided, at least",
            self.seen.duplicates.to_string(),
        )?;
        line("lost", findings.lost.len().to_string())?;
        line("doubled", findings.doubled.len().to_string())?;
        line("altered", findings.altered.len().to_string())?;
        line("never sent", findings.unsent.len().to_string())?;
        if self.plan.mode == Mode::Ordered {
            line("out of order", findings.swapped.len().to_string())?;
        }
        line("miscounted by followers", self.miscounted.len().to_string())?;
        line("kills", tally.kills.to_string())?;
        line("cuts", tally.cuts.to_string())?;
        line("stops (SIGSTOP)", tally.stops.to_string())?;
        line("panics", tally.panics.to_string())?;
        line("ended by themselves", tally.crashes.to_string())?;
        line(
            "peak memory, MiB",
            (self.seen.peak_memory >> 20).to_string(),
        )?;
        match self.verdict() {
            Verdict::Passed => writeln!(f, "PASSED"),
            Verdict::Failed(why) => writeln!(f, "FAILED: {}", why.join("; ")),
            Verdict::Void(why) => writeln!(f, "VOID: {}", why.join("; ")),
        }
    }
}
