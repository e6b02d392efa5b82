//! One row per option: its variable, its profile key, type, default, range and meaning.

/// How an option's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `1`/`0`, `on`/`off`, `true`/`false`, `yes`/`no`.
    Bool,
    /// A whole number between the two bounds; bytes also take the suffixes `K`, `M`, `G`.
    Number { min: u64, max: u64, unit: &'static str },
    /// One of the words.
    Choice(&'static [&'static str]),
    /// Comma-separated ports and ranges: `80,443,8000-8100`. Empty is the empty list.
    Ports,
    /// Any text (a path, a name).
    Text,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The environment variable. The profile key is the same without `ACCEL_`, in lower case.
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// The name of the same idea in Onload, or "".
    pub onload: &'static str,
}

macro_rules! options {
    ($($id:ident $name:literal $kind:expr, $default:literal, $onload:literal, $doc:literal;)*) => {
        /// Index of each option in [`OPTIONS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Id { $($id),* }

        /// Every option that accel knows.
        pub const OPTIONS: &[Row] = &[
            $(Row { name: $name, kind: $kind, default: $default, doc: $doc, onload: $onload }),*
        ];
    };
}

use Kind::{Bool, Choice, Number, Ports, Text};

options! {
    Accel "ACCEL" Bool, "on", "EF_TCP", "off: every call goes straight to libc, as if accel were not loaded.";
    Local "ACCEL_LOCAL" Bool, "on", "EF_TCP_CLIENT_LOOPBACK", "Carry TCP connections between programs of this host through shared memory.";
    LocalAfter "ACCEL_LOCAL_AFTER" Number { min: 0, max: 1_000_000, unit: "messages" }, "16", "", "A connection is upgraded after it has carried this many messages; 0 upgrades at its first call; where both ends say so, even one that is over after a message.";
    LocalAfterUsec "ACCEL_LOCAL_AFTER_USEC" Number { min: 0, max: 1_000_000, unit: "microseconds" }, "200", "", "And not before this long after its first message, unless ACCEL_LOCAL_AFTER is 0: an upgrade takes some 70 µs of both programs' time, which a short connection does not bring in again.";
    LocalRing "ACCEL_LOCAL_RING" Number { min: 16 << 10, max: 16 << 20, unit: "bytes" }, "256K", "EF_TCP_SNDBUF", "Size of the ring of one direction of a connection; rounded up to a power of two. The connecting side decides.";
    LocalMemory "ACCEL_LOCAL_MEMORY" Number { min: 0, max: 1 << 40, unit: "bytes" }, "1G", "EF_MAX_PACKETS", "Most memory that a program may hold in rings, and never more than a quarter of what its memory cgroup allows; further connections stay on the kernel.";
    LocalPeers "ACCEL_LOCAL_PEERS" Choice(&["same-user", "any"]), "same-user", "EF_SHARE_WITH", "Whose programs may share memory with this one; `any` must be set on both sides.";
    LocalCoalesceNsec "ACCEL_LOCAL_COALESCE_NSEC" Number { min: 0, max: 100_000, unit: "nanoseconds" }, "2000", "", "A reader that sends nothing itself, and whose last 32 waits were all shorter than 2 µs, leaves the sender alone for so long: the small messages of a busy stream then cost less each. It stops where that brings no more than a few. 0 never does.";
    Interfaces "ACCEL_INTERFACES" Text, "", "EF_INTERFACE_WHITELIST", "Interfaces, by name and separated by commas, whose TCP and UDP sockets accel's own stack carries over AF_XDP. The launcher needs rights for that (`accel doctor`), the program none.";
    BypassFirewall "ACCEL_BYPASS_FIREWALL" Text, "", "", "Interfaces that are driven although there are rules of nftables, iptables or tc: AF_XDP takes packets past all of them. If accel has its rights by file capabilities, only /etc/accel/accel.toml can say so.";
    Frames "ACCEL_FRAMES" Number { min: 1024, max: 1 << 22, unit: "frames" }, "16384", "EF_MAX_PACKETS", "Packet buffers of an interface, of 2 or 4 KiB each, for all programs of a user. Who starts the first of them decides.";
    ClientPorts "ACCEL_CLIENT_PORTS" Number { min: 0, max: 16_384, unit: "ports" }, "1024", "EF_TCP_SHARED_LOCAL_PORTS", "Ports of an interface's client connections: a block that the kernel gives to nobody else. A port serves one connection to each destination. Who starts the first program decides.";
    Watchdog "ACCEL_WATCHDOG" Number { min: 0, max: 3600, unit: "seconds" }, "10", "", "If packets wait for so long and no program takes them, though not all are stopped, the interface is given back to the kernel. 0 never does.";
    Ports "ACCEL_PORTS" Ports, "1-65535", "", "Only connections with one end on these ports are accelerated.";
    PortsExclude "ACCEL_PORTS_EXCLUDE" Ports, "", "", "Connections with either end on these ports stay on the kernel.";
    Spin "ACCEL_SPIN" Choice(&["adapt", "hard", "never"]), "adapt", "EF_POLL_USEC", "adapt: spin before sleeping where recent waits were short, give the core away at every look where more threads want to run than there are cores, and stop where one keeps it. hard: always spin for the whole time. never: sleep. On its peer's own core a waiting thread yields a few times first, always.";
    SpinUsec "ACCEL_SPIN_USEC" Number { min: 0, max: 1_000_000_000, unit: "microseconds" }, "200", "EF_SPIN_USEC", "Longest time that one wait spins.";
    SpinRecv "ACCEL_SPIN_RECV" Bool, "on", "EF_TCP_RECV_SPIN", "Blocking receive calls may spin.";
    SpinSend "ACCEL_SPIN_SEND" Bool, "on", "EF_TCP_SEND_SPIN", "Send calls may spin while the ring is full and being read.";
    SpinEpoll "ACCEL_SPIN_EPOLL" Bool, "on", "EF_EPOLL_SPIN", "epoll_wait and its kin may spin.";
    SpinPoll "ACCEL_SPIN_POLL" Bool, "on", "EF_POLL_SPIN", "poll and ppoll may spin.";
    SpinSelect "ACCEL_SPIN_SELECT" Bool, "on", "EF_SELECT_SPIN", "select and pselect may spin.";
    KeepEnv "ACCEL_KEEP_ENV" Bool, "on", "", "Programs started with a cleaned environment get accel's variables back; LD_PRELOAD removed on purpose stays removed.";
    IoUring "ACCEL_IO_URING" Choice(&["allow", "refuse"]), "allow", "", "allow: a program that sets up io_uring has all its sockets on the kernel from then on. refuse: io_uring_setup fails with ENOSYS, as where the kernel lacks it, and libraries such as libuv do without.";
    Log "ACCEL_LOG" Choice(&["off", "warn", "info", "debug"]), "warn", "EF_UNIX_LOG", "What the library writes about itself: warnings only by default, never on the data path.";
    LogFile "ACCEL_LOG_FILE" Text, "", "EF_LOG_FILE", "File that receives the log instead of standard error; it must not exist yet or be a plain file of this user.";
    StatsFile "ACCEL_STATS_FILE" Text, "", "", "File to which each process appends, at its end, its number, its program, how many of its connections could be and were accelerated, and why others were not.";
    Profile "ACCEL_PROFILE" Text, "", "", "Names of the profiles that the launcher applied; shown by `accel explain`.";
}

