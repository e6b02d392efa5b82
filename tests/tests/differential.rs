//! The same two programs with and without the library must leave the same transcript, byte for byte.
//!
//! A program of `tests/differential` is a table of cases; each case is run as two processes, a server and a client, which
//! write down every result they see. Reference is the run with neither side accelerated; the others are `CONFIGURATIONS`.
//!
//! ```text
//! cargo test -p accel-tests --test differential -- --nocapture
//! ACCEL_LIB=path       the library (target/release/libaccel.so)
//! DIFF_ONLY=text       only cases whose "program.case" contains the text
//! DIFF_CONFIG=text     only the configuration of that name, or else those whose name contains it
//! DIFF_WARM=0|40       only this many messages before the case
//! DIFF_STABLE=5        no library: run plain/plain so often and compare those; with one side late in two runs of three
//! DIFF_VERBOSE=1       print each reference transcript
//! DIFF_SEEDS=1-200     the programs that random.c makes up
//! DIFF_TIMEOUT=20      seconds that a case may take
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io, thread};

struct Configuration {
    name: &'static str,
    server: bool,
    client: bool,
    env: &'static [(&'static str, &'static str)],
}

const fn configuration(
    name: &'static str,
    server: bool,
    client: bool,
    env: &'static [(&'static str, &'static str)],
) -> Configuration {
    Configuration { name, server, client, env }
}

const PLAIN: Configuration = configuration("plain/plain", false, false, &[]);

/// For the stability of the corpus itself: neither side may rely on the other's being late or early.
const LAGGING: [Configuration; 3] = [
    PLAIN,
    configuration("plain/plain, server late", false, false, &[("DIFF_LAG", "server")]),
    configuration("plain/plain, client late", false, false, &[("DIFF_LAG", "client")]),
];

const CONFIGURATIONS: &[Configuration] = &[
    configuration("accel/accel", true, true, &[("ACCEL_LOCAL_AFTER", "0")]),
    configuration("accel/plain", true, false, &[("ACCEL_LOCAL_AFTER", "0")]),
    configuration("plain/accel", false, true, &[("ACCEL_LOCAL_AFTER", "0")]),
    configuration(
        "accel/accel-after4",
        true,
        true,
        &[("ACCEL_LOCAL_AFTER", "4"), ("ACCEL_LOCAL_AFTER_USEC", "0")],
    ),
    configuration(
        "accel/accel-spin-hard",
        true,
        true,
        &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "hard"), ("ACCEL_SPIN_USEC", "200")],
    ),
    configuration(
        "accel/accel-spin-never",
        true,
        true,
        &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "never")],
    ),
    // The control channel by system calls: the library is not entered while a side waits for the other.
    configuration("accel/accel-quiet", true, true, &[("ACCEL_LOCAL_AFTER", "0"), ("DIFF_CTL", "raw")]),
];

/// Messages each way before the state under test: none, and enough that the connection surely uses the rings.
const WARM: &[u32] = &[0, 40];

/// Hanging runs after which a program is given up: each costs the whole timeout.
const HANGS_MAX: usize = 12;

/// One test for each program of the corpus.
macro_rules! programs {
    ($($test:ident: $file:literal,)*) => {
        const PROGRAMS: &[&str] = &[$($file),*];
        $(#[test] fn $test() { run_program($file); })*
    };
}

programs! {
    recv: "recv.c",
    send: "send.c",
    oob: "oob.c",
    close: "close.c",
    poll: "poll.c",
    epoll: "epoll.c",
    options: "options.c",
    connect: "connect.c",
    descriptors: "descriptors.c",
    process: "process.c",
    signals: "signals.c",
    threads: "threads.c",
    files: "files.c",
    bulk: "bulk.c",
    python: "python.py",
    random: "random.c",
}

#[test]
fn every_program_has_a_test() {
    let found: BTreeSet<String> = fs::read_dir(corpus())
        .expect("the corpus")
        .map(|entry| entry.expect("a directory entry").file_name().into_string().expect("a name in UTF-8"))
        .filter(|name| (name.ends_with(".c") || name.ends_with(".py")) && name != "harness.py")
        .collect();
    let known: BTreeSet<String> = PROGRAMS.iter().map(|name| name.to_string()).collect();
    assert_eq!(found, known, "files of tests/differential against the list in differential.rs");
}

/// The cases of `departures.txt`, with their reasons.
fn departures() -> Vec<(&'static str, &'static str)> {
    let rows = include_str!("../differential/departures.txt").lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split_once(": ").expect("case: reason")).collect()
}

