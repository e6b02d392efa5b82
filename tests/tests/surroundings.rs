//! Under other allocators, sanitizers, debuggers and tracers: a small server and client (`../faults/smoke.c`), which
//! check every byte and that it went by a ring. A tool that is not installed is a line that begins with `SKIP`.

#[path = "../faults/harness.rs"]
mod harness;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use harness::{HARD, Mode, build, command, compile, library, run_prepared};

/// Whether the loader finds it.
fn can_be_preloaded(library: &str) -> bool {
    let tried = Command::new("/bin/true").env("LD_PRELOAD", library).output().unwrap();
    tried.stderr.is_empty()
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// The library under test before another one, and behind it.
fn both_orders(other: &str) -> Option<[OsString; 2]> {
    let ours = library()?.into_os_string().into_string().unwrap();
    Some([format!("{other}:{ours}").into(), format!("{ours}:{other}").into()])
}

#[test]
fn other_allocators() {
    for (allocator, package) in [
        ("libjemalloc.so.2", "libjemalloc2"),
        ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
        ("libmimalloc.so.2.0", "libmimalloc2.0"),
    ] {
        let Some(orders) = both_orders(allocator) else { return };
        if !can_be_preloaded(allocator) {
            println!("SKIP other_allocators: {package} is not installed");
            continue;
        }
        for preloaded in orders {
            let mut smoke = command("smoke", &["smoke"], HARD);
            run_prepared(smoke.env("FAULTS_LIB", preloaded), "smoke-allocator", HARD);
        }
        println!("{allocator}: before the library and behind it");
    }
}

/// A wall clock that jumps by years at each look (`../faults/clock.c`): nothing asks for it.
#[test]
fn jumping_clock() {
    let jumping = build("clock", "clock.so", &["-shared", "-fPIC"]);
    let Some(orders) = both_orders(jumping.to_str().unwrap()) else { return };
    for preloaded in orders {
        let mut smoke = command("smoke", &["smoke"], HARD);
        run_prepared(smoke.env("FAULTS_LIB", preloaded), "smoke-clock", HARD);
    }
}

/// libfaketime's clocks, also the monotonic one: of another day, and standing still.
#[test]
fn faked_clock() {
    let directory = format!("/usr/lib/{}-linux-gnu/faketime", env::consts::ARCH);
    let faketime = format!("{directory}/libfaketimeMT.so.1");
    if !Path::new(&faketime).exists() {
        println!("SKIP faked_clock: faketime is not installed");
        return;
    }
    let Some(orders) = both_orders(&faketime) else { return };
    for preloaded in orders {
        for time in ["-3d", "2020-01-01 00:00:00"] {
            let mut smoke = command("smoke", &["smoke"], HARD);
            smoke.env("FAULTS_LIB", &preloaded).env("FAKETIME", time);
            run_prepared(&mut smoke, "smoke-faketime", HARD);
        }
    }
}

/// The harness's command, with its environment, by another program: a build of its own, or a tool that is told of ours.
fn smoke_by(mut other: Command, names_program: bool, mode: Mode) -> Command {
    let ours = command("smoke", &["smoke"], mode);
    if names_program {
        other.arg(ours.get_program());
    }
    other.args(ours.get_args());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// The program built with a sanitizer, which ends at the first report.
fn sanitized(sanitizer: &str, mode: Mode, variables: &[(&str, &str)]) {
    if library().is_none() {
        return;
    }
    let option = format!("-fsanitize={sanitizer}");
    let output = format!("smoke-{sanitizer}");
    let program = build("smoke", &output, &[&option, "-fno-sanitize-recover=all"]);
    let mut smoke = smoke_by(Command::new(program), false, mode);
    run_prepared(smoke.envs(variables.iter().copied()), &output, mode);
}

#[test]
fn address_sanitizer() {
    // Its runtime wants to be the first library; here accel is.
    sanitized("address", HARD, &[("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=1")]);
}

#[test]
fn undefined_behaviour_sanitizer() {
    sanitized("undefined", HARD, &[]);
}

#[test]
fn thread_sanitizer() {
    // It sees the library's allocations, and not the locks that they are made under.
    let suppressions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tsan.suppressions");
    fs::write(&suppressions, "called_from_lib:libaccel.so\n").unwrap();
    let option = format!("suppressions={}:exitcode=66", suppressions.display());
    sanitized("thread", HARD, &[("TSAN_OPTIONS", &option)]);
}

#[test]
fn memcheck() {
    traced("valgrind", &["-q", "--error-exitcode=9", "--trace-children=yes"]);
}

#[test]
fn strace() {
    traced("strace", &["-f", "-q", "-o", "/dev/null"]);
}

/// The program behind a tool that starts it.
fn traced(tool: &str, options: &[&str]) {
    if !is_installed(tool) {
        println!("SKIP {tool}: not installed");
        return;
    }
    let mut by_tool = Command::new(tool);
    by_tool.args(options);
    run_prepared(&mut smoke_by(by_tool, true, HARD), tool, HARD);
}

/// Stops in a send, steps through it instruction by instruction, goes on, and lets go; the program ends well.
#[test]
fn gdb() {
    let Some(library) = library() else { return };
    if !is_installed("gdb") {
        println!("SKIP gdb: not installed");
        return;
    }
    let mut commands = vec!["set pagination off".to_string(), "set startup-with-shell off".into()];
    for name in ["LD_PRELOAD", "FAULTS_LIB"] {
        commands.push(format!("set environment {name} {}", library.display()));
    }
    commands.push("set environment ACCEL_LOCAL_AFTER 0".into());
    commands.push("set environment ACCEL_SPIN hard".into());
    let script = ["break marked", "run smoke_alone", "ignore 1 3", "continue", "break send", "continue"];
    let steps = ["stepi 300", "step", "finish", "delete", "detach"];
    commands.extend(script.iter().chain(&steps).map(|line| line.to_string()));
    let mut gdb = Command::new("timeout");
    gdb.args(["60", "gdb", "-batch", "-nx"]);
    for line in &commands {
        gdb.args(["-ex", line]);
    }
    let output = gdb.arg(compile("smoke")).env_remove("LD_PRELOAD").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ptrace: Operation not permitted") {
        println!("SKIP gdb: ptrace is not allowed here");
        return;
    }
    assert!(
        said.contains("Breakpoint 2") && said.contains("send ()"),
        "it did not stop in a send:\n{said}{errors}"
    );
    assert!(said.contains("detached]"), "it did not let go:\n{said}{errors}");
    assert!(said.contains("smoke_alone: 20 messages"), "the program did not end well:\n{said}{errors}");
}
