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
