//! What a person sees meanwhile: on standard error, and nothing where that is no terminal.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::cell::Cell;
use std::time::Duration;

/// Steps of a run.
#[derive(Debug)]
pub struct Progress {
    steps: usize,
    done: Cell<usize>,
}

impl Progress {
    /// For a run of so many steps.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            done: Cell::new(0),
        }
    }

    /// Begins the next step.
    pub fn step(&self) {
        self.done.set(self.done.get() + 1);
    }

    /// A bar for something that takes this long; position in milliseconds.
    pub fn timed(&self, what: &str, duration: Duration) -> ProgressBar {
        self.bar(what, u64::try_from(duration.as_millis()).unwrap_or(0))
    }

    /// For something that does not say how far it is: the time that it has taken.
    pub fn busy(&self, what: &str) -> ProgressBar {
        let bar = self.bar(what, 1);
        if let Ok(style) = ProgressStyle::with_template("{prefix:44} {spinner} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// A bar for so many of something. It goes when it is dropped.
    pub fn bar(&self, what: &str, length: u64) -> ProgressBar {
        let bar = ProgressBar::new(length.max(1))
            .with_finish(ProgressFinish::AndClear)
            .with_prefix(format!("[{}/{}] {what}", self.done.get(), self.steps));
        match ProgressStyle::with_template("{prefix:44} {bar:20} {msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
