//! The runner of other people's suites: its own checks here, its quick set on demand. `.ci/run` runs the quick set.

use std::path::PathBuf;
use std::process::{Command, Stdio};

fn runner() -> Option<Command> {
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let version = "import sys, tomllib; sys.exit(sys.version_info < (3, 11))";
        let probe = Command::new(python).args(["-c", version]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    })?;
    let mut command = Command::new(python);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("suites/run.py"));
    Some(command)
}

#[test]
fn the_manifest_is_whole_and_every_parser_reads_its_sample() {
    let Some(mut runner) = runner() else {
        return skip("there is no Python 3.11");
    };
    let output = runner.arg("--self-test").output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Minutes: `cargo test --test suites -- --ignored`, or `python3 tests/suites/run.py --quick` by itself.
#[test]
#[ignore = "takes minutes; .ci/run runs the quick suites by themselves"]
fn nothing_of_the_quick_suites_is_lost() {
    let Some(mut runner) = runner() else {
        return skip("there is no Python 3.11");
    };
    let status = runner.arg("--quick").status().expect("Python starts");
    assert!(status.success(), "the runner's table says what was lost");
}

fn skip(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "\nSKIP suites: {why}");
}
