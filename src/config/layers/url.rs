//! URLs of settings: hiding passwords, encoding parts.

/// `scheme://user:***@host/...`: a URL that may be shown. What has no recognisable place for a
/// password is hidden whole if it has an `@` or a parameter that could be one.
pub fn hide_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) if query.contains("password") => (rest, "?***".to_owned()),
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

/// The text with all but unreserved characters as `%` and two hexadecimal digits.
pub fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
