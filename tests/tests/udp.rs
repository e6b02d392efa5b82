//! UDP between whole stacks over a simulated wire: what is read was sent, whole, as often as the wire has brought it, and nothing is left
//! behind; and who is told of errors.

use harness::sim::craft;
use harness::sim::path::Path;
use harness::sim::port::{Packet, Setup};
use harness::sim::random::Random;
use harness::sim::raw::ip;
use harness::sim::tcp::text;
use harness::sim::udp::{BASE, MS, Net, address, host};
use stack::error::Error;
use stack::events::{FAILED, HUNG_UP, READ_HUNG_UP, READABLE, WRITABLE};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};
use stack::udp::send::Sending;
use stack::wire::{icmp, icmpv6, protocol};

#[test]
fn a_datagram_and_its_answer_over_both_versions() {
    for (seed, is_v6) in [(1, false), (2, true)] {
        let mut net = Net::new(seed);
        let (client, server) = (net.socket(0, is_v6), net.bound(1, true, 53));
        assert_eq!(net.ready(0, client), WRITABLE);
        let question = text(seed, 100);
        assert_eq!(net.send_to(0, client, (address(2, is_v6), 53), &question), Ok(100));
        net.run();
        assert_eq!(net.ready(1, server), READABLE | WRITABLE);
        let (got, bytes) = net.receive(1, server).expect("a datagram");
        assert_eq!(
            (got.source.0, got.destination, got.ttl, got.tos),
            (address(1, is_v6), address(2, is_v6), 64, 0)
        );
        assert!(bytes == question && got.segment == 0 && got.drops == 0);
        assert_eq!(net.receive(1, server), Err(Error::WouldBlock));
        assert_eq!(net.ready(1, server), WRITABLE);
        assert_eq!(net.send_to(1, server, got.source, b"answer"), Ok(6));
        net.run();
        let (got, bytes) = net.receive(0, client).expect("an answer");
        assert_eq!((got.source, &bytes[..]), ((address(2, is_v6), 53), &b"answer"[..]));
        assert!(got.arrived < net.network.now() && got.arrived > Instant(0));
        net.end(&[(0, client), (1, server)]);
    }
}

#[test]
fn a_peer_is_where_datagrams_go_and_come_from() {
    let mut net = Net::new(3);
    let (client, server, other) = (net.socket(0, false), net.bound(1, false, 53), net.bound(1, false, 54));
    assert_eq!(net.send(0, client, b"nowhere"), Err(Error::DestinationRequired));
    net.on(0, |stack| stack.udp_connect(client, (&ip(2), 53))).expect("a way");
    let local = net.on(0, |stack| stack.parts.udp(client).map(|udp| udp.local));
    assert_eq!(local, Ok(ip(1)), "the route has chosen it");
    for round in 0..3u8 {
        assert_eq!(net.send(0, client, &[round]), Ok(1));
        net.run();
        let (got, bytes) = net.receive(1, server).expect("a datagram");
        assert_eq!(bytes, [round]);
        // Of somebody else it hears nothing: that port is closed to him.
        assert_eq!(net.send_to(1, other, got.source, b"other"), Ok(5));
        assert_eq!(net.send_to(1, server, got.source, &[round + 1]), Ok(1));
        net.run();
        assert_eq!(net.receive(0, client).expect("an answer").1, [round + 1]);
        assert_eq!(net.receive(0, client), Err(Error::WouldBlock));
    }
    assert_eq!(net.counter(0, Counter::NoSocket), 3);
    net.on(0, |stack| stack.parts.udp_disconnect(client)).expect("a peer");
    assert_eq!(net.send(0, client, b"nowhere"), Err(Error::DestinationRequired));
    net.end(&[(0, client), (1, server), (1, other)]);
}

