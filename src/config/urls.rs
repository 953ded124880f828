//! URLs of databases and brokers, and files with them.

#[cfg(feature = "service")]
use super::Invalid;
#[cfg(feature = "service")]
use std::path::Path;

/// What is wrong with a URL of PostgreSQL, as far as its beginning shows; it is not quoted.
pub(super) fn not_postgres(url: &str) -> Option<&'static str> {
    let mut schemes = ["postgres://", "postgresql://"].into_iter();
    let is_one = schemes.any(|scheme| url.starts_with(scheme));
    (!is_one).then_some("must begin with postgres://")
}

/// The URL in the file of a key `url_file`.
///
/// # Errors
/// The file cannot be read.
#[cfg(feature = "service")]
pub fn read_url(path: &Path) -> Result<String, Invalid> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = format!("is {}, which cannot be read: {error}", path.display());
        Invalid::new("url_file", reason)
    })?;
    Ok(text.trim().to_owned())
}
