//! Real programs at both ends of a connection: how a test starts them, waits for them and tells what went wrong.
//!
//! Every application runs with server and client under libaccel.so on one host, once with `ACCEL_LOCAL_AFTER=0` and once with
//! the default; and on two hosts with a cable between them, whose ends our stack drives: the server's end, or both. When one of these
//! fails it runs on the plain kernel too, so that the message can say whose fault it is. A program that is not installed is a SKIP
//! that is printed past the test harness's capture.

mod command;
mod files;
pub(crate) mod haproxy;
pub(crate) mod hosts;
pub(crate) mod iperf;
pub(crate) mod java;
pub(crate) mod memcached;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod postgres;
pub(crate) mod python;
pub(crate) mod redis;
pub(crate) mod rsync;
pub(crate) mod socat;
pub(crate) mod ssh;
pub(crate) mod tls;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) use command::{Client, Output, Server};
pub(crate) use files::{TempDir, free_port, noise, same_file};
use hosts::Hosts;

/// What a step of a test gives: the error is a sentence for the person who reads the failure.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Longest time that one client command or one wait for a state may take. A hang ends here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where the two programs' sockets are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Without the library.
    Plain,
    /// Under the library, upgrading at the first call.
    AtOnce,
    /// Under the library as users have it.
    Default,
    /// On two hosts: the server's packets are our stack's, the clients' the kernel's.
    FarKernel,
    /// On two hosts, all packets by our stack.
    Cable,
}

impl Mode {
    pub(crate) fn is_accelerated(self) -> bool {
        self != Self::Plain
    }

    /// Whether server and clients are on hosts of their own.
    fn has_hosts(self) -> bool {
        matches!(self, Self::FarKernel | Self::Cable)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain kernel",
            Self::AtOnce => "accel, ACCEL_LOCAL_AFTER=0",
            Self::Default => "accel, default settings",
            Self::FarKernel => "accel on a cable, its clients on the kernel",
            Self::Cable => "accel on both ends of a cable",
        }
    }
}

/// Which end of the connections a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The servers'.
    Near,
    /// The clients'.
    Far,
}

/// One run of one application: its mode, its hosts and its own directory.
pub(crate) struct Run {
    pub(crate) mode: Mode,
    pub(crate) dir: TempDir,
    hosts: Option<Hosts>,
}

impl Run {
    fn new(name: &str, mode: Mode, hosts: Option<Hosts>) -> Self {
        Self { mode, dir: TempDir::new(name), hosts }
    }

