//! The syntax of an expression.

use super::checks::MAX_DEPTH;
use cel::parser::PrattParser;
use cel::{IdedExpr, ParseErrors};

/// Characters of an expression.
pub(super) const MAX_CHARS: usize = 1_000;
/// Brackets, operators, dots and other signs. The parser copies and drops trees recursively, before
/// their depth can be checked.
const MAX_SIGNS: usize = 250;

/// Parses a text.
pub(super) fn parse(text: &str) -> Result<IdedExpr, String> {
    check_text(text)?;
    PrattParser::new()
        .max_recursion_depth(MAX_DEPTH)
        .parse(text)
        .map_err(|errors| syntax_error(&errors))
}

/// Checks what must hold before the text is parsed.
fn check_text(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().count() > MAX_CHARS {
        return Err(format!("is longer than {MAX_CHARS} characters"));
    }
    let is_sign = |c: &char| c.is_ascii_punctuation() && *c != '_';
    let signs = text.chars().filter(is_sign).count();
    if signs > MAX_SIGNS {
        return Err(format!(
            "has more than {MAX_SIGNS} brackets, operators, dots and other signs"
        ));
    }
    Ok(())
}

/// The first error, with its place.
fn syntax_error(errors: &ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) if error.pos.0 > 0 => {
            let (line, column) = error.pos;
            format!("is not CEL, at line {line}, byte {column}: {}", error.msg)
        }
        Some(error) => format!("is not CEL: {}", error.msg),
        None => "is not CEL".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expression;
    use super::*;
    use cel::parser::Parser;
    use proptest::prelude::*;

    fn without_ids(tree: &IdedExpr) -> String {
        let text = format!("{tree:?}");
        let parts = text.split("id: ");
        parts
            .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
            .collect()
    }

    #[test]
    fn hostile_texts_are_refused_soon() {
        for part in [
            "(",
            "[",
            "{",
            "!",
            "-",
            "!-",
            "!!(!!!!!!(!!!!(((((!!(!!(!!!!((",
            "a?",
            "a?b:",
            "a.",
            "f(",
            "a.f(",
            "a.all(",
            "a.all(x,",
            "has(",
            "[1,",
            "{1:",
            "1+",
            "1==",
            "a||",
            "a&&b||",
            "'",
            "\"\"\"",
            "r'\\",
            "//",
            "`",
            "9",
            "0x",
            "ü",
            "a[",
            ".f()",
            "x.map(y,y).",
        ] {
            let text = part.repeat(1_000 / part.chars().count());
            for end in ["", "1", "a)", "'", "\\"] {
                assert!(
                    Expression::parse(&format!("{text}{end}")).is_err(),
                    "{part}"
                );
                assert!(
                    Expression::parse(&format!("a{text}{end}")).is_err(),
                    "{part}"
                );
            }
        }
    }

    /// The other parser is the older one, and the crate's default.
    #[test]
    fn both_parsers_of_the_crate_agree() {
        for text in [
            "eventData.plan == 'pro'",
            "1 + 2 * 3 - 4 / -5 % 6 == 7 || !(2 < 1) && 3 >= 2",
            "1 - 2 - 3 == 4 ? 5 : 6 == 7 ? 8 : 9",
            "eventData.a['b'][0].c.startsWith(\"x\\n\\u00fc\") && 1 in [1, 2u, 0x1F, 1.5e3]",
            "has(eventData.a.b) && eventData.l.exists(i, i.a == 1 && i.b != null)",
            "eventData.l.filter(i, i > 1).map(i, i == 2, i + 1)",
            "!true || -1 == 1 || -eventData.a == r'\\d' + '''it's'''",
            "eventData.l.all(i, true) || eventData.l.exists_one(i, i == {'a': [i]})",
        ] {
            let other = Parser::new().parse(text).unwrap();
            assert_eq!(
                without_ids(&parse(text).unwrap()),
                without_ids(&other),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in r#"(eventData|userId|\.|a|[0-9]|'|"|\\|[()\[\]{}?:,!+*/%<>=&|. -]|in|has\(|\.map\(|u|e|ü|😀|\n){0,60}"#
        ) {
            let _ = Expression::parse(&text);
        }
    }
}
