//! Peers that cheat. This process meets the victim (`peers.c`) honestly, through the driver's own code, and then writes
//! what it likes into the shared memory; or sends a door letters that no honest library sends; or takes names away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, fs, mem, ptr, thread};

use driver::cards::{Path, Reader};
use driver::channel::{Channel, VERSION};
use driver::meeting::{Peers, Tuple, offer};
use libc::c_int;
use rows::reasons::Reason;

use super::harness::{ADAPT, HARD, Mode, NEVER, command, library, wait};

/// The mapping that this process finds by its name in /proc/self/maps is the one of the test that holds this.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The victim, and the way to end it.
pub(crate) struct Victim {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
    pub(crate) port: u16,
}

impl Victim {
    pub(crate) fn start(mode: Mode) -> Self {
        let mut command = command("peers", &["victim"], mode);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the victim's port");
        Self { child, stdin, stdout, port }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Path and reason of every connection of the victim.
    pub(crate) fn paths(&self) -> Vec<(Path, Reason)> {
        let reader = Reader::open(self.child.id()).unwrap();
        let sockets = reader.sockets().into_iter().filter(|card| card.path != Path::Listener);
        sockets.map(|card| (card.path, Reason::from_number(card.reason))).collect()
    }

    /// It must end well: nothing left behind, later connections accelerated.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status = wait(&mut self.child, Duration::from_secs(30));
        let mut rest = String::new();
        let _ = self.stdout.read_to_string(&mut rest);
        print!("{rest}");
        assert!(status.is_some_and(|status| status.success()), "the victim: {status:?}");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last mapping of a channel in this process: start and length.
pub(crate) fn mapping() -> Option<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().rfind(|line| line.contains("accel-channel"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).unwrap();
    Some((number(start), number(end) - number(start)))
}

/// Meets the victim as an honest connector would; the channel, both ends committed.
pub(crate) fn meet(stream: &mut TcpStream) -> Option<Channel> {
    let tuple = Tuple::of_socket(stream.as_raw_fd()).unwrap();
    let mut sent = 0u64;
    let end = Instant::now() + Duration::from_secs(5);
    let mut channel = None;
    while Instant::now() < end {
        // Each message is a step of the victim's.
        sent += stream.write(b"x").unwrap_or(0) as u64;
        if channel.is_none() {
            channel = offer(stream.as_raw_fd(), &tuple, None, Peers::SameUser, 16 << 10).ok();
        }
        if let Some(channel) = &channel
            && channel.peer_committed()
        {
            channel.outgoing().set_kernel_sent(sent);
            channel.commit();
            return Some(*channel);
        }
        thread::sleep(Duration::from_micros(200));
    }
    None
}

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Writes nonsense into `bytes` bytes at `base` until told to stop.
pub(crate) fn scribble(base: usize, bytes: usize, seed: u64, style: u32, stop: &AtomicBool) -> u64 {
    let mut dice = Dice(seed | 1);
    let mut writes = 0;
    // SAFETY: every access is inside the mapping that the caller keeps until we return.
    let word = |offset: usize| unsafe { &*((base + offset % (bytes - 7) / 8 * 8) as *const AtomicU64) };
    while !stop.load(Relaxed) {
        for _ in 0..64 {
            let value = dice.next();
            // Lines of the two Ends and the two Directions, mostly; else anywhere.
            let offset = if !dice.next().is_multiple_of(8) {
                (dice.next() as usize % 15) * 128
            } else {
                dice.next() as usize
            };
            let word = word(offset);
            match (style, dice.next() % 8) {
                (0, _) => word.store(value, Relaxed),
                // Small steps that a careless reader takes for progress.
                (1, 0..6) => word.store(word.load(Relaxed).wrapping_add(value % 4000), Relaxed),
                (2, 0..4) => word.store((value % 32768) | ((value & (1 << 40)) << 23), Relaxed),
                (_, 6) => word.store(word.load(Relaxed) ^ 1 << 63, Relaxed),
                (_, 7) => word.store(word.load(Relaxed) ^ 1 << (value % 64), Relaxed),
                _ => word.store(value % 20000, Relaxed),
            };
            writes += 1;
        }
    }
    writes
}

/// One connection that meets the victim and scribbles into its memory; how many writes, or `None` if it never met.
pub(crate) fn attack(victim: &Victim, turn: u32) -> Option<u64> {
    let mut stream = victim.connect();
    stream.write_all(b"h").unwrap();
    let channel = meet(&mut stream)?;
    let (base, bytes) = mapping().expect("our own mapping of the channel");
    let stop = AtomicBool::new(false);
    let mut drain = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let writes = thread::scope(|scope| {
        let scribbler = scope.spawn(|| scribble(base, bytes, u64::from(turn) * 77, turn % 3, &stop));
        let until = Instant::now() + Duration::from_millis(if turn.is_multiple_of(4) { 300 } else { 30 });
        let mut room = [0u8; 65536];
        while Instant::now() < until {
            // Its kernel bytes flow as well, sometimes.
            let _ = stream.write(&room[..100]);
            if matches!(drain.read(&mut room), Ok(0)) {
                break;
            }
        }
        stop.store(true, Relaxed);
        scribbler.join().unwrap()
    });
    let _ = stream.shutdown(std::net::Shutdown::Both);
    // SAFETY: the scribbler has ended, and nobody else knows the mapping.
    unsafe { channel.unmap() };
    Some(writes)
}

fn scribbled_on(mode: Mode) {
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let rounds = env::var("FAULTS_ROUNDS").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    let victim = Victim::start(mode);
    let end = Instant::now() + Duration::from_secs_f64(2.0 * rounds.max(0.5));
    let (mut connections, mut met, mut writes) = (0u32, 0u32, 0u64);
    while Instant::now() < end {
        connections += 1;
        if let Some(nonsense) = attack(&victim, connections) {
            met += 1;
            writes += nonsense;
        }
    }
    println!("hostile {mode:?}: {connections} connections, {met} met, {writes} nonsense writes");
    assert!(met > 0 && writes > 0);
    let mut victim = victim;
    assert!(victim.child.try_wait().unwrap().is_none(), "the victim died");
    victim.end();
}

/// The C programs read cards by their own declaration of the layout: it must be the driver's.
#[test]
fn the_cards_that_the_programs_read_are_the_cards_of_the_driver() {
    if library().is_none() {
        return;
    }
    let mut child =
        command("peers", &["show_cards"], HARD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let reader = Reader::open(child.id()).unwrap();
    let mut seen: Vec<String> = Vec::new();
    for card in reader.sockets().iter().filter(|card| card.path == Path::Local) {
        let mut numbers = vec![card.fd as u64, card.path as u64, u64::from(card.reason), card.owner as u64];
        numbers.extend(card.counts.values());
        seen.push(numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
    }
    drop(child.stdin.take());
    assert!(wait(&mut child, Duration::from_secs(10)).is_some_and(|status| status.success()));
    assert_eq!(line.trim(), seen.join(" | "));
    println!("cards: two cards of {} counters read alike", seen[0].split(' ').count() - 4);
}

#[test]
fn a_scribbling_peer_harms_nobody() {
    scribbled_on(ADAPT);
    scribbled_on(HARD);
    scribbled_on(NEVER);
}

/// The library's abstract name of a connection.
fn door_name(connector: SocketAddrV4, acceptor: SocketAddrV4) -> [u8; 47] {
    let mut name = [0; 47];
    name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    name[3..9].copy_from_slice(b"accel/");
    name[9] = VERSION as u8;
    name[10] = libc::AF_INET as u8;
    for (at, end) in [(11, connector), (29, acceptor)] {
        name[at..at + 4].copy_from_slice(&end.ip().octets());
        name[at + 16..at + 18].copy_from_slice(&end.port().to_be_bytes());
    }
    name
}

fn v4(address: std::net::SocketAddr) -> SocketAddrV4 {
    match address {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => unreachable!("these tests use 127.0.0.1"),
    }
}

pub(crate) fn check(result: c_int) -> c_int {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

pub(crate) fn seqpacket() -> OwnedFd {
    // SAFETY: plain system calls; the descriptor is ours.
    unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0)))
    }
}

/// A memfd of this size with these seals.
pub(crate) fn memfd(bytes: i64, seals: c_int) -> OwnedFd {
    // SAFETY: plain system calls; the descriptor is ours.
    unsafe {
        let fd = check(libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING));
        check(libc::ftruncate(fd, bytes));
        if seals != 0 {
            check(libc::fcntl(fd, libc::F_ADD_SEALS, seals));
        }
        OwnedFd::from_raw_fd(fd)
    }
}

