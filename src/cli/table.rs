//! Tables on a terminal.

use std::io::Write;

/// Text from outside without control characters, which could play tricks on a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Prints a line. `false` when the reader of our output has gone (`| head`), which is no error.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print_line(line: &str) -> std::io::Result<bool> {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Two columns, the second of numbers.
pub fn counts(name: &str, rows: &[[String; 2]]) -> String {
    let width = |column: usize, head: &str| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([head.len()])
            .max()
            .unwrap_or(0)
    };
    let (left, right) = (width(0, name), width(1, "events"));
    let mut text = format!("{name:left$}  {:>right$}\n", "events");
    for [key, events] in rows {
        text.push_str(&format!("{key:left$}  {events:>right$}\n"));
    }
    text
}
