//! Programs under accel on a wire with a stranger: rows W1–W3, W5, W7, W10, W11, W15, W17, W18, W20, W23 and W24 of the list of attacks, from outside.
//! Whatever comes, the programs serve those who are in earnest, the kernel serves its own, and nothing is kept of what was nonsense.

#[path = "../fuzz/lone.rs"]
#[allow(dead_code)]
mod lone;
#[path = "../network/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use driver::keeper::{Attached, Keeper};
use driver::netlink::Netlink;
use driver::netlink::links;
use driver::sys::{self, Fd};
use engine::engine::{Engine, Materials};
use harness::sim::craft;
use harness::sim::random::Random;
use harness::sim::raw::ip6;
use harness::wire::namespace::Namespace;
use harness::wire::veth::{Cable, NAME};
use lone::{ACK, FIN, OURS, PSH, RST, SYN, Segment, THEIRS, URG, US, packet, timestamps};
use program::{By, Program};
use stack::hash::Secret;
use stack::ip::Interface;
use stack::stats::Counter;
use stack::tcp::state::State;
use stack::tcp::tcb::Tcb;
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::{Fragment, Ip};
use stack::wire::{icmp, protocol};

const ECHO: u16 = 7300;
const REDIS: u16 = 7379;
const KERNELS: u16 = 7500;
/// How long anybody in earnest waits before he gives up: many retransmissions.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hosts, and the programs of the near one.
struct World {
    far: Namespace,
    /// The test itself is a member of the stack, to look into it.
    engine: &'static Engine,
    steady: TcpStream,
    has_redis: bool,
    stranger: Stranger,
    _programs: Vec<Program>,
    _keeper: Keeper,
}

/// Who sends what he likes.
struct Stranger {
    socket: Fd,
    random: Random,
    /// The far end of a connection that lives.
    known: u16,
    sent: u64,
}

impl Stranger {
    fn new(far: &Namespace, known: u16) -> Self {
        let socket = far.inside(|| {
            let link = Netlink::open(0).and_then(|mut netlink| links::named(&mut netlink, NAME));
            let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).expect("a packet socket");
            let mut name = [0; 20];
            name[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&link.expect("the cable").index.to_ne_bytes());
            sys::bind(&socket, &name).map(|()| socket).expect("bound")
        });
        Self { socket, random: Random::new(1), known, sent: 0 }
    }

    /// Sends a frame, if the link takes such.
    fn send(&mut self, frame: &[u8]) {
        self.sent += u64::from(sys::send_with(&self.socket, frame, &[], 0).is_ok());
    }

    fn word(&mut self) -> u32 {
        self.random.next() as u32
    }

    /// Something from somebody to a program.
    fn segment(&mut self, source: (Ip, u16), flags: u8) -> Segment {
        let destination = (OURS, if self.random.happens(0.5) { ECHO } else { REDIS });
        Segment {
            source,
            destination,
            seq: self.word(),
            ack: self.word(),
            flags,
            window: 1000,
            urgent: 0,
            options: Vec::new(),
            text: Vec::new(),
            words: None,
            error: 0,
        }
    }

    /// Somebody: of the link, or of anywhere.
    fn somebody(&mut self) -> (Ip, u16) {
        let [a, b, c, d] = self.word().to_be_bytes();
        let ip = if a & 1 == 0 { Ip::v4([10, 0, 0, 3 + d % 250]) } else { Ip::v4([a, b, c, d]) };
        (ip, 1 + self.random.below(65_535) as u16)
    }

    /// The same as the connection that lives, with whatever else is given.
    fn blind(&mut self, flags: u8) -> Segment {
        let known = self.known;
        Segment { destination: (OURS, ECHO), ..self.segment((THEIRS, known), flags) }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random.next() as u8).collect()
    }
}

/// W15: more handshakes are begun than anybody could end.
fn syn_flood(stranger: &mut Stranger) {
    let source = stranger.somebody();
    let options = [&[2, 4, 5, 180, 4, 2][..], &timestamps(1, 0)].concat();
    let syn = Segment { options, ..stranger.segment(source, SYN) };
    stranger.send(&syn.bytes());
}

