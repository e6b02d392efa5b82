//! A network namespace without a name: it ends with the last descriptor of it, also when the test was killed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use super::sys;

/// The namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, whose loopback is up.
    ///
    /// # Errors
    /// EPERM without the rights of root.
    pub fn new() -> io::Result<Self> {
        let made = thread::spawn(|| {
            sys::unshare_network()?;
            sys::set_up("lo")?;
            // An address is usable at once: nobody else is there.
            for who in ["all", "default"] {
                fs::write(format!("/proc/sys/net/ipv6/conf/{who}/accept_dad"), "0")?;
            }
            File::open("/proc/thread-self/ns/net")
        });
        Ok(Self { file: joined(made)? })
    }

    /// Starts a thread in it.
    pub fn spawn<R: Send + 'static>(&self, act: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let file = self.file.try_clone().expect("a descriptor");
        thread::spawn(move || {
            sys::enter_network(file.as_fd()).expect("the namespace that was just made");
            act()
        })
    }

    /// Does something in it.
    pub fn inside<R: Send + 'static>(&self, act: impl FnOnce() -> R + Send + 'static) -> R {
        joined(self.spawn(act))
    }

    /// Sets a sysctl, by its name with slashes: `net/ipv4/tcp_sack`.
    pub fn set(&self, name: &str, value: &str) {
        let (path, text) = (format!("/proc/sys/{name}"), value.to_owned());
        let done = self.inside(move || fs::write(path, text));
        assert!(done.is_ok(), "{name} = {value}: {done:?}");
    }

    /// The sum of a counter of /proc/net/netstat or /proc/net/snmp, such as `TcpExt`'s `TCPLostRetransmit`.
    #[must_use]
    pub fn counter(&self, name: &'static str) -> u64 {
        self.inside(move || {
            let files = ["/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"];
            let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
            let lines: Vec<&str> = text.lines().collect();
            lines
                .chunks(2)
                .filter_map(|pair| {
                    let at = pair[0].split(' ').position(|word| word == name)?;
                    pair.get(1)?.split(' ').nth(at)?.parse::<u64>().ok()
                })
                .sum()
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What a thread returned; its panic is ours.
pub fn joined<R>(thread: JoinHandle<R>) -> R {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The kernel's program reads until the end, and writes all of this meanwhile.
pub fn kernel_talks(stream: &TcpStream, text: &[u8]) -> JoinHandle<Vec<u8>> {
    let (mut reads, mut writes) =
        (stream.try_clone().expect("a stream"), stream.try_clone().expect("a stream"));
    let text = text.to_vec();
    let writing = thread::spawn(move || {
        writes.write_all(&text).expect("the kernel sends");
        writes.shutdown(Shutdown::Write).expect("the kernel has sent");
    });
    thread::spawn(move || {
        let mut got = Vec::new();
        reads.read_to_end(&mut got).expect("the kernel receives");
        joined(writing);
        got
    })
}
