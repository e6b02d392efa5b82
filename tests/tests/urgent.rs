//! Urgent data, and reads that leave or drop what they find, or tell what else there is: against a hand that sends every
//! segment.

use harness::sim::Simulation;
use harness::sim::hand::{Bench, connected};
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits};
use stack::error::Error;
use stack::events::{READABLE, URGENT, URGENT_AHEAD};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::time::{Duration, Instant};
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;

const URG: Flags = Flags(Flags::ACK.0 | Flags::URG.0);

/// recv(2) of up to so many bytes.
fn read(bench: &mut Bench, socket: Handle, len: usize) -> Result<Vec<u8>, Error> {
    bench.with(|stack| {
        let mut bytes = vec![0; len];
        let got = stack.receive(socket, &mut [&mut bytes])?;
        bytes.truncate(got);
        Ok(bytes)
    })
}

/// recv(2) with MSG_OOB.
fn urgent(bench: &mut Bench, socket: Handle, peek: bool) -> Result<u8, Error> {
    bench.with(|stack| {
        let mut bytes = [0];
        stack.receive_urgent(socket, &mut bytes, peek).map(|got| bytes[got - 1])
    })
}

fn at_mark(bench: &mut Bench, socket: Handle) -> bool {
    bench.with(|stack| stack.is_at_mark(socket)).expect("a socket")
}

fn ready(bench: &mut Bench, socket: Handle) -> u64 {
    bench.with(|stack| stack.events(socket)).ready & (READABLE | URGENT | URGENT_AHEAD)
}

#[test]
fn the_last_urgent_octet_is_read_by_itself_and_stops_other_reads() {
    let (mut bench, socket, seq, ack) = connected(1, &Values::default());
    assert_eq!(urgent(&mut bench, socket, false), Err(Error::Invalid), "there is none");
    bench.send_urgent(URG, seq, ack, 3, b"abCde");
    assert_eq!(ready(&mut bench, socket), READABLE | URGENT | URGENT_AHEAD);
    assert!(!at_mark(&mut bench, socket));
    assert_eq!(urgent(&mut bench, socket, true), Ok(b'C'));
    assert_eq!(urgent(&mut bench, socket, false), Ok(b'C'));
    assert_eq!(urgent(&mut bench, socket, false), Err(Error::Invalid), "it was read");
    assert_eq!(ready(&mut bench, socket), READABLE | URGENT_AHEAD);
    assert_eq!(read(&mut bench, socket, 10), Ok(b"ab".to_vec()), "a read stops at the mark");
    assert!(at_mark(&mut bench, socket));
    assert_eq!(read(&mut bench, socket, 10), Ok(b"de".to_vec()), "and the next one steps over it");
    assert!(!at_mark(&mut bench, socket));
    assert_eq!((ready(&mut bench, socket), read(&mut bench, socket, 1)), (0, Err(Error::WouldBlock)));
}

#[test]
fn in_line_it_is_an_octet_as_others_are_behind_a_mark() {
    let values = Values { options: Switch::OOB_INLINE, ..Values::default() };
    let (mut bench, socket, seq, ack) = connected(2, &values);
    bench.send_urgent(URG, seq, ack, 3, b"abCde");
    assert_eq!(urgent(&mut bench, socket, false), Err(Error::Invalid));
    assert_eq!(read(&mut bench, socket, 10), Ok(b"ab".to_vec()));
    assert!(at_mark(&mut bench, socket));
    assert_eq!(read(&mut bench, socket, 10), Ok(b"Cde".to_vec()));
    assert_eq!(ready(&mut bench, socket), 0);
}

