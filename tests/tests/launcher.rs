//! The `accel` command as a whole: what it starts, what it refuses, and with which words and exit status.
//!
//! The binary is ACCEL_BIN or `target/release/accel` of the workspace; the library must lie beside it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn accel() -> PathBuf {
    let path = std::env::var_os("ACCEL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/accel"), PathBuf::from);
    let path = fs::canonicalize(&path);
    path.expect("build it first: cargo build --release -p accel-tools -p accel-shim, or set ACCEL_BIN")
}

fn library() -> String {
    accel().with_file_name("libaccel.so").display().to_string()
}

/// A directory of one test, which is also its HOME and its current directory.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("accel-launcher-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join(".config/accel/profiles")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// Executable files are written by `cp`: a descriptor of this process that is open for writing could be
    /// inherited by a child of another thread, and then executing the file is ETXTBSY.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.0.join(name);
        if mode & 0o111 == 0 {
            fs::write(&path, contents).unwrap();
        } else {
            let draft = path.with_extension("draft");
            fs::write(&draft, contents).unwrap();
            assert!(Command::new("cp").args([&draft, &path]).status().unwrap().success());
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn compile(&self, name: &str, flags: &[&str]) -> String {
        let source = self.write(&format!("{name}.c"), "int main(void) { return 33; }\n", 0o644);
        let program = self.0.join(name);
        let status = Command::new("cc").args(flags).arg("-o").arg(&program).arg(source).status().unwrap();
        assert!(status.success(), "cc {flags:?}");
        program.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(accel());
        command.args(arguments).current_dir(&self.0).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", &self.0).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.command(arguments))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Outcome {
    status: i32,
    out: String,
    err: String,
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Outcome {
    #[track_caller]
    fn is(&self, status: i32, err: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.err.contains(err), "{err:?} is not in {self:?}");
        assert_eq!(err.is_empty(), self.err.is_empty(), "{self:?}");
    }

    /// One sentence of accel, and nothing else.
    #[track_caller]
    fn is_refused(&self, status: i32, err: &str) {
        self.is(status, err);
        assert!(self.err.starts_with("accel: ") && self.err.lines().count() == 1, "{self:?}");
        assert!(self.err.trim_end().ends_with('.'), "{self:?}");
    }
}

fn skip(why: &str) {
    println!("SKIP {why}");
}

/// A user other than root, for what root may always do.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0)
}

#[test]
fn the_exit_status_and_the_output_are_the_programs() {
    let home = Home::new("status");
    home.run(&["sh", "-c", "exit 37"]).is(37, "");
    home.run(&["--", "sh", "-c", "kill -9 $$"]).is(137, "");
    let outcome = home.run(&["sh", "-c", "echo out; echo err >&2; echo \"$0 $1\"", "a b", "--strict"]);
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("out\na b --strict\n", "err\n"));
}

#[test]
fn a_command_that_cannot_be_started_is_127_or_126() {
    let home = Home::new("missing");
    home.run(&["no-such-program"]).is_refused(127, "there is no program `no-such-program` in PATH");
    home.run(&["/no/such/program"]).is_refused(127, "/no/such/program could not be started");
    home.run(&["/etc/passwd"]).is_refused(126, "may not be executed");
    home.run(&["/etc"]).is_refused(126, "it is a directory");
    home.run(&[]).is_refused(2, "there is no command");
    let script = home.write("orphan", "#!/no/such/interpreter\n", 0o755);
    let outcome = home.run(&[&script]);
    assert_eq!(outcome.status, 126, "{outcome:?}");
    assert!(outcome.err.contains("its interpreter or loader is missing"), "{outcome:?}");
}