impl Id {
    /// The option's row.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &OPTIONS[self as usize]
    }
}

/// A value that was read from text.
#[allow(clippy::large_enum_variant)] // read once at start-up; a box would be one more allocation there
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Number(u64),
    Choice(usize),
    Ports(PortSet),
    Text,
}

/// A set of TCP ports, as sorted inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet {
    ranges: [(u16, u16); Self::RANGES_MAX],
    count: usize,
}

impl PortSet {
    /// Most ranges that one list may name.
    pub const RANGES_MAX: usize = 64;

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.ranges[..self.count].iter().any(|&(low, high)| low <= port && port <= high)
    }

    /// Whether it holds no port.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut set = Self { ranges: [(0, 0); Self::RANGES_MAX], count: 0 };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let range = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            if range.0 > range.1 || set.count == Self::RANGES_MAX {
                return None;
            }
            set.ranges[set.count] = range;
            set.count += 1;
        }
        Some(set)
    }
}

impl Row {
    /// Reads the option's value from text; `None` if the text is not one of the allowed values.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self.kind {
            Bool => match text.to_ascii_lowercase().as_str() {
                "1" | "on" | "true" | "yes" => Some(Value::Bool(true)),
                "0" | "off" | "false" | "no" => Some(Value::Bool(false)),
                _ => None,
            },
            Number { min, max, unit } => {
                let (digits, factor) = match text.as_bytes().last() {
                    Some(b'K' | b'k') if unit == "bytes" => (&text[..text.len() - 1], 1 << 10),
                    Some(b'M' | b'm') if unit == "bytes" => (&text[..text.len() - 1], 1 << 20),
                    Some(b'G' | b'g') if unit == "bytes" => (&text[..text.len() - 1], 1 << 30),
                    _ => (text, 1),
                };
                let number = digits.parse::<u64>().ok()?.checked_mul(factor)?;
                (min..=max).contains(&number).then_some(Value::Number(number))
            }
            Choice(words) => words.iter().position(|word| *word == text).map(Value::Choice),
            Ports => PortSet::parse(text).map(Value::Ports),
            Text => Some(Value::Text),
        }
    }

    /// The allowed values, for a message: `a whole number from 0 to 9 (bytes)`.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.kind {
            Bool => "on or off".to_owned(),
            Number { min, max, unit } => format!("a whole number from {min} to {max} ({unit})"),
            Choice(words) => format!("one of {}", words.join(", ")),
            Ports => "ports and ranges such as 80,443,8000-8100".to_owned(),
            Text => "any text".to_owned(),
        }
    }

    /// The key of this option in a profile: `spin_usec` for `ACCEL_SPIN_USEC`.
    #[must_use]
    pub fn key(&self) -> String {
        match self.name.strip_prefix("ACCEL_") {
            Some(rest) => rest.to_ascii_lowercase(),
            None => "enabled".to_owned(),
        }
    }
}