/// Sends a letter with descriptors.
pub(crate) fn letter(visit: &OwnedFd, bytes: &[u8], descriptors: &[c_int]) {
    let mut control = [0u64; 16];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the message names locals; the control buffer has room for 12 descriptors.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        if !descriptors.is_empty() {
            let size = (descriptors.len() * 4) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            ptr::copy_nonoverlapping(descriptors.as_ptr(), libc::CMSG_DATA(header).cast(), descriptors.len());
        }
        libc::sendmsg(visit.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL);
    }
}

/// 60 messages there and back.
pub(crate) fn echo(stream: &mut TcpStream, count: usize) {
    for index in 0..count {
        let message = [index as u8; 100];
        let mut back = [0; 100];
        stream.write_all(&message).unwrap();
        stream
            .read_exact(&mut back)
            .unwrap_or_else(|error| panic!("message {index} did not come back: {error}"));
        assert_eq!(message, back);
    }
}

pub(crate) const SEALS: c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

#[test]
fn letters_that_no_library_sends_are_refused() {
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let victim = Victim::start(ADAPT);
    let good = 4096 + 2 * 65536;
    let version = VERSION.to_ne_bytes();
    let plain = |bytes: i64, seals: c_int| vec![memfd(bytes, seals)];
    let file = |path: &str| vec![OwnedFd::from(fs::File::open(path).unwrap())];
    type Letter<'a> = (&'a str, Vec<OwnedFd>, bool, usize);
    // What, descriptors, whether the cookie is right, bytes of the letter.
    let letters: Vec<Letter<'_>> = vec![
        ("unsealed", plain(good, 0), true, 16),
        ("sealed against growing only", plain(good, libc::F_SEAL_GROW | libc::F_SEAL_SEAL), true, 16),
        ("sealed against shrinking only", plain(good, libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL), true, 16),
        ("not sealed for good", plain(good, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW), true, 16),
        ("sealed against writing", plain(good, SEALS | libc::F_SEAL_WRITE), true, 16),
        ("sealed against future writing", plain(good, SEALS | libc::F_SEAL_FUTURE_WRITE), true, 16),
        ("empty", plain(0, SEALS), true, 16),
        ("header only", plain(4096, SEALS), true, 16),
        ("too small", plain(4096 + 2 * 8192, SEALS), true, 16),
        ("odd", plain(good + 1, SEALS), true, 16),
        ("not a power of two", plain(4096 + 2 * 65537, SEALS), true, 16),
        ("huge", plain(1 << 40, SEALS), true, 16),
        ("no magic", plain(good, SEALS), true, 16),
        ("/dev/zero", file("/dev/zero"), true, 16),
        ("a file", file("/proc/self/exe"), true, 16),
        ("a directory", file("/"), true, 16),
        ("no descriptor", vec![], true, 16),
        ("two descriptors", vec![memfd(good, SEALS), memfd(good, SEALS)], true, 16),
        ("nine descriptors", (0..9).map(|_| memfd(good, SEALS)).collect(), true, 16),
        ("wrong cookie", plain(good, SEALS), false, 16),
        ("short", plain(good, SEALS), true, 9),
        ("empty letter", plain(good, SEALS), true, 0),
        ("long", plain(good, SEALS), true, 4000),
        ("nothing", vec![], true, usize::MAX),
    ];
    let mut refused = 0;
    for (what, descriptors, right, length) in &letters {
        let mut stream = victim.connect();
        stream.write_all(b"e").unwrap();
        let name = door_name(v4(stream.local_addr().unwrap()), v4(stream.peer_addr().unwrap()));
        echo(&mut stream, 2);
        let visit = seqpacket();
        // SAFETY: a live name of this length.
        let connected = unsafe { libc::connect(visit.as_raw_fd(), name.as_ptr().cast(), name.len() as u32) };
        assert_eq!(connected, 0, "{what}: no door: {}", std::io::Error::last_os_error());
        let mut cookie = 0u64;
        let mut size = 8u32;
        // SAFETY: eight bytes for a cookie.
        check(unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut size,
            )
        });
        let mut bytes = vec![0; 4000];
        bytes[..4].copy_from_slice(&version);
        bytes[8..16].copy_from_slice(&if *right { cookie } else { cookie + 1 }.to_ne_bytes());
        let numbers: Vec<c_int> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        if *length != usize::MAX {
            letter(&visit, &bytes[..*length], &numbers);
        }
        echo(&mut stream, 60);
        let paths = victim.paths();
        assert!(paths.iter().all(|(path, _)| *path != Path::Local), "{what}: upgraded: {paths:?}");
        drop(stream);
        refused += 1;
    }
    println!("letters: {refused} kinds refused, the connections went on");
    victim.end();
}

