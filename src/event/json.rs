//! Validation of JSON values against what both stores can hold, so that no batch fails on one.
//!
//! serde_json has already checked the syntax. This pass refuses valid JSON that PostgreSQL's `jsonb`
//! cannot hold: U+0000, lone surrogates and numbers outside `numeric`; duplicate keys, of which one
//! would be lost; and excessive nesting.

use memchr::memchr2;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::HashSet;

/// Maximum digits of `numeric` before the decimal point (PostgreSQL documentation, 8.1.2).
const NUMERIC_INTEGER_DIGITS: i64 = 131_072;
/// Maximum digits of `numeric` after the decimal point.
const NUMERIC_FRACTION_DIGITS: i64 = 16_383;
/// Number of keys from which an object's keys are looked up in a set.
const MANY_KEYS: usize = 16;

/// A container around the current position.
enum Level<'a> {
    Object {
        /// Index of its first key in [`Scan::keys`].
        first: usize,
        /// All its keys, from [`MANY_KEYS`] on.
        many: Option<HashSet<Cow<'a, str>>>,
        /// The key of the current value; `None` while a key is expected.
        key: Option<&'a str>,
    },
    Array {
        index: usize,
    },
}

/// State of the scan. Most payloads need no heap memory.
#[derive(Default)]
struct Scan<'a> {
    levels: SmallVec<[Level<'a>; 4]>,
    /// The first keys of all open objects, outermost object first.
    keys: SmallVec<[Cow<'a, str>; MANY_KEYS]>,
}

impl<'a> Scan<'a> {
    fn open(&mut self, bracket: u8) {
        self.levels.push(if bracket == b'{' {
            Level::Object {
                first: self.keys.len(),
                many: None,
                key: None,
            }
        } else {
            Level::Array { index: 0 }
        });
    }

    fn close(&mut self) {
        if let Some(Level::Object { first, .. }) = self.levels.pop() {
            self.keys.truncate(first);
        }
    }

    fn comma(&mut self) {
        match self.levels.last_mut() {
            Some(Level::Object { key, .. }) => *key = None,
            Some(Level::Array { index }) => *index += 1,
            None => {}
        }
    }

    /// Records a string, which is a key if one is expected. `false` for a duplicate key.
    fn string(&mut self, literal: &Literal<'a>) -> bool {
        let Some(Level::Object { first, many, key }) = self.levels.last_mut() else {
            return true;
        };
        if key.is_some() {
            return true;
        }
        *key = Some(literal.inner);
        let name = literal.unescaped();
        let few = self.keys.get(*first..).unwrap_or_default();
        if few.len() >= MANY_KEYS {
            let many = many.get_or_insert_with(|| few.iter().cloned().collect());
            return many.insert(name);
        }
        let is_new = !few.contains(&name);
        self.keys.push(name);
        is_new
    }

    /// Prefixes an error with the current path.
    fn place(&self, flaw: &str) -> String {
        let mut path = String::new();
        for level in &self.levels {
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
}

/// Validates a syntactically valid JSON text.
///
/// # Errors
/// A message that begins with the path inside the value, such as
/// `at "cart"[3]: contains U+0000, which PostgreSQL cannot store`.
pub fn check(text: &str, max_depth: usize) -> Result<(), String> {
    let mut scan = Scan::default();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                if scan.levels.len() >= max_depth {
                    return Err(format!("is nested deeper than {max_depth} levels"));
                }
                scan.open(byte);
                at += 1;
            }
            b'}' | b']' => {
                scan.close();
                at += 1;
            }
            b',' => {
                scan.comma();
                at += 1;
            }
            b'"' => {
                let literal = Literal::read(text, at + 1).map_err(|flaw| scan.place(flaw))?;
                at += literal.inner.len() + 2;
                if !scan.string(&literal) {
                    return Err(scan.place("is given twice"));
                }
            }
            b'-' | b'0'..=b'9' => {
                let number = Number::read(bytes.get(at..).unwrap_or_default());
                number.check().map_err(|flaw| scan.place(flaw))?;
                at += number.literal.len();
            }
            _ => at += 1,
        }
    }
    Ok(())
}

struct Literal<'a> {
    /// The text between the quotes.
    inner: &'a str,
    escaped: bool,
}