#[test]
fn what_std_changes_before_main_is_undone() {
    let home = Home::new("undone");
    let see = &["sh", "-c", "grep SigIgn /proc/self/status; ls -l /proc/self/fd"];
    let plain = outcome(&mut through_shell(&home, see, "exec \"$@\" <&-"));
    let outcome = outcome(&mut through_shell(&home, see, "exec \"$ACCEL_UNDER_TEST\" \"$@\" <&-"));
    let ignored = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(ignored(&outcome.out), ignored(&plain.out), "{outcome:?}");
    assert!(!outcome.out.contains(" 0 -> /dev/null"), "standard input stays closed: {outcome:?}");
    let kept = through_shell(&home, see, "trap '' PIPE; exec \"$ACCEL_UNDER_TEST\" \"$@\"").output().unwrap();
    let kept = ignored(&String::from_utf8_lossy(&kept.stdout));
    assert!(kept.ends_with("1000"), "SIGPIPE stays ignored if the caller ignored it: {kept}");
}

/// Runs `script` in a shell with the path of accel in `$ACCEL_UNDER_TEST`, which is not exported.
fn through_shell(home: &Home, arguments: &[&str], script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ACCEL_UNDER_TEST=$0; {script}")).arg(accel()).args(arguments);
    command.current_dir(&home.0).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &home.0);
    command
}

#[test]
fn the_library_goes_behind_what_is_in_ld_preload() {
    let home = Home::new("preload");
    let preload = |old: Option<&str>| {
        let mut command = home.command(&["--dry-run", "ls"]);
        if let Some(old) = old {
            command.env("LD_PRELOAD", old);
        }
        let text = outcome(&mut command).out;
        text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).unwrap().to_owned()
    };
    let library = library();
    assert_eq!(preload(None), library);
    assert_eq!(preload(Some("")), library);
    assert_eq!(preload(Some("libm.so.6")), format!("libm.so.6:{library}"));
    let twice = format!("{library}:libm.so.6");
    assert_eq!(preload(Some(&twice)), twice, "not a second time");
    let outcome = home.run(&["sh", "-c", "echo $LD_PRELOAD"]);
    assert_eq!(outcome.out.trim(), library, "{outcome:?}");
}

#[test]
fn dry_run_prints_the_environment_and_starts_nothing() {
    let home = Home::new("dry");
    let outcome = home.run(&["--dry-run", "-p", "latency", "-o", "ports=80,443", "touch", "started"]);
    outcome.is(0, "");
    for line in
        ["ACCEL_SPIN=hard", "ACCEL_PORTS=80,443", "ACCEL_PROFILE=latency", "verdict  accelerated wherever"]
    {
        assert!(outcome.out.contains(line), "{line}: {outcome:?}");
    }
    assert!(!home.0.join("started").exists());
}

#[test]
fn options_reach_the_program_and_v_says_where_they_came_from() {
    let home = Home::new("options");
    home.write(".config/accel/accel.toml", "local_after = 9\n[app.\"s*\"]\nspin_usec = 7\n", 0o600);
    home.write("mine.toml", "local_after = 10\n", 0o600);
    let mut command =
        home.command(&["-v", "-p", "mine", "-o", "spin=never", "sh", "-c", "env | grep ^ACCEL_ | sort"]);
    let outcome = outcome(command.env("ACCEL_LOCAL_RING", "64K"));
    let expected = "ACCEL_LOCAL_AFTER=10\nACCEL_LOCAL_RING=64K\nACCEL_PROFILE=mine\n\
                    ACCEL_SPIN=never\nACCEL_SPIN_USEC=7\n";
    assert_eq!(outcome.out, expected, "{outcome:?}");
    for line in [
        "accel: option   local_after = 10 from profile mine (./mine.toml)",
        "accel: option   local_ring = 64K from the environment",
        "accel: option   spin = never from the command line",
        ".config/accel/accel.toml line 3 [app.\"s*\"]",
    ] {
        assert!(outcome.err.contains(line), "{line}: {outcome:?}");
    }
}

