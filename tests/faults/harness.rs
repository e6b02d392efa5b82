//! Compiles the programs of this directory and runs them under the library.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Options of one run.
pub(crate) type Mode = &'static [(&'static str, &'static str)];
/// As users run it, but upgraded at once.
pub(crate) const ADAPT: Mode = &[("ACCEL_LOCAL_AFTER", "0")];
/// Every wait spins: the rings stay open whatever else the machine does.
pub(crate) const HARD: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "hard")];
/// No wait spins: every wait closes its direction and sleeps.
pub(crate) const NEVER: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "never")];

/// Seconds that one program may take, per unit of FAULTS_ROUNDS.
const PATIENCE: u64 = 90;

/// The library under test; `None` with an empty FAULTS_LIB (the kernel alone).
pub(crate) fn library() -> Option<PathBuf> {
    if env::var_os("FAULTS_LIB").is_some_and(|value| value.is_empty()) {
        return None;
    }
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/libaccel.so");
    let path = env::var_os("ACCEL_LIB").map_or_else(built, PathBuf::from);
    Some(path.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; build it (cargo build --release) or name it in ACCEL_LIB", path.display())
    }))
}

/// The compiled program of this name.
pub(crate) fn compile(name: &str) -> PathBuf {
    if name == "life" {
        // It opens this library, which lies beside it.
        build("plugin", "plugin.so", &["-shared", "-fPIC"]);
    }
    build(name, name, &[])
}

/// What the compiler makes of a source here, with further options.
pub(crate) fn build(name: &str, output: &str, options: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    fs::create_dir_all(&directory).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults").join(format!("{name}.c"));
    let headers = ["faults.h", "cgroup.h"].map(|header| source.with_file_name(header));
    let program = directory.join(output);
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let newest = headers.iter().chain([&source]).filter_map(|path| time(path)).max();
    if time(&program).is_some_and(|built| Some(built) > newest) {
        return program;
    }
    // Under another name first: the other test binary may run or build the same program.
    let fresh = directory.join(format!("{output}.{}", std::process::id()));
    let output = Command::new("cc")
        .args(["-O2", "-g", "-pthread", "-Wall", "-Wextra", "-Wno-clobbered"])
        .args(options)
        .arg("-o")
        .args([&fresh, &source])
        .output()
        .expect("a C compiler called cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &program).unwrap();
    program
}

/// A command for the program, with the library's name in FAULTS_LIB and a clean set of options.
pub(crate) fn command(name: &str, arguments: &[&str], mode: Mode) -> Command {
    let mut command = Command::new(compile(name));
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACCEL")) {
        command.env_remove(variable);
    }
    let library = library().map_or_else(Default::default, PathBuf::into_os_string);
    command.args(arguments).env_remove("LD_PRELOAD").env("FAULTS_LIB", library).envs(mode.iter().copied());
    command
}

/// Runs one case of a program to its good end.
pub(crate) fn run(name: &str, arguments: &[&str], mode: Mode) {
    run_prepared(&mut command(name, arguments, mode), &arguments.join("-"), mode);
}

/// Runs a command to its good end; `what` names its output.
pub(crate) fn run_prepared(command: &mut Command, what: &str, mode: Mode) {
    let rounds = env::var("FAULTS_ROUNDS").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    let patience = Duration::from_secs((PATIENCE as f64 * rounds.max(1.0)) as u64);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("faults")
        .join(format!("{what}-{:?}.out", thread::current().id()));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let output = fs::File::create(&file).unwrap();
    let mut child =
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let status = wait(&mut child, patience);
    let said = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    let options: Vec<String> = mode.iter().skip(1).map(|(name, value)| format!("{name}={value}")).collect();
    for line in said.lines() {
        if line.starts_with("SKIP") {
            println!("{line}");
        } else {
            println!("{} {line}", options.join(" "));
        }
    }
    assert!(status.is_some_and(|status| status.success()), "{command:?} with {mode:?}: {status:?}\n{said}");
}

/// The end of a child, or `None` after so long, when it is killed.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            // Its own children die with it (PR_SET_PDEATHSIG).
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