    /// The address that servers listen at.
    pub(crate) fn host(&self) -> &'static str {
        if self.hosts.is_some() { hosts::NEAR } else { "127.0.0.1" }
    }

    /// A command in this run's mode, with a small known environment, in this run's directory.
    pub(crate) fn command(&self, side: Side, program: &str) -> Command {
        self.command_by(side, None, program)
    }

    /// The same, run by root, as another user.
    pub(crate) fn command_as(&self, side: Side, user: &str, program: &str) -> Command {
        self.command_by(side, Some(user), program)
    }

    fn command_by(&self, side: Side, user: Option<&str>, program: &str) -> Command {
        let is_carried = self.mode == Mode::Cable || self.mode == Mode::FarKernel && side == Side::Near;
        let mut command = match (&self.hosts, user) {
            (Some(_), user) if is_carried => hosts::accel(user, program),
            (_, Some(user)) => {
                let mut command = plain_command("setpriv");
                command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
                command.arg(program);
                command
            }
            (_, None) => plain_command(program),
        };
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("TMPDIR", self.dir.path());
        command.env("SERVER_HOST", self.host());
        if let Some(hosts) = &self.hosts {
            hosts.enter(side, &mut command);
        } else if self.mode.is_accelerated() {
            command.env("LD_PRELOAD", library());
        }
        if self.mode == Mode::AtOnce {
            command.env("ACCEL_LOCAL_AFTER", "0");
        }
        command
    }

    /// Whether somebody accepts at a port of the servers' host.
    fn answers(&self, port: u16) -> bool {
        let host: Ipv4Addr = self.host().parse().expect("an address");
        let connect = move || {
            TcpStream::connect_timeout(&SocketAddr::from((host, port)), Duration::from_secs(5)).is_ok()
        };
        self.hosts.as_ref().map_or_else(connect, |hosts| hosts.far().inside(connect))
    }

    /// Starts `program` as a server and waits until it accepts on `port`.
    pub(crate) fn server(&self, program: &str, arguments: &[&str], port: u16) -> Outcome<Server> {
        let mut command = self.command(Side::Near, program);
        command.args(arguments);
        self.server_of(command, port)
    }

    /// As [`Run::server`], with a command that the caller has shaped.
    pub(crate) fn server_of(&self, command: Command, port: u16) -> Outcome<Server> {
        let mut server = Server::start(command, self.dir.path())?;
        server.wait_for_port(port, || self.answers(port))?;
        Ok(server)
    }

    /// Starts `program` as a server; the caller waits for what it prints.
    pub(crate) fn quiet_server(&self, program: &str, arguments: &[&str]) -> Outcome<Server> {
        let mut command = self.command(Side::Near, program);
        command.args(arguments);
        Server::start(command, self.dir.path())
    }

    /// Starts a client that talks with the test through its standard input and output.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Outcome<Client> {
        let mut command = self.command(Side::Far, program);
        command.args(arguments);
        Client::start(command, self.dir.path())
    }

    /// Runs a command to its end and returns what it printed; any exit status but 0 is an error.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Outcome<String> {
        self.run_at(Side::Far, program, arguments)
    }

    /// As [`Run::run`], on the servers' host.
    pub(crate) fn run_near(&self, program: &str, arguments: &[&str]) -> Outcome<String> {
        self.run_at(Side::Near, program, arguments)
    }

    fn run_at(&self, side: Side, program: &str, arguments: &[&str]) -> Outcome<String> {
        let mut command = self.command(side, program);
        command.args(arguments);
        self.run_of(command)
    }

    /// As [`Run::run`], with `input` as standard input.
    pub(crate) fn run_with(&self, program: &str, arguments: &[&str], input: &[u8]) -> Outcome<Output> {
        let mut command = self.command(Side::Far, program);
        command.args(arguments);
        command::run(command, Some(input), self.dir.path())
    }

    /// As [`Run::run`], with a command that the caller has shaped.
    pub(crate) fn run_of(&self, command: Command) -> Outcome<String> {
        command::run(command, None, self.dir.path())?.checked()
    }

    /// The full name of a file in this run's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes a file into this run's directory and returns its full name.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap_or_else(|e| panic!("{path}: {e}"));
        path
    }
}

/// A command with a small known environment, not under accel.
pub(crate) fn plain_command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.env_clear().env("PATH", SEARCH).env("LANG", "C.UTF-8").env("TERM", "dumb");
    command
}

/// Runs `body` in every mode, or prints a SKIP when one of the programs in `needs` is missing.
pub(crate) fn check(name: &str, needs: &[&str], body: fn(&Run) -> Outcome) {
    if let Some(missing) = needs.iter().find(|program| find(program).is_none()) {
        return skip(&format!("{name}: {missing} is not installed"));
    }
    for mode in modes() {
        let hosts = if mode.has_hosts() { Hosts::lay() } else { None };
        if mode.has_hosts() && hosts.is_none() {
            skip(&format!("{name} on a cable: it needs the rights of root"));
            continue;
        }
        let run = Run::new(name, mode, hosts);
        let Err(why) = body(&run) else { continue };
        let kept = run.dir.keep();
        let hosts = if mode.has_hosts() { Hosts::lay() } else { None };
        let baseline = body(&Run::new(name, Mode::Plain, hosts));
        let verdict = match baseline {
            _ if mode == Mode::Plain => "accel has no part in this".to_string(),
            Ok(()) => "it passes on the plain kernel: this is accel's fault".to_string(),
            Err(why) => format!("it fails on the plain kernel too: {why}"),
        };
        panic!("{name} ({}): {why}\n{verdict}\nfiles are kept in {}", mode.name(), kept.display());
    }
}

/// `ACCEL_APPS=plain` checks the tests themselves: every application on the plain kernel only. `cable` leaves out the local path.
fn modes() -> Vec<Mode> {
    match std::env::var("ACCEL_APPS").as_deref() {
        Ok("plain") => vec![Mode::Plain],
        Ok("0") => vec![Mode::AtOnce],
        Ok("cable") => vec![Mode::FarKernel, Mode::Cable],
        _ => vec![Mode::AtOnce, Mode::Default, Mode::FarKernel, Mode::Cable],
    }
}