/// W10, W11: resets, SYNs, ends and data by somebody who knows the ports and guesses the rest.
fn blind(stranger: &mut Stranger) {
    let flags = [RST, RST | ACK, SYN, SYN | ACK, FIN | ACK, PSH | ACK, URG | PSH | ACK, 0]
        [stranger.random.below(8) as usize];
    let text = if flags & PSH == 0 { Vec::new() } else { stranger.bytes(100) };
    let urgent = stranger.word() as u16;
    let segment = Segment { text, urgent, ..stranger.blind(flags) };
    stranger.send(&segment.bytes());
}

/// W3, W5: options that end nowhere, and sizes that are too small.
fn options(stranger: &mut Stranger) {
    let small = stranger.random.below(65) as u8;
    let len = stranger.random.below(41) as usize;
    let options = if stranger.random.happens(0.3) { vec![2, 4, 0, small] } else { stranger.bytes(len) };
    let (source, known) = (stranger.somebody(), stranger.random.happens(0.5));
    let segment = if known { stranger.blind(ACK) } else { stranger.segment(source, SYN) };
    stranger.send(&Segment { options, ..segment }.bytes());
}

/// W20: sums that are wrong; tiny segments, of which some overlap.
fn tiny_and_wrong(stranger: &mut Stranger) {
    let error = if stranger.random.happens(0.5) { 1 + stranger.word() as u16 % 1000 } else { 0 };
    let seq = stranger.random.below(64) as u32;
    let segment = Segment { error, seq, text: vec![7; 1 + seq as usize % 3], ..stranger.blind(PSH | ACK) };
    stranger.send(&segment.bytes());
}

/// W1, W2: a good packet cut off anywhere, with bits turned over, or with bytes that follow.
fn mutated(stranger: &mut Stranger) {
    let source = stranger.somebody();
    let text = stranger.bytes(40);
    let segment = Segment { text, options: timestamps(1, 1), ..stranger.segment(source, PSH | ACK) };
    let mut frame = segment.bytes();
    for _ in 0..stranger.random.below(4) {
        let at = 12 + stranger.random.below(frame.len() as u64 - 12) as usize;
        frame[at] ^= 1 << stranger.random.below(8);
    }
    match stranger.random.below(3) {
        0 => frame.truncate(14 + stranger.random.below(frame.len() as u64 - 14) as usize),
        1 => frame.resize(frame.len() + stranger.random.below(1400) as usize, 0xa5),
        _ => {}
    }
    stranger.send(&frame);
}

/// W1: nothing but noise behind the link's header.
fn noise(stranger: &mut Stranger) {
    let len = stranger.random.below(1500) as usize;
    let ethertype =
        [ethernet::IPV4, ethernet::IPV6, 0x0806, stranger.word() as u16][stranger.random.below(4) as usize];
    let mut frame = craft::frame(US, [None; 2], ethertype, &stranger.bytes(len));
    if let Some(first) = frame.get_mut(14).filter(|_| stranger.random.happens(0.7)) {
        *first = if ethertype == ethernet::IPV6 { 0x60 } else { 0x45 };
    }
    stranger.send(&frame);
}

/// W7: fragments that never become anything, that overlap, and that are too much together.
fn fragments(stranger: &mut Stranger) {
    let (source, _) = stranger.somebody();
    let carried = [protocol::TCP, protocol::UDP, protocol::ICMP][stranger.random.below(3) as usize];
    let place = Fragment {
        identification: stranger.random.below(400) as u32,
        offset: (stranger.random.below(8191) * 8) as u16,
        more: stranger.random.happens(0.8),
    };
    let len = 8 * (1 + stranger.random.below(180) as usize);
    let datagram = craft::datagram(source, OURS, carried, Some(place), &stranger.bytes(len));
    stranger.send(&craft::frame(US, [None; 2], ethernet::IPV4, &datagram));
}

