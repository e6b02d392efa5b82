//! Processes: started in a group of their own, waited for with a limit, stopped by their own id.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Outcome, PATIENCE, until};

/// What a command left when it ended.
pub(crate) struct Output {
    pub(crate) what: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    /// What it printed, or an error unless it exited with 0.
    pub(crate) fn checked(self) -> Outcome<String> {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        if self.status.success() {
            return Ok(text);
        }
        Err(format!("{}: {}; {}{}", self.what, self.status, tail(&text), tail(&self.stderr)))
    }
}

/// Runs a command to its end, or for [`PATIENCE`].
pub(crate) fn run(mut command: Command, input: Option<&[u8]>, dir: &Path) -> Outcome<Output> {
    let what = describe(&command);
    let (stdout, stderr) = (scratch(dir), scratch(dir));
    command.stdout(share(&stdout)).stderr(share(&stderr)).stdin(match input {
        Some(bytes) => Stdio::from(filled(dir, bytes)),
        None => Stdio::null(),
    });
    let mut process = Process::spawn(command)?;
    let status = process.wait(PATIENCE).ok_or_else(|| {
        process.kill();
        format!("{what}: still running after {} s; {}", PATIENCE.as_secs(), tail(&text_of(&stderr)))
    })?;
    Ok(Output { what, status, stdout: bytes_of(&stdout), stderr: text_of(&stderr) })
}

/// A server: its output goes to a log, and it must not die before it is told to.
pub(crate) struct Server {
    process: Process,
    log: File,
    what: String,
}

impl Server {
    pub(crate) fn start(mut command: Command, dir: &Path) -> Outcome<Self> {
        let what = describe(&command);
        let log = scratch(dir);
        command.stdin(Stdio::null()).stdout(share(&log)).stderr(share(&log));
        Ok(Self { process: Process::spawn(command)?, log, what })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        text_of(&self.log)
    }

    /// Asks until somebody answers at the port.
    pub(crate) fn wait_for_port(&mut self, port: u16, answers: impl Fn() -> bool) -> Outcome {
        until(&format!("{} to listen on {port}", self.what), || {
            self.is_alive()?;
            Ok(answers())
        })
        .map_err(|why| format!("{why}; {}", tail(&self.log())))
    }

    /// Waits until what it has printed satisfies `enough`: for servers that a connection to probe them would disturb.
    pub(crate) fn wait_for_log(&mut self, what: &str, enough: impl Fn(&str) -> bool) -> Outcome {
        until(&format!("{}: {what}", self.what), || {
            self.is_alive()?;
            Ok(enough(&self.log()))
        })
        .map_err(|why| format!("{why}; {}", tail(&self.log())))
    }

    /// An error if it ended by itself.
    pub(crate) fn is_alive(&mut self) -> Outcome {
        match self.process.wait(Duration::ZERO) {
            None => Ok(()),
            Some(status) => Err(format!("{} ended by itself: {status}; {}", self.what, tail(&self.log()))),
        }
    }

    /// Tells it to end with SIGTERM; an error if it crashed, if one of its children did, or if it does not end.
    pub(crate) fn stop(self) -> Outcome {
        self.stop_by(libc::SIGTERM)
    }

    /// As [`Server::stop`], by the signal that this server takes for an orderly end.
    pub(crate) fn stop_by(mut self, signal: i32) -> Outcome {
        self.is_alive()?;
        self.process.signal(signal);
        let Some(status) = self.process.wait(Duration::from_secs(20)) else {
            self.process.kill();
            return Err(format!("{} did not end on signal {signal}; {}", self.what, tail(&self.log())));
        };
        let log = self.log();
        let crashed = status.signal().is_some_and(|by| by != signal)
            || CRASHES.iter().any(|words| log.to_lowercase().contains(words));
        if crashed { Err(format!("{}: {status}; {}", self.what, tail(&log))) } else { Ok(()) }
    }
}

/// How servers tell of a dead child, and how our library would tell of itself.
const CRASHES: [&str; 6] = [
    "exited on signal",
    "was terminated by signal",
    "segmentation fault",
    "core dumped",
    "panicked at",
    "fatal error has been detected by the java",
];

/// A client that stays: the test writes to it and reads what it prints.
pub(crate) struct Client {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: File,
    stderr: File,
    what: String,
}

impl Client {
    pub(crate) fn start(mut command: Command, dir: &Path) -> Outcome<Self> {
        let what = describe(&command);
        let (stdout, stderr) = (scratch(dir), scratch(dir));
        command.stdin(Stdio::piped()).stdout(share(&stdout)).stderr(share(&stderr));
        let mut process = Process::spawn(command)?;
        let stdin = process.child.stdin.take();
        Ok(Self { process, stdin, stdout, stderr, what })
    }