/// Prints a SKIP to the real standard error: the harness captures `eprintln!` of tests that pass.
pub(crate) fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIP apps: {what}");
}

/// Waits until `ready` is true, looking every few milliseconds, no longer than [`PATIENCE`].
pub(crate) fn until(what: &str, mut ready: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !ready()? {
        if Instant::now() > deadline {
            return Err(format!("waited {} s for: {what}", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// An error unless `found` holds.
pub(crate) fn expect(found: bool, what: impl FnOnce() -> String) -> Outcome {
    if found { Ok(()) } else { Err(what()) }
}

/// Asks the library of the running server `pid`, or of its children, whether a connection that is open now is
/// carried by rings, or by the stack where there is a cable. Without accel there is nothing to ask.
pub(crate) fn accelerated(run: &Run, pid: u32) -> Outcome {
    if !run.mode.is_accelerated() {
        return Ok(());
    }
    let mut seen = String::new();
    for pid in std::iter::once(pid).chain(children(pid)) {
        let reader = match driver::cards::Reader::open(pid) {
            Ok(reader) => reader,
            Err(why) => {
                seen += &format!("\n  process {pid}: {why}");
                continue;
            }
        };
        let totals = reader.header();
        let reasons: Vec<_> = totals.reasons.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        seen +=
            &format!("\n  process {pid}: {}/{} upgraded, {reasons:?}", totals.upgraded, totals.candidates);
        for socket in reader.sockets() {
            // The table is the whole family's: what another process of it did proves nothing of this one.
            let held = socket.holders.iter().any(|holder| u32::try_from(*holder) == Ok(pid));
            let is_carried = if run.hosts.is_some() {
                socket.path == driver::cards::Path::Stack
            } else {
                socket.counts.ring_sends + socket.counts.ring_receives > 0
            };
            if held && is_carried {
                return Ok(());
            }
            seen += &format!("\n  process {pid}: {socket:?}");
        }
    }
    Err(format!("nothing was carried:{seen}"))
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The full name of a file beside these tests.
pub(crate) fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/scripts").join(name).display().to_string()
}

/// Debian's Python where there is one: another build may be linked in its own way.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program is, or `None`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).exists().then(|| PathBuf::from(program));
    }
    let inherited = std::env::var("PATH").unwrap_or_default();
    SEARCH
        .split(':')
        .chain(inherited.split(':'))
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.exists())
}

/// What is tested: its file, its package, and the variable that names another file.
const PARTS: [(&str, &str, &str); 2] =
    [("libaccel.so", "accel-shim", "ACCEL_LIB"), ("accel", "accel-tools", "ACCEL_BIN")];

/// A directory with copies of the library and the command that every user can read, made once per test process after a build that is up
/// to date.
fn copies() -> &'static Path {
    static COPIES_MADE: OnceLock<PathBuf> = OnceLock::new();
    COPIES_MADE.get_or_init(|| {
        let open = |path: &Path| {
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, readable).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        };
        remove_copies_of_the_dead();
        let dir = std::env::temp_dir().join(format!("{COPIES}{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        open(&dir);
        for (name, package, variable) in PARTS {
            let built = std::env::var_os(variable).map_or_else(|| build(package, name), PathBuf::from);
            std::fs::copy(&built, dir.join(name)).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
            open(&dir.join(name));
        }
        dir
    })
}

/// The library that is tested.
pub(crate) fn library() -> PathBuf {
    copies().join(PARTS[0].0)
}

/// The command that is tested.
pub(crate) fn command_line() -> PathBuf {
    copies().join(PARTS[1].0)
}

/// Name of the directories with copies, before the process id.
const COPIES: &str = "accel-apps-";

/// A test process has no last moment of its own: the next one removes what it left.
fn remove_copies_of_the_dead() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix(COPIES)
            && pid.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// `cargo test` does not build another package's files; cargo itself knows whether there is anything to do.
fn build(package: &str, file: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("this test has a file");
    let profile = exe.parent().and_then(Path::parent).expect("tests lie in TARGET/PROFILE/deps");
    let target = profile.parent().expect("profiles lie in the target directory");
    // Those of the profile `tests` load what is shipped.
    let is_release = profile.file_name().is_some_and(|name| name == "release" || name == "tests");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--target-dir"]).arg(target);
    if is_release {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "building {file} failed: {status}");
    target.join(if is_release { "release" } else { "debug" }).join(file)
}