/// W23: options of IP, among them routes, and tags of VLANs that there are not.
fn detours(stranger: &mut Stranger) {
    let inner = stranger.blind(PSH | ACK).bytes();
    let (header, rest) = (&inner[14..34], &inner[34..]);
    let mut datagram = [header, &[131, 7, 4, 10, 0, 0, 2, 0], rest].concat();
    let len = datagram.len() as u16;
    datagram[0] = 0x47;
    datagram[2..4].copy_from_slice(&len.to_be_bytes());
    datagram[10..12].fill(0);
    let sum = stack::wire::checksum::Sum::ZERO.bytes(&datagram[..28]).checksum();
    datagram[10..12].copy_from_slice(&sum.to_be_bytes());
    stranger.send(&craft::frame(US, [None; 2], ethernet::IPV4, &datagram));
    let tag = ethernet::Tag { tpid: 0x8100, control: stranger.word() as u16 };
    stranger.send(&craft::frame(US, [Some(tag), None], ethernet::IPV4, &inner[14..]));
    stranger.send(&craft::frame(US, [Some(tag), Some(tag)], ethernet::IPV4, &inner[14..]));
    // Header upon header of IPv6, the last of which lies about its length.
    let hops = [[0, 0, 1, 4, 0, 0, 0, 0].repeat(8), vec![6, 255, 0, 0]].concat();
    let datagram = craft::datagram(ip6(2), ip6(1), 0, None, &hops);
    stranger.send(&craft::frame(US, [None; 2], ethernet::IPV6, &datagram));
}

/// W24: from ourselves, from everybody, from nobody, from another link's loopback.
fn martians(stranger: &mut Stranger) {
    let from = [[10, 0, 0, 1], [10, 0, 0, 255], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1], [0; 4]];
    let source = Ip::v4(from[stranger.random.below(6) as usize]);
    let flags = [SYN, ACK, RST, SYN | ACK][stranger.random.below(4) as usize];
    let port = if stranger.random.happens(0.5) { ECHO } else { stranger.word() as u16 | 1 };
    let segment = stranger.segment((source, port), flags);
    stranger.send(&segment.bytes());
}

/// W17, W18: errors about what was never sent, and about what may be on its way.
fn errors(stranger: &mut Stranger) {
    let (known, seq) = (stranger.known, stranger.word());
    let quoted = craft::quoted((OURS, ECHO), (THEIRS, known), seq);
    let message = match stranger.random.below(3) {
        0 => icmp::Message::Unreachable(icmp::Unreachable::Port),
        1 => icmp::Message::Unreachable(icmp::Unreachable::Host),
        _ => icmp::Message::TimeExceeded { code: 0 },
    };
    stranger.send(&packet(&THEIRS, &OURS, protocol::ICMP, &craft::icmp(&message, &quoted)));
}

/// Somebody says that others' addresses are his; at last their owner says that it isn't so.
fn claims_of_addresses(stranger: &mut Stranger) {
    let mut claim = |ip: [u8; 4], link: Address, kind: u8, about: [u8; 4]| {
        let head = [0, 1, 8, 0, 6, 4, 0, kind];
        let arp = [&head[..], &link.0, &ip, &US.0, &about].concat();
        stranger.send(&craft::frame(US, [None; 2], 0x0806, &arp));
    };
    const REQUEST: u8 = 1;
    const REPLY: u8 = 2;
    for last in 1..=250 {
        claim([10, 0, 0, last], Address([2, 0, 0, 0, 9, last]), REPLY, [10, 0, 0, 1]);
    }
    // About himself: that is believed also right after another's word (arp_is_garp).
    claim([10, 0, 0, 2], craft::address(2), REQUEST, [10, 0, 0, 2]);
}

