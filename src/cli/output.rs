//! Standard output whose reader may go away (`| head`), which is no error.

use std::io::Write;

/// Writes text; `false` when the reader has gone.
///
/// # Errors
/// When the output cannot be written for another reason.
pub fn write(text: &str) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}
