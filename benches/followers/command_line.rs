//! The command line of a measurement: a command, and options with a value each.

pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// That of this process.
    pub fn read() -> Self {
        let all = std::env::args().skip(1);
        Self(all.filter(|one| one != "--bench").collect())
    }

    pub fn command(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    pub fn text(&self, option: &str) -> Option<String> {
        let at = self.0.iter().position(|one| one == option)?;
        self.0.get(at + 1).cloned()
    }

    pub fn number(&self, option: &str, default: usize) -> usize {
        self.text(option)
            .map_or(default, |text| text.parse().expect("a number"))
    }
}