/// RFC 8085 §5.2: what an error quotes must be what the socket sends, from where it sends it.
#[test]
fn an_error_about_what_was_not_sent_is_nobodys() {
    for is_v6 in [false, true] {
        let mut net = Net::new(37);
        let (client, ours, theirs) = (net.socket(0, is_v6), address(1, is_v6), address(2, is_v6));
        net.on(0, |stack| stack.udp_connect(client, (&theirs, 53))).expect("a way");
        let port = net.on(0, |stack| stack.parts.udp(client).map(|udp| udp.local_port)).expect("a socket");
        let stranger = address(9, is_v6);
        let rows = [
            ((ours, port), (theirs, 54), false),
            ((ours, port), (stranger, 53), false),
            ((ours, port ^ 1), (theirs, 53), false),
            ((stranger, port), (theirs, 53), false),
            ((ours, port), (theirs, 53), true),
        ];
        for (from, to, is_told) in rows {
            let sent = craft::datagram(from.0, to.0, protocol::UDP, None, &craft::udp(from, to, b"hello"));
            let (kind, error) = if is_v6 {
                let message = icmpv6::Message::Unreachable(icmpv6::Unreachable::Port);
                (protocol::ICMPV6, craft::icmp_v6(theirs, ours, &message, &sent))
            } else {
                (protocol::ICMP, craft::icmp(&icmp::Message::Unreachable(icmp::Unreachable::Port), &sent))
            };
            let bytes = craft::packet(1, theirs, ours, kind, &error);
            let now = net.network.now();
            let (host, port) = net.network.host_and_port(net.nodes[0]);
            assert!(port.deliver(&Packet { bytes, ..Packet::default() }), "a ring with room");
            host.with(now, port, |stack| while stack.poll().more {});
            let told = net.on(0, |stack| stack.udp_take_error(client));
            assert_eq!(told, Ok(is_told.then_some(Error::ConnectionRefused)), "{from:?} {to:?}");
        }
        net.end(&[(0, client)]);
    }
}

#[test]
fn datagrams_of_every_size_arrive_whole() {
    for (seed, is_v6) in [(4, false), (5, true)] {
        let mut net = Net::new(seed);
        let (client, server) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        let most = if is_v6 { 65_527 } else { 65_507 };
        let single = if is_v6 { 1452 } else { 1472 };
        let sizes = [0, 1, 7, 8, 9, single - 1, single, single + 1, 2000, 2048, 3000, 9000, 65_000, most];
        for (at, size) in sizes.into_iter().enumerate() {
            let data = text(at as u64, size);
            let before = net.counter(0, Counter::FragmentsOut);
            assert_eq!(net.send_to(0, client, (address(2, is_v6), 53), &data), Ok(size), "{size}");
            net.run();
            let (got, bytes) = net.receive(1, server).unwrap_or_else(|error| panic!("{size}: {error}"));
            assert!(bytes == data && got.ttl == 64, "{size}");
            assert_eq!(net.counter(0, Counter::FragmentsOut) > before, size > single, "{size}");
        }
        for size in [most + 1, 65_535, 65_536, 100_000] {
            let sent = net.send_to(0, client, (address(2, is_v6), 53), &vec![0; size]);
            assert_eq!(sent, Err(Error::MessageSize), "{size}");
        }
        net.end(&[(0, client), (1, server)]);
    }
}

#[test]
fn what_a_reader_has_no_room_for_is_lost_and_what_he_peeks_at_stays() {
    let mut net = Net::new(6);
    let (client, server) = (net.socket(0, false), net.bound(1, false, 53));
    for data in [&b"first datagram"[..], b"", b"third"] {
        net.send_to(0, client, (ip(2), 53), data).expect("room");
    }
    net.run();
    assert_eq!(net.on(1, |stack| stack.udp_readable(server)), Ok(14));
    let mut short = [0; 5];
    let got =
        net.on(1, |stack| stack.udp_peek(server, 6, &mut [&mut short])).expect("there").expect("no end");
    assert_eq!((got.copied, got.len, &short), (5, 14, b"datag"));
    let got =
        net.on(1, |stack| stack.udp_receive(server, &mut [&mut short])).expect("there").expect("no end");
    assert_eq!((got.copied, got.len, &short), (5, 14, b"first"));
    // One without data is one, too, and no end.
    assert_eq!(net.ready(1, server) & READABLE, READABLE);
    assert_eq!(net.receive(1, server).expect("an empty one").1, b"");
    assert_eq!(net.receive(1, server).expect("the third").1, b"third");
    assert_eq!(net.receive(1, server), Err(Error::WouldBlock));
    net.end(&[(0, client), (1, server)]);
}