/// All cases of a program, in every chosen configuration, against plain/plain. One program at a time: the two
/// sides of a case need a core each.
fn run_program(file: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = Program::build(file);
    let only = env::var("DIFF_ONLY").unwrap_or_default();
    let cases: Vec<Case> = program
        .cases()
        .into_iter()
        .filter(|case| format!("{}.{}", program.name, case.name).contains(&only))
        .collect();
    let count = cases.len();
    let warm_only =
        env::var("DIFF_WARM").ok().map(|text| text.parse::<u32>().expect("DIFF_WARM is a number"));
    let rounds = cases.iter().flat_map(|case| {
        let warm = if case.once { &WARM[..1] } else { WARM };
        warm.iter().filter(|&&warm| warm_only.is_none_or(|only| only == warm)).map(move |&warm| (case, warm))
    });
    if let Ok(times) = env::var("DIFF_STABLE") {
        let times = times.parse().expect("DIFF_STABLE is a number");
        let unstable: Vec<String> =
            rounds.filter_map(|(case, warm)| program.unstable(case, warm, times)).collect();
        eprintln!("{file}: {count} cases, plain/plain {times} times, {} not stable", unstable.len());
        assert!(unstable.is_empty(), "{}", unstable.join("\n"));
        return;
    }
    let library = library();
    let config_only = env::var("DIFF_CONFIG").unwrap_or_else(|_| "accel/accel".to_owned());
    let config_only = if config_only == "all" { String::new() } else { config_only };
    let mut chosen: Vec<&Configuration> =
        CONFIGURATIONS.iter().filter(|configuration| configuration.name == config_only).collect();
    if chosen.is_empty() {
        chosen =
            CONFIGURATIONS.iter().filter(|configuration| configuration.name.contains(&config_only)).collect();
    }
    let departures = departures();
    let (mut runs, mut hangs, mut failures, mut known) = (0, 0, Vec::new(), 0);
    'all: for (case, warm) in rounds {
        let reference = program.run(case, warm, &PLAIN, &library);
        if env::var_os("DIFF_VERBOSE").is_some() {
            eprintln!("=== {}.{} warm={warm}\n{}", program.name, case.name, reference.text);
        }
        for configuration in &chosen {
            runs += 1;
            let got = program.run(case, warm, configuration, &library);
            if got.text == reference.text {
                continue;
            }
            let failure = program.explain(case, warm, configuration, &library, &reference, &got);
            eprintln!("{failure}");
            let name = format!("{}.{}", program.name, case.name);
            if let Some((_, reason)) = departures.iter().find(|(case, _)| *case == name) {
                eprintln!("(a known departure: {reason})");
                known += 1;
                continue;
            }
            failures.push(format!(
                "{}.{} warm={warm} {}{}",
                program.name,
                case.name,
                configuration.name,
                if got.hung { " (hang)" } else { "" }
            ));
            hangs += usize::from(got.hung);
            if hangs == HANGS_MAX {
                failures.push(format!("given up after {HANGS_MAX} hangs"));
                break 'all;
            }
        }
    }
    eprintln!(
        "{file}: {count} cases, {runs} runs against plain/plain, {} differ, {known} known departures",
        failures.len()
    );
    assert!(
        failures.is_empty(),
        "{} of {runs} runs of {file} differ from plain/plain:\n  {}",
        failures.len(),
        failures.join("\n  ")
    );
}

