//! Durations as people write them, for serde.

/// `"30s"`, `"500ms"`, `"5m"`.
pub(super) mod duration {
    use serde::{Deserialize, Deserializer, de::Error};
    use std::time::Duration;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom(format!("{text:?} is no duration such as \"30s\"")))
    }
}
