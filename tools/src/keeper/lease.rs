//! Ports that connections of the owner come from: a block that the kernel gives to nobody else.
//!
//! The block is entered in `net.ipv4.ip_local_reserved_ports`, so that connect(2) and bind(2) to port 0 pass it by, and each port has a
//! guard: a TCP socket in LISTEN and a bound UDP socket, of either version of IP, whose filter drops everything. So nobody binds it
//! on purpose either, and what reaches the kernel meets silence: a reset would end a connection of the stack's.
//!
//! Another process takes the entry out again when the keeper has ended, however that happened: the kernel does it for sockets and for
//! the XDP program, but not for a setting. Where both are killed at one time the entry stays, and costs the kernel that many ports.

use std::fs;
use std::time::{Duration, Instant};

use driver::sys::{self, Errno, Fd};

use crate::sys as calls;

/// The setting, and the range that the kernel takes ports from. Of the calling thread's network namespace.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Only one keeper of a network namespace changes the setting at a time: it has this abstract name.
const TURN: &[u8] = b"\0accel-reserved-ports";
/// How long one waits for another, which needs a moment for it. A name that somebody holds for no reason stops nobody.
const TURN_PATIENCE: Duration = Duration::from_secs(1);
/// Most parts that a block may be in, since ports that are in use are left out.
const PARTS_MAX: usize = 32;

/// Ranges of ports: first and last of each.
type Ranges = Vec<(u16, u16)>;

/// A block of ports, for as long as this lives and its [`Undertaker`] does.
#[derive(Debug)]
pub(super) struct Lease {
    /// First port and number of ports of each part.
    pub(super) parts: Vec<(u16, u16)>,
    /// First and number of all that is in the setting.
    block: (u16, u16),
    guards: Vec<Fd>,
}

fn parse(text: &str) -> Ranges {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((port(first)?, port(last)?))
    };
    text.split(',').filter_map(range).collect()
}

fn print(ranges: &Ranges) -> String {
    let parts: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    parts.join(",") + "\n"
}

/// What is left of these without the ports from `first` to `last`.
fn without(ranges: &Ranges, first: u16, last: u16) -> Ranges {
    let mut left = Ranges::new();
    for &(low, high) in ranges {
        if low < first {
            left.push((low, high.min(first - 1)));
        }
        if high > last {
            left.push((low.max(last + 1), high));
        }
    }
    left
}

/// Changes the setting while nobody else of us does.
fn change(act: impl FnOnce(Ranges) -> Ranges) -> std::io::Result<()> {
    let turn = sys::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0).map_err(io)?;
    let name = [&(libc::AF_UNIX as u16).to_ne_bytes()[..], TURN].concat();
    let until = Instant::now() + TURN_PATIENCE;
    while sys::bind(&turn, &name).is_err() && Instant::now() < until {
        sys::nanosleep(1_000_000);
    }
    let ranges = act(parse(&fs::read_to_string(RESERVED)?));
    fs::write(RESERVED, print(&ranges))
}

fn io(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.0)
}

/// Takes a block out of the setting; what others have there stays.
fn give_back(first: u16, last: u16) {
    let _ = change(|ranges| without(&ranges, first, last));
}

/// The two sockets that hold a port; none if it is in use.
fn guards(port: u16) -> sys::Result<[Fd; 2]> {
    Ok([guard(libc::SOCK_STREAM, port)?, guard(libc::SOCK_DGRAM, port)?])
}

