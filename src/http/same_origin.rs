//! The check that keeps web pages away from a server without API keys.
//!
//! A browser on this machine, or inside a private network, can send requests for any page that it
//! opens. Such a request names the page in `Origin` or says in `Sec-Fetch-Site` that it comes from
//! elsewhere; after DNS rebinding it names the page's own host in `Host`. With API keys the check
//! does nothing: a page has no key.

use super::problem::Problem;
use crate::config::Settings;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks the `Host`, `Origin` and `Sec-Fetch-Site` of a request.
///
/// # Errors
/// 403, with the reason and what to do.
pub fn check(settings: &Settings, headers: &HeaderMap) -> Result<(), Problem> {
    if !settings.auth.keys.is_empty() {
        return Ok(());
    }
    let host = match headers.get(HOST).map(|host| host.to_str()) {
        Some(Ok(host)) if !host.is_empty() => host,
        Some(_) => return Err(Problem::forbidden("the Host header cannot be read")),
        None => {
            return Err(Problem::forbidden(
                "the request has no Host header; without API keys a request must name a loopback \
                 host, such as localhost, or one of http.allowed_hosts",
            ));
        }
    };
    if !settings.http.allows_host(without_port(host)) {
        return Err(Problem::forbidden(format!(
            "the Host header names {host:?}; without API keys a request must name a loopback host, \
             such as localhost, or one of http.allowed_hosts. Add the name there, or make an API \
             key with `eclusa config new-key`"
        )));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        if !own {
            return Err(foreign_page(&format!("its Origin is {origin:?}")));
        }
    }
    match headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes()) {
        Some(b"cross-site" | b"same-site") => Err(foreign_page(
            "its Sec-Fetch-Site says that it comes from another origin",
        )),
        _ => Ok(()),
    }
}

fn foreign_page(sign: &str) -> Problem {
    Problem::forbidden(format!(
        "the request comes from a web page of another origin: {sign}. Without API keys Eclusa \
         refuses such requests; make an API key with `eclusa config new-key`, or send them from a \
         server instead of the page"
    ))
}

/// `host:port` without the port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use actix_web::http::header::HeaderValue;

    fn checked(text: &str, headers: &[(&'static str, &'static str)]) -> Result<(), String> {
        let settings = Sources::from_text(text).load().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        check(&settings, &map).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_request_must_name_a_host_that_is_allowed() {
        for host in ["localhost:3000", "127.0.0.1", "[::1]:3000", "[::1]"] {
            assert_eq!(checked("", &[("host", host)]), Ok(()), "{host}");
        }
        let error = checked("", &[("host", "evil.example:3000")]).unwrap_err();
        assert!(error.contains("http.allowed_hosts"), "{error}");
        assert!(checked("", &[]).unwrap_err().contains("no Host header"));
        let named = "http.allowed_hosts = [\"app\"]";
        assert_eq!(checked(named, &[("host", "APP:3000")]), Ok(()));
        assert!(checked(named, &[("host", "app.evil.example")]).is_err());
    }

    #[test]
    fn a_request_of_another_origins_page_is_refused() {
        let with = |name, value| checked("", &[("host", "localhost:3000"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:3000"), Ok(()));
        for origin in [
            "http://localhost:5173",
            "https://evil.example",
            "null",
            "http://localhost:3000.evil.example",
        ] {
            let error = with("origin", origin).unwrap_err();
            assert!(error.contains("Origin"), "{origin}: {error}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(with("sec-fetch-site", site), Ok(()), "{site}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(with("sec-fetch-site", site).is_err(), "{site}");
        }
    }

    #[test]
    fn with_keys_the_key_decides() {
        let hash = "0".repeat(64);
        let keys = format!(
            "auth.keys = [{{ name = \"k\", hash = \"sha256:{hash}\", scopes = [\"read\"] }}]"
        );
        let headers = [("host", "evil.example"), ("origin", "https://evil.example")];
        assert_eq!(checked(&keys, &headers), Ok(()));
    }
}