struct Program {
    name: String,
    /// What to execute, before the arguments of a run.
    command: Vec<PathBuf>,
    /// Where the transcripts go.
    scratch: PathBuf,
}

struct Case {
    name: String,
    /// Warming up means nothing to it.
    once: bool,
}

struct Transcript {
    text: String,
    errors: String,
    hung: bool,
}

impl Program {
    fn build(file: &str) -> Self {
        let source = corpus().join(file);
        let (name, language) = file.rsplit_once('.').expect("a name with an extension");
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("differential-{name}"));
        fs::create_dir_all(&scratch).expect("a directory for the transcripts");
        let command = if language == "py" {
            vec!["python3".into(), source]
        } else {
            let binary = scratch.join(name);
            // -w: most of what the compiler would warn of is the point of the case.
            let status = Command::new("cc")
                .args(["-O1", "-g", "-w", "-pthread", "-o"])
                .arg(&binary)
                .arg(&source)
                .status()
                .expect("cc is installed");
            assert!(status.success(), "cc failed on {}", source.display());
            vec![binary]
        };
        Self { name: name.to_string(), command, scratch }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ACCEL_") || name == "LD_PRELOAD" {
                command.env_remove(name);
            }
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn cases(&self) -> Vec<Case> {
        let output = self.command().arg("list").output().expect("the program runs");
        assert!(output.status.success(), "{} list: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .expect("names in UTF-8")
            .lines()
            .map(|line| match line.strip_suffix(" once") {
                Some(name) => Case { name: name.to_string(), once: true },
                None => Case { name: line.to_string(), once: false },
            })
            .collect()
    }

    /// Both sides of a case, side by side, each with its own preload.
    fn run(&self, case: &Case, warm: u32, configuration: &Configuration, library: &Path) -> Transcript {
        let (one, other) = socketpair();
        let mut server =
            self.start(case, warm, "server", configuration.server.then_some(library), configuration, &one);
        let mut client =
            self.start(case, warm, "client", configuration.client.then_some(library), configuration, &other);
        drop((one, other));
        let deadline = Instant::now() + timeout();
        let mut hung = false;
        while !(exited(&server) && exited(&client)) {
            if Instant::now() > deadline {
                hung = true;
                break;
            }
            thread::sleep(Duration::from_micros(500));
        }
        let (mut text, mut errors) = (String::new(), String::new());
        for (role, mark, child) in [("server", 'S', &mut server), ("client", 'C', &mut client)] {
            let late = !exited(child);
            kill_group(child);
            let status = child.wait().expect("a child to wait for");
            for line in self.read(role, "out").lines() {
                writeln!(text, "{mark}: {line}").expect("a String takes everything");
            }
            writeln!(text, "{mark} {}", if late { "HANGS".to_string() } else { describe(status) })
                .expect("a String takes everything");
            for line in self.read(role, "err").lines() {
                writeln!(errors, "{mark} stderr: {line}").expect("a String takes everything");
            }
        }
        Transcript { text, errors, hung }
    }

    fn start(
        &self,
        case: &Case,
        warm: u32,
        role: &str,
        preload: Option<&Path>,
        configuration: &Configuration,
        control: &OwnedFd,
    ) -> Child {
        let mut command = self.command();
        command.args(["run", &case.name, &warm.to_string(), role]).envs(configuration.env.iter().copied());
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let file = |kind| {
            File::create(self.scratch.join(format!("{role}.{kind}"))).expect("a file for the transcript")
        };
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).process_group(0);
        let control = control.as_raw_fd();
        // SAFETY: between fork and exec only dup2, fcntl and setrlimit are called, which are async-signal-safe; the control
        // fd stays open in the parent until both children have been started.
        unsafe {
            command.pre_exec(move || {
                let done =
                    if control == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(control, 3) };
                if done < 0 {
                    return Err(io::Error::last_os_error());
                }
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
                Ok(())
            });
        }
        command.spawn().expect("the program starts")
    }

    fn read(&self, role: &str, kind: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.scratch.join(format!("{role}.{kind}"))).unwrap_or_default())
            .into_owned()
    }

    /// What differs, and whether it does so each time.
    fn explain(
        &self,
        case: &Case,
        warm: u32,
        configuration: &Configuration,
        library: &Path,
        reference: &Transcript,
        got: &Transcript,
    ) -> String {
        let title = format!("{}.{} warm={warm}", self.name, case.name);
        let mut text = format!(
            "--- {title} {}\n+++ {title} {}\n{}",
            PLAIN.name,
            configuration.name,
            unified_diff(&reference.text, &got.text)
        );
        text += &got.errors;
        if !got.hung {
            let again = (0..2)
                .filter(|_| self.run(case, warm, configuration, library).text != reference.text)
                .count();
            let moved =
                (0..2).filter(|_| self.run(case, warm, &PLAIN, library).text != reference.text).count();
            writeln!(text, "(run twice more: {again} of 2 differ; plain/plain itself: {moved} of 2 differ)")
                .expect("a String takes everything");
        }
        text
    }

    /// How plain/plain differs from itself.
    fn unstable(&self, case: &Case, warm: u32, times: u32) -> Option<String> {
        let first = self.run(case, warm, &PLAIN, Path::new(""));
        let title = format!("{}.{} warm={warm}", self.name, case.name);
        if env::var_os("DIFF_VERBOSE").is_some() {
            eprintln!("=== {title}\n{}{}", first.text, first.errors);
        }
        if first.hung
            || first.text.contains("HARNESS")
            || first.text.contains("TOO ")
            || !first.errors.is_empty()
        {
            return Some(format!("--- {title}\n{}{}", first.text, first.errors));
        }
        (1..times)
            .map(|time| self.run(case, warm, &LAGGING[time as usize % 3], Path::new("")))
            .find(|next| next.text != first.text)
            .map(|next| format!("--- {title}\n{}{}", unified_diff(&first.text, &next.text), next.errors))
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("differential")
}

