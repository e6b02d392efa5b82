//! A crowd of connections of which few are active: a server that waits by epoll for all of them, and a client that asks on a hundredth,
//! each time other ones.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::wire::namespace::Namespace;
use harness::wire::sys::pin;
use harness::wire::veth::NAME;

use super::load::{NEAR, load_by, near_by, numbers, own};
use super::role::VARIABLE;
use super::{Ends, Figure};

/// The client's addresses: one has too few ports for so many connections.
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];
/// Processes of either end, since one may not have so many descriptors; and connections that one takes at most.
const PROCESSES: usize = 3;
const EACH_MAX: usize = 18_000;
/// Bytes of a request and of its answer.
const REQUEST: usize = 64;
/// Readiness that is asked for at once.
const EVENTS: usize = 256;
/// How long is asked.
const TIME: Duration = Duration::from_secs(2);

/// A hundred connections, all active.
pub(crate) fn few(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    asked(hosts, ends, 7007, 100, 100)
}

/// So many that a client needs two addresses, of which 500 are active at a time. A client under accel has fewer ports.
pub(crate) fn many(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    if ends == Ends::Both { None } else { asked(hosts, ends, 7008, 50_000, 500) }
}

fn asked(hosts: [&Namespace; 2], ends: Ends, port: u16, count: usize, active: usize) -> Option<Figure> {
    hosts[1].set("net/ipv4/ip_local_port_range", "1024 65535");
    let address = format!("{}/24", FAR[1]);
    // It may have it from the row before.
    let _ =
        hosts[1].inside(move || Command::new("ip").args(["addr", "replace", &address, "dev", NAME]).status());
    // Several processes share a core: none of them spins for long.
    let _server = near_by(hosts, ends, &[], own(&format!("crowd {port}")));
    let said = numbers(&load_by(hosts, ends, &[], own(&format!("visit {NEAR} {port} {count} {active}"))));
    let [rate, p99] = said[..] else { return None };
    Some(Figure { value: rate / 1000.0, p99: Some(p99), cpu_us: None })
}

/// An epoll set.
struct Set(OwnedFd);

impl Set {
    fn new() -> Self {
        // SAFETY: takes a number; the descriptor is new and nobody else's.
        Self(unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) })
    }

    fn add(&self, fd: &impl AsRawFd, key: usize) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key as u64 };
        // SAFETY: an event that outlives the call.
        let done = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        assert_eq!(done, 0, "a descriptor is added");
    }

    fn remove(&self, fd: &impl AsRawFd) {
        // SAFETY: numbers, and no event, which this call doesn't read.
        unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), core::ptr::null_mut());
        }
    }

    /// The keys of what is ready.
    fn wait(&self) -> Vec<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: room for so many.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, -1) };
        events[..count.max(0) as usize].iter().map(|event| event.u64 as usize).collect()
    }
}

/// Answers everybody, on one core, from as many processes as a crowd's descriptors need.
pub(crate) fn crowd(port: u16) {
    pin(0);
    let listener = listen(port);
    listener.set_nonblocking(true).expect("an option");
    for _ in 1..PROCESSES {
        // SAFETY: this process has one thread. Who is left without its parent ends.
        unsafe {
            if libc::fork() == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                break;
            }
        }
    }
    let (set, mut streams) = (Set::new(), Vec::<Option<TcpStream>>::new());
    set.add(&listener, usize::MAX);
    loop {
        for key in set.wait() {
            if key != usize::MAX {
                answer(&mut streams[key]);
            } else if let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).expect("an option");
                stream.set_nonblocking(false).expect("an option");
                set.add(&stream, streams.len());
                streams.push(Some(stream));
                if streams.len() == EACH_MAX {
                    set.remove(&listener);
                }
            }
        }
    }
}

/// Listens as soon as the processes of the server before have ended.
fn listen(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind(("0.0.0.0", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::yield_now(),
            listener => return listener.expect("a port"),
        }
    }
}

/// One request, or the end.
fn answer(place: &mut Option<TcpStream>) {
    let Some(stream) = place else { return };
    let mut buffer = [0; REQUEST];
    if stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)).is_err() {
        *place = None;
    }
}

/// Connects so often, and then asks on some connections at a time: requests a second of all processes, and the 99th percentile of the time
/// that a turn takes in one of them, in microseconds.
pub(crate) fn visit(host: &str, port: u16, count: usize, active: usize) {
    let role = format!("guests {host} {port} {} {}", count / PROCESSES, (active / PROCESSES).max(1));
    let this = std::env::current_exe().expect("this program");
    let start = || {
        let mut guests = Command::new(&this);
        guests
            .env(VARIABLE, &role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program")
    };
    let mut all: Vec<Child> = (0..PROCESSES).map(|_| start()).collect();
    let mut said: Vec<_> = all
        .iter_mut()
        .map(|guests| BufReader::new(guests.stdout.take().expect("its output")).lines().map_while(Result::ok))
        .collect();
    // All are connected before one of them asks.
    said.iter_mut().for_each(|lines| assert_eq!(lines.next().as_deref(), Some("ready")));
    for guests in &mut all {
        guests.stdin.take().expect("its input").write_all(b"go").expect("it reads");
    }
    let figures: Vec<Vec<f64>> =
        said.iter_mut().map(|lines| numbers(&lines.next().unwrap_or_default())).collect();
    all.iter_mut().for_each(|guests| drop(guests.wait()));
    let rate: f64 = figures.iter().map(|one| one[0]).sum();
    println!("{rate} {}", figures.iter().map(|one| one[1]).fold(0.0, f64::max));
}

/// One process of [`visit`].
pub(crate) fn guests(host: &str, port: u16, count: usize, active: usize) {
    pin(1);
    let to = SocketAddr::new(host.parse().expect("an address"), port);
    let mut streams: Vec<TcpStream> = (0..count).map(|at| connect(FAR[at % FAR.len()], to)).collect();
    let set = Set::new();
    streams.iter().enumerate().for_each(|(at, stream)| set.add(stream, at));
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
    let (begun, mut times, mut buffer) = (Instant::now(), Vec::new(), [7; REQUEST]);
    while begun.elapsed() < TIME {
        let turn = Instant::now();
        // Far from each other, and others each time.
        for at in 0..active {
            let at = (times.len() + at * (count / active)) % count;
            streams[at].write_all(&buffer).expect("sent");
        }
        let mut left = active;
        while left > 0 {
            for at in set.wait() {
                streams[at].read_exact(&mut buffer).expect("an answer");
                left -= 1;
            }
        }
        times.push(turn.elapsed().as_micros());
    }
    let rate = (times.len() * active) as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    println!("{rate} {}", times[times.len() * 99 / 100]);
}

/// A connection from this address, as soon as somebody listens.
fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else { panic!("{to} is not of IPv4") };
    let name = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    let (from, to, one) = (name(from, 0), name(*to.ip(), to.port()), 1);
    let len = size_of::<libc::sockaddr_in>() as u32;
    loop {
        // SAFETY: numbers, and structs of these sizes that outlive the calls; the descriptor is new.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let stream = TcpStream::from_raw_fd(fd);
            // The port is chosen by connect, for the destination too.
            libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const one).cast(), 4);
            assert_eq!(libc::bind(fd, (&raw const from).cast(), len), 0, "an address of this host");
            if libc::connect(fd, (&raw const to).cast(), len) == 0 {
                return stream;
            }
        }
        std::thread::yield_now();
    }
}
