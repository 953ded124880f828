//! The binary's commands that end by themselves.

use std::process::{Command, Output};

/// The binary, with none of the machine's own settings.
pub fn eclusa(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eclusa"));
    let own = ["PATH", "HOME", "TMPDIR"];
    command.env_clear().args(args);
    command.envs(
        own.into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    command
}

/// All that it said.
pub fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}