fn guard(kind: i32, port: u16) -> sys::Result<Fd> {
    // `::` is every address of either version; a host without IPv6 has only the other.
    let (socket, address) = match sys::socket(libc::AF_INET6, kind, 0) {
        Ok(socket) => (socket, address(libc::AF_INET6, port, 28)),
        Err(_) => (sys::socket(libc::AF_INET, kind, 0)?, address(libc::AF_INET, port, 16)),
    };
    let _ = sys::setsockopt(socket.raw(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0);
    // BPF_RET | BPF_K with 0 bytes to keep: socket(7), SO_ATTACH_FILTER.
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    sys::setsockopt(socket.raw(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
    sys::bind(&socket, &address)?;
    if kind == libc::SOCK_STREAM {
        sys::listen(&socket, 1)?;
    }
    Ok(socket)
}

/// A `sockaddr_in` or `sockaddr_in6` of the unspecified address.
fn address(family: i32, port: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Blocks of so many ports that nobody has reserved, the last one first: beginnings.
fn candidates(range: (u16, u16), reserved: &Ranges, count: u16) -> impl Iterator<Item = u16> {
    let overlaps = move |first: u16| {
        let last = first + (count - 1);
        reserved.iter().any(|&(low, high)| low <= last && first <= high)
    };
    let steps = (u32::from(range.1) + 1).saturating_sub(range.0.into()) / u32::from(count);
    let first = move |step: u32| (u32::from(range.1) + 1 - (step + 1) * u32::from(count)) as u16;
    (0..steps).map(first).filter(move |first| *first >= 1024 && !overlaps(*first))
}

/// Ports in a row become one part.
fn parts(ports: &[u16]) -> Vec<(u16, u16)> {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match parts.last_mut() {
            Some((first, count)) if *first + (*count - 1) + 1 == *port => *count += 1,
            _ => parts.push((*port, 1)),
        }
    }
    parts
}

impl Lease {
    /// So many ports, less what is in use among them; none for 0. The undertaker is told before anything is changed.
    pub(super) fn take(count: u16, undertaker: &Undertaker) -> Result<Self, String> {
        if count == 0 {
            return Ok(Self { parts: Vec::new(), block: (0, 0), guards: Vec::new() });
        }
        let range = fs::read_to_string(RANGE).unwrap_or_default();
        let mut ends = range.split_whitespace().filter_map(|word| word.parse().ok());
        let range = (ends.next().unwrap_or(32_768), ends.next().unwrap_or(60_999));
        let reserved = fs::read_to_string(RESERVED).map_err(|error| format!("{RESERVED}: {error}"))?;
        for first in candidates(range, &parse(&reserved), count) {
            let last = first + (count - 1);
            undertaker.note(first, count);
            change(|mut ranges| {
                ranges.push((first, last));
                ranges
            })
            .map_err(|error| {
                format!("reserving client ports in {RESERVED}: {error}; CAP_NET_ADMIN is missing")
            })?;
            let held: Vec<(u16, [Fd; 2])> =
                (first..=last).filter_map(|port| Some((port, guards(port).ok()?))).collect();
            let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
            let parts = parts(&ports);
            // Where others have many ports, another block is better.
            if ports.len() * 8 >= usize::from(count) * 7 && parts.len() <= PARTS_MAX {
                let guards = held.into_iter().flat_map(|(_, guards)| guards).collect();
                return Ok(Self { parts, block: (first, count), guards });
            }
            give_back(first, last);
            undertaker.note(first, 0);
        }
        Err(format!("there are no {count} free ports in a row in {RANGE}; set client_ports lower"))
    }
}

impl Lease {
    /// Gives it back, guards and all.
    pub(super) fn end(self, undertaker: &Undertaker) {
        drop(self.guards);
        let (first, count) = self.block;
        if count != 0 {
            give_back(first, first + (count - 1));
            undertaker.note(first, 0);
        }
    }
}

/// The process that takes the block out of the setting when the keeper has ended, and then ends itself.
#[derive(Debug)]
pub(super) struct Undertaker {
    pipe: Fd,
}

impl Undertaker {
    /// Starts it. It has nothing open but its end of the pipe.
    pub(super) fn start() -> std::io::Result<Self> {
        let [read, write] = calls::pipe()?;
        if calls::fork()? == 0 {
            drop(write);
            calls::leave_all_but(read.raw());
            let mut left: Vec<(u16, u16)> = Vec::new();
            let mut record = [0; 4];
            // SIGTERM and the like are for the keeper.
            while calls::read(read.raw(), &mut record).is_ok_and(|count| count == record.len()) {
                let [a, b, c, d] = record;
                let (first, count) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
                left.retain(|(known, _)| *known != first);
                if count != 0 {
                    left.push((first, count));
                }
            }
            left.iter().for_each(|(first, count)| give_back(*first, first + (count - 1)));
            calls::exit_at_once(0);
        }
        drop(read);
        Ok(Self { pipe: write })
    }

    /// From now on a block is to be taken out; with a count of 0 not any more.
    fn note(&self, first: u16, count: u16) {
        let record = [first.to_ne_bytes(), count.to_ne_bytes()].concat();
        let _ = calls::write(self.pipe.raw(), &record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_read_and_written_as_the_kernel_does() {
        let ranges = parse("8080,9000-9010\n");
        assert_eq!(ranges, [(8080, 8080), (9000, 9010)]);
        assert_eq!(print(&ranges), "8080-8080,9000-9010\n");
        assert_eq!((parse("\n"), print(&Vec::new())), (Vec::new(), "\n".to_owned()));
    }

    #[test]
    fn what_others_reserved_stays() {
        let ranges = vec![(10, 20), (30, 30), (40, 65_535)];
        assert_eq!(without(&ranges, 15, 30), [(10, 14), (40, 65_535)]);
        assert_eq!(without(&ranges, 12, 13), [(10, 11), (14, 20), (30, 30), (40, 65_535)]);
        assert_eq!(without(&ranges, 50, 65_535), [(10, 20), (30, 30), (40, 49)]);
        assert_eq!(without(&ranges, 0, 65_535), []);
    }

    #[test]
    fn blocks_are_taken_from_the_end_where_nobody_reserved_any() {
        let found: Vec<u16> = candidates((32_768, 60_999), &vec![(60_500, 60_501)], 1024).take(2).collect();
        assert_eq!(found, [60_999 - 2 * 1024 + 1, 60_999 - 3 * 1024 + 1]);
        assert_eq!(candidates((1000, 2000), &Vec::new(), 1024).count(), 0);
        assert_eq!(candidates((0, 65_535), &Vec::new(), 16_384).next(), Some(49_152));
        assert_eq!(candidates((0, 3000), &Vec::new(), 1000).collect::<Vec<_>>(), [2001]);
    }

    #[test]
    fn ports_in_a_row_are_one_part() {
        assert_eq!(parts(&[5, 6, 7, 9, 65_534, 65_535]), [(5, 3), (9, 1), (65_534, 2)]);
        assert_eq!(parts(&[]), []);
    }

    #[test]
    fn a_guarded_port_is_taken_and_silent() {
        let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let held = guards(free).expect("it was free");
        assert!(std::net::TcpListener::bind(("127.0.0.1", free)).is_err());
        assert!(std::net::UdpSocket::bind(("127.0.0.1", free)).is_err());
        assert!(guards(free).is_err(), "only once");
        // Neither a connection nor a refusal.
        let client = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
        let mut to = address(libc::AF_INET, free, 16);
        to[4..8].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(sys::connect(&client, &to), Err(Errno(libc::EINPROGRESS)));
        let mut ready = [libc::pollfd { fd: client.raw(), events: libc::POLLOUT, revents: 0 }];
        assert_eq!(sys::poll_all(&mut ready, 50), Ok(0));
        drop(held);
    }
}
