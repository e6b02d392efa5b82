//! Scripts of packetdrill's language over the stack.
//!
//! ```text
//! cargo test -p accel-tests --test script                     the suite of this repository
//! ACCEL_PKT=directory cargo test -p accel-tests --test script   every script below a directory, such as the kernel's
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::script::coverage::Coverage;
use harness::script::run::{How, Stopped, run};
use harness::script::{scripts, suite};

/// Runs a script over the versions of IP that it is for.
fn each(path: &Path, ends_quiet: bool) -> Vec<(&'static str, Result<(), Stopped>)> {
    let text = fs::read_to_string(path).expect("a script");
    let only = |version: &str| text.contains(&format!("--ip_version={version}"));
    let versions = [("ipv4", false, !only("ipv6")), ("ipv6", true, !only("ipv4"))];
    versions
        .into_iter()
        .filter(|version| version.2)
        .map(|(name, is_v6, _)| (name, run(&text, How { is_v6, ends_quiet })))
        .collect()
}

#[test]
fn the_suite_passes() {
    let mut failed = Vec::new();
    let all = scripts(&suite());
    for path in &all {
        for (version, result) in each(path, true) {
            if let Err(stopped) = result {
                let name = path.strip_prefix(suite()).unwrap_or(path).display();
                failed.push(format!("{name} ({version}), {stopped}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} scripts:\n{}", failed.len(), all.len(), failed.join("\n"));
}

#[test]
fn every_requirement_has_a_script_or_a_reason() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = |path: &PathBuf| {
        let name = path.strip_prefix(suite()).unwrap_or(path).display().to_string();
        (name, fs::read_to_string(path).expect("a script"))
    };
    let scripts: Vec<_> = scripts(&suite()).iter().map(named).collect();
    let coverage = Coverage::read(&tests.join("script"), &tests.join(".."), &scripts);
    assert!(coverage.wrong.is_empty(), "{}", coverage.wrong.join("\n"));
    let uncovered = coverage.uncovered();
    assert!(uncovered.is_empty(), "{} without script or reason:\n{}", uncovered.len(), uncovered.join("\n"));
    let (path, fresh) = (tests.join("script/coverage.md"), coverage.table());
    if std::env::var_os("ACCEL_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, fresh).expect("the table can be written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "{} is not the table of today: ACCEL_BLESS=1 writes it anew", path.display());
}

#[test]
fn scripts_of_a_directory_pass() {
    let Some(directory) = std::env::var_os("ACCEL_PKT") else {
        println!("SKIP scripts of a directory: ACCEL_PKT names none");
        return;
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for path in scripts(Path::new(&directory)) {
        for (version, result) in each(&path, false) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match result {
                Ok(()) => passed += 1,
                Err(Stopped::Unsupported(what)) => println!("SKIP {name} ({version}): {what}"),
                Err(stopped) => failed.push(format!("{name} ({version}), {stopped}")),
            }
        }
    }
    println!("{passed} passed");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// `libaccel_packetdrill.so`, which cargo builds with the tests that use its crate.
fn library() -> PathBuf {
    let tests = std::env::current_exe().expect("this test's file");
    tests.with_file_name("libaccel_packetdrill.so")
}

#[test]
fn the_shared_object_is_driven_by_its_c_interface() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drive");
    let built = Command::new("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&program)
        .arg(root.join("packetdrill/drive.c"))
        .arg("-ldl")
        .output()
        .expect("gcc");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(&program).arg(library()).output().expect("the program");
    assert!(run.status.success() && run.stdout == b"done\n", "{}", String::from_utf8_lossy(&run.stderr));
}
