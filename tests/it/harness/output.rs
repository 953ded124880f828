//! What the binary prints.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};

const KEPT_LINES: usize = 5_000;

/// The last lines of both outputs, and the address the process named.
#[derive(Default)]
pub struct Output {
    pub lines: VecDeque<String>,
    pub url: Option<String>,
}

impl Output {
    /// From the standard output, where the address is.
    pub fn take(&mut self, line: String) {
        if self.url.is_none()
            && let Some((_, after)) = line.split_once("http://127.0.0.1:")
        {
            let port: String = after.chars().take_while(char::is_ascii_digit).collect();
            self.url = Some(format!("http://127.0.0.1:{port}"));
        }
        self.keep(line);
    }

    /// From the standard error: the log.
    pub fn keep(&mut self, line: String) {
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// Always read: a full pipe would stop the process.
pub fn read(
    from: impl Read + Send + 'static,
    output: &Arc<Mutex<Output>>,
    store: fn(&mut Output, String),
) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            store(&mut output.lock().unwrap(), line);
        }
    });
}
