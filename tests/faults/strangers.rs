//! Strangers at the mailbox of a listener, and one hostile peer among many honest ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use driver::cards::Path;
use driver::channel::{Channel, VERSION};
use libc::c_int;

use super::harness::{ADAPT, Mode, command, library, wait};
use super::hostile::{SEALS, Victim, alone, attack, check, echo, letter, memfd, seqpacket};

/// Another user's number.
const STRANGER: libc::uid_t = 1234;

/// The library's abstract name of a listener's mailbox on 127.0.0.1.
fn mailbox_name(port: u16) -> [u8; 29] {
    let mut name = [0; 29];
    name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    name[3..9].copy_from_slice(b"accel@");
    name[9] = VERSION as u8;
    name[10] = libc::AF_INET as u8;
    name[11..15].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    name[27..29].copy_from_slice(&port.to_be_bytes());
    name
}

/// A visit to the mailbox, by this user or by a stranger.
fn visit(port: u16, stranger: bool) -> OwnedFd {
    let visit = seqpacket();
    let name = mailbox_name(port);
    let number = visit.as_raw_fd();
    // The raw call changes the user of one thread, and the kernel notes who connects.
    let knock = move || unsafe {
        // SAFETY: plain system calls on a live descriptor and a live name.
        if stranger {
            check(libc::syscall(libc::SYS_setresuid, -1, STRANGER, -1) as c_int);
        }
        check(libc::connect(number, name.as_ptr().cast(), name.len() as u32));
    };
    thread::spawn(knock).join().expect("the mailbox is open");
    visit
}

/// A TCP socket that is not connected yet, and its cookie.
fn fresh() -> (OwnedFd, u64) {
    let (mut cookie, mut size) = (0u64, 8u32);
    // SAFETY: plain system calls; the descriptor is ours, and the cookie has eight bytes.
    unsafe {
        let fd = check(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
        let socket = OwnedFd::from_raw_fd(fd);
        let at = (&raw mut cookie).cast();
        check(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, at, &raw mut size));
        (socket, cookie)
    }
}

