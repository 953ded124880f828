//! What a test needs of the machine that not every machine has.

use std::io::Write as _;

/// What was found, or `None` where it is missing: the caller then returns, and the test counts as
/// passed. It prints that the test is skipped and why, past the capturing of output. When `CI` is
/// set the test fails, since the output of a green run is not read.
#[track_caller]
pub fn precondition<T>(what: &str, found: Result<T, String>) -> Option<T> {
    let reason = match found {
        Ok(found) => return Some(found),
        Err(reason) => reason,
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let text = format!("SKIPPED {test}: needs {what}: {}", reason.trim());
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        panic!("{text} (CI is set, so this is a failure)");
    }
    // The macros' output is shown for failed tests only.
    let _ = writeln!(std::io::stderr(), "\n{text}");
    None
}

/// Whether a program is there: it runs with these arguments and ends with 0.
pub fn program(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    #[test]
    #[ignore = "run by the test below"]
    fn needs_what_is_missing() {
        let found = program("/nowhere/a-tool", &[]);
        assert_eq!(precondition("a tool", found), None);
    }

    fn run(ci: Option<&str>) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "needs_what_is_missing"]);
        command.env_remove("CI");
        command.envs(ci.map(|value| ("CI", value)));
        command.output().unwrap()
    }

    #[test]
    fn a_missing_tool_is_reported_and_fails_when_ci_is_set() {
        let alone = run(None);
        assert!(alone.status.success(), "{alone:?}");
        let said = String::from_utf8_lossy(&alone.stderr).into_owned();
        let parts = ["SKIPPED", "needs_what_is_missing", "/nowhere/a-tool"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        let in_ci = run(Some("true"));
        assert!(!in_ci.status.success(), "{in_ci:?}");
        assert!(run(Some("")).status.success());
    }

    #[test]
    fn what_is_there_is_handed_on() {
        assert_eq!(precondition("a number", Ok(7)), Some(7));
        assert_eq!(program("true", &[]), Ok(()));
        assert!(program("false", &[]).is_err());
    }
}
