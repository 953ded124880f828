//! Failpoints: named points between the steps of the flow at which a test makes the process fail.
//!
//! Compiled in with the feature `failpoints` only; without it [`hit`] does nothing. Points are set
//! by the variable `ECLUSA_FAILPOINTS` (`name=action;name=action`) at start, or while it runs by
//! `PUT /failpoints/{name}` with the action as the body. An action is `panic`, `kill` (SIGKILL to
//! this process), `stall` (blocks the thread forever) or `off`, and may be preceded by how
//! many hits pass first and how many then trigger: `3:1:panic` lets three pass, then panics once.

/// Runs the action set for this point, if any.
#[inline]
pub fn hit(name: &str) {
    #[cfg(feature = "failpoints")]
    active::hit(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// As [`hit`], at the point `name/part`, so that a test makes the events of one type fail, or one follower.
/// `stall` never completes there, without blocking the thread.
#[inline]
#[cfg_attr(
    not(feature = "failpoints"),
    expect(clippy::unused_async, reason = "awaits with the feature on")
)]
pub async fn hit_part(name: &str, part: &str) {
    #[cfg(feature = "failpoints")]
    active::hit_part(name, part).await;
    #[cfg(not(feature = "failpoints"))]
    let _ = (name, part);
}

#[cfg(feature = "failpoints")]
pub use active::set;

#[cfg(feature = "failpoints")]
mod active {
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use std::sync::LazyLock;

    #[derive(Clone, Copy)]
    enum FailpointAction {
        Panic,
        Kill,
        Stall,
    }

    struct Point {
        pass: u64,
        strikes: u64,
        action: FailpointAction,
    }

    static POINTS: LazyLock<Mutex<HashMap<String, Point>>> = LazyLock::new(|| {
        let mut points = HashMap::new();
        if let Ok(text) = std::env::var("ECLUSA_FAILPOINTS") {
            for part in text.split(';').filter(|part| !part.is_empty()) {
                if let Some((name, Ok(Some(point)))) =
                    part.split_once('=').map(|(name, spec)| (name, parse(spec)))
                {
                    points.insert(name.to_owned(), point);
                }
            }
        }
        Mutex::new(points)
    });

    fn parse(spec: &str) -> Result<Option<Point>, String> {
        let parts: Vec<&str> = spec.trim().split(':').collect();
        let (pass, strikes, word) = match parts.as_slice() {
            [word] => ("0", "18446744073709551615", *word),
            [pass, strikes, word] => (*pass, *strikes, *word),
            _ => return Err(format!("{spec:?} is not [pass:strikes:]action")),
        };
        let number = |text: &str| {
            text.parse()
                .map_err(|_| format!("{text:?} is not a number"))
        };
        let action = match word {
            "panic" => FailpointAction::Panic,
            "kill" => FailpointAction::Kill,
            "stall" => FailpointAction::Stall,
            "off" => return Ok(None),
            _ => return Err(format!("{word:?} is not panic, kill, stall or off")),
        };
        Ok(Some(Point {
            pass: number(pass)?,
            strikes: number(strikes)?,
            action,
        }))
    }

    /// Sets or clears a point.
    ///
    /// # Errors
    /// The action cannot be parsed.
    pub fn set(name: &str, spec: &str) -> Result<(), String> {
        match parse(spec)? {
            Some(point) => POINTS.lock().insert(name.to_owned(), point),
            None => POINTS.lock().remove(name),
        };
        Ok(())
    }

    fn strike(name: &str) -> Option<FailpointAction> {
        let mut points = POINTS.lock();
        let point = points.get_mut(name)?;
        if point.pass > 0 {
            point.pass -= 1;
            return None;
        }
        point.strikes = point.strikes.checked_sub(1)?;
        Some(point.action)
    }

    pub(super) async fn hit_part(name: &str, part: &str) {
        match strike(&format!("{name}/{part}")) {
            Some(FailpointAction::Stall) => std::future::pending().await,
            other => act(name, other),
        }
    }

    pub(super) fn hit(name: &str) {
        act(name, strike(name));
    }

    #[expect(clippy::panic, reason = "a test requests it")]
    fn act(name: &str, action: Option<FailpointAction>) {
        match action {
            None => {}
            Some(FailpointAction::Panic) => panic!("failpoint {name}"),
            Some(FailpointAction::Kill) => {
                tracing::error!(failpoint = name, "killing this process");
                // The standard library has no kill(2); the tool of the same name has.
                let _ = std::process::Command::new("kill")
                    .args(["-9", &std::process::id().to_string()])
                    .status();
                std::process::abort();
            }
            Some(FailpointAction::Stall) => loop {
                std::thread::park();
            },
        }
    }
}
