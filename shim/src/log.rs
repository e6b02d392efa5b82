//! What the library says about itself: few lines, each at most once, never on the data path.
//!
//! A line is formatted in a buffer on the stack and written by one direct system call, so it can be written
//! from anywhere: before libc is ready, in a fork child, with a lock held. A program may close descriptor 2 and
//! get the number back for a socket or a database: only the file that was there at start-up is written to.
//! The log file is opened for each line, for a program may close every descriptor it finds.

use crate::config::config;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use driver::sys;
use libc::{O_APPEND, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY, S_IFMT, S_IFREG};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Off,
    Warn,
    Info,
    Debug,
}

/// Device and inode of descriptor 2 at start-up; 0 if it was closed.
static STDERR: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn identity(fd: i32) -> Option<[u64; 2]> {
    sys::fstat(fd).ok().map(|stat| [stat.st_dev, stat.st_ino])
}

/// At start-up: which file standard error is.
pub(crate) fn start() {
    let [device, inode] = identity(2).unwrap_or_default();
    STDERR[0].store(device, Relaxed);
    STDERR[1].store(inode, Relaxed);
}

/// Longest line.
const LINE: usize = 1024;

struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is kept for the newline; what does not fit is left out.
        let room = &mut self.bytes[self.length..LINE - 1];
        let fits = text.len().min(room.len());
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        Ok(())
    }
}

fn line(message: fmt::Arguments<'_>) -> Line {
    let mut line = Line { bytes: [0; LINE], length: 0 };
    // Writing to the buffer cannot fail; a `Display` that does leaves a shorter line.
    let _ = write!(line, "accel: {message}");
    line.bytes[line.length] = b'\n';
    line.length += 1;
    line
}

fn write_to(fd: i32, line: &Line) {
    // SAFETY: the bytes are live and `length` counts them.
    let _ = unsafe { sys::write(fd, line.bytes.as_ptr().cast(), line.length) };
}

/// Opens the log file, if it is a plain file of this user that nobody else's link leads to.
fn log_file(path: &core::ffi::CStr) -> Option<sys::Fd> {
    let flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    let file = sys::open(path, flags, 0o600).ok()?;
    let stat = sys::fstat(file.raw()).ok()?;
    let is_ours = stat.st_mode & S_IFMT == S_IFREG && stat.st_uid == sys::geteuid() && stat.st_nlink == 1;
    is_ours.then_some(file)
}

/// Writes one line whatever the level is.
fn say(message: fmt::Arguments<'_>) {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    let line_ = line(message);
    if let Some(path) = config().log_file {
        if let Some(file) = log_file(path) {
            return write_to(file.raw(), &line_);
        }
        if !REFUSED.swap(true, Relaxed) {
            let refusal = format_args!(
                "ACCEL_LOG_FILE={}: not a plain file of this user",
                path.to_bytes().escape_ascii()
            );
            write_to_stderr(&line(refusal));
        }
    }
    write_to_stderr(&line_);
}

fn write_to_stderr(line: &Line) {
    let known = [STDERR[0].load(Relaxed), STDERR[1].load(Relaxed)];
    if known != [0, 0] && identity(2) == Some(known) {
        write_to(2, line);
    }
}

/// Writes the line if `ACCEL_LOG` asks for this much.
#[cold]
pub(crate) fn at(level: Level, message: fmt::Arguments<'_>) {
    if config().log >= level {
        say(message);
    }
}

/// Something that the user should know.
pub(crate) fn warn(message: fmt::Arguments<'_>) {
    at(Level::Warn, message);
}

/// A message that a process writes once: `static SAID: Once`, at the place that has the reason.
#[derive(Debug)]
pub(crate) struct Once(AtomicBool);

impl Once {
    /// Not said yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Writes the line if it is the first and `ACCEL_LOG` asks for this much.
    pub(crate) fn at(&self, level: Level, message: fmt::Arguments<'_>) {
        if !self.0.load(Relaxed) && !self.0.swap(true, Relaxed) {
            at(level, message);
        }
    }

    /// Something that explains what accel does, once.
    pub(crate) fn info(&self, message: fmt::Arguments<'_>) {
        self.at(Level::Info, message);
    }
}

/// At start-up: a panic of accel's own code ends the program with one line, before anything unwinds into C.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        say(format_args!("bug, please report: {panic}"));
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_prefix_and_its_newline_and_never_overflows() {
        let short = line(format_args!("{} of {}", 1, 2));
        assert_eq!(&short.bytes[..short.length], b"accel: 1 of 2\n");
        let long = line(format_args!("{}", "x".repeat(5000)));
        assert_eq!(long.length, LINE);
        assert_eq!(long.bytes[LINE - 1], b'\n');
    }

    #[test]
    fn a_log_file_is_never_a_link_a_fifo_or_a_device() {
        let directory = std::env::temp_dir().join(format!("accel-log-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = |name: &str| std::ffi::CString::new(directory.join(name).to_str().unwrap()).unwrap();
        assert!(log_file(&path("plain")).is_some(), "made");
        assert!(log_file(&path("plain")).is_some(), "and found again");
        std::os::unix::fs::symlink(directory.join("plain"), directory.join("symlink")).unwrap();
        assert!(log_file(&path("symlink")).is_none());
        std::fs::hard_link(directory.join("plain"), directory.join("link")).unwrap();
        assert!(log_file(&path("link")).is_none());
        // SAFETY: a live path.
        assert_eq!(unsafe { libc::mkfifo(path("fifo").as_ptr(), 0o600) }, 0);
        assert!(log_file(&path("fifo")).is_none());
        assert!(log_file(c"/dev/null").is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
