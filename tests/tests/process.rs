//! C programs (`../preload`) about signals, processes, environments, fortified calls, `syscall()` and stdio:
//! each runs without accel and with it, under several options, and must say the same.
//!
//! `ACCEL_LIB` names the library under test (`target/release/libaccel.so`).

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Seconds after which a program counts as stuck.
const PATIENCE: &str = "120";

/// The ways in which each program runs under accel.
const OPTIONS: &[&[(&str, &str)]] = &[
    &[],
    &[("ACCEL_LOCAL_AFTER", "0")],
    &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "hard")],
    &[("ACCEL_SPIN", "never")],
    &[("ACCEL_LOCAL", "off")],
    &[("ACCEL_KEEP_ENV", "off")],
    &[("ACCEL", "off")],
];

fn library() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/libaccel.so");
    let path = env::var_os("ACCEL_LIB").map_or_else(built, PathBuf::from);
    path.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; build it (cargo build --release) or name it in ACCEL_LIB", path.display())
    })
}

fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("preload").join(format!("{name}.c"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload");
    std::fs::create_dir_all(&directory).unwrap();
    let program = directory.join(name);
    let compiled = Command::new("cc")
        .args(["-O2", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-pthread", "-o"])
        .args([&program, &source])
        .output()
        .expect("a C compiler called cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    program
}

fn run(program: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACCEL")) {
        command.env_remove(name);
    }
    // exec_env looks for this one in what it starts.
    command.env_remove("LD_PRELOAD").env("ACCEL_SPIN_USEC", "37").envs(variables.iter().copied());
    command.output().expect("timeout, of coreutils")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program in every way and compares what it prints.
fn same_with_and_without(name: &str) {
    let program = compile(name);
    let library = library();
    let plain = run(&program, &[]);
    assert!(
        plain.status.success(),
        "without accel: {}\n{}{}",
        plain.status,
        text(&plain.stdout),
        text(&plain.stderr)
    );
    for options in OPTIONS {
        let mut variables = options.to_vec();
        variables.push(("LD_PRELOAD", library.to_str().expect("a path in UTF-8")));
        let accelerated = run(&program, &variables);
        let (said, errors) = (text(&accelerated.stdout), text(&accelerated.stderr));
        assert!(accelerated.status.success(), "with {options:?}: {}\n{said}{errors}", accelerated.status);
        assert_eq!(said, text(&plain.stdout), "with {options:?}");
        assert!(!errors.contains("accel:"), "with {options:?}: {errors}");
    }
}

macro_rules! programs {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            same_with_and_without(stringify!($name));
        })*
    };
}

programs! { signals exec_env spawn chk rawcall stdio execl seccomp }

/// What the processes of `meetings NAME` wrote to ACCEL_STATS_FILE behind their numbers, sorted; upgraded `after` so
/// many messages.
fn meetings(name: &str, after: &str) -> Vec<String> {
    let program = compile("meetings");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("meetings-{name}-{after}"));
    let _ = std::fs::remove_file(&file);
    let variables = [
        ("LD_PRELOAD", library().display().to_string()),
        ("ACCEL_LOCAL_AFTER", after.to_owned()),
        ("ACCEL_LOCAL_AFTER_USEC", "0".to_owned()),
        ("ACCEL_STATS_FILE", file.display().to_string()),
    ];
    let ran = Command::new("timeout").arg(PATIENCE).arg(program).arg(name).envs(variables).output().unwrap();
    assert!(ran.status.success(), "{name}: {}\n{}{}", ran.status, text(&ran.stdout), text(&ran.stderr));
    let written = std::fs::read_to_string(file).unwrap();
    let counts = |line: &str| line.split_once(" meetings ").map(|(_, counts)| counts.to_owned());
    let mut lines: Vec<String> = written.lines().filter_map(counts).collect();
    lines.sort();
    lines
}

#[test]
fn ends_that_use_a_connection_at_the_same_time_are_counted_and_get_rings() {
    // However much was sent before the acceptor's first call.
    assert_eq!(meetings("late_reader", "0"), ["2 2"]);
    assert_eq!(meetings("read_in_part", "0"), ["2 2"]);
    for after in ["0", "4"] {
        assert_eq!(meetings("very_late_reader", after), ["2 2"], "after {after}");
    }
    // Only the way back is left.
    assert_eq!(meetings("answer_after_shutdown", "0"), ["2 2"]);
    // Nobody reads what the connector left for the listener: they meet by the door.
    assert_eq!(meetings("by_a_child", "0"), ["1 1", "1 1"]);
}

#[test]
fn ends_that_could_not_have_met_are_told_apart() {
    assert_eq!(meetings("never_read", "0"), ["0 0 never-both=1"]);
    assert_eq!(meetings("read_after_close", "0"), ["0 0 never-both=2"]);
    assert_eq!(meetings("read_after_shutdown", "0"), ["0 0 never-both=2"]);
}
