//! Unmodified programs on the network path: what they print is what they print on the kernel's, and the kernel has none of their
//! connections, and none of their datagrams. The far end is the kernel's, or under accel too.
//!
//! The binaries are ACCEL_BIN and the library beside it, or those of `target/release`.

#[path = "../network/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::sim::raw::{ip, ip6};
use harness::wire::admin::{Admin, Change, Route};
use harness::wire::namespace::joined;
use harness::wire::veth::{Cable, NAME};
use program::{By, Program, accel};
use stack::wire::ip::Ip;

const PEER: &str = "7300";
const SERVER: &str = "7400";

/// What a program printed, and how many of its connections, or datagrams, were the kernel's when it looked.
#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    kernels: Option<u32>,
}

impl Said {
    fn add(&mut self, line: String) {
        if let Some((_, count)) = line.strip_prefix("# kernel ").and_then(|rest| rest.split_once(": ")) {
            self.kernels = count.parse().ok();
        } else if !line.starts_with('#') {
            self.lines.push(line);
        }
    }
}

/// The near host's program makes connections to the far one's.
fn calls(near: By, far: By, is_v6: bool) -> Option<Said> {
    let [one, other] = Cable::default().lay()?;
    let mut peer = Program::start(&other, far, "peer.py", &[PEER]);
    assert_eq!(peer.line().as_deref(), Some("ready"));
    let host = if is_v6 { "fd00::2" } else { "10.0.0.2" };
    let mut program = Program::start(&one, near, "calls.py", &[host, PEER]);
    let mut said = Said::default();
    while let Some(line) = program.line() {
        said.add(line);
    }
    assert!(program.child.wait().expect("its end").success(), "{said:?}");
    Some(said)
}

/// The near host's program has guests from the far one.
fn serve(near: By, far: By, is_v6: bool) -> Option<Said> {
    let [one, other] = Cable::default().lay()?;
    let (any, host) = if is_v6 { ("::", "fd00::1") } else { ("0.0.0.0", "10.0.0.1") };
    let mut guests = Program::start(&other, far, "guests.py", &[host, SERVER]);
    assert_eq!(guests.line().as_deref(), Some("ready"));
    let mut server = Program::start(&one, near, "serve.py", &[any, SERVER, host]);
    let mut said = Said::default();
    // The server says when it waits for the guests' answer by asking for them; the answer comes when they have gone.
    std::thread::scope(|scope| {
        let Program { input, output, .. } = &mut guests;
        let (ask, asked) = std::sync::mpsc::channel::<String>();
        let answers = &mut server.input;
        scope.spawn(move || {
            for row in asked {
                if writeln!(input, "{row}").is_err() {
                    return;
                }
                let Some(Ok(answer)) = output.next() else { return };
                if writeln!(answers, "{answer}").is_err() {
                    return;
                }
            }
        });
        for line in server.output.by_ref() {
            let line = line.expect("text");
            match line.strip_prefix("> ") {
                Some(row) => ask.send(row.to_owned()).expect("somebody listens"),
                None => said.add(line),
            }
        }
        drop(ask);
    });
    assert!(server.child.wait().expect("its end").success(), "{said:?}");
    Some(said)
}

/// The near host's program exchanges datagrams with the far one's.
fn datagrams(near: By, far: By, is_v6: bool) -> Option<Said> {
    let [one, other] = Cable::default().lay()?;
    for setting in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        // Errors are asked for more often than the far host would tell of them.
        other
            .inside(move || std::fs::write(Path::new("/proc/sys/net").join(setting), "0"))
            .expect("a setting");
    }
    let mut mirror = Program::start(&other, far, "mirror.py", &[PEER]);
    assert_eq!(mirror.line().as_deref(), Some("ready"));
    let (host, own) = if is_v6 { ("fd00::2", "fd00::1") } else { ("10.0.0.2", "10.0.0.1") };
    let mut program = Program::start(&one, near, "datagrams.py", &[host, PEER, own, NAME]);
    let mut said = Said::default();
    while let Some(line) = program.line() {
        said.add(line);
    }
    assert!(program.child.wait().expect("its end").success(), "{said:?}");
    Some(said)
}

