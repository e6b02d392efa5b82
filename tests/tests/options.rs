//! Options of sockets over whole stacks: what they change on the wire, and what a connection has from its listener.

use harness::sim::Simulation;
use harness::sim::hand::{Bench, connected, listening, syn};
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{PORT, Plan, TcpHost, limits, text};
use stack::device::{Device, Link};
use stack::error::Error;
use stack::events::{READABLE, WRITABLE};
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::tcp::tcb::Flags as Tcbits;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;
use stack::wire::{ethernet, ipv4, tcp};

const MS: u64 = 1_000_000;
/// One way.
const DELAY: Duration = Duration::from_millis(1);

#[test]
fn a_syn_ack_and_the_connection_have_what_the_listener_has() {
    let values = Values {
        options: Switch::RECEIVE_BUFFER_LOCKED | Switch::KEEP_ALIVE,
        receive_buffer: 16_384,
        mss: 1000,
        congestion: 1,
        ..Values::default()
    };
    let mut host = listening(&values, Plan { stays: true, ..Plan::default() });
    let socket = host.listener.expect("a listener");
    host.parts().tcb(socket).expect("a socket").flags = Tcbits::NO_DELAY;
    let mut bench = Bench::new(1, host);
    let heard = bench.send(Flags::SYN, 100, 0, syn(), &[]);
    let [answer] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((answer.flags, answer.ack), (Flags::SYN | Flags::ACK, 101));
    assert_eq!((answer.options.mss, answer.options.window_scale), (Some(1000), Some(0)));
    assert_eq!(answer.window, 16_000, "whole segments of 1000 in 16 KiB");
    bench.send(Flags::ACK, 101, answer.seq + 1, Options::default(), &[]);
    let parts = bench.host().parts();
    let child = parts.tcbs.iter().find(|tcb| tcb.has_peer()).copied().expect("a connection");
    assert!(child.flags.has(Tcbits::NO_DELAY) && child.settings != 0 && child.mss == 1000);
    let values = bench.host().parts().options().of(child.settings);
    assert_eq!((values.mss, values.receive_buffer, values.congestion), (1000, 16_384, 1));
    assert!(bench.host().parts().check().is_ok());
}

#[test]
fn deferred_accept_waits_for_text_and_not_for_ever() {
    let values = Values { defer_accept: 3, ..Values::default() };
    for brings_text in [true, false] {
        let mut bench = Bench::new(2, listening(&values, Plan { stays: true, ..Plan::default() }));
        let heard = bench.send(Flags::SYN, 100, 0, syn(), &[]);
        let ack = heard[0].seq + 1;
        assert!(bench.send(Flags::ACK, 101, ack, Options::default(), &[]).is_empty());
        assert_eq!(bench.host().talks.len(), 0, "nothing to read");
        if brings_text {
            assert!(bench.wait(Duration::from_secs(5)).is_empty(), "it is waited for in silence");
            bench.send(Flags::ACK | Flags::PSH, 101, ack, Options::default(), b"hello");
            assert_eq!(bench.host().talks[0].got, b"hello");
        } else {
            // After 1, 3 and 7 s: only the last time the peer is asked again.
            let heard = bench.wait(Duration::from_secs(8));
            assert_eq!(heard.len(), 1);
            assert_eq!(heard[0].flags, Flags::SYN | Flags::ACK);
            bench.send(Flags::ACK, 101, ack, Options::default(), &[]);
            assert_eq!(bench.host().talks.len(), 1, "it is accepted as it is");
        }
    }
}

#[test]
fn syns_and_their_answers_go_again_as_often_as_the_user_says() {
    let values = Values { syn_count: 1, ..Values::default() };
    let mut bench = Bench::new(3, listening(&values, Plan::default()));
    bench.send(Flags::SYN, 100, 0, syn(), &[]);
    let again = bench.wait(Duration::from_secs(60));
    assert_eq!(again.len(), 1, "TCP_SYNCNT of a listener");
    assert_eq!(bench.host().held(), [1, 0, 0, 0]);

    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), ip(2), text(1, 10));
    client.values = values;
    let mut bench = Bench::new(4, client);
    assert_eq!(bench.wait(Duration::from_millis(2900)).len(), 2);
    assert_eq!(bench.host().talks[0].error, None);
    bench.wait(Duration::from_millis(200));
    assert_eq!(bench.host().talks[0].error, Some(Error::TimedOut), "after 1 and 2 s");
}

