//! What both stores can hold of a JSON value, checked at the edge so that no batch fails on it.
//!
//! serde_json has already checked the syntax; this pass looks for what is valid JSON and yet no
//! row: U+0000 and lone surrogates (PostgreSQL's `jsonb` has no such text), numbers outside
//! `numeric`, keys given twice (one of them would be lost), and nesting without end.

use std::borrow::Cow;
use std::collections::HashSet;

/// Digits that PostgreSQL's `numeric` takes before the decimal point (its documentation, 8.1.2).
const NUMERIC_INTEGER_DIGITS: i64 = 131_072;
/// Digits that it takes after the decimal point.
const NUMERIC_FRACTION_DIGITS: i64 = 16_383;
/// From this many keys on an object's keys are looked up in a set rather than one by one.
const MANY_KEYS: usize = 16;

/// Keys seen so far in one object.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// Whether the key is new.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.few.len() < MANY_KEYS {
            if self.few.contains(&key) {
                return false;
            }
            self.few.push(key);
            return true;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().cloned());
        }
        self.many.insert(key)
    }
}

/// A container the scan is inside of.
enum Level<'a> {
    Object {
        keys: Keys<'a>,
        /// The key whose value is being read; `None` while a key is awaited.
        key: Option<&'a str>,
    },
    Array {
        index: usize,
    },
}