/// Runs it on the kernel, which has so many of what it counts then, and on the stack with either far end.
fn same(kernels: u32, run: impl Fn(By, By, bool) -> Option<Said>) {
    for is_v6 in [false, true] {
        let Some(kernel) = run(By::Kernel, By::Kernel, is_v6) else { return };
        assert_eq!(kernel.kernels, Some(kernels));
        assert_eq!(kernel.lines.last().map(String::as_str), Some("end: all"));
        for far in [By::Kernel, By::Stack] {
            let stack = run(By::Stack, far, is_v6).expect("the same cable");
            assert_eq!(stack.lines, kernel.lines, "IPv6 {is_v6}, the far end by {far:?}");
            assert_eq!(stack.kernels, Some(0), "what it has is the stack's");
        }
    }
}

#[test]
fn who_connects_sees_what_he_sees_on_the_kernel() {
    same(1, calls);
}

#[test]
fn who_is_connected_to_sees_what_he_sees_on_the_kernel() {
    same(1, serve);
}

#[test]
fn who_exchanges_datagrams_sees_what_he_sees_on_the_kernel() {
    same(600, datagrams);
}

/// The near host's program hears of routers: one leads on to the far host, over a link with a smaller MTU, and knows where nobody is.
fn errors(near: By, is_v6: bool) -> Option<Said> {
    const UNREACHABLE: u8 = 7;
    const PROHIBITED: u8 = 8;
    let [one, router] = Cable::default().lay()?;
    let far = Cable { mtu: 1400, ..Cable::default() }.lead_on(&router);
    for limit in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
        router.set(limit, "0");
    }
    let (everywhere, gateway, host) = match is_v6 {
        true => (Ip::UNSPECIFIED, ip6(2), "fd09::2"),
        false => (Ip::UNSPECIFIED_V4, ip(2), "10.9.0.2"),
    };
    let nobody = match is_v6 {
        true => ["2001:db8::1", "2001:db8:1::1", "2001:db8:2::1"],
        false => ["192.0.2.1", "198.51.100.1", "203.0.113.1"],
    };
    let to = |text: &str| match text.parse().expect("an address") {
        IpAddr::V4(address) => (Ip::v4(address.octets()), 32),
        IpAddr::V6(address) => (Ip(address.octets()), 128),
    };
    one.inside(move || {
        let mut admin = Admin::new();
        let interface = admin.number(NAME);
        let route = Route { gateway: Some(gateway), ..Route::new((everywhere, 0), interface) };
        admin.route(Change::Add, &route).expect("a route");
    });
    let kinds = [(to(nobody[0]), UNREACHABLE), (to(nobody[1]), PROHIBITED)];
    let cut = to(host);
    let refuse = move |(to, kind): ((Ip, u8), u8)| {
        let mut admin = Admin::new();
        admin.route(Change::Add, &Route { kind, ..Route::new(to, 0) }).expect("a route");
    };
    router.inside(move || kinds.into_iter().for_each(refuse));
    let mut peer = Program::start(&far, By::Kernel, "peer.py", &[PEER]);
    assert_eq!(peer.line().as_deref(), Some("ready"));
    let arguments = [&[host, PEER][..], &nobody[..]].concat();
    let mut program = Program::start(&one, near, "errors.py", &arguments);
    let mut said = Said::default();
    while let Some(line) = program.line() {
        if line.starts_with('>') {
            router.inside(move || refuse((cut, UNREACHABLE)));
            program.tell("cut");
        } else {
            said.add(line);
        }
    }
    assert!(program.child.wait().expect("its end").success(), "{said:?}");
    Some(said)
}

#[test]
fn what_routers_say_reaches_the_socket_as_on_the_kernel() {
    for is_v6 in [false, true] {
        let Some(kernel) = errors(By::Kernel, is_v6) else { return };
        assert_eq!(kernel.lines.last().map(String::as_str), Some("end: all"));
        let stack = errors(By::Stack, is_v6).expect("the same cables");
        assert_eq!(stack.lines, kernel.lines, "IPv6 {is_v6}");
    }
}