#[test]
fn listeners_of_one_port_share_what_comes() {
    let values = Values { options: Switch::REUSE_PORT, ..Values::default() };
    let mut host = TcpHost::new(1, &limits(1024)).knowing(&[2]);
    let listeners = [(); 3].map(|()| {
        let mut parts = host.parts();
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.set_tcp_options(socket, &values).expect("room");
        parts.tcp_bind(socket, (&Ip::UNSPECIFIED_V4, PORT)).expect("shared");
        parts.tcp_listen(socket, 30).expect("shared");
        socket
    });
    let mut client = TcpHost::new(2, &limits(1024)).knowing(&[1]);
    client.plan.stays = true;
    for number in 0..40 {
        let at = if number < 20 { 0 } else { 2000 * MS };
        client = client.opening(Instant(at + number), ip(1), Vec::new());
    }
    let mut network = Simulation::new(5);
    let [a, b] = [(host, 1), (client, 2)].map(|(host, number)| network.add(host, Setup::plain(number)));
    network.wire(a, b, Path::delayed(DELAY), Path::delayed(DELAY));
    network.run_for(Duration::from_secs(1));
    let lengths = |network: &mut Simulation<TcpHost>| {
        let parts = network.host(a).parts();
        [0, 1, 2].map(|index| parts.listeners[index].accept_len)
    };
    let first = lengths(&mut network);
    assert_eq!(first.iter().sum::<u32>(), 20);
    assert!(first.iter().all(|len| *len >= 2), "{first:?}: each has its share");
    // One leaves: what it has is reset, and what comes later goes to the others.
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    host.with(now, port, |stack| stack.close(listeners[1])).expect("a listener");
    host.check();
    network.run_for(Duration::from_secs(3));
    let second = lengths(&mut network);
    assert_eq!((second[0] + second[2], second[1]), (20 - first[1] + 20, 0));
    assert_eq!(network.look(a).counter(Counter::ResetsOut), u64::from(first[1]));
    let reset = network.look(b).talks.iter().filter(|talk| talk.error == Some(Error::ConnectionReset));
    assert_eq!(reset.count() as u32, first[1]);
}

#[test]
fn a_reader_is_woken_at_its_low_water_mark() {
    let (mut bench, socket, seq, ack) = connected(10, &Values::default());
    bench.set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 100);
    let ready = |bench: &mut Bench| bench.with(|stack| stack.events(socket)).ready & READABLE != 0;
    bench.send(Flags::ACK, seq, ack, Options::default(), &[1; 99]);
    assert!(!ready(&mut bench), "99 bytes are less");
    bench.send(Flags::ACK, seq + 99, ack, Options::default(), &[1; 1]);
    assert!(ready(&mut bench));
    bench.set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 101);
    assert!(!ready(&mut bench), "the option itself counts at once");
    bench.send(Flags::ACK | Flags::FIN, seq + 100, ack, Options::default(), &[]);
    assert!(ready(&mut bench), "there won't be more");
}

#[test]
fn a_writer_is_held_by_what_is_not_sent() {
    let (mut bench, socket, seq, ack) = connected(11, &Values::default());
    bench.set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 10_000);
    let ready = |bench: &mut Bench| bench.with(|stack| stack.events(socket)).ready & WRITABLE != 0;
    // The window of 20,000 is filled, and 10,000 more are taken, or a few more.
    let sent = bench.with(|stack| {
        let mut sent = 0;
        while let Ok(len) = stack.send(socket, &[&[7; 4000]], false) {
            sent += len;
        }
        sent
    });
    assert!((25_000..33_000).contains(&sent), "{sent}");
    assert!(!ready(&mut bench));
    bench.wait(Duration::from_millis(5));
    bench.send(Flags::ACK, seq, ack + 14_220, Options::default(), &[]);
    assert!(ready(&mut bench), "what waited is on its way");
}

#[test]
fn what_is_corked_leaves_with_no_delay_and_with_the_cork() {
    let (mut bench, socket, ..) = connected(12, &Values::default());
    bench.set(socket, libc::IPPROTO_TCP, libc::TCP_CORK, 1);
    for (name, value, expected) in [(libc::TCP_NODELAY, 1, 100), (libc::TCP_CORK, 0, 100)] {
        assert_eq!(bench.with(|stack| stack.send(socket, &[&[7; 100]], false)), Ok(100));
        assert!(bench.wait(Duration::from_millis(5)).iter().all(|heard| heard.text.is_empty()), "corked");
        bench.set(socket, libc::IPPROTO_TCP, name, value);
        let heard = bench.wait(Duration::from_millis(5));
        assert_eq!(heard.iter().map(|heard| heard.text.len()).sum::<usize>(), expected);
    }
}

