//! Lists of addresses as text:
//! `ada@example.org, Ada Lovelace <ada@example.org>, "Doe, Jane" <jane@example.org>`.

/// An entry of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedAddress {
    pub(super) name: Option<String>,
    /// What should be an address; not checked.
    pub(super) address: String,
}

/// Characters that would end a header, or the text of a C program.
pub(super) const NEVER_IN_HEADERS: [char; 3] = ['\r', '\n', '\0'];

/// A value to be put into a list, so that none of its characters separates or quotes.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if [',', '<', '>', '"', '\\'].contains(&character) || NEVER_IN_HEADERS.contains(&character)
        {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The entries of a list; empty ones do not count.
///
/// # Errors
/// Why it is none, in words that repeat nothing of it.
pub(super) fn parse(list: &str) -> Result<Vec<ListedAddress>, &'static str> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut quoted = false;
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => entry.push(characters.next().ok_or("it ends with a backslash")?)?,
            '"' => quoted = !quoted,
            _ if quoted => entry.push(character)?,
            ',' => entries.extend(std::mem::take(&mut entry).end()?),
            '<' => entry.open()?,
            '>' => entry.close()?,
            // Of the template itself, such as the line breaks around a loop.
            _ if character.is_whitespace() => entry.space(),
            _ => entry.push(character)?,
        }
    }
    if quoted {
        return Err("a quotation mark is not closed");
    }
    entries.extend(entry.end()?);
    Ok(entries)
}

/// An entry that is being read.
#[derive(Default)]
struct Entry {
    /// Before a `<`: a name, or an address that stands alone.
    before: String,
    /// After a `<`.
    within: Option<String>,
    closed: bool,
}

impl Entry {
    fn push(&mut self, character: char) -> Result<(), &'static str> {
        if NEVER_IN_HEADERS.contains(&character) {
            return Err("a value contains a line break or NUL");
        }
        if self.closed {
            return Err("text follows an address in angle brackets; a comma is missing");
        }
        self.within
            .as_mut()
            .unwrap_or(&mut self.before)
            .push(character);
        Ok(())
    }

    fn space(&mut self) {
        if !self.closed {
            self.within.as_mut().unwrap_or(&mut self.before).push(' ');
        }
    }

    fn open(&mut self) -> Result<(), &'static str> {
        match self.within.replace(String::new()) {
            None => Ok(()),
            Some(_) => Err("a second < stands before a comma"),
        }
    }

    fn close(&mut self) -> Result<(), &'static str> {
        if self.within.is_none() || self.closed {
            return Err("a > has no < before it");
        }
        self.closed = true;
        Ok(())
    }

    fn end(self) -> Result<Option<ListedAddress>, &'static str> {
        let before = self.before.trim();
        Ok(match self.within {
            Some(_) if !self.closed => return Err("a < has no > after it"),
            Some(within) => Some(ListedAddress {
                name: Some(before.to_owned()).filter(|name| !name.is_empty()),
                address: within.trim().to_owned(),
            }),
            None if before.is_empty() => None,
            None => Some(ListedAddress {
                name: None,
                address: before.to_owned(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(name: &str, address: &str) -> ListedAddress {
        ListedAddress {
            name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            address: address.to_owned(),
        }
    }

    #[test]
    fn names_and_addresses_are_told_apart() {
        let list = "a@b.org,\n  Ada L. <ada@b.org> , \"Doe, Jane\" <j@b.org>,, Jürg<ü@b.org>,";
        let entries = [
            listed("", "a@b.org"),
            listed("Ada L.", "ada@b.org"),
            listed("Doe, Jane", "j@b.org"),
            listed("Jürg", "ü@b.org"),
        ];
        assert_eq!(parse(list).unwrap(), entries);
        assert_eq!(parse(" , \n"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in [
            "a <b", "a> b", "a <b> c", "a <b <c>", "\"a <b>", "a\\", "<a>>",
        ] {
            assert!(parse(list).is_err(), "{list}");
        }
        assert_eq!(
            parse("a\"\n\"b"),
            Err("a value contains a line break or NUL")
        );
    }

    proptest! {
        /// Whatever an event has as its value, it is one name or one address.
        #[test]
        fn a_value_adds_no_entry(value in "[a-z@,<>\"\\\\ \r\n\0;:]{1,12}") {
            let list = format!("{} <{}>", escape(&value), escape(&value));
            match parse(&list) {
                Err(_) => prop_assert!(value.contains(NEVER_IN_HEADERS)),
                Ok(entries) => {
                    prop_assert!(!value.contains(NEVER_IN_HEADERS));
                    prop_assert_eq!(entries, [listed(value.trim(), value.trim())]);
                }
            }
        }
    }
}