/// An attack: its name, one packet of it, how many.
type Attack = (&'static str, fn(&mut Stranger), u32);

const ATTACKS: &[Attack] = &[
    ("fragments", fragments, 30_000),
    ("blind", blind, 60_000),
    ("options", options, 30_000),
    ("tiny and wrong", tiny_and_wrong, 30_000),
    ("mutated", mutated, 100_000),
    ("noise", noise, 60_000),
    ("detours", detours, 10_000),
    ("martians", martians, 15_000),
    ("errors", errors, 15_000),
    ("claims of addresses", claims_of_addresses, 4),
    ("SYNs", syn_flood, 150_000),
];

fn at(port: u16) -> SocketAddr {
    SocketAddr::new([10, 0, 0, 1].into(), port)
}

/// In a thread of the far host.
fn dial(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at(port), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE)).map(|()| stream)
}

fn says(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<bool> {
    let mut got = vec![0; text.len()];
    stream.write_all(text)?;
    stream.read_exact(&mut got).map(|()| got == text)
}

/// A whole visit: whether it was as it should be.
fn visit(port: u16) -> std::io::Result<bool> {
    let mut stream = dial(port)?;
    if port == REDIS {
        stream.write_all(b"PING\r\n")?;
        let mut got = [0; 7];
        return stream.read_exact(&mut got).map(|()| &got == b"+PONG\r\n");
    }
    stream.write_all(b"echo\n").and_then(|()| says(&mut stream, &[7; 3000]))
}

/// Whether the near host's kernel answers.
fn ping(number: u16) -> bool {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).expect("a raw socket");
    let mut name = [0; 16];
    name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    name[4..8].copy_from_slice(&[10, 0, 0, 1]);
    sys::connect(&socket, &name).expect("an address");
    let request = craft::icmp(&icmp::Message::EchoRequest { identifier: 77, sequence: number }, &[7; 40]);
    let reply = craft::icmp(&icmp::Message::EchoReply { identifier: 77, sequence: number }, &[7; 40]);
    sys::send_with(&socket, &request, &[], 0).expect("sent");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let mut entry = [libc::pollfd { fd: socket.raw(), events: libc::POLLIN, revents: 0 }];
        let _ = sys::poll_all(&mut entry, 1000);
        let mut bytes = [0; 200];
        while let Ok(came) = sys::receive_with(&socket, &mut bytes, &mut Vec::new(), libc::MSG_DONTWAIT) {
            if bytes[20..came.len.max(20)] == reply {
                return true;
            }
        }
    }
    false
}

fn attach(near: &Namespace) -> (Keeper, &'static Engine) {
    near.inside(|| {
        let link = Netlink::open(0).and_then(|mut netlink| links::named(&mut netlink, NAME));
        let mut keeper = Keeper::connect(link.expect("the cable").index, 200).expect("a keeper");
        let mut attached = keeper.attach().expect("the interface");
        let device = attached.device().expect("its device");
        let Attached { terms, region, bells, .. } = attached;
        let (limits, interface) = (terms.limits, Interface::default());
        let materials = Materials { region, limits, device, bells, interface, ports: terms.ports };
        let engine =
            Engine::attach(materials, || unreachable!("the programs have made it: {:?}", Secret([0; 2])));
        (keeper, engine.expect("the stack"))
    })
}

impl World {
    fn new() -> Option<Self> {
        let [near, far] = Cable::default().lay()?;
        let mut programs = vec![
            Program::start(&near, By::Stack, "peer.py", &[&ECHO.to_string()]),
            Program::start(&near, By::Kernel, "peer.py", &[&KERNELS.to_string()]),
        ];
        for program in &mut programs {
            assert_eq!(program.line().as_deref(), Some("ready"));
        }
        let port = REDIS.to_string();
        let words = ["--port", &port, "--save", "", "--protected-mode", "no", "--loglevel", "warning"];
        let has_redis = std::process::Command::new("redis-server").arg("--version").output().is_ok();
        if has_redis {
            programs.push(Program::run(&near, By::Stack, "redis-server", &words).expect("redis"));
            far.inside(|| while TcpStream::connect(at(REDIS)).is_err() {});
        } else {
            println!("SKIP redis beside the stranger: it is not installed");
        }
        let (keeper, engine) = attach(&near);
        let steady = far.inside(|| {
            let mut stream = dial(ECHO).expect("a connection");
            stream.write_all(b"echo\n").map(|()| stream).expect("sent")
        });
        let stranger = Stranger::new(&far, steady.local_addr().expect("its name").port());
        Some(Self { far, engine, steady, has_redis, stranger, _programs: programs, _keeper: keeper })
    }