fn library() -> PathBuf {
    let path = env::var_os("ACCEL_LIB").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/libaccel.so"),
        PathBuf::from,
    );
    match path.canonicalize() {
        Ok(path) => path,
        Err(error) => panic!(
            "the library under test, {}: {error}. Build it (cargo build --release) or name it in ACCEL_LIB; DIFF_STABLE=5 needs none.",
            path.display()
        ),
    }
}

fn timeout() -> Duration {
    Duration::from_secs(
        env::var("DIFF_TIMEOUT").map_or(20, |text| text.parse().expect("DIFF_TIMEOUT is a number")),
    )
}

/// The control channel: messages, so that two barriers never run together.
fn socketpair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors, which nobody else owns yet.
    unsafe {
        assert_eq!(
            libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()),
            0,
            "socketpair"
        );
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// Whether it has ended; it stays a zombie, so that its process group keeps its number.
fn exited(child: &Child) -> bool {
    // SAFETY: an all-zero siginfo_t is valid, and the call writes to nothing else.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, child.id(), &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == 0
            && info.si_pid() != 0
    }
}

/// The child, unless it has ended, and whatever it left behind. It has not been waited for: the number is still its own.
fn kill_group(child: &Child) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exits {code}"),
        (_, Some(signal)) => format!("is killed by signal {signal}"),
        _ => "ends".to_string(),
    }
}

/// Three lines of context, as diff -u has them.
fn unified_diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // length[i][j]: the longest common subsequence of old[i..] and new[j..].
    let mut length = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            length[i][j] = if old[i] == new[j] {
                length[i + 1][j + 1] + 1
            } else {
                length[i + 1][j].max(length[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && length[i + 1][j] >= length[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let mut text = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if lines[at.saturating_sub(3)..lines.len().min(at + 4)].iter().any(|(mark, _)| *mark != ' ') {
            if skipped {
                text += "@@\n";
                skipped = false;
            }
            writeln!(text, "{mark}{line}").expect("a String takes everything");
        } else {
            skipped = true;
        }
    }
    text
}
