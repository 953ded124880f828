//! Tables on a terminal.

/// Text from outside without control characters, which could play tricks on a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
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
