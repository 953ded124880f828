//! A minute of chaos; `scripts/chaos` has as much as one likes.

use std::time::Duration;

use crate::chaos::{Mode, Plan, Verdict, run};

/// One after another: side by side they would take each other's processors.
#[tokio::test]
async fn a_minute_of_chaos_loses_doubles_and_alters_nothing() {
    for (mode, seconds) in [
        (Mode::Full, 25),
        (Mode::Ordered, 20),
        (Mode::Database, 10),
        (Mode::Embedded, 10),
    ] {
        let mut plan = Plan::new(mode, Duration::from_secs(seconds), 20_260);
        plan.pause = Duration::from_millis(300);
        plan.harm = Duration::from_secs(1);
        let report = run(&plan).await;
        println!("{report}");
        assert_eq!(report.verdict(), Verdict::Passed, "{mode}");
    }
}
