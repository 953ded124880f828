//! Programs of the npm registry.

use super::{precondition, program, told};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program to its end.
pub async fn run(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    done.unwrap().unwrap_or_else(|e| panic!("{shown}: {e}"))
}

/// Whether Node.js and npm are there.
pub fn has_node() -> bool {
    let at_least_20 = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
    precondition("Node.js 20", program("node", &["-e", at_least_20])).is_some()
        && precondition("npm", program("npm", &["--version"])).is_some()
}

/// A folder of this name below the target folder with the packages of a lockfile; they are installed anew only when the
/// lockfile has changed.
pub async fn npm_packages(source: &Path, name: &str) -> Option<PathBuf> {
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let lock = fs::read(source.join("package-lock.json")).unwrap();
    let marker = folder.join("node_modules/.installed-from");
    if fs::read(&marker).ok().as_ref() != Some(&lock) {
        let mut install = Command::new("timeout");
        let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        install.args(["300", "npm"]).args(options);
        install.current_dir(&folder);
        let output = run(install).await;
        let installed = match output.status.success() {
            true => Ok(()),
            false => Err(told(&output)),
        };
        precondition("the packages of the npm registry", installed)?;
        fs::write(&marker, &lock).unwrap();
    }
    Some(folder)
}