    pub(crate) fn write(&mut self, text: &str) -> Outcome {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        stdin.write_all(text.as_bytes()).map_err(|e| format!("{}: standard input: {e}", self.what))
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        text_of(&self.stdout)
    }

    /// Waits until what it printed satisfies `enough`.
    pub(crate) fn wait_for(&mut self, what: &str, enough: impl Fn(&str) -> bool) -> Outcome {
        until(&format!("{}: {what}", self.what), || {
            let ended = self.process.wait(Duration::ZERO);
            match (enough(&text_of(&self.stdout)), ended) {
                (true, _) => Ok(true),
                (false, None) => Ok(false),
                (false, Some(status)) => Err(format!("{} ended early: {status}", self.what)),
            }
        })
        .map_err(|why| format!("{why}; {}{}", tail(&text_of(&self.stdout)), tail(&text_of(&self.stderr))))
    }

    /// Closes its standard input and waits for its end; any exit status but 0 is an error.
    pub(crate) fn finish(mut self) -> Outcome<String> {
        drop(self.stdin.take());
        let Some(status) = self.process.wait(PATIENCE) else {
            self.process.kill();
            return Err(format!("{}: still running; {}", self.what, tail(&text_of(&self.stderr))));
        };
        let (stdout, stderr) = (bytes_of(&self.stdout), text_of(&self.stderr));
        Output { what: self.what.clone(), status, stdout, stderr }.checked()
    }

    /// Ends a client that would run for ever.
    pub(crate) fn interrupt(mut self) -> Outcome {
        self.process.signal(libc::SIGINT);
        match self.process.wait(Duration::from_secs(20)) {
            Some(status)
                if !matches!(status.signal(), Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS)) =>
            {
                Ok(())
            }
            Some(status) => Err(format!("{}: {status}", self.what)),
            None => Err(format!("{}: does not end on SIGINT", self.what)),
        }
    }
}

/// A child in a group of its own; the whole group dies with the owner.
struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    fn spawn(mut command: Command) -> Outcome<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // A test that is killed takes its servers with it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|e| format!("{}: {e}", describe(&command)))?;
        // SAFETY: pidfd_open takes two numbers; the child is ours and not reaped yet.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or("pidfd_open failed")?;
        // SAFETY: the call above made this descriptor and nothing else owns it.
        Ok(Self { child, pidfd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The exit status, if it ends within `limit`.
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return Some(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let mut end = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let ms = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            // SAFETY: one pollfd, which outlives the call.
            unsafe { libc::poll(&raw mut end, 1, ms) };
        }
    }

    fn group(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are positive ints")
    }

    /// Sends a signal to the process alone, which tells its children itself.
    fn signal(&self, signal: i32) {
        // SAFETY: the process is ours; if it has ended it is not reaped, or kill fails harmlessly.
        unsafe { libc::kill(self.group(), signal) };
    }

    /// Ends the process and what is left of its group.
    fn kill(&mut self) {
        // SAFETY: the group was made by this spawn.
        unsafe { libc::kill(-self.group(), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn describe(command: &Command) -> String {
    let name = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let words: Vec<_> =
        std::iter::once(name(command.get_program())).chain(command.get_args().map(name)).collect();
    let line = words.join(" ");
    let cut = line.char_indices().nth(160).map_or(line.len(), |(at, _)| at);
    line[..cut].to_string()
}

/// The end of what a program printed, for messages.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(12)..];
    if last.is_empty() { String::new() } else { format!("\n  {}", last.join("\n  ")) }
}

/// A new file in `dir` that is open for reading and appending.
fn scratch(dir: &Path) -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = dir.join(format!("output-{}.txt", COUNT.fetch_add(1, Ordering::Relaxed)));
    File::options()
        .create_new(true)
        .read(true)
        .append(true)
        .open(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn filled(dir: &Path, bytes: &[u8]) -> File {
    let mut file = scratch(dir);
    file.write_all(bytes).and_then(|()| file.rewind()).expect("the file is ours");
    file
}

fn share(file: &File) -> Stdio {
    Stdio::from(file.try_clone().expect("a descriptor is free"))
}

/// The whole contents, read without touching the position that is shared with the process that writes.
fn bytes_of(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("the file is open").len();
    let mut bytes = vec![0; usize::try_from(len).expect("outputs are small")];
    file.read_exact_at(&mut bytes, 0).expect("programs append to their outputs");
    bytes
}

fn text_of(file: &File) -> String {
    String::from_utf8_lossy(&bytes_of(file)).into_owned()
}