#[test]
fn memory_that_is_punched_or_truncated_does_not_fault() {
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let victim = Victim::start(HARD);
    let mut punched = 0;
    for _ in 0..20 {
        let mut stream = victim.connect();
        stream.write_all(b"h").unwrap();
        let Some(channel) = meet(&mut stream) else { continue };
        let (base, bytes) = mapping().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut room = [0u8; 65536];
        for round in 0..200usize {
            // MADV_REMOVE punches the hole through the mapping: our descriptor is closed by now.
            let at = base + round * 4096 % bytes;
            // SAFETY: inside our own mapping.
            let result = unsafe { libc::madvise(at as *mut _, 4096, libc::MADV_REMOVE) };
            punched += i32::from(result == 0);
            let _ = stream.write(&room[..50]);
            if matches!(stream.read(&mut room), Ok(0)) {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
        // SAFETY: nobody else knows the mapping.
        unsafe { channel.unmap() };
    }
    println!("punched: {punched} pages taken from under the victim");
    assert!(punched > 0);
    victim.end();
}

/// Takes the name of a connection before the victim can, and holds it.
fn squat(name: &[u8; 47]) -> OwnedFd {
    let squatter = seqpacket();
    // SAFETY: a live name of this length.
    unsafe {
        check(libc::bind(squatter.as_raw_fd(), name.as_ptr().cast(), name.len() as u32));
        check(libc::listen(squatter.as_raw_fd(), 1));
    }
    squatter
}

#[test]
fn a_squatter_on_the_name_only_keeps_it_on_the_kernel() {
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let victim = Victim::start(ADAPT);
    // The victim accepts, and its name is taken.
    for _ in 0..10 {
        // SAFETY: plain system calls on a descriptor of ours.
        let mut stream = unsafe {
            let fd = check(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
            let mut address: libc::sockaddr_in = mem::zeroed();
            address.sin_family = libc::AF_INET as u16;
            address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
            let mut size = size_of::<libc::sockaddr_in>() as u32;
            check(libc::bind(fd, (&raw const address).cast(), size));
            check(libc::getsockname(fd, (&raw mut address).cast(), &raw mut size));
            let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::from_be(address.sin_port));
            let squatter = squat(&door_name(own, SocketAddrV4::new(Ipv4Addr::LOCALHOST, victim.port)));
            address.sin_port = victim.port.to_be();
            check(libc::connect(fd, (&raw const address).cast(), size));
            let mut stream = TcpStream::from_raw_fd(fd);
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"e").unwrap();
            echo(&mut stream, 100);
            drop(squatter);
            stream
        };
        let paths = victim.paths();
        assert!(paths.iter().all(|(path, _)| *path != Path::Local), "{paths:?}");
        echo(&mut stream, 100);
    }
    // The victim connects, and whoever listens on the name answers nothing, or hangs up.
    for round in 0..10 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut order = victim.connect();
        order.write_all(&[b'c', port as u8, (port >> 8) as u8]).unwrap();
        let (mut stream, peer) = listener.accept().unwrap();
        let squatter = squat(&door_name(v4(peer), v4(stream.local_addr().unwrap())));
        if round % 2 == 1 {
            thread::scope(|scope| {
                // SAFETY: live descriptors.
                scope.spawn(|| unsafe {
                    let visit = libc::accept4(
                        squatter.as_raw_fd(),
                        ptr::null_mut(),
                        ptr::null_mut(),
                        libc::SOCK_CLOEXEC,
                    );
                    libc::close(visit);
                });
                serve(&mut stream);
                // Wakes the squatter if the victim never came.
                let name = door_name(v4(peer), v4(stream.local_addr().unwrap()));
                let visit = seqpacket();
                libc_connect(&visit, &name);
            });
        } else {
            serve(&mut stream);
        }
    }
    println!("squatters: 20 connections stayed on the kernel");
    victim.end();
}

