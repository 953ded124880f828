//! The lines of a file or of standard input, plain or gzip, each checked and given its identity.

use crate::config::Settings;
use crate::event::item;
use crate::event::item::{FieldError, ItemLimits, Rules};
use crate::event::{Event, Source, id};
use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// First bytes of a gzip stream (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// A line longer than this is no event, and would fill the memory.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// A line that is no event.
#[derive(Debug)]
pub struct BadLine {
    /// Its number, from 1.
    pub number: u64,
    /// Its text.
    pub text: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads lines.
pub struct Lines {
    reader: Box<dyn BufRead>,
    /// Name under which lines without an id get theirs; standard input has none by itself.
    source: Option<String>,
    number: u64,
    limits: ItemLimits,
    producer: Arc<str>,
    consumed: Arc<AtomicU64>,
    /// Bytes of the file as it lies on disk; `None` for standard input.
    pub size: Option<u64>,
}

/// Counts what is read of the file as it lies on disk, for the progress bar.
struct Counting<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, source: Option<String>, settings: &Settings) -> anyhow::Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let (raw, size, name): (Box<dyn Read>, _, _) = if path == Path::new("-") {
            (Box::new(std::io::stdin()), None, None)
        } else {
            let file =
                File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let size = file.metadata()?.len();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            // The same lines packed and unpacked are the same source.
            let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
            (Box::new(file), Some(size), Some(name))
        };
        let counting = Counting {
            inner: raw,
            read: Arc::clone(&consumed),
        };
        let mut raw = BufReader::with_capacity(256 * 1024, counting);
        let packed = raw.fill_buf()?.starts_with(&GZIP);
        let reader: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(
                256 * 1024,
                MultiGzDecoder::new(raw),
            ))
        } else {
            Box::new(raw)
        };
        Ok(Self {
            reader,
            source: source.or(name),
            number: 0,
            limits: settings.item_limits(),
            producer: Arc::clone(&settings.ingest.producer),
            consumed,
            size,
        })
    }

    /// Bytes read so far of the file as it lies on disk.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on: broken gzip, a disk error, a line without end.
    pub fn next(&mut self) -> anyhow::Result<Option<Result<Event, BadLine>>> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read on behind line {}", self.number))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            anyhow::ensure!(
                (read as u64) < MAX_LINE,
                "line {} is longer than {MAX_LINE} bytes; is this a file of lines?",
                self.number
            );
            while line
                .last()
                .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
            {
                line.pop();
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let number = self.number;
            return Ok(Some(self.event(&line).map_err(|flaws| BadLine {
                number,
                text: line,
                reason: sentence(&flaws),
            })));
        }
    }

    fn event(&self, line: &[u8]) -> Result<Event, Vec<FieldError>> {
        let text = std::str::from_utf8(line)
            .map_err(|error| vec![FieldError::new("", format!("is not UTF-8: {error}"))])?;
        let mut fields = item::parse(text, &self.limits, Rules::AMQP)?;
        let now = item::now();
        let given = match (fields.id.take(), &self.source) {
            (Some(given), _) => given,
            // A derived id in the place of the caller's: a server derives the same event id from it.
            (None, Some(source)) => id::of_line(source, self.number, line).to_string(),
            // Under one name for all, the lines of two streams would pass for repeats.
            (None, None) => {
                let reason = "is needed on standard input, unless --source names the stream";
                return Err(vec![FieldError::new("id", reason)]);
            }
        };
        let (event_id, original) =
            item::resolve_id(given, &self.producer, now, self.limits.accept_days)
                .map_err(|reason| vec![FieldError::new("id", reason)])?;
        let producer = Arc::clone(&self.producer);
        Ok(fields.into_event(event_id, original, producer, Source::Import, now))
    }
}

fn sentence(flaws: &[FieldError]) -> String {
    let flaws: Vec<String> = flaws
        .iter()
        .map(|flaw| format!("{} {}", flaw.field, flaw.reason).trim().to_owned())
        .collect();
    flaws.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn read(path: &Path) -> (Vec<Event>, Vec<BadLine>) {
        let settings = Sources::from_text("").load().unwrap();
        let mut lines = Lines::open(path, None, &settings).unwrap();
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        while let Some(line) = lines.next().unwrap() {
            match line {
                Ok(event) => events.push(event),
                Err(line) => bad.push(line),
            }
        }
        assert_eq!(lines.consumed(), lines.size.unwrap());
        (events, bad)
    }

    #[test]
    fn plain_and_gzip_lines_have_the_same_ids_and_bad_ones_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "{\"eventType\":\"a\"}\n\n{\"eventType\":\"a\"}\r\nnonsense\n{\"eventType\":\"b\"}";
        let plain = folder.path().join("events.ndjson");
        std::fs::write(&plain, text).unwrap();
        let packed = folder.path().join("events.ndjson.gz");
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();

        let (events, bad) = read(&plain);
        assert_eq!(events.len(), 3);
        assert_ne!(
            events[0].event_id, events[1].event_id,
            "equal lines are two events"
        );
        assert_eq!((bad.len(), bad[0].number), (1, 4));
        let (again, _) = read(&packed);
        let ids = |events: &[Event]| events.iter().map(|e| e.event_id).collect::<Vec<_>>();
        assert_eq!(ids(&events), ids(&again));
    }
}