#[test]
fn mistakes_in_options_and_files_are_one_sentence_and_2() {
    let home = Home::new("mistakes");
    home.run(&["--stirct", "ls"]).is_refused(2, "did you mean `--strict`?");
    home.run(&["-o", "spin=fast", "ls"])
        .is_refused(2, "`spin` must be one of adapt, hard, never, not `fast`");
    home.run(&["-o", "spinn=hard", "ls"]).is_refused(2, "did you mean `spin`?");
    home.run(&["-p", "latecny", "ls"]).is_refused(2, "did you mean `latency`?");
    home.run(&["-p", "./none.toml", "ls"]).is_refused(2, "no such profile file");
    outcome(home.command(&["ls"]).env("ACCEL_SPIN_USED", "1"))
        .is_refused(2, "did you mean `ACCEL_SPIN_USEC`?");
    outcome(home.command(&["ls"]).env("ACCEL_LOCAL_AFTER", "many"))
        .is_refused(2, "from 0 to 1000000 (messages), not `many`");
    for (text, expected) in [
        ("spin_used = 3\n", "accel.toml line 1: there is no option `spin_used` (did you mean `spin_usec`?)"),
        (
            "\n\nspin_usec = 2000000000\n",
            "line 3: `spin_usec` must be a whole number from 0 to 1000000000 (microseconds), \
             not `2000000000`",
        ),
        ("spin_usec = true\n", "not the truth value true"),
        ("spin = \n", "line 1 is not TOML"),
        ("profiles = [\"nope\"]\n", "accel.toml: nope: there is no profile `nope`"),
    ] {
        home.write(".config/accel/accel.toml", text, 0o600);
        home.run(&["true"]).is_refused(2, expected);
    }
    fs::remove_file(home.0.join(".config/accel/accel.toml")).unwrap();
    home.write(".config/accel/profiles/mine.toml", "profiles = [\"latency\"]\n", 0o600);
    home.run(&["-p", "mine", "true"]).is_refused(2, "belongs into accel.toml");
}

#[test]
fn root_obeys_only_files_that_root_alone_can_write() {
    if !is_root() {
        return skip("root_obeys_only_files_that_root_alone_can_write: needs root");
    }
    let home = Home::new("trust");
    let file = home.write(".config/accel/accel.toml", "spin = \"hard\"\n", 0o666);
    home.run(&["true"]).is_refused(2, "has mode 0666");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["true"]).is(0, "");
    std::os::unix::fs::chown(&file, Some(NOBODY), None).unwrap();
    home.run(&["true"]).is_refused(2, "belongs to user 65534");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    home.run(&["true"]).is_refused(2, "is not a plain file");
}

#[test]
fn static_programs_run_with_a_warning_and_not_with_strict() {
    let home = Home::new("static");
    for flags in [&["-static"][..], &["-static-pie"]] {
        let program = home.compile("prog", flags);
        let outcome = home.run(&[&program]);
        outcome
            .is_refused(33, "is a statically linked program; no library can be loaded into it, so it runs");
        home.run(&["--strict", &program])
            .is_refused(125, "so it would run on the kernel stack (not accelerated).");
        home.run(&["--dry-run", &program]).is(0, "");
        let script = home.write("script", format!("#!{program}\n"), 0o755);
        home.run(&[&script])
            .is(33, &format!("{script} is a script run by {program}, which is a statically linked"));
    }
    let dynamic = home.compile("prog", &[]);
    home.run(&["--strict", &dynamic]).is(33, "");
}

#[test]
fn scripts_are_judged_by_their_interpreter() {
    let home = Home::new("scripts");
    for line in ["#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/env sh", "#!/usr/bin/env -S sh -e"] {
        let script = home.write("script", format!("{line}\nexit 5\n"), 0o755);
        home.run(&["--strict", &script]).is(5, "");
    }
    let plain = home.write("plain", "exit $1\n", 0o755);
    let outcome = home.run(&[&plain, "6"]);
    outcome.is_refused(6, "is a text file without a `#!` line");
    home.run(&["--strict", &plain, "6"]).is_refused(125, "--strict");
}