/// W4: the pointer is 0, beyond the text, beyond the window; it repeats; the octet comes later or never.
#[test]
fn pointers_to_anywhere_do_no_harm() {
    let (mut bench, socket, seq, ack) = connected(3, &Values::default());
    bench.send_urgent(URG, seq, ack, 0, b"Ab");
    assert_eq!(urgent(&mut bench, socket, false), Ok(b'A'), "0 points to the first octet, as in Linux");
    assert_eq!(read(&mut bench, socket, 10), Ok(b"b".to_vec()));
    bench.send_urgent(URG, seq + 2, ack, 6, b"cd");
    assert_eq!(urgent(&mut bench, socket, false), Err(Error::WouldBlock), "it is announced");
    assert_eq!(ready(&mut bench, socket), READABLE | URGENT_AHEAD);
    assert_eq!(read(&mut bench, socket, 10), Ok(b"cd".to_vec()));
    bench.send(Flags::ACK, seq + 4, ack, Options::default(), b"efgHij");
    assert_eq!(urgent(&mut bench, socket, false), Ok(b'H'));
    for _ in 0..3 {
        bench.send_urgent(URG, seq + 10, ack, 65_535, b"");
    }
    assert_eq!(urgent(&mut bench, socket, false), Err(Error::WouldBlock), "beyond the window");
    // The mark has moved on: what it had been is text again, but for the octet, which was passed over only when next.
    assert_eq!(read(&mut bench, socket, 10), Ok(b"efgHij".to_vec()));
    bench.send_urgent(Flags(URG.0 | Flags::FIN.0), seq + 10, ack, 1, b"");
    assert_eq!(read(&mut bench, socket, 10), Ok(Vec::new()), "the end");
    bench.host().check();
}

#[test]
fn a_second_urgent_octet_takes_the_place_of_the_first() {
    let (mut bench, socket, seq, ack) = connected(4, &Values::default());
    bench.send_urgent(URG, seq, ack, 1, b"A");
    bench.send_urgent(URG, seq + 1, ack, 1, b"B");
    assert_eq!(urgent(&mut bench, socket, false), Ok(b'B'));
    assert_eq!(read(&mut bench, socket, 10), Err(Error::WouldBlock), "the first one had its time");
    bench.send(Flags::ACK, seq + 2, ack, Options::default(), b"c");
    assert_eq!(read(&mut bench, socket, 10), Ok(b"c".to_vec()));
}

#[test]
fn what_is_sent_urgently_has_a_pointer_until_it_is_acknowledged() {
    let (mut bench, socket, seq, ack) = connected(5, &Values::default());
    assert_eq!(bench.with(|stack| stack.send_urgent(socket, &[b"abc"])), Ok(3));
    let heard = bench.wait(Duration::from_millis(5));
    let pointers: Vec<_> = heard.iter().map(|heard| (heard.flags.has(Flags::URG), heard.urgent)).collect();
    assert_eq!(pointers, [(true, 3)], "behind the last octet");
    // Urgent text does not wait for an acknowledgment (tcp_nagle_test).
    assert_eq!(bench.with(|stack| stack.send_urgent(socket, &[b"d"])), Ok(1));
    assert_eq!(bench.wait(Duration::from_millis(5))[0].text, b"d");
    bench.send(Flags::ACK, seq, ack + 4, Options::default(), &[]);
    assert_eq!(bench.with(|stack| stack.send(socket, &[b"e"], false)), Ok(1));
    let heard = bench.wait(Duration::from_millis(5));
    assert!(!heard[0].flags.has(Flags::URG));
}