#[test]
fn status_tells_what_happened() {
    let (mut bench, socket, seq, ack) = connected(13, &Values::default());
    bench.send(Flags::ACK, seq, ack, Options::default(), &[1; 1000]);
    assert_eq!(bench.with(|stack| stack.send(socket, &[&[7; 30_000]], false)), Ok(30_000));
    bench.wait(Duration::from_millis(10));
    bench.send(Flags::ACK, seq + 1000, ack + 1460, Options::default(), &[]);
    let info = bench.with(|stack| stack.status(socket)).expect("a socket");
    assert_eq!((info.state, info.ca_state, info.options), (1, 0, 6), "ESTABLISHED, open, SACK and scaling");
    assert_eq!((info.snd_mss, info.advmss, info.pmtu), (1460, 1460, 1500));
    assert_eq!((info.bytes_received, info.data_segs_in), (1000, 1));
    assert!((10..=30).contains(&info.last_data_recv), "{}", info.last_data_recv);
    assert_eq!((info.bytes_acked, info.delivered), (1461, 1), "the SYN counts, as in Linux's client");
    let on_the_way = info.unacked * 1460;
    assert!(info.data_segs_out > info.unacked && info.snd_cwnd >= 10);
    assert!(info.notsent_bytes + on_the_way >= 30_000 - 1460 && info.notsent_bytes > 0);
    assert!((1900..=20_000).contains(&info.rtt) && info.min_rtt <= info.rtt, "{}", info.rtt);
    assert_eq!((info.snd_wnd, info.wscales & 15), (20_000 << 7, 7));
    let listener = bench.host().listener.expect("a listener");
    let info = bench.with(|stack| stack.status(listener)).expect("a socket");
    assert_eq!((info.state, info.unacked, info.sacked), (10, 0, 8));
}

/// tcp(7): the headers of the SYN are read once from the connection that came of it, and from no other socket.
#[test]
fn a_connection_has_its_syn_until_it_is_read() {
    const SAVED_SYN: i32 = 28;
    let saved = |bench: &mut Bench, socket, room: usize| {
        let mut bytes = vec![0; room];
        let got = bench.with(|stack| stack.option(socket, libc::IPPROTO_TCP, SAVED_SYN, &mut bytes))?;
        bytes.truncate(got);
        Ok(bytes)
    };
    for how in [0, 1, 2] {
        let values = Values { save_syn: how, ..Values::default() };
        let (mut bench, socket, seq, ack) = connected(20 + u64::from(how), &values);
        let is_ethernet = bench.with(|stack| stack.device.capabilities().link == Link::Ethernet);
        // What comes later changes nothing.
        bench.send(Flags::ACK, seq, ack, Options::default(), &[7; 100]);
        let listener = bench.host().listener.expect("a listener");
        assert_eq!(saved(&mut bench, listener, 200), Ok(vec![]));
        if how == 0 {
            assert_eq!(saved(&mut bench, socket, 200), Ok(vec![]));
            continue;
        }
        let before_ip = if how == 2 && is_ethernet { ethernet::HEADER_LEN } else { 0 };
        let len = before_ip + 20 + 20 + 12;
        assert_eq!(saved(&mut bench, socket, len - 1), Err(Error::Invalid), "and it is kept");
        let bytes = saved(&mut bench, socket, 200).expect("a SYN");
        assert_eq!(bytes.len(), len);
        assert_eq!(bytes[before_ip], 0x45);
        let (header, _) = ipv4::parse(&bytes[before_ip..]).expect("headers");
        assert_eq!((header.header.source(), header.header.destination()), (ip(2), ip(1)));
        let (syn, text) = tcp::parse(&bytes[before_ip + 20..]).expect("headers");
        assert_eq!((syn.header.flags(), syn.header.seq().0, text.len()), (Flags::SYN, 100, 0));
        assert_eq!((syn.header.source.get(), syn.header.destination.get()), (5000, PORT));
        assert_eq!(saved(&mut bench, socket, 200), Ok(vec![]), "once");
    }
}
