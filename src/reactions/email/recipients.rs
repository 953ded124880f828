//! Who may receive an e-mail.

use super::address_list::{ListedAddress, NEVER_IN_HEADERS};
use lettre::Address;
use lettre::message::Mailbox;

/// Most recipients of one e-mail.
pub(super) const MAX_RECIPIENTS: usize = 50;

/// The domains that recipients may have, in ASCII; with none set, every domain.
pub(super) struct AllowedDomains(Vec<String>);

impl AllowedDomains {
    /// Domains as set: `example.org` for itself, `.example.org` for all below it.
    ///
    /// # Errors
    /// The first that is no domain.
    pub(super) fn new(domains: &[String]) -> Result<Self, String> {
        let ascii = |domain: &String| {
            let (dot, name) = match domain.strip_prefix('.') {
                Some(name) => (".", name),
                None => ("", domain.as_str()),
            };
            let name =
                to_ascii(name).ok_or_else(|| format!("has {domain:?}, which is not a domain"))?;
            Ok(format!("{dot}{name}"))
        };
        Ok(Self(
            domains.iter().map(ascii).collect::<Result<_, String>>()?,
        ))
    }

    /// Whether a domain, in lower case and ASCII, is one of them.
    pub(super) fn allow(&self, domain: &str) -> bool {
        let is = |allowed: &String| match allowed.starts_with('.') {
            true => domain.ends_with(allowed.as_str()) && domain.len() > allowed.len(),
            false => domain == allowed,
        };
        self.0.is_empty() || self.0.iter().any(is)
    }
}

/// A domain in lower case, its labels in Punycode where they are not ASCII.
pub(super) fn to_ascii(domain: &str) -> Option<String> {
    idna::domain_to_ascii_strict(domain)
        .ok()
        .filter(|domain| !domain.is_empty())
}

/// The mailbox of an entry, with its domain in ASCII.
///
/// # Errors
/// Why it is none, in words that repeat nothing of it.
pub(super) fn mailbox(entry: ListedAddress) -> Result<Mailbox, &'static str> {
    let name = entry.name.as_deref().unwrap_or_default();
    if name.contains(NEVER_IN_HEADERS) || entry.address.contains(NEVER_IN_HEADERS) {
        return Err("contains a line break or NUL");
    }
    let (user, domain) = entry.address.rsplit_once('@').ok_or("has no @")?;
    // Where quoting is allowed, what counts as the end of an address differs between servers.
    if user.contains(['"', '<', '>', ' ']) {
        return Err("has a quotation mark, an angle bracket or a space before the @");
    }
    let domain = to_ascii(domain).ok_or("has no valid domain after the @")?;
    let address = Address::new(user, domain).map_err(|_| "is not an e-mail address")?;
    Ok(Mailbox::new(entry.name, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(domains: &[&str], domain: &str) -> bool {
        let domains: Vec<String> = domains.iter().map(|&domain| domain.to_owned()).collect();
        let allowed = AllowedDomains::new(&domains).unwrap();
        allowed.allow(&to_ascii(domain).unwrap())
    }

    fn entry(address: &str) -> ListedAddress {
        ListedAddress {
            name: None,
            address: address.to_owned(),
        }
    }

    #[test]
    fn a_domain_is_allowed_by_itself_or_below_another() {
        assert!(allowed(&["example.org"], "EXAMPLE.org"));
        assert!(allowed(&["Bücher.example"], "xn--bcher-kva.example"));
        assert!(allowed(&["xn--bcher-kva.example"], "BÜCHER.example"));
        assert!(allowed(&["a.org", ".example.org"], "mail.Example.org"));
        for domain in [
            "example.org.evil.com",
            "notexample.org",
            "a.example.org",
            "org",
        ] {
            assert!(!allowed(&["example.org"], domain), "{domain}");
        }
        for domain in ["example.org", "notexample.org", "example.org.evil.com"] {
            assert!(!allowed(&[".example.org"], domain), "{domain}");
        }
        assert!(AllowedDomains::new(&["a b".to_owned()]).is_err());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let found = mailbox(entry("Ada.L+x@Bücher.Example")).unwrap();
        assert_eq!(found.email.to_string(), "Ada.L+x@xn--bcher-kva.example");
        for address in [
            "",
            "a",
            "@b.org",
            "a@",
            "a@b.org>",
            "a b@c.org",
            "\"a\"@b.org",
            "a@[127.0.0.1]",
            "a@b.org\r\nBcc: c@d.org",
            "a@b.org, c@d.org",
            "a@b.org\0",
            "a@b@c.org",
            "<a@b.org",
        ] {
            assert!(mailbox(entry(address)).is_err(), "{address}");
        }
    }
}
