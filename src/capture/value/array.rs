//! Arrays: from PostgreSQL's braces to arrays of JSON, nested by dimension.

use super::text::write_string;
use super::{ValueKind, ValueWriter};

impl ValueWriter {
    /// Appends an array. One with lower bounds other than 1 is PostgreSQL's text, since an array of JSON has none.
    pub(super) fn array(
        &self,
        kind: &ValueKind,
        delimiter: u8,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if text.starts_with('[') {
            write_string(text, out);
            return Ok(());
        }
        let mut element = String::new();
        let mut rest = text.as_bytes();
        let mut depth = 0usize;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'{' => {
                    depth += 1;
                    out.push(b'[');
                }
                b'}' => {
                    depth = depth.checked_sub(1).ok_or(BROKEN)?;
                    out.push(b']');
                }
                _ if byte == delimiter => out.push(b','),
                b'"' => {
                    rest = quoted(rest, &mut element)?;
                    self.write(kind, &element, out)?;
                }
                _ => {
                    let bare = text.len() - rest.len() - 1;
                    let length = rest
                        .iter()
                        .position(|byte| *byte == delimiter || *byte == b'}')
                        .ok_or(BROKEN)?;
                    let value = text.get(bare..=bare + length).ok_or(BROKEN)?;
                    rest = rest.get(length..).unwrap_or_default();
                    // PostgreSQL quotes an element that reads like it.
                    if value.eq_ignore_ascii_case("NULL") {
                        out.extend_from_slice(b"null");
                    } else {
                        self.write(kind, value, out)?;
                    }
                }
            }
        }
        if depth == 0 {
            Ok(())
        } else {
            Err(BROKEN.to_owned())
        }
    }
}

const BROKEN: &str = "is not an array as PostgreSQL writes it";

/// Reads a quoted element behind its first quote into `element`, and gives what follows its last one.
fn quoted<'a>(mut rest: &'a [u8], element: &mut String) -> Result<&'a [u8], String> {
    let mut bytes = std::mem::take(element).into_bytes();
    bytes.clear();
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest).ok_or(BROKEN)?;
        let (before, behind) = rest.split_at_checked(at).ok_or(BROKEN)?;
        bytes.extend_from_slice(before);
        match behind {
            [b'"', behind @ ..] => {
                *element = String::from_utf8(bytes).map_err(|_| BROKEN)?;
                return Ok(behind);
            }
            [_, escaped, behind @ ..] => {
                bytes.push(*escaped);
                rest = behind;
            }
            _ => return Err(BROKEN.to_owned()),
        }
    }
}
