//! UDP between whole stacks over a simulated wire: what is read was sent, whole, as often as the wire has brought it, and nothing is left
//! behind; and who is told of errors.

use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::text;
use harness::sim::udp::{BASE, MS, Net, address, host};
use stack::error::Error;
use stack::events::{FAILED, HUNG_UP, READ_HUNG_UP, READABLE, WRITABLE};
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};

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