/// Variables of accel's own tests and benchmarks: no options, but nothing to complain of either.
pub const FOR_TESTS: &[&str] = &["ACCEL_LIB", "ACCEL_BIN", "ACCEL_APPS", "ACCEL_BLESS", "ACCEL_PKT"];

/// The row of an environment variable.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_legal_value() {
        for row in OPTIONS {
            assert!(row.parse(row.default).is_some(), "{}: default {:?}", row.name, row.default);
        }
    }

    #[test]
    fn numbers_out_of_range_and_unknown_words_are_refused() {
        assert_eq!(Id::LocalRing.row().parse("1K"), None);
        assert_eq!(Id::LocalRing.row().parse("64K"), Some(Value::Number(65536)));
        assert_eq!(Id::SpinUsec.row().parse("5K"), None, "microseconds take no byte suffix");
        assert_eq!(Id::Spin.row().parse("sometimes"), None);
        assert_eq!(Id::Ports.row().parse("9-1"), None);
        assert_eq!(Id::Ports.row().parse("70000"), None);
    }

    #[test]
    fn port_ranges_hold_their_ends() {
        let Some(Value::Ports(set)) = Id::Ports.row().parse("80, 8000-8002") else {
            panic!("a legal list");
        };
        let held = [79, 80, 81, 7999, 8000, 8002, 8003].map(|port| set.contains(port));
        assert_eq!(held, [false, true, false, false, true, true, false]);
    }
}