#[test]
fn a_peek_leaves_what_it_finds_and_a_truncating_read_drops_it() {
    let (mut bench, socket, seq, ack) = connected(6, &Values::default());
    bench.send(Flags::ACK, seq, ack, Options::default(), b"abcdefgh");
    let peek = |bench: &mut Bench, skip: usize, len: usize| {
        let mut bytes = vec![0; len];
        let (first, second) = bytes.split_at_mut(len / 2);
        let got = bench.with(|stack| stack.peek(socket, skip, &mut [first, second]))?;
        bytes.truncate(got);
        Ok::<_, Error>(bytes)
    };
    assert_eq!(peek(&mut bench, 0, 4), Ok(b"abcd".to_vec()));
    assert_eq!(peek(&mut bench, 6, 4), Ok(b"gh".to_vec()));
    assert_eq!(peek(&mut bench, 8, 4), Err(Error::WouldBlock));
    assert_eq!(bench.with(|stack| stack.discard_text(socket, 3)), Ok(3));
    assert_eq!(peek(&mut bench, 0, 20), Ok(b"defgh".to_vec()));
    assert_eq!(bench.with(|stack| stack.discard_text(socket, 100)), Ok(5));
    assert_eq!(bench.with(|stack| stack.discard_text(socket, 1)), Err(Error::WouldBlock));
    bench.send(Flags::ACK | Flags::FIN, seq + 8, ack, Options::default(), b"");
    assert_eq!(peek(&mut bench, 0, 1), Ok(Vec::new()));
}

/// Between two whole stacks over a lossy wire: the mark is where it was set, and no octet is lost or doubled.
#[test]
fn marks_survive_loss() {
    for seed in 20..26 {
        let mut network = Simulation::new(seed);
        let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), ip(2), Vec::new());
        client.plan.stays = true;
        let plan = Plan { stays: true, reads_from: Instant(u64::MAX), ..Plan::default() };
        let server = TcpHost::server(2, &limits(1024), plan).knowing(&[1]);
        let [a, b] = [(client, 1), (server, 2)].map(|(host, n)| network.add(host, Setup::plain(n)));
        let path = Path { loss: 0.1, ..Path::delayed(Duration::from_millis(2)) };
        network.wire(a, b, path, path);
        network.run_for(Duration::from_secs(30));
        let [from, to] = [a, b].map(|node| network.look(node).talks[0].socket.expect("a connection"));
        let now = network.now();
        let (host, port) = network.host_and_port(a);
        host.with(now, port, |stack| {
            assert_eq!(stack.send(from, &[&[1; 5000]], false), Ok(5000));
            assert_eq!(stack.send_urgent(from, &[b"!"]), Ok(1));
            assert_eq!(stack.send(from, &[&[2; 5000]], false), Ok(5000));
        });
        network.run_for(Duration::from_secs(60));
        let now = network.now();
        let (host, port) = network.host_and_port(b);
        host.with(now, port, |stack| {
            let mut bytes = vec![0; 20_000];
            assert_eq!(stack.receive(to, &mut [&mut bytes]), Ok(5000), "seed {seed}");
            assert_eq!(stack.is_at_mark(to), Ok(true));
            assert_eq!(stack.receive_urgent(to, &mut bytes[..1], false), Ok(1));
            assert_eq!(bytes[0], b'!');
            assert_eq!(stack.receive(to, &mut [&mut bytes]), Ok(5000));
            assert!(bytes[..5000].iter().all(|byte| *byte == 2));
        });
        network.host(b).check();
    }
}

/// recv(2) with MSG_PEEK.
fn peek(bench: &mut Bench, socket: Handle, len: usize) -> Result<Vec<u8>, Error> {
    bench.with(|stack| {
        let mut bytes = vec![0; len];
        let got = stack.peek(socket, 0, &mut [&mut bytes])?;
        bytes.truncate(got);
        Ok(bytes)
    })
}

