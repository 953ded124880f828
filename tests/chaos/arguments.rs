//! The command line: `--minutes N --seed S --mode full|ordered|database|embedded`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::chaos::{Mode, Plan};

/// Ten minutes in full mode, unless it says otherwise.
pub fn plan(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan::new(Mode::Full, Duration::from_secs(600), rand::random());
    for pair in arguments.chunks(2) {
        let [key, value] = pair else {
            return Err(format!("{} needs a value", pair.concat()));
        };
        match key.as_str() {
            "--minutes" => {
                let minutes: f64 = parse(key, value)?;
                plan.time = Duration::try_from_secs_f64(minutes * 60.0)
                    .map_err(|error| format!("{key} {value}: {error}"))?;
            }
            "--seed" => plan.seed = parse(key, value)?,
            "--mode" => {
                plan.mode = match value.as_str() {
                    "full" => Mode::Full,
                    "ordered" => Mode::Ordered,
                    "database" => Mode::Database,
                    "embedded" => Mode::Embedded,
                    _ => {
                        return Err(format!(
                            "{key} {value} is not full, ordered, database or embedded"
                        ));
                    }
                }
            }
            _ => return Err(format!("{key} is not known")),
        }
    }
    Ok(plan)
}

fn parse<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, String> {
    let parsed = value.parse();
    parsed.map_err(|error| format!("{key} {value}: {error}"))
}
