//! The text of `/metrics`, read exactly.

/// One scrape.
pub struct Metrics(Vec<Series>);

struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Panics at a line that is neither a comment nor a sample: a broken exposition is a bug too.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty());
        Self(
            samples
                .filter(|line| !line.starts_with('#'))
                .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
                .collect(),
        )
    }

    /// The sum over all series of exactly this name that have all of `labels`; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .iter()
            .filter(|series| series.name == name)
            .filter(|series| labels.iter().all(|label| series.has(*label)))
            .map(|series| series.value)
            .sum()
    }
}

impl Series {
    fn has(&self, (key, value): (&str, &str)) -> bool {
        self.labels.iter().any(|(k, v)| k == key && v == value)
    }
}

/// `name value`, `name{key="value",...} value`, each with a time stamp behind it or without.
fn sample(line: &str) -> Option<Series> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    Some(Series {
        name: name.to_owned(),
        labels,
        value: rest.split_whitespace().next()?.parse().ok()?,
    })
}

/// From behind `{` to behind `}`.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((found, rest));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        found.push((key.to_owned(), value));
        rest = chars.as_str();
    }
}
