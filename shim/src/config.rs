//! The options of this process, read from the environment once.
//!
//! Reading them later is a load and a test. Whoever asks while they are being read (an allocator that opens
//! files through our exports) is told that everything is off.

use crate::{environment, errno, log};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use log::Level;
use rows::options::{FOR_TESTS, Id, OPTIONS, PortSet, Value, by_name};
use std::ffi::CString;

/// When a waiting call spins before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spin {
    /// Where recent waits were short and a core is free.
    Adapt,
    /// Always, for the whole time.
    Hard,
    /// Never.
    Never,
}

/// Every option, typed. The meanings are in `rows::options`.
#[derive(Debug)]
pub(crate) struct Config {
    /// `ACCEL`: false leaves every call to libc.
    pub accel: bool,
    pub local: bool,
    pub local_after: u32,
    pub local_after_usec: u64,
    /// A power of two.
    pub local_ring: usize,
    pub local_memory: u64,
    pub local_coalesce_nsec: u64,
    /// `ACCEL_LOCAL_PEERS=any`.
    pub any_peer: bool,
    pub spin: Spin,
    pub spin_usec: u64,
    pub spin_recv: bool,
    pub spin_send: bool,
    pub spin_epoll: bool,
    pub spin_poll: bool,
    pub spin_select: bool,
    pub keep_env: bool,
    /// `ACCEL_IO_URING=refuse`.
    pub refuses_io_uring: bool,
    /// `ACCEL_INTERFACES`: what accel drives.
    pub interfaces: Option<&'static str>,
    pub log: Level,
    pub log_file: Option<&'static CStr>,
    pub stats_file: Option<&'static CStr>,
    /// `None` until the options are read.
    ports: Option<PortSet>,
    ports_exclude: Option<PortSet>,
}

impl Config {
    const OFF: Self = Self {
        accel: false,
        local: false,
        local_after: u32::MAX,
        local_after_usec: 0,
        local_ring: 64 << 10,
        local_memory: 0,
        local_coalesce_nsec: 0,
        any_peer: false,
        spin: Spin::Never,
        spin_usec: 0,
        spin_recv: false,
        spin_send: false,
        spin_epoll: false,
        spin_poll: false,
        spin_select: false,
        keep_env: false,
        refuses_io_uring: false,
        interfaces: None,
        log: Level::Off,
        log_file: None,
        stats_file: None,
        ports: None,
        ports_exclude: None,
    };

    /// Whether a connection between these two ports may be accelerated.
    #[must_use]
    pub(crate) fn carries(&self, one: u16, other: u16) -> bool {
        let holds =
            |set: &Option<PortSet>| set.as_ref().is_some_and(|set| set.contains(one) || set.contains(other));
        holds(&self.ports) && !holds(&self.ports_exclude)
    }

    /// The same when only the remote port is known yet: whatever the local one will be.
    #[must_use]
    pub(crate) fn carries_to(&self, remote: u16) -> bool {
        self.carries(remote, remote) && self.ports_exclude.as_ref().is_some_and(PortSet::is_empty)
    }
}

struct Shared(UnsafeCell<Config>);

// SAFETY: written only in state READING, by the one thread that set it; read only in state READY.
unsafe impl Sync for Shared {}

static CONFIG: Shared = Shared(UnsafeCell::new(Config::OFF));
static OFF: Config = Config::OFF;
static STATE: AtomicU8 = AtomicU8::new(UNREAD);
const UNREAD: u8 = 0;
const READING: u8 = 1;
const READY: u8 = 2;

/// The options.
#[inline]
#[must_use]
pub(crate) fn config() -> &'static Config {
    if STATE.load(Acquire) == READY {
        // SAFETY: READY is the last state; nobody writes any more.
        return unsafe { &*CONFIG.0.get() };
    }
    first_use()
}

#[cold]
fn first_use() -> &'static Config {
    if STATE.compare_exchange(UNREAD, READING, Relaxed, Relaxed).is_err() {
        return if STATE.load(Acquire) == READY { config() } else { &OFF };
    }
    errno::kept(|| {
        log::start();
        // SAFETY: only queries the auxiliary vector.
        let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
        let mut complaints = Vec::new();
        if !is_secure {
            // SAFETY: the program's environment.
            let environment = unsafe { environment::strings(environment::current()) };
            let read = read(environment, &mut complaints);
            // SAFETY: this thread set READING, and nobody reads before READY.
            unsafe { *CONFIG.0.get() = read };
        }
        STATE.store(READY, Release);
        for complaint in complaints {
            log::warn(format_args!("{complaint}"));
        }
    });
    config()
}