    /// Everybody who is in earnest is served.
    fn works(&mut self, when: &str) {
        assert!(says(&mut self.steady, &[1; 5000]).is_ok_and(|same| same), "{when}: who was there before");
        for port in [ECHO, KERNELS, REDIS].into_iter().filter(|port| self.has_redis || *port != REDIS) {
            let visited = self.far.inside(move || visit(port));
            assert!(visited.as_ref().is_ok_and(|well| *well), "{when}: port {port}: {visited:?}");
        }
        assert!(self.far.inside(|| ping(7)), "{when}: ping");
    }

    /// Sockets, queues, and frames that neither wait for packets nor are fragments', as soon as nobody is there but the listeners and who
    /// stays.
    fn held(&self) -> [u32; 3] {
        let until = Instant::now() + PATIENCE;
        loop {
            let (held, guests) = self.engine.with(sys::gettid(), |stack| {
                let parts = &mut *stack.parts;
                let tcbs = parts.tcbs.iter().take(parts.slabs.tcbs.fresh() as usize);
                let is_guest = |tcb: &&Tcb| tcb.tag.is_used() && tcb.state() != State::Listen;
                let guests = tcbs.filter(is_guest).count();
                let frames = parts.pool.used() - parts.pool.filled() - parts.ip.fragments.frames;
                ([parts.slabs.tcbs.used(), parts.slabs.traffics.used(), frames], guests)
            });
            if guests == 1 && held[1..] == [0, 0] {
                return held;
            }
            assert!(Instant::now() < until, "{guests} guests, {held:?} are held");
            std::thread::yield_now();
        }
    }

    fn count(&self, counter: Counter) -> u64 {
        self.engine.with(sys::gettid(), |stack| stack.shared.counters().of(counter))
    }
}

#[test]
fn programs_serve_whatever_a_stranger_sends() {
    static IS_OVER: OnceLock<AtomicBool> = OnceLock::new();
    let Some(mut world) = World::new() else { return };
    world.works("before");
    let before = world.held();
    for (name, attack, count) in ATTACKS {
        let begun = Instant::now();
        // Somebody visits all the time.
        let is_over = IS_OVER.get_or_init(AtomicBool::default);
        is_over.store(false, Relaxed);
        let visitor = world.far.spawn(move || {
            let mut visits = (0, 0);
            while !is_over.load(Relaxed) {
                visits.0 += 1;
                visits.1 += u32::from(visit(ECHO).is_ok_and(|well| well));
            }
            visits
        });
        (0..*count).for_each(|_| attack(&mut world.stranger));
        is_over.store(true, Relaxed);
        let (visits, well) = visitor.join().expect("the visitor");
        assert_eq!(visits, well, "{name}: visits");
        world.works(name);
        println!("{name}: {visits} visits, {:?}", begun.elapsed());
    }
    assert!(world.stranger.sent > 300_000, "{} frames", world.stranger.sent);
    // They came as far as they should.
    for counter in [
        Counter::FragmentsIn,
        Counter::IcmpDoubtful,
        Counter::ChallengeAcks,
        Counter::Unacceptable,
        Counter::Martians,
        Counter::SynCookiesBad,
        Counter::SynCookiesSent,
        Counter::SynCookiesGood,
    ] {
        assert!(world.count(counter) > 0, "{counter:?}");
    }
    assert_eq!(world.count(Counter::Corrupt) + world.count(Counter::Recovered), 0);
    assert_eq!(world.held(), before, "nothing is left but who was there before");
    let checked = world.engine.with(sys::gettid(), |stack| {
        let limits = stack.parts.header.limits;
        assert!(stack.parts.slabs.syns.used() <= limits.syns);
        (stack.parts.check(), stack.parts.check_frames(stack.shared))
    });
    assert_eq!(checked, (Ok(()), Ok(())));
}