/// The far host is served by a program that is killed, and at once by the next.
#[test]
fn the_next_program_has_the_port_at_once() {
    let Some([one, other]) = Cable::default().lay() else { return };
    for _ in 0..5 {
        let mut peer = Program::start(&one, By::Stack, "peer.py", &[PEER]);
        assert_eq!(peer.line().as_deref(), Some("ready"));
        let mut guests = Program::start(&other, By::Kernel, "guests.py", &["10.0.0.1", PEER]);
        assert_eq!(guests.line().as_deref(), Some("ready"));
        // Its first line is what peer.py is told to do: nothing that it knows, so it closes.
        guests.tell("reset 3 0");
        assert_eq!(guests.line().as_deref(), Some("ok"));
    }
}

/// What a program has written arrives after its end, however it ended; and the interface is the kernel's again when all is done.
#[test]
fn what_a_program_leaves_arrives() {
    let Some([one, other]) = Cable::default().lay() else { return };
    let mut sink = Program::start(&other, By::Kernel, "sink.py", &[PEER]);
    assert_eq!(sink.line().as_deref(), Some("ready"));
    for end in ["exit", "kill"] {
        let mut leaver = Program::start(&one, By::Stack, "leave.py", &["10.0.0.2", PEER, end]);
        let left = leaver.line().expect("how much it leaves");
        leaver.child.wait().expect("its end");
        // It is gone before the far end reads the first byte, and far more than the far end's buffer takes is on its way.
        assert!(left.parse::<u64>().expect("a number") > 500_000);
        sink.tell("read");
        assert_eq!(sink.line(), Some(format!("{left} end")));
    }
}

#[test]
fn children_that_can_not_be_members_leave_their_parents_connections_alone() {
    let Some([one, other]) = Cable::default().lay() else { return };
    let mut peer = Program::start(&other, By::Kernel, "peer.py", &[PEER]);
    assert_eq!(peer.line().as_deref(), Some("ready"));
    let mut forks = Program::start(&one, By::Stack, "forks.py", &["10.0.0.2", PEER]);
    let said: Vec<String> = std::iter::from_fn(|| forks.line()).collect();
    let expected = [
        "children 62 {'carried'}",
        "late ['ENOTCONN', 'ENOTCONN', 'ENOTCONN']",
        "parent True",
        "parent, alone True",
        "elsewhere ['ENOTCONN', 'ENOTCONN']",
        "parent, meanwhile True",
        "parent, at last True",
    ];
    assert_eq!(said, expected);
}

/// Two processes of one stack send at the same time, as fast as they can, what the kernel is to cut.
#[test]
fn what_workers_send_at_the_same_time_arrives() {
    let Some([one, other]) = Cable::default().lay() else { return };
    for far in [By::Kernel, By::Stack] {
        let mut workers = Program::start(&one, By::Stack, "workers.py", &[SERVER, "4", "256"]);
        assert_eq!(workers.line().as_deref(), Some("ready"));
        let mut fetch = Program::start(&other, far, "fetch.py", &["10.0.0.1", SERVER, "8"]);
        let said = fetch.line().expect("what came");
        assert_eq!(said, "2048 MiB by 8 connections of 2 workers, wrong: []", "the far end by {far:?}");
        assert_eq!(workers.line().as_deref(), Some("ends 0 0"));
    }
}

/// A tool reads the region of a live program.
#[test]
fn explain_tells_of_connections_of_the_stack() {
    let Some([one, other]) = Cable::default().lay() else { return };
    let mut sink = Program::start(&one, By::Stack, "sink.py", &[PEER]);
    assert_eq!(sink.line().as_deref(), Some("ready"));
    let stream = other.inside(|| {
        let mut stream = std::net::TcpStream::connect(("10.0.0.1", 7300)).expect("a connection");
        stream.write_all(&[7; 5000]).map(|()| stream).expect("sent")
    });
    let peer = stream.local_addr().expect("an address");
    // Accepted, and waiting to be told: its descriptor is there when the program has called accept(2).
    let explained = || {
        let output = Command::new(accel()).args(["explain", &sink.child.id().to_string()]).output();
        String::from_utf8(output.expect("accel").stdout).expect("text")
    };
    let row = format!("stack     tcp 10.0.0.1:7300 -> {peer} ESTABLISHED");
    let mut said = explained();
    while !said.contains(&row) || !said.contains("received 5.0 kB") {
        assert!(said.contains("runs under accel"), "{said}");
        std::thread::yield_now();
        said = explained();
    }
    sink.tell("read");
    drop(stream);
    assert_eq!(sink.line().as_deref(), Some("5000 end"));
}

