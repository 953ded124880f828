//! A minute of chaos; `scripts/chaos` has as much as one likes.

use std::time::Duration;

use crate::chaos::{Mode, Plan, Verdict, run};

/// One after another: side by side they would take each other's processors.
#[tokio::test]
async fn a_minute_of_chaos_loses_doubles_and_alters_nothing() {
    for (mode, seconds) in [(Mode::Full, 30), (Mode::Database, 15), (Mode::Embedded, 15)] {
        let report = run(&Plan::new(mode, Duration::from_secs(seconds), 20_260)).await;
        println!("{report}");
        assert_eq!(report.verdict(), Verdict::Passed, "{mode}");
    }
}