/// Checks a syntactically valid JSON text.
///
/// # Errors
/// A sentence that begins with the place inside the value, such as
/// `at "cart"[3]: contains U+0000, which PostgreSQL cannot store`.
pub fn check(text: &str, max_depth: usize) -> Result<(), String> {
    let mut levels: Vec<Level> = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                if levels.len() >= max_depth {
                    return Err(format!("is nested deeper than {max_depth} levels"));
                }
                levels.push(if byte == b'{' {
                    Level::Object {
                        keys: Keys::default(),
                        key: None,
                    }
                } else {
                    Level::Array { index: 0 }
                });
                at += 1;
            }
            b'}' | b']' => {
                levels.pop();
                at += 1;
            }
            b',' => {
                match levels.last_mut() {
                    Some(Level::Object { key, .. }) => *key = None,
                    Some(Level::Array { index }) => *index += 1,
                    None => {}
                }
                at += 1;
            }
            b'"' => {
                let inner = string(text, at + 1).map_err(|flaw| place(&levels, flaw))?;
                at += inner.len() + 2;
                if let Some(Level::Object { keys, key }) = levels.last_mut()
                    && key.is_none()
                {
                    *key = Some(inner);
                    if !keys.insert(unescape(inner)) {
                        return Err(place(&levels, "is given twice"));
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at..).unwrap_or_default();
                let length = rest
                    .iter()
                    .position(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                    .unwrap_or(rest.len());
                number(rest.get(..length).unwrap_or_default())
                    .map_err(|flaw| place(&levels, flaw))?;
                at += length;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The inside of the string literal that begins at `start`, behind its opening quote.
fn string(text: &str, start: usize) -> Result<&str, &'static str> {
    let bytes = text.as_bytes();
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return Err("ends inside a string"),
            Some(b'"') => return Ok(text.get(start..at).unwrap_or_default()),
            Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => {
                match code_unit(bytes, at + 2) {
                    Some(0) => return Err("contains U+0000, which PostgreSQL cannot store"),
                    Some(0xD800..=0xDBFF) => {
                        let low = (bytes.get(at + 6..at + 8) == Some(b"\\u"))
                            .then(|| code_unit(bytes, at + 8))
                            .flatten();
                        if !matches!(low, Some(0xDC00..=0xDFFF)) {
                            return Err("contains a lone surrogate, which is no character");
                        }
                        at += 6;
                    }
                    Some(0xDC00..=0xDFFF) => {
                        return Err("contains a lone surrogate, which is no character");
                    }
                    Some(_) => {}
                    None => return Err("has a broken \\u escape"),
                }
                at += 6;
            }
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// The four hexadecimal digits of a `\u` escape.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

fn unescape(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(&format!("\"{inner}\"")).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Whether `numeric` can hold this number literal.
fn number(literal: &[u8]) -> Result<(), &'static str> {
    // Short literals without an exponent fit whatever they are.
    let exponent_at = literal.iter().position(|b| matches!(b, b'e' | b'E'));
    if exponent_at.is_none() && literal.len() < 1_000 {
        return Ok(());
    }
    let (mantissa, exponent) = match exponent_at {
        None => (literal, 0),
        Some(at) => {
            let digits = literal.get(at + 1..).unwrap_or_default();
            let digits = digits.strip_prefix(b"+").unwrap_or(digits);
            let exponent = std::str::from_utf8(digits)
                .ok()
                .and_then(|d| d.parse::<i64>().ok())
                .filter(|e| e.abs() < 1_000_000)
                .ok_or("is a number beyond what PostgreSQL can store")?;
            (literal.get(..at).unwrap_or_default(), exponent)
        }
    };
    let mantissa = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
    let point = mantissa.iter().position(|b| *b == b'.');
    let integer = point.unwrap_or(mantissa.len()) as i64;
    let fraction = point.map_or(0, |p| mantissa.len() - p - 1) as i64;
    if integer + exponent > NUMERIC_INTEGER_DIGITS || fraction - exponent > NUMERIC_FRACTION_DIGITS
    {
        return Err("is a number beyond what PostgreSQL can store");
    }
    Ok(())
}

/// Puts the place in front of a flaw.
fn place(levels: &[Level], flaw: &str) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object { key: Some(key), .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push('"');
                path.extend(key.chars().take(64));
                path.push('"');
            }
            Level::Object { key: None, .. } => {}
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
        if path.len() > 256 {
            path.push('…');
            break;
        }
    }
    if path.is_empty() {
        flaw.to_owned()
    } else {
        format!("at {path}: {flaw}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_passes() {
        for text in [
            "{}",
            r#"{"a":[1,2.5,-3e10,true,null,"x\"\\y"],"b":{"a":1}}"#,
            r#"{"smile":"\uD83D\uDE00","Ω":"é"}"#,
            r#"[{"a":1},{"a":2}]"#,
            "1e131000",
            "1.5e-16000",
        ] {
            assert_eq!(check(text, 8), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_no_row_can_hold_is_named_with_its_place() {
        for (text, place, flaw) in [
            (
                r#"{"a":{"b":["x","\u0000"]}}"#,
                r#"at "a"."b"[1]"#,
                "U+0000",
            ),
            (r#"{"a\u0000":1}"#, "", "U+0000"),
            (r#"{"a":"\uD800"}"#, r#"at "a""#, "surrogate"),
            (r#"{"a":"\uD800x"}"#, r#"at "a""#, "surrogate"),
            (r#"{"a":"\uDC00"}"#, r#"at "a""#, "surrogate"),
            (r#"{"a":"\uD83D\u0041"}"#, r#"at "a""#, "surrogate"),
            (r#"{"a":1,"a":2}"#, r#"at "a""#, "twice"),
            (r#"{"a":1,"\u0061":2}"#, r#"at "\u0061""#, "twice"),
            (r#"{"n":1e200000}"#, r#"at "n""#, "number"),
            (r#"{"n":1e-20000}"#, r#"at "n""#, "number"),
            (r#"{"n":1e99999999999999999999}"#, r#"at "n""#, "number"),
            ("[[[[[[[[[1]]]]]]]]]", "", "deeper than 8"),
        ] {
            let error = check(text, 8).unwrap_err();
            assert!(error.contains(place), "{text}: {error}");
            assert!(error.contains(flaw), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_is_found_twice_among_many() {
        let fields: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
        assert_eq!(check(&format!("{{{}}}", fields.join(",")), 8), Ok(()));
        let twice = format!("{{{},\"k40\":0}}", fields.join(","));
        assert!(check(&twice, 8).unwrap_err().contains("twice"));
    }
}
