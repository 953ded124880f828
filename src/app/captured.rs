//! What keeps the captures of the settings from a start.

use crate::capture::CaptureDatabase;
use crate::config::captures::CaptureSettings;
use crate::config::{ConfigError, Invalid, Settings};
use std::time::Duration;

/// Reads the files that the captures name, and parses the URLs. Nothing connects.
///
/// # Errors
/// For each capture the setting that cannot be used.
pub fn check(settings: &Settings) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    for (index, capture) in settings.captures.iter().enumerate() {
        if let Err(invalid) = check_one(capture, &settings.store.url) {
            let key = format!("captures[{index}].{}", invalid.key);
            found.push(Invalid::new(&key, invalid.reason));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Invalid(found)),
    }
}

fn check_one(capture: &CaptureSettings, store: &str) -> Result<(), Invalid> {
    let (key, url) = capture.keyed_database(store)?;
    let of_store = if key == "url" && capture.url.is_empty() {
        "or store.url in place of it, "
    } else {
        ""
    };
    // The errors do not quote the URL, which has a password.
    CaptureDatabase::new(&url, Duration::ZERO)
        .map(|_| ())
        .map_err(|error| Invalid::new(key, format!("{of_store}cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use std::io::Write;

    /// What is wrong with a capture that has this line, at the load of the settings or after it.
    fn flaw(line: &str, store: &str) -> Option<(String, String)> {
        let text = format!(
            "store.url = {store:?}\n[[captures]]\nname = \"shop\"\ntables = [\"public.product\"]\n{line}"
        );
        let checked = Sources::from_text(&text)
            .load()
            .and_then(|settings| check(&settings));
        match checked {
            Ok(()) => None,
            Err(ConfigError::Invalid(found)) => {
                let [invalid] = found.try_into().unwrap();
                Some((invalid.key, invalid.reason))
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_a_capture_cannot_connect_to_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "mysql://u:hunter2@h/d").unwrap();
        let of_mysql = format!("url_file = {:?}", file.path());
        for (line, store, key, words) in [
            (
                "url = \"mysql://u:hunter2@h/d\"",
                "",
                "url",
                "must begin with postgres://",
            ),
            (
                "url = \"postgres://:hunter2@h/d\"",
                "",
                "url",
                "names no user",
            ),
            (
                "url = \"postgres://u:hunter2@h:port/d\"",
                "",
                "url",
                "cannot be read",
            ),
            (
                "url_file = \"/nope\"",
                "",
                "url_file",
                "is /nope, which cannot be read",
            ),
            (&of_mysql, "", "url_file", "must begin with postgres://"),
            (
                "",
                "postgres://:hunter2@h/d",
                "url",
                "or store.url in place of it, cannot be used",
            ),
            ("", "", "url", "is empty, and so is store.url"),
        ] {
            let (at, reason) = flaw(line, store).unwrap();
            assert_eq!(at, format!("captures[0].{key}"), "{line}: {reason}");
            assert!(reason.contains(words), "{line}: {reason}");
            assert!(!reason.contains("hunter2"), "{line}: {reason}");
        }
        assert_eq!(flaw("url = \"postgres://u:hunter2@h/d\"", ""), None);
        assert_eq!(flaw("", "postgres://u@h/d"), None);
    }
}