fn libc_connect(visit: &OwnedFd, name: &[u8; 47]) {
    // SAFETY: a live name of this length.
    unsafe { libc::connect(visit.as_raw_fd(), name.as_ptr().cast(), name.len() as u32) };
}

/// Echoes until the other end stops.
fn serve(stream: &mut TcpStream) {
    let mut message = [0; 64];
    while stream.read_exact(&mut message).is_ok() {
        if stream.write_all(&message).is_err() {
            return;
        }
    }
}

/// A server and a client, each behind its own launcher (`sh -c`-like prefix), that must (not) meet.
struct Meeting<'a> {
    what: &'a str,
    server: &'a [&'a str],
    client: &'a [&'a str],
    address: &'a str,
    any: [bool; 2],
    expected: [(i32, i32); 2],
}

const LOCAL: i32 = 2;
const KERNEL: i32 = 3;
static NAMES: AtomicU32 = AtomicU32::new(0);

impl Meeting<'_> {
    fn side(&self, role: &str, prefix: &[&str], any: bool, arguments: &[String]) -> Command {
        // Where every user may read them.
        let directory = env::temp_dir().join(format!(
            "accel-faults-{}-{}",
            std::process::id(),
            NAMES.fetch_add(1, Relaxed)
        ));
        fs::create_dir_all(&directory).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let copies = [super::harness::compile("peers"), library().unwrap()].map(|from| {
            let to = directory.join(from.file_name().unwrap());
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
            to
        });
        let mut words: Vec<String> = prefix.iter().map(|word| word.to_string()).collect();
        words.push(copies[0].to_str().unwrap().into());
        words.push(role.into());
        words.extend_from_slice(arguments);
        let mut command = Command::new(&words[0]);
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACCEL")) {
            command.env_remove(variable);
        }
        command.args(&words[1..]).env("FAULTS_LIB", &copies[1]).env("FAULTS_ADDR", self.address);
        command.env("ACCEL_LOCAL_AFTER", "0").env("ACCEL_LOCAL_PEERS", if any { "any" } else { "same-user" });
        command
    }

    fn hold(&self) {
        let numbers = |(path, reason): (i32, i32)| [path.to_string(), reason.to_string()];
        let mut server = self.side("meet_server", self.server, self.any[0], &numbers(self.expected[0]));
        let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut arguments = vec![line.trim().to_string()];
        arguments.extend(numbers(self.expected[1]));
        let mut client = self.side("meet_client", self.client, self.any[1], &arguments).spawn().unwrap();
        let ends = [&mut client, &mut server].map(|end| wait(end, Duration::from_secs(30)));
        println!("{}: client {:?}, server {:?}", self.what, ends[0], ends[1]);
        assert!(ends.iter().all(|end| end.is_some_and(|end| end.success())), "{}: {ends:?}", self.what);
    }
}