#[test]
fn foreign_and_broken_programs_are_named_and_then_the_kernel_decides() {
    let home = Home::new("foreign");
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    header[16] = 2;
    header[18] = 3;
    let program = home.write("i386", header, 0o755);
    let outcome = home.run(&[&program]);
    assert_eq!(outcome.status, 126, "{outcome:?}");
    assert!(
        outcome.err.contains("is a program for 32-bit i386, and accel is built for 64-bit"),
        "{outcome:?}"
    );
    home.run(&["--strict", &program]).is_refused(125, "32-bit i386");
    let junk = home.write("junk", [0; 100], 0o755);
    let outcome = home.run(&[&junk]);
    assert_eq!(outcome.status, 126, "{outcome:?}");
    assert!(outcome.err.contains("neither ELF nor a script"), "{outcome:?}");
}

#[test]
fn musl_programs_are_named() {
    let home = Home::new("musl");
    let program = home.compile("prog", &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    home.run(&["--strict", &program])
        .is_refused(125, "uses musl as its C library, and accel is built for glibc");
}

#[test]
fn go_programs_are_known_by_their_build_note() {
    let home = Home::new("go");
    let source = "__asm__(\".pushsection .note.go.buildid,\\\"a\\\",@note\\n.long 4,4,4\\n\
                  .ascii \\\"Go\\\\0\\\\0id\\\\0\\\\0\\\"\\n.popsection\\n\");\n\
                  int main(void) { return 33; }\n";
    let source = home.write("go.c", source, 0o644);
    for (flag, expected) in [
        ("-static", "is a statically linked Go program; it does not use libc"),
        ("-pie", "is a Go program; its sockets do not use libc"),
    ] {
        let program = home.0.join("etcd");
        assert!(Command::new("cc").args([flag, "-o"]).arg(&program).arg(&source).status().unwrap().success());
        home.run(&[program.to_str().unwrap()]).is_refused(33, expected);
    }
}

/// As a user who is not root: a copy of accel, because the directories of root may be closed to others.
fn as_nobody(home: &Home, arguments: &[&str]) -> Command {
    for (name, mode) in [("accel", 0o755), ("libaccel.so", 0o755)] {
        if !home.0.join(name).exists() {
            home.write(name, fs::read(accel().with_file_name(name)).unwrap(), mode);
        }
    }
    let mut command = Command::new(home.0.join("accel"));
    command.args(arguments).current_dir("/").env_clear().uid(NOBODY).gid(NOBODY);
    command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

#[test]
fn setuid_setgid_and_capabilities_are_named_for_those_who_gain_by_them() {
    if !is_root() {
        return skip("setuid_setgid_and_capabilities_are_named_for_those_who_gain_by_them: needs root");
    }
    let home = Home::new("setuid");
    let program = home.compile("prog", &[]);
    for (mode, expected) in
        [(0o4755, "is a setuid program of user 0"), (0o2755, "is a setgid program of group 0")]
    {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let outcome = outcome(&mut as_nobody(&home, &[&program]));
        outcome.is(33, expected);
        assert!(outcome.err.contains("the loader ignores LD_PRELOAD"), "{outcome:?}");
        home.run(&["--strict", &program]).is(33, "");
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2644 | 0o101)).unwrap();
    outcome(&mut as_nobody(&home, &["--strict", &program])).is(33, "");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let granted = Command::new("setcap").arg("cap_net_bind_service=ep").arg(&program).status();
    if granted.is_ok_and(|status| status.success()) {
        outcome(&mut as_nobody(&home, &[&program])).is(33, "is a program with file capabilities");
        home.run(&["--strict", &program]).is(33, "");
    } else {
        skip("file capabilities: setcap does not work here");
    }
}

#[test]
fn execute_only_programs_are_started_with_a_note() {
    if !is_root() {
        return skip("execute_only_programs_are_started_with_a_note: needs root");
    }
    let home = Home::new("unreadable");
    let program = home.compile("prog", &[]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).unwrap();
    outcome(&mut as_nobody(&home, &[&program])).is(33, "may be executed but not read");
    outcome(&mut as_nobody(&home, &["--strict", &program])).is_refused(125, "may be executed but not read");
}

#[test]
fn a_missing_library_is_refused_with_125() {
    let home = Home::new("library");
    let copy = home.write("accel", fs::read(accel()).unwrap(), 0o755);
    if Path::new("/usr/lib/accel/libaccel.so").exists() {
        return skip("a_missing_library_is_refused_with_125: accel is installed here");
    }
    let run = || {
        let mut command = Command::new(&copy);
        outcome(command.arg("true").env_clear().env("PATH", "/usr/bin:/bin"))
    };
    run().is_refused(125, "libaccel.so is not installed");
    fs::create_dir_all(home.0.join("bin")).unwrap();
    fs::create_dir_all(home.0.join("lib/accel")).unwrap();
    fs::rename(&copy, home.0.join("bin/accel")).unwrap();
    home.write("lib/accel/libaccel.so", fs::read(library()).unwrap(), 0o755);
    let mut command = Command::new(home.0.join("bin/accel"));
    let outcome =
        outcome(command.args(["sh", "-c", "echo $LD_PRELOAD"]).env_clear().env("PATH", "/usr/bin:/bin"));
    assert!(outcome.out.trim().ends_with("/lib/accel/libaccel.so"), "{outcome:?}");
}

#[test]
fn own_commands_are_reserved_and_such_programs_start_behind_two_dashes() {
    let home = Home::new("reserved");
    let mut command = home.command(&["--", "doctor"]);
    home.write("doctor", "#!/bin/sh\nexit 44\n", 0o755);
    command.env("PATH", format!("{}:/usr/bin:/bin", home.0.display()));
    outcome(&mut command).is(44, "");
    home.run(&["-v", "doctor"]).is_refused(2, "-v has no meaning in front of accel's own command `doctor`");
}

#[test]
fn explain_and_stat_answer_for_a_process_without_accel() {
    let home = Home::new("explain");
    let mut child = Command::new("sleep").arg("30").env_clear().spawn().unwrap();
    let pid = child.id().to_string();
    let explained = home.run(&["explain", &pid]);
    let counted = home.run(&["stat", &pid]);
    child.kill().unwrap();
    child.wait().unwrap();
    explained.is(0, "");
    assert!(
        explained.out.contains("does not run under accel: its environment has no LD_PRELOAD"),
        "{explained:?}"
    );
    counted.is_refused(1, "publishes no counters");
    home.run(&["explain", "0"]).is_refused(2, "`0` is not a value of [PID]");
    home.run(&["explain", "2147483647"]).is_refused(1, "there is no process 2147483647");
}

/// This test publishes cards as the library does, and is explained.
#[test]
fn explain_and_stat_show_what_a_process_publishes() {
    use driver::cards::{Path, Table, bump};
    use std::os::fd::AsRawFd;
    let home = Home::new("cards");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (table, _memory) = Table::create(100).unwrap();
    let take = || table.card(table.take(std::process::id()).unwrap());
    let (local, plain) = (take(), take());
    local.describe(client.as_raw_fd(), Path::Local, 0);
    plain.describe(server.as_raw_fd(), Path::Kernel, rows::reasons::Reason::PeerPlain as u8);
    bump(&local.counters.ring_sends, 41);
    table.count_candidate(local);
    table.count_upgraded();
    let pid = std::process::id().to_string();

    let explained = home.run(&["explain", &pid]);
    explained.is(0, "");
    let connection =
        format!("tcp {} -> {} ESTABLISHED", client.local_addr().unwrap(), client.peer_addr().unwrap());
    for part in [
        format!("({pid}) runs under accel"),
        format!("  fd {:<4} local     {connection}", client.as_raw_fd()),
        format!("  fd {:<4} kernel    tcp", server.as_raw_fd()),
        "ring: 41 sends".to_owned(),
        "peer-not-under-accel: The program at the other end did not answer".to_owned(),
        "1 of 1 possible connections were accelerated.".to_owned(),
    ] {
        assert!(explained.out.contains(&part), "{part:?} is not in {}", explained.out);
    }

    let counted = home.run(&["stat", &pid]);
    counted.is(0, "");
    assert!(counted.out.contains("1 of 1 candidates accelerated"), "{}", counted.out);
    assert!(counted.out.contains("(peer-not-under-accel)"), "{}", counted.out);
    let json = home.run(&["stat", &pid, "--json"]);
    assert_eq!(json.out.lines().count(), 1);
    assert!(json.out.contains("\"ring_sends\":41"), "{}", json.out);
    let all = home.run(&["stat"]);
    assert!(all.out.contains(&format!("({pid}): 1 of 1")), "{}", all.out);
}

#[test]
fn explain_runs_a_command_and_keeps_its_status() {
    let home = Home::new("follow");
    let outcome = home.run(&["explain", "--", "sh", "-c", "echo out; sleep 0.3; exit 9"]);
    assert_eq!((outcome.status, outcome.out.as_str()), (9, "out\n"), "{outcome:?}");
    assert!(outcome.err.contains("accel: sh ("), "{outcome:?}");
    let mut child = home.command(&["explain", "--", "sleep", "30"]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "the signal is passed on");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let home = Home::new("help");
    for (arguments, expected) in [
        (&["--help"][..], "Profiles (built in): latency, throughput, safe"),
        (&["--version"], "accel 0.1.0"),
        (&["help", "options"], "spin_usec  (ACCEL_SPIN_USEC)"),
        (&["help", "profiles"], "throughput  (built in)"),
        (&["help", "calls"], "__recv_chk"),
        (&["help", "reasons"], "peer-not-under-accel"),
        (&["help", "explain"], "accel explain PID"),
    ] {
        let outcome = home.run(arguments);
        outcome.is(0, "");
        assert!(outcome.out.contains(expected), "{arguments:?}: {outcome:?}");
    }
    let shell = format!("{} help calls | head -1", accel().display());
    let outcome = outcome(Command::new("sh").arg("-c").arg(OsStr::new(&shell)));
    outcome.is(0, "");
}

#[test]
fn doctor_checks_this_machine() {
    let home = Home::new("doctor");
    let outcome = home.run(&["doctor"]);
    for check in
        ["kernel", "library", "memfd", "abstract sockets", "inet_diag", "seccomp", "open files", "processors"]
    {
        assert!(outcome.out.contains(check), "{check}: {outcome:?}");
    }
    let has_failed = outcome.out.contains("\nFAIL");
    assert_eq!(outcome.status, i32::from(has_failed), "{outcome:?}");
}

/// `-u`: the program has the user's numbers and groups, and no way back.
#[test]
fn root_runs_a_program_as_another_user() {
    let home = Home::new("user");
    home.run(&["-u", "no such user", "true"]).is_refused(2, "there is no user `no such user`");
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        home.run(&["-u", "root", "true"]).is_refused(2, "only root may run a program as another user");
        return skip("running a program as another user: it needs the rights of root");
    }
    // A copy that everybody may read: the loader of the other user's program looks for the library beside the command.
    let dir = std::env::temp_dir().join(format!("accel-user-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for file in [accel(), accel().with_file_name("libaccel.so")] {
        fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let script = "id -u; id -g; id -G; chown 0 . 2>/dev/null || echo no way back";
    let mut command = Command::new(dir.join("accel"));
    command.args(["-u", "nobody", "sh", "-c", script]).current_dir("/").stdin(Stdio::null());
    let said = outcome(&mut command);
    let _ = fs::remove_dir_all(&dir);
    said.is(0, "");
    let expected =
        Command::new("sh").args(["-c", "id -u nobody; id -g nobody; id -G nobody"]).output().unwrap();
    let expected = String::from_utf8(expected.stdout).unwrap() + "no way back\n";
    assert_eq!(said.out, expected);
}