impl<'a> Literal<'a> {
    /// Reads the literal whose text begins at `start`, after the opening quote.
    fn read(text: &'a str, start: usize) -> Result<Self, &'static str> {
        let bytes = text.as_bytes();
        let mut at = start;
        let mut escaped = false;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            at += memchr2(b'"', b'\\', rest).ok_or("ends inside a string")?;
            if bytes.get(at) == Some(&b'"') {
                let inner = text.get(start..at).unwrap_or_default();
                return Ok(Self { inner, escaped });
            }
            escaped = true;
            at += escape(bytes, at)?;
        }
    }

    fn unescaped(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.inner);
        }
        serde_json::from_str::<String>(&format!("\"{}\"", self.inner))
            .map_or(Cow::Borrowed(self.inner), Cow::Owned)
    }
}

/// Length of the escape sequence whose backslash is at `at`.
fn escape(bytes: &[u8], at: usize) -> Result<usize, &'static str> {
    const SURROGATE: &str = "contains a lone surrogate, which is not a character";
    if bytes.get(at + 1) != Some(&b'u') {
        return Ok(2);
    }
    match code_unit(bytes, at + 2) {
        Some(0) => Err("contains U+0000, which PostgreSQL cannot store"),
        Some(0xD800..=0xDBFF) => {
            let low = (bytes.get(at + 6..at + 8) == Some(b"\\u"))
                .then(|| code_unit(bytes, at + 8))
                .flatten();
            if matches!(low, Some(0xDC00..=0xDFFF)) {
                Ok(12)
            } else {
                Err(SURROGATE)
            }
        }
        Some(0xDC00..=0xDFFF) => Err(SURROGATE),
        Some(_) => Ok(6),
        None => Err("has a broken \\u escape"),
    }
}

/// The four hexadecimal digits of a `\u` escape.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = std::str::from_utf8(bytes.get(at..at + 4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

struct Number<'a> {
    literal: &'a [u8],
    /// Index of its `e`.
    exponent_at: Option<usize>,
}

impl<'a> Number<'a> {
    /// Reads the literal at the beginning of `bytes`.
    fn read(bytes: &'a [u8]) -> Self {
        let mut exponent_at = None;
        let mut length = 0;
        for byte in bytes {
            match byte {
                b'0'..=b'9' | b'.' | b'+' | b'-' => {}
                b'e' | b'E' => exponent_at = Some(length),
                _ => break,
            }
            length += 1;
        }
        Self {
            literal: bytes.get(..length).unwrap_or_default(),
            exponent_at,
        }
    }

    /// Checks that `numeric` can hold the number.
    fn check(&self) -> Result<(), &'static str> {
        // Short literals without an exponent always fit.
        if self.exponent_at.is_none() && self.literal.len() < 1_000 {
            return Ok(());
        }
        let (mantissa, exponent) = match self.exponent_at {
            None => (self.literal, 0),
            Some(at) => {
                let digits = self.literal.get(at + 1..).unwrap_or_default();
                let digits = digits.strip_prefix(b"+").unwrap_or(digits);
                let exponent = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|d| d.parse::<i64>().ok())
                    .filter(|e| e.abs() < 1_000_000)
                    .ok_or("is a number outside the range of PostgreSQL's numeric")?;
                (self.literal.get(..at).unwrap_or_default(), exponent)
            }
        };
        let mantissa = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
        let point = mantissa.iter().position(|b| *b == b'.');
        let integer = point.unwrap_or(mantissa.len()) as i64;
        let fraction = point.map_or(0, |p| mantissa.len() - p - 1) as i64;
        if integer + exponent > NUMERIC_INTEGER_DIGITS
            || fraction - exponent > NUMERIC_FRACTION_DIGITS
        {
            return Err("is a number outside the range of PostgreSQL's numeric");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_values_pass() {
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
    fn errors_name_the_path() {
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
    fn a_duplicate_key_is_found_among_many() {
        let fields: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
        assert_eq!(check(&format!("{{{}}}", fields.join(",")), 8), Ok(()));
        let twice = format!("{{{},\"k40\":0}}", fields.join(","));
        assert!(check(&twice, 8).unwrap_err().contains("twice"));
    }
}