#[test]
fn a_full_buffer_drops_what_comes_and_counts_it() {
    let mut net = Net::new(7);
    let (client, server) = (net.socket(0, false), net.bound(1, false, 53));
    // Twice as much counts, in frames of 2 KiB, and one more.
    net.set(1, server, &Values { receive_buffer: 8192, ..Values::default() });
    for number in 0..20u8 {
        net.send_to(0, client, (ip(2), 53), &[number]).expect("room");
        net.network.run_for(Duration(MS));
    }
    net.run();
    for number in 0..9 {
        let (got, bytes) = net.receive(1, server).expect("a datagram");
        assert_eq!((bytes, got.drops), (vec![number], 0));
    }
    assert_eq!(net.receive(1, server), Err(Error::WouldBlock));
    assert_eq!(net.counter(1, Counter::ReceiveFull), 11);
    net.send_to(0, client, (ip(2), 53), b"later").expect("room");
    net.run();
    assert_eq!(net.receive(1, server).expect("a datagram").0.drops, 11);
    net.end(&[(0, client), (1, server)]);
}

#[test]
fn a_sender_waits_for_what_the_device_has_not_sent() {
    let setup = |number| Setup { completion_lag: Duration::from_millis(20), ..Setup::plain(number) };
    let mut net = Net::with_setup(8, BASE, [host(1).knowing(&[2]), host(2).knowing(&[1])], setup);
    let (client, server) = (net.socket(0, false), net.bound(1, false, 53));
    net.set(0, client, &Values { send_buffer: 8192, ..Values::default() });
    let mut sent = 0;
    while net.send_to(0, client, (ip(2), 53), &[sent]).is_ok() {
        sent += 1;
        assert!(sent < 100, "no limit");
    }
    assert_eq!(sent, 8, "frames of 2 KiB in 16 KiB");
    assert_eq!(net.send_to(0, client, (ip(2), 53), b"more"), Err(Error::WouldBlock));
    assert_eq!(net.ready(0, client), 0);
    assert_eq!(net.on(0, |stack| stack.udp_unsent(client)), Ok(16_384));
    net.run();
    assert_eq!(net.ready(0, client), WRITABLE);
    assert_eq!(net.on(0, |stack| stack.udp_unsent(client)), Ok(0));
    for number in 0..8 {
        assert_eq!(net.receive(1, server).expect("a datagram").1, [number]);
    }
    // What is cut goes whole, or none of it.
    let how = Sending { to: Some((ip(2), 53)), segment: Some(10), ..Sending::default() };
    assert_eq!(net.on(0, |stack| stack.udp_send(client, &[&[5; 115]], &how)), Ok(115));
    assert_eq!(net.on(0, |stack| stack.udp_send(client, &[&[6; 20]], &how)), Err(Error::WouldBlock));
    net.run();
    for part in [5; 115].chunks(10) {
        assert_eq!(net.receive(1, server).expect("a part").1, part);
    }
    assert_eq!(net.receive(1, server), Err(Error::WouldBlock));
    // One that closes while the device sends leaves nothing behind.
    net.send_to(0, client, (ip(2), 53), b"last").expect("room");
    net.end(&[(0, client), (1, server)]);
}

#[test]
fn shut_directions_end_as_linuxs_do() {
    let mut net = Net::new(9);
    let (client, server) = (net.socket(0, false), net.bound(1, false, 53));
    assert_eq!(net.on(0, |stack| stack.udp_shutdown(client, How::Read)), Err(Error::NotConnected));
    net.on(0, |stack| stack.udp_connect(client, (&ip(2), 53))).expect("a way");
    assert_eq!(net.on(0, |stack| stack.udp_receive(client, &mut [&mut [0; 4]])), Ok(None), "all the same");
    assert_eq!(net.send(0, client, b"question"), Ok(8));
    net.run();
    let source = net.receive(1, server).expect("a datagram").0.source;
    net.send_to(1, server, source, b"answer").expect("room");
    net.run();
    // What has arrived is read before the end.
    assert_eq!(net.receive(0, client).expect("an answer").1, b"answer");
    assert_eq!(net.on(0, |stack| stack.udp_receive(client, &mut [&mut [0; 4]])), Ok(None));
    assert_eq!(net.on(0, |stack| stack.udp_shutdown(client, How::Write)), Ok(()));
    assert_eq!(net.send(0, client, b"more"), Err(Error::BrokenPipe));
    assert_eq!(net.ready(0, client), READABLE | WRITABLE | READ_HUNG_UP | HUNG_UP);
    net.end(&[(0, client), (1, server)]);
}

