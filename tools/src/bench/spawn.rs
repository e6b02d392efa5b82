//! A measured process: started, listened to with a time limit, and always reaped.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sock;

/// How often a wait looks for Ctrl-C.
const SLICE: Duration = Duration::from_millis(20);
/// What a polite end may take.
const GRACE: Duration = Duration::from_secs(3);

/// A child process in a process group of its own, which [`Drop`] kills.
pub(crate) struct Process {
    child: Child,
    name: String,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    polite: bool,
    reaped: bool,
}

impl Process {
    /// Starts a worker; it is killed outright when dropped.
    pub(crate) fn start(name: &str, command: Command, cpus: &[usize]) -> Result<Self, String> {
        Self::spawn(name, command, cpus, false)
    }

    /// Starts an application; it gets SIGTERM first, so that it ends its own children.
    pub(crate) fn start_application(name: &str, command: Command, cpus: &[usize]) -> Result<Self, String> {
        Self::spawn(name, command, cpus, true)
    }

    fn spawn(name: &str, mut command: Command, cpus: &[usize], polite: bool) -> Result<Self, String> {
        sock::prepare(&mut command, cpus, if polite { libc::SIGTERM } else { libc::SIGKILL });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name}: cannot start: {error}"))?;
        let lines = child.stdout.take().map(read_lines).ok_or("no standard output")?;
        let errors = child.stderr.take().map(collect).ok_or("no standard error")?;
        Ok(Self { child, name: name.to_owned(), lines, errors, polite, reaped: false })
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String, String> {
        match self.next_line(limit)? {
            Some(line) => Ok(line),
            None => {
                let status = self.wait(GRACE)?;
                Err(self.failure(&format!("ended early ({status})")))
            }
        }
    }

    /// Waits until a line of standard output holds `mark`.
    pub(crate) fn line_with(&mut self, mark: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.line(left)?.contains(mark) {
                return Ok(());
            }
        }
    }

    /// The next line as JSON.
    pub(crate) fn json(&mut self, limit: Duration) -> Result<Value, String> {
        let line = self.line(limit)?;
        serde_json::from_str(&line).map_err(|error| self.failure(&format!("said {line:?}: {error}")))
    }

    /// Everything that it prints until it ends, which must be with status 0.
    pub(crate) fn output(&mut self, limit: Duration) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        let mut all = String::new();
        while let Some(line) = self.next_line(deadline.saturating_duration_since(Instant::now()))? {
            all.push_str(&line);
            all.push('\n');
        }
        let status = self.wait(deadline.saturating_duration_since(Instant::now()).max(GRACE))?;
        if status.success() { Ok(all) } else { Err(self.failure(&format!("failed ({status})"))) }
    }

    /// Whether it still runs; an error says how it ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), String> {
        if !sock::has_ended(self.child.id()) {
            return Ok(());
        }
        let status = self.reap()?;
        Err(self.failure(&format!("ended early ({status})")))
    }

    /// Processor time of all its threads so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration, String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let entries = std::fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        let mut total = 0;
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            total += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
        if total == 0 {
            Err("no /proc/PID/task/TID/schedstat here".to_owned())
        } else {
            Ok(Duration::from_nanos(total))
        }
    }

    /// What it wrote to standard error.
    pub(crate) fn complaints(&self) -> String {
        self.errors.lock().map(|text| text.clone()).unwrap_or_default()
    }

    fn next_line(&self, limit: Duration) -> Result<Option<String>, String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(SLICE) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if sock::interrupted() => return Err("interrupted".to_owned()),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.failure("no answer in time")),
            }
        }
    }

    /// Waits for the end.
    fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        while !self.reaped && !sock::has_ended(self.child.id()) {
            if Instant::now() >= deadline {
                return Err(self.failure("did not end"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reap()
    }

    /// Kills what is left of the group and reaps its leader. In this order: until the leader is reaped its
    /// number, which is the group's, cannot belong to anyone else.
    fn reap(&mut self) -> Result<ExitStatus, String> {
        if !self.reaped {
            sock::signal_group(self.child.id(), libc::SIGKILL);
            self.reaped = true;
        }
        self.child.wait().map_err(|error| format!("{}: wait: {error}", self.name))
    }

    /// The message of a failure, with the end of what the process complained about.
    fn failure(&self, what: &str) -> String {
        // The thread that collects standard error may be a moment behind the one that saw the end.
        std::thread::sleep(SLICE);
        let complaints = self.complaints();
        let last: Vec<&str> = complaints.lines().rev().take(3).collect();
        match last.is_empty() {
            true => format!("{}: {what}", self.name),
            false => {
                format!("{}: {what}: {}", self.name, last.into_iter().rev().collect::<Vec<_>>().join(" | "))
            }
        }
    }
}

/// What the library has said in any process, each line once.
static REMARKS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remarks that are kept at most.
const REMARKS_MOST: usize = 10;

/// The lines that libaccel.so wrote to the standard error of measured processes.
pub(crate) fn remarks() -> Vec<String> {
    REMARKS.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
}

fn note_remarks(text: &str) {
    let Ok(mut remarks) = REMARKS.lock() else { return };
    for line in text.lines().filter(|line| line.starts_with("accel")) {
        if remarks.len() < REMARKS_MOST {
            remarks.insert(line.to_owned());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        note_remarks(&self.complaints());
        if self.polite && !self.reaped {
            sock::signal_group(self.child.id(), libc::SIGTERM);
            let _ = self.wait(GRACE);
        }
        let _ = self.reap();
    }
}

fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Collects the first 64 KiB; the rest is read and dropped, so that the writer never blocks.
fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    const MOST: usize = 64 << 10;
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Ok(mut text) = shared.lock()
                && text.len() < MOST
            {
                text.push_str(&line);
                text.push('\n');
            }
        }
    });
    text
}