/// A tool reads a live program's packets, and leaves nothing behind.
#[test]
fn dump_shows_what_a_program_sends_and_gets() {
    let Some([one, other]) = Cable::default().lay() else { return };
    let mut sink = Program::start(&one, By::Stack, "sink.py", &[PEER]);
    assert_eq!(sink.line().as_deref(), Some("ready"));
    let file = std::env::temp_dir().join(format!("accel-dump-{}.pcapng", std::process::id()));
    let mut dump = Command::new(accel());
    dump.args(["dump", "--pid", &sink.child.id().to_string(), "-w"]).arg(&file);
    dump.args(["tcp", "and", "port", PEER, "and", "not", "src", "10.9.9.9"]).stderr(Stdio::piped());
    let mut dump = dump.spawn().expect("accel");
    let mut said = BufReader::new(dump.stderr.take().expect("its output")).lines();
    let first = said.next().expect("a line").expect("text");
    assert!(first.contains(&format!("packets on {NAME}")), "{first}");
    let text: Vec<u8> = (0..5000u32).map(|at| at as u8).collect();
    let sent = text.clone();
    let guest = other.spawn(move || {
        let mut stream = std::net::TcpStream::connect(("10.0.0.1", 7300)).expect("a connection");
        stream.write_all(&sent).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        // The program closes too: then all packets but the last acknowledgment have been seen.
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).expect("an end");
    });
    sink.tell("read");
    assert_eq!(sink.line().as_deref(), Some("5000 end"));
    joined(guest);
    // SAFETY: takes numbers; the child was not waited for.
    unsafe { libc::kill(dump.id() as i32, libc::SIGINT) };
    let last = said.next().expect("a line").expect("text");
    assert!(last.ends_with(" packets."), "{last}");
    assert!(dump.wait().expect("its end").success());
    let packets = captured(&file);
    let _ = std::fs::remove_file(&file);
    let flags =
        |is_sent: bool| packets.iter().filter(move |packet| packet.0 == is_sent).map(|packet| packet.1[47]);
    let (syn, ack) = (2, 16);
    assert_eq!((flags(false).next(), flags(true).next()), (Some(syn), Some(syn | ack)));
    let of_frame = |frame: &[u8]| {
        let total = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        frame[34 + usize::from(frame[46] >> 4) * 4..total].to_vec()
    };
    let received: Vec<u8> =
        packets.iter().filter(|packet| !packet.0).flat_map(|packet| of_frame(&packet.1)).collect();
    assert!(received == text, "{} bytes were captured", received.len());
}

/// The packets of a capture: whether each was sent, and its bytes; in the order of their times.
fn captured(file: &Path) -> Vec<(bool, Vec<u8>)> {
    use pcap_file::pcapng::{Block, PcapNgReader, blocks::enhanced_packet::EnhancedPacketOption};
    let mut reader = PcapNgReader::new(std::fs::File::open(file).expect("a file")).expect("a capture");
    let (mut packets, mut last) = (Vec::new(), std::time::Duration::ZERO);
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a block").0 else { continue };
        assert!(packet.timestamp >= last, "times go on");
        last = packet.timestamp;
        let is_sent = packet.options.iter().any(|option| matches!(option, EnhancedPacketOption::Flags(2)));
        packets.push((is_sent, packet.data.to_vec()));
    }
    packets
}

/// And of sockets of UDP. Their port is the next program's at once, however the last one ended.
#[test]
fn explain_tells_of_datagrams_and_a_killed_programs_port_is_free() {
    let Some([one, other]) = Cable::default().lay() else { return };
    for _ in 0..5 {
        let mirror = &mut Program::start(&one, By::Stack, "mirror.py", &[PEER]);
        assert_eq!(mirror.line().as_deref(), Some("ready"));
        let output = Command::new(accel()).args(["explain", &mirror.child.id().to_string()]).output();
        let said = String::from_utf8(output.expect("accel").stdout).expect("text");
        assert!(said.contains("stack     udp6 [::]:7300\n                  0 B wait"), "{said}");
        let answer = other.inside(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
            socket.send_to(b"hello", "10.0.0.1:7300")?;
            let mut bytes = [0; 10];
            socket.recv(&mut bytes).map(|count| bytes[..count].to_vec())
        });
        assert_eq!(answer.expect("an answer"), b"hello");
    }
}
