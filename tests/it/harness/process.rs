//! A child process with all its descendants: start, signal, kill, wait.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use super::eventually;

/// Who a process runs as. PostgreSQL refuses root and RabbitMQ warns of it, so when root runs the
/// tests the servers run as the users their packages made.
pub struct Owner(Option<User>);

impl Owner {
    /// Whoever runs the tests.
    pub fn same() -> Self {
        Self(None)
    }

    pub fn named(name: &str) -> Self {
        if !geteuid().is_root() {
            return Self(None);
        }
        let user = User::from_name(name).expect("user database");
        Self(Some(user.unwrap_or_else(|| {
            panic!("no user `{name}` to run its server as; scripts/test installs what is missing")
        })))
    }

    pub fn run_as(&self, command: &mut Command) {
        if let Some(user) = &self.0 {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
    }

    pub fn take(&self, path: &Path) {
        if let Some(user) = &self.0 {
            std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
        }
    }
}

/// A running child whose pid stands in `<folder>/<name>.pid`, where the guard of the scope finds it.
pub struct Process {
    child: Child,
    pid_file: PathBuf,
}

impl Process {
    /// Starts `command`: its program, arguments and the variables set on it, no others, with the
    /// inputs and outputs that `stdio` sets.
    ///
    /// The process writes its pid itself before it becomes the program, so there is no moment at
    /// which it runs and the guard doesn't know.
    pub fn spawn(
        name: &str,
        folder: &Path,
        owner: &Owner,
        command: &Command,
        stdio: impl FnOnce(&mut Command),
    ) -> Self {
        let pid_file = folder.join(format!("{name}.pid"));
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
            .arg(&pid_file)
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .current_dir(folder)
            .process_group(0);
        stdio(&mut shell);
        owner.run_as(&mut shell);
        let child = shell
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self { child, pid_file }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("own child");
        if status.is_some() {
            // The number may be somebody else's from now on.
            let _ = fs::remove_file(&self.pid_file);
        }
        status
    }

    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, "the process exits", async || self.exited()).await
    }

    /// To the process itself, unless it has exited.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let _ = kill(self.pid(), signal);
        }
    }

    /// SIGSTOP to all: sockets stay open and answer nothing, as on a machine that hangs.
    pub fn pause(&mut self) {
        if self.exited().is_none() {
            freeze(self.pid());
        }
    }

    pub fn resume(&mut self) {
        if self.exited().is_none() {
            for pid in tree(self.pid()) {
                let _ = kill(pid, Signal::SIGCONT);
            }
        }
    }

    /// SIGKILL to all, and waits until none is left: a server refuses to start again while a
    /// child of the old one still holds its shared memory or port.
    pub fn kill9(&mut self) {
        if self.exited().is_some() {
            return;
        }
        let pids = freeze(self.pid());
        for pid in &pids {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
        while pids.iter().any(|pid| is_alive(*pid)) {
            std::thread::yield_now();
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Bytes resident now; `None` once the process has exited.
pub fn memory_of(pid: i32) -> Option<u64> {
    status_of(pid, "VmRSS:")
}

/// Most bytes that were ever resident; `None` once the process has exited.
pub fn peak_memory_of(pid: i32) -> Option<u64> {
    status_of(pid, "VmHWM:")
}

fn status_of(pid: i32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Parents first: a stopped parent makes no more children while the tree is being read.
fn freeze(root: Pid) -> Vec<Pid> {
    let mut stopped = Vec::new();
    loop {
        let running: Vec<_> = tree(root)
            .into_iter()
            .filter(|pid| !stopped.contains(pid))
            .collect();
        if running.is_empty() {
            return stopped;
        }
        for pid in running {
            let _ = kill(pid, Signal::SIGSTOP);
            stopped.push(pid);
        }
    }
}

/// A process and its descendants, parents first.
fn tree(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some((_, parent)) = state_and_parent(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root.as_raw()];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

fn is_alive(pid: Pid) -> bool {
    matches!(state_and_parent(pid.as_raw()), Some((state, _)) if state != 'Z' && state != 'X')
}

/// From `/proc/PID/stat`: `PID (any name) STATE PARENT ...`.
fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
