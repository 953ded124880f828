//! The lifetime of everything the tests start: one folder per test process, and a guard beside it.
//!
//! Statics are never dropped and a killed process drops nothing, so `Drop` can't be trusted with
//! servers. A small shell process waits at the other end of a pipe whose writing end only this
//! process holds. However the process ends, the kernel closes the pipe; the guard then kills what
//! is named in the folder's pid files, with all descendants, and removes the folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A process that is stopped (SIGSTOP) dies of SIGKILL all the same, but its children don't
/// notice: hence the walk through the whole tree.
const GUARD: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
tree() {
    echo "$1"
    for stat in /proc/[0-9]*/stat; do
        read -r line 2>/dev/null <"$stat" || continue
        after=${line##*) }
        after=${after#* }
        [ "${after%% *}" = "$1" ] && tree "${line%% *}"
    done
}
for file in "$1"/*/*.pid; do
    [ -s "$file" ] && read -r pid <"$file" && kill -STOP "$pid" && kill -KILL $(tree "$pid")
done
for attempt in 1 2 3 4 5; do
    rm -rf -- "$1" && break
    sleep 1
done
"#;

struct Scope {
    folder: PathBuf,
    /// Never used again: dropping it, or dying, is the signal.
    _guard: Child,
}

fn scope() -> &'static Scope {
    static SCOPE: OnceLock<Scope> = OnceLock::new();
    SCOPE.get_or_init(|| {
        let folder = readable_dir(&std::env::temp_dir(), "eclusa-it-").keep();
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            // Inherited outputs would keep `cargo test | tee` waiting for the guard.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C, which is when it is needed.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Scope {
            folder,
            _guard: guard,
        }
    })
}

/// A folder of its own in this process's scope, removed on drop.
///
/// Others may enter and read it: the servers run as other users when the tests run as root.
pub fn temp_dir(prefix: &str) -> TempDir {
    readable_dir(&scope().folder, prefix)
}

fn readable_dir(parent: &Path, prefix: &str) -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .unwrap_or_else(|e| panic!("no folder below {}: {e}", parent.display()));
    // Set afterwards, because the umask has a say in the mode at creation.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("own folder");
    dir
}