#[test]
fn with_so_peek_off_a_peek_goes_on_where_the_last_one_ended() {
    let (mut bench, socket, seq, ack) = connected(20, &Values::default());
    let (level, name) = (1, 42);
    let offset = |bench: &mut Bench| {
        let mut bytes = [0; 4];
        bench.with(|stack| stack.option(socket, level, name, &mut bytes)).expect("SO_PEEK_OFF");
        i32::from_ne_bytes(bytes)
    };
    bench.send(Flags::ACK, seq, ack, Options::default(), b"abcdefgh");
    assert_eq!(offset(&mut bench), -1);
    assert_eq!(
        [peek(&mut bench, socket, 2), peek(&mut bench, socket, 2)],
        [Ok(b"ab".to_vec()), Ok(b"ab".to_vec())]
    );
    bench.set(socket, level, name, 1);
    assert_eq!(
        [peek(&mut bench, socket, 2), peek(&mut bench, socket, 3)],
        [Ok(b"bc".to_vec()), Ok(b"def".to_vec())]
    );
    assert_eq!(offset(&mut bench), 6);
    // What is read before it takes it along.
    assert_eq!(read(&mut bench, socket, 4), Ok(b"abcd".to_vec()));
    assert_eq!((offset(&mut bench), peek(&mut bench, socket, 9)), (2, Ok(b"gh".to_vec())));
    assert_eq!(peek(&mut bench, socket, 9), Err(Error::WouldBlock), "everything was seen");
    assert_eq!(read(&mut bench, socket, 9), Ok(b"efgh".to_vec()));
    bench.send(Flags::ACK, seq + 8, ack, Options::default(), b"ij");
    assert_eq!((offset(&mut bench), peek(&mut bench, socket, 9)), (0, Ok(b"ij".to_vec())));
    bench.set(socket, level, name, -1);
    assert_eq!((offset(&mut bench), peek(&mut bench, socket, 9)), (-1, Ok(b"ij".to_vec())));
}

#[test]
fn a_reader_is_told_what_else_there_is() {
    let (mut bench, socket, seq, ack) = connected(21, &Values::default());
    let unread = |bench: &mut Bench| bench.with(|stack| stack.unread(socket)).expect("a socket");
    assert_eq!(unread(&mut bench), 0);
    bench.send(Flags::ACK | Flags::FIN, seq, ack, Options::default(), b"abcd");
    assert_eq!(unread(&mut bench), 4);
    assert_eq!(read(&mut bench, socket, 4), Ok(b"abcd".to_vec()));
    assert_eq!(unread(&mut bench), 1, "the end (tcp_inq_hint)");
}

#[test]
fn a_read_tells_when_its_last_text_arrived() {
    let values = Values { options: Switch::TIMESTAMP_NS, ..Values::default() };
    let (mut bench, socket, seq, ack) = connected(15, &values);
    let arrived =
        |bench: &mut Bench, len| bench.with(|stack| stack.text_arrived(socket, len)).expect("a socket");
    assert_eq!(arrived(&mut bench, 10), None, "there is nothing");
    // The second one is copied behind the first, whose time is lost; the third has a frame to itself.
    let now = |bench: &mut Bench| bench.with(|stack| stack.now);
    let mut times = Vec::new();
    for (at, text) in [(0, &[1; 100][..]), (100, &[2; 100]), (200, &[3; 1000])] {
        bench.wait(Duration::from_millis(10));
        let before = now(&mut bench);
        bench.send(Flags::ACK, seq + at, ack, Options::default(), text);
        let time = arrived(&mut bench, 1 << 20).expect("text");
        assert!(before <= time && time <= now(&mut bench), "{before:?} {time:?}");
        times.push(time);
    }
    assert_eq!(arrived(&mut bench, 1), Some(times[1]), "joined text has the later time");
    assert_eq!(arrived(&mut bench, 200), Some(times[1]));
    assert_eq!(arrived(&mut bench, 201), Some(times[2]));
    assert_eq!(arrived(&mut bench, 1 << 20), Some(times[2]), "as far as there is text");
    assert_eq!(read(&mut bench, socket, 200).map(|text| text.len()), Ok(200));
    assert_eq!(arrived(&mut bench, 1), Some(times[2]));
    // A read stops before urgent text, and so does the time.
    bench.wait(Duration::from_millis(10));
    bench.send_urgent(URG, seq + 1200, ack, 1, &[4; 1000]);
    assert_eq!(arrived(&mut bench, 2000), Some(times[2]));
}