#[test]
fn a_closed_port_is_told_to_who_is_connected() {
    for (seed, is_v6) in [(10, false), (11, true)] {
        let mut net = Net::new(seed);
        let (client, other) = (net.socket(0, is_v6), net.socket(0, is_v6));
        net.on(0, |stack| stack.udp_connect(client, (&address(2, is_v6), 53))).expect("a way");
        assert_eq!(net.send(0, client, b"question"), Ok(8));
        assert_eq!(net.send_to(0, other, (address(2, is_v6), 53), b"question"), Ok(8));
        net.run();
        assert_eq!(net.counter(1, Counter::NoSocket), 2);
        assert_eq!(net.ready(0, client), WRITABLE | FAILED);
        assert_eq!(net.ready(0, other), WRITABLE, "without a peer nobody is told");
        assert_eq!(net.receive(0, client), Err(Error::ConnectionRefused));
        assert_eq!(net.receive(0, client), Err(Error::WouldBlock), "once");
        assert_eq!(net.send(0, client, b"again"), Ok(5));
        net.run();
        assert_eq!(net.send(0, client, b"again"), Err(Error::ConnectionRefused));
        assert_eq!(net.on(0, |stack| stack.udp_take_error(client)), Ok(None));
        net.end(&[(0, client), (0, other)]);
    }
}

#[test]
fn who_asks_for_errors_gets_them_from_a_queue() {
    for (seed, is_v6) in [(12, false), (13, true)] {
        let mut net = Net::new(seed);
        let client = net.socket(0, is_v6);
        let switch = if is_v6 { Switch::ERRORS_V6 } else { Switch::ERRORS };
        net.set(0, client, &Values { options: switch, ..Values::default() });
        let remote = (address(2, is_v6), 53);
        for data in [&b"first question"[..], b"second"] {
            net.send_to(0, client, remote, data).expect("room");
        }
        net.run();
        assert_eq!(net.ready(0, client), WRITABLE | FAILED);
        let mut buffer = [0; 20];
        for (data, is_last) in [(&b"first question"[..], false), (b"second", true)] {
            let read =
                net.on(0, |stack| stack.udp_receive_error(client, &mut [&mut buffer])).expect("an error");
            assert_eq!(&buffer[..read.copied], data);
            let report = read.report;
            let (origin, kind, code) = if is_v6 { (3, 1, 4) } else { (2, 3, 3) };
            assert_eq!((report.origin, report.kind, report.code, report.info), (origin, kind, code, 0));
            assert_eq!((report.error(), report.offender), (Error::ConnectionRefused, remote.0));
            assert_eq!((report.destination, report.port), remote);
            // SO_ERROR is the next one's, and none after the last.
            assert_eq!(net.ready(0, client) & FAILED == 0, is_last);
        }
        assert_eq!(net.on(0, |stack| stack.udp_receive_error(client, &mut [])), Err(Error::WouldBlock));
        assert_eq!(net.on(0, |stack| stack.udp_take_error(client)), Ok(None));
        net.end(&[(0, client)]);
    }
}

/// Bytes of a datagram that tell which it is: its number, and what follows from that.
fn numbered(number: u64, len: usize) -> Vec<u8> {
    let mut data = number.to_be_bytes().to_vec();
    data.extend(text(number, len.saturating_sub(8)));
    data
}

