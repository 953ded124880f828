//! What a process has used, as Linux tells it in `/proc` (proc(5)). Elsewhere nothing is known, and
//! the figures stay empty.

use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second: 100 on every architecture that Rust's Linux targets know,
/// whatever the kernel's own tick is.
const TICKS: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time, its own and the kernel's for it.
    pub processor: Duration,
    /// Most memory it ever had resident, in bytes.
    pub peak: u64,
    /// Memory it has resident now, in bytes.
    pub resident: u64,
}

/// What the process of this id has used; `None` where that is not to be learned.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        processor: processor(&stat)?,
        peak: kilobytes(&status, "VmHWM:")? * 1024,
        resident: kilobytes(&status, "VmRSS:")? * 1024,
    })
}

/// `utime` and `stime`, the 14th and 15th field; the second one, in parentheses, may contain spaces.
fn processor(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS))
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Name of the processor, and how many of it this process may use.
pub fn processors() -> (String, usize) {
    let name = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (name, cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 7 20 0 4 0 99 1 2";
        assert_eq!(processor(stat), Some(Duration::from_secs(3)));
        assert_eq!(processor("42 (x"), None);
    }

    #[test]
    fn this_process_uses_something() {
        if cfg!(target_os = "linux") {
            let usage = usage(std::process::id()).unwrap();
            assert!(usage.peak >= usage.resident && usage.resident > 100_000);
        }
    }
}
