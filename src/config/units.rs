//! serde formats for durations.

/// `"90d"`, or `"forever"`: whole days, or `None` for no end.
pub(super) mod days {
    use serde::{Deserialize, Deserializer, de::Error};

    const DAY: u64 = 86_400;

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "forever" {
            return Ok(None);
        }
        let days = humantime::parse_duration(&text).ok().and_then(|duration| {
            let whole = duration.subsec_nanos() == 0 && duration.as_secs() % DAY == 0;
            u32::try_from(duration.as_secs() / DAY)
                .ok()
                .filter(|_| whole)
        });
        days.map(Some).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a number of whole days such as \"90d\", and not \"forever\""
            ))
        })
    }
}

/// The same as [`duration`], for a key that may be absent.
#[cfg(feature = "service")]
pub(super) mod optional_duration {
    use serde::Deserializer;
    use std::time::Duration;

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

/// `"30s"`, `"500ms"`, `"5m"`.
pub(super) mod duration {
    use serde::{Deserialize, Deserializer, de::Error};
    use std::time::Duration;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom(format!("{text:?} is not a duration such as \"30s\"")))
    }
}