/// A program of chance over a wire that does what wires do.
fn random_program(seed: u64) {
    const SOCKETS: usize = 4;
    let path = Path {
        loss: 0.05,
        duplicate: 0.05,
        corrupt: 0.02,
        reorder: 0.1,
        reorder_by: Duration::from_millis(3),
        jitter: Duration::from_millis(1),
        ..BASE
    };
    let hosts = [host(1).knowing(&[2]), host(2).knowing(&[1])];
    let setup =
        |number| Setup { completion_lag: Duration::from_millis(u64::from(number)), ..Setup::plain(number) };
    let mut net = Net::with_setup(seed, path, hosts, setup);
    let mut random = Random::new(seed);
    // Host and place in it: socket, version, and the port of the peer if it has one.
    let port = |at: usize| 100 + at as u16;
    let mut sockets: Vec<Vec<(Handle, bool)>> = [0, 1]
        .map(|host| {
            (0..SOCKETS)
                .map(|at| {
                    let is_v6 = at % 2 == 1;
                    let socket = net.bound(host, is_v6, port(at));
                    if at == 3 {
                        net.on(host, |stack| {
                            stack.udp_connect(socket, (&address(2 - host as u8, true), 103))
                        })
                        .expect("a way");
                    }
                    (socket, is_v6)
                })
                .collect()
        })
        .into();
    // What was sent: by whom, to which place, how long; and how often it was received.
    let mut sent: Vec<(usize, usize, usize, usize)> = Vec::new();
    let mut received: Vec<u8> = Vec::new();
    let (mut got, mut refused) = (0, 0);
    for _ in 0..600 {
        let (host, at) = (random.below(2) as usize, random.below(SOCKETS as u64) as usize);
        let (socket, is_v6) = sockets[host][at];
        match random.below(10) {
            0..5 => {
                let to = if at == 3 { 3 } else { random.below(3) as usize };
                // A socket of IPv6 has those of IPv4 to talk to, too.
                let remote = (address(2 - host as u8, is_v6 && to == 1), port(to));
                let len =
                    8 + [random.below(100), random.below(1500), random.below(9000)][random.below(3) as usize];
                let data = numbered(sent.len() as u64, len as usize);
                let done = if at == 3 {
                    net.send(host, socket, &data)
                } else {
                    net.send_to(host, socket, remote, &data)
                };
                match done {
                    Ok(taken) => {
                        assert_eq!(taken, data.len());
                        sent.push((host, at, to, data.len()));
                        received.push(0);
                    }
                    Err(Error::WouldBlock | Error::ConnectionRefused) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            5..8 => loop {
                let (datagram, data) = match net.receive(host, socket) {
                    Ok(one) => one,
                    Err(Error::WouldBlock | Error::ConnectionRefused) => break,
                    Err(error) => panic!("{error}"),
                };
                let number = u64::from_be_bytes(*data.first_chunk().expect("a number"));
                let (from, place, to, len) = sent[number as usize];
                assert!(data == numbered(number, len), "datagram {number} is whole, and no other's");
                assert_eq!((from, to), (1 - host, at), "datagram {number}");
                assert_eq!(datagram.source.1, port(place));
                received[number as usize] += 1;
                assert!(
                    received[number as usize] <= 2,
                    "datagram {number} once for each that the wire has made"
                );
                got += 1;
            },
            8 => {
                // Closed and opened again: what was in its queue is lost.
                net.on(host, |stack| stack.udp_close(socket)).expect("a socket");
                let socket = net.bound(host, is_v6, port(at));
                if at == 3 {
                    net.on(host, |stack| stack.udp_connect(socket, (&address(2 - host as u8, true), 103)))
                        .expect("a way");
                }
                sockets[host][at].0 = socket;
            }
            _ => {
                let length = Duration(random.below(20 * MS));
                net.network.run_for(length);
            }
        }
    }
    assert!(got > 60, "seed {seed}: {got} of {}, {refused} refused", sent.len());
    let all: Vec<(usize, Handle)> = [0, 1]
        .into_iter()
        .flat_map(|host| sockets[host].iter().map(move |(socket, _)| (host, *socket)))
        .collect();
    net.end(&all);
}

#[test]
fn programs_of_chance_over_wires_that_lose_double_and_corrupt() {
    let seeds = std::env::var("SEEDS").map_or(6, |seeds| seeds.parse().expect("a number"));
    for seed in 1000..1000 + seeds {
        random_program(seed);
    }
}