/// Connects such a socket to the victim.
fn connected(socket: OwnedFd, port: u16) -> TcpStream {
    // SAFETY: a socket address is plain numbers, for which zero is valid; the descriptor is live.
    unsafe {
        let mut address: libc::sockaddr_in = mem::zeroed();
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        address.sin_port = port.to_be();
        let size = size_of::<libc::sockaddr_in>() as u32;
        check(libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size));
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The bytes of a letter that names this cookie.
fn words(version: u32, cookie: u64) -> [u8; 16] {
    let mut words = [0; 16];
    words[..4].copy_from_slice(&version.to_ne_bytes());
    words[8..].copy_from_slice(&cookie.to_ne_bytes());
    words
}

/// What a visitor hears: nothing, ever.
fn hears_nothing(visit: &OwnedFd) {
    let mut room = [0u8; 64];
    // SAFETY: a live descriptor and a buffer of this length.
    let heard =
        unsafe { libc::recv(visit.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    assert!(heard <= 0, "the mailbox says {:?}", &room[..heard as usize]);
}

#[test]
fn strangers_and_nonsense_in_the_mailbox_are_refused() {
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let victim = Victim::start(ADAPT);
    let good = 4096 + 2 * 65536;
    // SAFETY: only asks.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("SKIP strangers_and_nonsense_in_the_mailbox_are_refused: strangers need root");
    }
    type Letter<'a> = (&'a str, bool, u32, Vec<OwnedFd>, usize);
    let valid = || {
        let (channel, memory) = Channel::create(65536).unwrap();
        channel.commit();
        // SAFETY: the number is open, and nobody else's any more.
        (channel, unsafe { OwnedFd::from_raw_fd(memory.into_raw()) })
    };
    let strange = valid();
    let letters: Vec<Letter<'_>> = vec![
        ("another user's memory under our cookie", true, VERSION, vec![strange.1], 16),
        ("another user's nonsense", true, VERSION, vec![memfd(good, 0)], 16),
        ("another version", false, VERSION + 1, vec![valid().1], 16),
        ("no magic", false, VERSION, vec![memfd(good, SEALS)], 16),
        ("unsealed", false, VERSION, vec![memfd(good, 0)], 16),
        ("empty memory", false, VERSION, vec![memfd(0, SEALS)], 16),
        ("two descriptors", false, VERSION, vec![valid().1, valid().1], 16),
        ("no descriptor", false, VERSION, vec![], 16),
        ("short", false, VERSION, vec![valid().1], 9),
        ("nothing", false, VERSION, vec![], usize::MAX),
    ];
    let mut refused = 0;
    for (what, stranger, version, descriptors, length) in &letters {
        if *stranger && !root {
            continue;
        }
        let (socket, cookie) = fresh();
        let visitor = visit(victim.port, *stranger);
        let numbers: Vec<c_int> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        if *length != usize::MAX {
            letter(&visitor, &words(*version, cookie)[..*length], &numbers);
        }
        hears_nothing(&visitor);
        let mut stream = connected(socket, victim.port);
        stream.write_all(b"e").unwrap();
        echo(&mut stream, 30);
        let paths = victim.paths();
        assert!(paths.iter().all(|(path, _)| *path != Path::Local), "{what}: upgraded: {paths:?}");
        hears_nothing(&visitor);
        refused += 1;
    }
    assert!(!strange.0.peer_committed(), "the victim took a stranger's memory");
    // The same letter by an honest hand is taken.
    let (channel, memory) = valid();
    let (socket, cookie) = fresh();
    letter(&visit(victim.port, false), &words(VERSION, cookie), &[memory.as_raw_fd()]);
    let mut stream = connected(socket, victim.port);
    stream.write_all(b"e").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !channel.peer_committed() && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
    assert!(channel.peer_committed(), "a good letter was not taken: this test proves nothing");
    drop(stream);
    // A box that strangers have filled keeps nobody from connecting.
    let crowd: Vec<OwnedFd> = (0..40).map(|_| visit(victim.port, root)).collect();
    for _ in 0..3 {
        let mut stream = connected(fresh().0, victim.port);
        stream.write_all(b"e").unwrap();
        echo(&mut stream, 30);
    }
    crowd.iter().for_each(hears_nothing);
    println!("mailbox: {refused} letters refused, an honest one taken, 40 silent visitors");
    // SAFETY: the handles are not used again.
    unsafe {
        channel.unmap();
        strange.0.unmap();
    }
    victim.end();
}

/// Many honest connections, which the longest form has 10,000 of; their latencies are printed, and not judged.
#[test]
fn one_hostile_peer_among_many() {
    const MANY: Mode =
        &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_LOCAL_RING", "16384"), ("ACCEL_LOCAL_MEMORY", "16G")];
    if library().is_none() {
        return;
    }
    let _alone = alone();
    let rounds = env::var("FAULTS_ROUNDS").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    let connections = (400.0 * rounds.max(0.1)).min(10_000.0) as u32;
    let mut victim = Victim::start(MANY);
    let mut met = 0;
    for hostile in [false, true] {
        let arguments = [&victim.port.to_string(), &connections.to_string()];
        let mut crowd = command("peers", &["crowd", arguments[0], arguments[1]], MANY);
        let mut crowd = crowd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(crowd.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let before = victim.paths().iter().filter(|(path, _)| *path == Path::Local).count();
        assert!(
            before >= connections as usize * 99 / 100,
            "{before} of {connections} in rings at the victim"
        );
        for turn in 1..=20 {
            if hostile {
                met += u32::from(attack(&victim, turn).is_some());
            }
        }
        drop(crowd.stdin.take());
        let status = wait(&mut crowd, Duration::from_secs_f64(60.0 * rounds.max(1.0)));
        line.clear();
        let _ = said.read_to_string(&mut line);
        print!("{} {line}", if hostile { "beside a hostile peer:" } else { "alone:" });
        assert!(status.is_some_and(|status| status.success()), "the crowd: {status:?}");
        assert!(victim.child.try_wait().unwrap().is_none(), "the victim died");
    }
    assert!(met > 0, "the hostile peer never met the victim");
    victim.end();
}