/// Directories that [`Meeting::side`] made.
fn sweep() {
    for entry in fs::read_dir(env::temp_dir()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("accel-faults-{}-", std::process::id())) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

const ROOT: &[&str] = &["env"];
const NOBODY: &[&str] = &["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"];

#[test]
fn users_and_namespaces_meet_only_as_the_policy_says() {
    // SAFETY: only asks.
    if library().is_none() || unsafe { libc::geteuid() } != 0 {
        println!("not root: left out");
        return;
    }
    let user = Reason::PeerUser as i32;
    let elsewhere = Reason::PeerElsewhere as i32;
    let none = Reason::None as i32;
    let local = [(LOCAL, none); 2];
    let meeting = |what, server, client, any, expected| Meeting {
        what,
        server,
        client,
        address: "127.0.0.1",
        any,
        expected,
    };
    meeting("one user", ROOT, ROOT, [false; 2], local).hold();
    meeting("another one user", NOBODY, NOBODY, [false; 2], local).hold();
    meeting("two users", ROOT, NOBODY, [false; 2], [(KERNEL, -1), (KERNEL, user)]).hold();
    meeting("two users, the other way", NOBODY, ROOT, [false; 2], [(KERNEL, -1), (KERNEL, user)]).hold();
    meeting("two users, only one says any", ROOT, NOBODY, [true, false], [(KERNEL, -1), (KERNEL, user)])
        .hold();
    meeting("two users, the other one says any", ROOT, NOBODY, [false, true], [(KERNEL, user), (KERNEL, -1)])
        .hold();
    meeting("two users, both say any", ROOT, NOBODY, [true; 2], local).hold();
    meeting("two users, both say any, the other way", NOBODY, ROOT, [true; 2], local).hold();
    // Without a mapping everybody is the overflow user in there.
    meeting("a user namespace", ROOT, &["unshare", "-U"], [false; 2], [(KERNEL, -1), (KERNEL, user)]).hold();
    meeting(
        "two user namespaces",
        &["unshare", "-U"],
        &["unshare", "-U"],
        [false; 2],
        [(KERNEL, -1), (KERNEL, user)],
    )
    .hold();
    let container = Reason::PeerContainer as i32;
    meeting(
        "a PID namespace",
        &["unshare", "-p", "-f", "--mount-proc"],
        ROOT,
        [false; 2],
        [(KERNEL, -1), (KERNEL, container)],
    )
    .hold();
    // Two network namespaces and a wire between them.
    let name = format!("accel{}", std::process::id());
    let ip =
        |words: &str| Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success());
    let (a, b) = (format!("va{}", std::process::id()), format!("vb{}", std::process::id()));
    let built = ip(&format!("netns add {name}"))
        && ip(&format!("link add {a} type veth peer name {b} netns {name}"))
        && ip(&format!("addr add 10.213.7.1/24 dev {a}"))
        && ip(&format!("link set {a} up"))
        && ip(&format!("netns exec {name} ip addr add 10.213.7.2/24 dev {b}"))
        && ip(&format!("netns exec {name} ip link set {b} up"))
        && ip(&format!("netns exec {name} ip link set lo up"));
    if built {
        let inside = ["ip", "netns", "exec", &name];
        let apart = [(KERNEL, elsewhere); 2];
        let held = std::panic::catch_unwind(|| {
            let meeting = |what, server, client, expected| Meeting {
                what,
                server,
                client,
                address: "10.213.7.2",
                any: [true; 2],
                expected,
            };
            meeting("two network namespaces", &inside[..], ROOT, apart).hold();
            meeting("one other network namespace", &inside[..], &inside[..], local).hold();
        });
        ip(&format!("netns del {name}"));
        ip(&format!("link del {a}"));
        sweep();
        assert!(held.is_ok());
    } else {
        ip(&format!("netns del {name}"));
        println!("no network namespaces here: left out");
    }
    sweep();
}