/// Reads the options from the strings of an environment.
fn read<'a>(environment: impl Iterator<Item = &'a CStr>, complaints: &mut Vec<String>) -> Config {
    let mut texts: [Option<&str>; OPTIONS.len()] = [None; OPTIONS.len()];
    for string in environment.filter(|string| string.to_bytes().starts_with(b"ACCEL")) {
        let bytes = string.to_bytes();
        let split = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        let (name, value) = (&bytes[..split], bytes.get(split + 1..).unwrap_or_default());
        let for_tests = FOR_TESTS.iter().any(|known| known.as_bytes() == name);
        if name != b"ACCEL" && !name.starts_with(b"ACCEL_") || for_tests {
            continue;
        }
        let Some(row) = str::from_utf8(name).ok().and_then(by_name) else {
            complaints.push(format!("{}: no such option; `accel --help` lists them", name.escape_ascii()));
            continue;
        };
        let index = OPTIONS.iter().position(|other| other.name == row.name).unwrap_or_default();
        match str::from_utf8(value) {
            // The first of two equal names counts, as for getenv.
            Ok(text) if row.parse(text).is_some() => texts[index] = texts[index].or(Some(text)),
            _ => complaints.push(format!(
                "{}={}: must be {}; using {}",
                row.name,
                value.escape_ascii(),
                row.allowed(),
                if row.default.is_empty() { "none" } else { row.default },
            )),
        }
    }
    let text = |id: Id| texts[id as usize].unwrap_or(id.row().default);
    let value = |id: Id| id.row().parse(text(id));
    let on = |id| value(id) == Some(Value::Bool(true));
    let number = |id| if let Some(Value::Number(number)) = value(id) { number } else { 0 };
    let choice = |id| if let Some(Value::Choice(index)) = value(id) { index } else { 0 };
    let ports = |id| if let Some(Value::Ports(set)) = value(id) { Some(set) } else { None };
    Config {
        accel: on(Id::Accel),
        local: on(Id::Local),
        local_after: number(Id::LocalAfter) as u32,
        local_after_usec: number(Id::LocalAfterUsec),
        local_ring: (number(Id::LocalRing) as usize).next_power_of_two(),
        local_memory: number(Id::LocalMemory),
        local_coalesce_nsec: number(Id::LocalCoalesceNsec),
        any_peer: choice(Id::LocalPeers) == 1,
        spin: [Spin::Adapt, Spin::Hard, Spin::Never][choice(Id::Spin)],
        spin_usec: number(Id::SpinUsec),
        spin_recv: on(Id::SpinRecv),
        spin_send: on(Id::SpinSend),
        spin_epoll: on(Id::SpinEpoll),
        spin_poll: on(Id::SpinPoll),
        spin_select: on(Id::SpinSelect),
        keep_env: on(Id::KeepEnv),
        refuses_io_uring: choice(Id::IoUring) == 1,
        log: [Level::Off, Level::Warn, Level::Info, Level::Debug][choice(Id::Log)],
        interfaces: kept(text(Id::Interfaces)),
        log_file: path(text(Id::LogFile)),
        stats_file: path(text(Id::StatsFile)),
        ports: ports(Id::Ports),
        ports_exclude: ports(Id::PortsExclude),
    }
}

/// The text; lives as long as the process.
fn kept(text: &str) -> Option<&'static str> {
    (!text.is_empty()).then(|| &*Box::leak(text.to_owned().into_boxed_str()))
}

/// The path as it is from the working directory of the start; lives as long as the process.
fn path(text: &str) -> Option<&'static CStr> {
    if text.is_empty() {
        return None;
    }
    let absolute = std::path::absolute(text).ok()?;
    let path = CString::new(absolute.into_os_string().into_encoded_bytes()).ok()?;
    Some(Box::leak(path.into_boxed_c_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(strings: &[&'static CStr]) -> (Config, Vec<String>) {
        let mut complaints = Vec::new();
        let config = read(strings.iter().copied(), &mut complaints);
        (config, complaints)
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let (config, complaints) = read_from(&[c"PATH=/bin", c"ACCELERATOR=x"]);
        assert!(config.accel && config.local && config.keep_env && complaints.is_empty());
        assert!(!config.refuses_io_uring);
        assert_eq!((config.local_after, config.local_ring, config.spin), (16, 256 << 10, Spin::Adapt));
        assert_eq!((config.log, config.log_file), (Level::Warn, None));
    }

    #[test]
    fn values_are_read_and_the_ring_is_a_power_of_two() {
        let (config, complaints) =
            read_from(&[c"ACCEL=0", c"ACCEL_SPIN=hard", c"ACCEL_LOCAL_RING=100K", c"ACCEL_LOG_FILE=/tmp/x"]);
        assert!(!config.accel && complaints.is_empty());
        assert_eq!(
            (config.spin, config.local_ring, config.log_file),
            (Spin::Hard, 128 << 10, Some(c"/tmp/x"))
        );
    }

    #[test]
    fn unknown_names_and_bad_values_are_named_and_change_nothing() {
        let (config, complaints) = read_from(&[c"ACCEL_SPINN=1", c"ACCEL_SPIN=often", c"ACCEL_PORTS=\xff"]);
        assert_eq!(config.spin, Spin::Adapt);
        assert!(config.carries(1, 65535));
        let expected = [
            "ACCEL_SPINN: no such option; `accel --help` lists them",
            "ACCEL_SPIN=often: must be one of adapt, hard, never; using adapt",
            "ACCEL_PORTS=\\xff: must be ports and ranges such as 80,443,8000-8100; using 1-65535",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn either_end_may_be_on_a_port_that_is_listed_and_neither_on_one_that_is_excluded() {
        let (config, _) = read_from(&[c"ACCEL_PORTS=80,6379", c"ACCEL_PORTS_EXCLUDE=6379"]);
        assert!(config.carries(40000, 80) && config.carries(80, 40000));
        assert!(!config.carries(40000, 81) && !config.carries(6379, 80));
    }
}
