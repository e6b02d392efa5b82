//! Connections that leave their stack and come back, in the midst of everything: what both programs read is what it would have been, and
//! the peer is told nothing. (The same with Linux's sockets is a test of the wire's.)

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::{Host, Simulation};
use stack::error::Error;
use stack::export::Snapshot;
use stack::process::Identity;
use stack::region::slab::Handle;
use stack::stack::Stack;
use stack::stats::Counter;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};

/// What leaves a stack: the snapshot, and the bytes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parcel {
    it: Snapshot,
    unread: Vec<u8>,
    text: Vec<u8>,
}

fn export(stack: &mut Stack<'_, '_, Port>, socket: Handle) -> Result<Parcel, Error> {
    let (mut unread, mut text) = (Vec::new(), Vec::new());
    let it = stack.export(
        socket,
        |piece| unread.extend_from_slice(piece),
        |piece| text.extend_from_slice(piece),
    )?;
    assert_eq!((unread.len(), text.len()), (it.unread as usize, (it.in_flight + it.unsent) as usize));
    Ok(Parcel { it, unread, text })
}

/// The connection leaves and comes back, under another handle.
fn there_and_back(stack: &mut Stack<'_, '_, Port>, socket: Handle) -> Option<Handle> {
    let before = export(stack, socket).ok()?;
    stack.abandon(socket).expect("there");
    let back = stack.parts.tcp_socket(!before.it.local.0.is_v4(), 0).expect("room");
    let halves = |bytes: &[u8]| bytes.len() / 3;
    let (unread, text) =
        (before.unread.split_at(halves(&before.unread)), before.text.split_at(halves(&before.text)));
    stack.import(back, &before.it, &[unread.0, unread.1], &[text.0, text.1]).expect("room");
    let after = export(stack, back).expect("the same state");
    assert_eq!((&after.unread, &after.text), (&before.unread, &before.text));
    // It may have sent something since: an acknowledgment that was owed, or text.
    let sent = Snapshot {
        in_flight: after.it.in_flight,
        unsent: after.it.unsent,
        window: after.it.window,
        ..before.it
    };
    assert_eq!(after.it, sent);
    let (was, is) = (before.it.window, after.it.window);
    assert_eq!((is.snd_wl1, is.snd_wnd, is.max_window), (was.snd_wl1, was.snd_wnd, was.max_window));
    assert!(after.it.in_flight >= before.it.in_flight);
    assert!((was.rcv_wup + was.rcv_wnd).le(is.rcv_wup + is.rcv_wnd), "the window does not shrink");
    Some(back)
}

/// The kernel was to have it, and doesn't take it: it goes on under its old name, which meanwhile nobody knew.
fn as_if_nothing_was(stack: &mut Stack<'_, '_, Port>, socket: Handle) -> Option<Handle> {
    let (mut unread, mut text) = (Vec::new(), Vec::new());
    let begun = stack.begin_handover(
        socket,
        |piece| unread.extend_from_slice(piece),
        |piece| text.extend_from_slice(piece),
    );
    let (it, left) = begun.ok()?;
    assert_eq!(stack.send(socket, &[b"x"], false), Err(Error::BadHandle));
    assert_eq!(stack.parts.check(), Ok(()));
    // Whatever came for it meanwhile is lost.
    stack.poll();
    assert_eq!(stack.cancel_handover(left, &it, &[&unread], &[&text]), Ok(socket));
    Some(socket)
}

/// How often a host's connections move.
const MOVES: usize = 12;

/// A host whose connections leave and come back every so often.
struct Restless {
    host: TcpHost,
    every: Duration,
    next: Instant,
    moved: usize,
}

impl Restless {
    fn new(host: TcpHost, every: Duration) -> Self {
        Self { host, every, next: Instant(0), moved: 0 }
    }
}

impl Host for Restless {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        let wanted = self.host.poll(now, port);
        // Each move begins the timers anew: one that never ends its moves would never send anything again.
        if now < self.next || self.moved >= MOVES {
            return wanted;
        }
        self.next = now + self.every;
        let mut talks = std::mem::take(&mut self.host.talks);
        for talk in &mut talks {
            let Some(socket) = talk.socket else { continue };
            let moves = if self.moved.is_multiple_of(2) { there_and_back } else { as_if_nothing_was };
            if let Some(back) = self.host.with(now, port, |stack| moves(stack, socket)) {
                (talk.socket, self.moved) = (Some(back), self.moved + 1);
            }
        }
        self.host.talks = talks;
        self.host.check();
        self.host.poll(now, port)
    }
}

fn run(seed: u64, path: Path, len: usize, every: [u64; 2]) -> [Restless; 2] {
    let (there, back) = (text(seed, len), text(seed ^ 1 << 40, len / 2));
    let remote = if seed.is_multiple_of(2) { ip(2) } else { ip6(2) };
    let client = TcpHost::new(1, &limits(1024)).opening(Instant(0), remote, there.clone());
    let server = TcpHost::server(2, &limits(1024), Plan { answer: back.clone(), ..Plan::default() });
    let mut network = Simulation::new(seed);
    let [a, b] = [(1, client, every[0]), (2, server, every[1])].map(|(number, host, every)| {
        network.add(Restless::new(host, Duration::from_millis(every)), Setup::plain(number))
    });
    network.wire(a, b, path, path);
    while ![a, b].into_iter().all(|node| network.look(node).host.is_done()) {
        assert!(network.step(), "seed {seed}: nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "seed {seed}: it does not end");
    }
    assert!(
        network.look(a).host.talks[0].got == back && network.look(b).host.talks[0].got == there,
        "seed {seed}"
    );
    for node in [a, b] {
        assert_eq!(network.look(node).host.counter(Counter::ResetsOut), 0, "seed {seed}");
        assert_eq!(network.look(node).host.counter(Counter::AcksOfNothing), 0, "seed {seed}");
    }
    network.run_for(Duration::from_secs(400));
    assert_eq!(network.host(a).host.held(), [0; 4], "seed {seed}");
    assert_eq!(network.host(b).host.held(), [1, 0, 0, 0], "seed {seed}");
    let empty = || Restless::new(TcpHost::new(9, &limits(64)), Duration(1));
    [a, b].map(|node| std::mem::replace(network.host(node), empty()))
}

#[test]
fn a_transfer_over_a_good_wire_does_not_notice() {
    for seed in 0..4 {
        let [client, server] = run(seed, Path::delayed(Duration::from_millis(5)), 600_000, [2, 3]);
        assert!(client.moved >= 5 && server.moved >= 5, "{} {}", client.moved, server.moved);
        // What was in flight counts as sent: it is not sent again for having moved.
        let again = client.host.counter(Counter::SegmentsRetransmitted);
        assert!(again <= 3, "seed {seed}: {again} were sent again");
    }
}

#[test]
fn a_transfer_over_a_bad_wire_ends_all_the_same() {
    let path = Path {
        loss: 0.02,
        duplicate: 0.02,
        reorder: 0.05,
        reorder_by: Duration::from_millis(4),
        ..Path::delayed(Duration::from_millis(5))
    };
    for seed in 10..18 {
        run(seed, path, 60_000, [13, 29]);
    }
}

/// Two stacks: an idle connection moves from one host's stack to another one with the same address, and goes on there.
#[test]
fn a_connection_moves_to_another_stack() {
    let mut network = Simulation::new(3);
    let stays = Plan { stays: true, ..Plan::default() };
    let mut client = TcpHost::new(1, &limits(256)).opening(Instant(0), ip(2), text(1, 3000));
    client.plan.stays = true;
    let [a, b] = [
        network.add(client, Setup { frames: 256, ..Setup::plain(1) }),
        network.add(TcpHost::server(2, &limits(256), stays), Setup { frames: 256, ..Setup::plain(2) }),
    ];
    let path = Path::delayed(Duration::from_millis(2));
    network.wire(a, b, path, path);
    network.run_for(Duration::from_millis(500));
    let now = network.now();
    let parcel = {
        let (host, port) = network.host_and_port(a);
        let socket = host.talks[0].socket.expect("open");
        host.with(now, port, |stack| {
            let parcel = export(stack, socket).expect("established");
            stack.abandon(socket).expect("there");
            assert_eq!(stack.state(socket), Err(Error::BadHandle));
            parcel
        })
    };
    assert_eq!((parcel.it.state(), parcel.unread.len(), parcel.text.len()), (State::Established, 0, 0));
    // The other stack has the host's address and port from here on; its clock is another one's.
    let mut other = TcpHost::new(1, &limits(256));
    let (host, port) = network.host_and_port(a);
    std::mem::swap(host, &mut other);
    *port = Port::spare(Setup { frames: 256, ..Setup::plain(1) });
    let socket = host.with(now, port, |stack| {
        let socket = stack.parts.tcp_socket(false, 0).expect("room");
        let elsewhere = Snapshot { local: (ip(7), 80), ..parcel.it };
        assert_eq!(stack.import(socket, &elsewhere, &[], &[]), Err(Error::AddressNotAvailable));
        assert_eq!(stack.import(socket, &parcel.it, &[b"x"], &[]), Err(Error::Invalid), "more than it says");
        stack.import(socket, &parcel.it, &[], &[]).expect("room");
        let second = stack.parts.tcp_socket(false, 0).expect("room");
        assert_eq!(stack.import(second, &parcel.it, &[], &[]), Err(Error::AddressInUse));
        stack.close(second).expect("there");
        assert_eq!(stack.send(socket, &[b"from another stack"], false), Ok(18));
        socket
    });
    host.check();
    network.run_for(Duration::from_millis(100));
    let got = &network.look(b).talks[0].got;
    assert!(got.ends_with(b"from another stack") && got.len() == 3018);
    let now = network.now();
    let (host, port) = network.host_and_port(b);
    let theirs = host.talks[0].socket.expect("open");
    assert_eq!(host.with(now, port, |stack| stack.send(theirs, &[b"and back"], false)), Ok(8));
    network.run_for(Duration::from_millis(100));
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    let mut buffer = [0; 100];
    assert_eq!(host.with(now, port, |stack| stack.receive(socket, &mut [&mut buffer])), Ok(8));
    assert_eq!(&buffer[..8], b"and back");
}

/// What is left of a connection that the kernel has: it answers nobody, it keeps others from its ends, it tells its other holder, and it
/// goes when that knows and the kernel's has ended.
#[test]
fn what_is_handed_over_stays_until_everybody_knows() {
    let mut network = Simulation::new(5);
    let mut client = TcpHost::new(1, &limits(256)).opening(Instant(0), ip(2), text(1, 3000));
    client.plan.stays = true;
    let stays = Plan { stays: true, ..Plan::default() };
    let [a, b] = [
        network.add(client, Setup { frames: 256, ..Setup::plain(1) }),
        network.add(TcpHost::server(2, &limits(256), stays), Setup { frames: 256, ..Setup::plain(2) }),
    ];
    let path = Path::delayed(Duration::from_millis(2));
    network.wire(a, b, path, path);
    network.run_for(Duration::from_millis(500));
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    let socket = host.talks[0].socket.expect("open");
    host.talks.clear();
    let who = |pid| Identity { pid, started: 1, uid: 0 };
    let (it, left, giver, other) = host.with(now, port, |stack| {
        let giver = stack.parts.attach_process(&who(1)).expect("a slot");
        assert_eq!(giver.index, 0, "it holds what the test has made");
        let other = stack.parts.fork_process(giver).expect("a slot");
        stack.parts.name_process(other, &who(2)).expect("a child");
        let (it, left) = stack.begin_handover(socket, |_| {}, |_| {}).expect("established");
        stack.end_handover(left, giver).expect("begun");
        (it, left, giver, other)
    });
    let (host, port) = network.host_and_port(b);
    let theirs = host.talks[0].socket.expect("open");
    assert_eq!(host.with(now, port, |stack| stack.send(theirs, &[b"to whom?"], false)), Ok(8));
    network.run_for(Duration::from_millis(100));
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    assert_eq!(host.counter(Counter::ResetsOut), 0);
    assert!(host.counter(Counter::HandedOver) > 0);
    host.with(now, port, |stack| {
        assert!(stack::events::load(&stack.shared.tcp_events[socket.index as usize]).is_at_kernels());
        let second = stack.parts.tcp_socket(false, 0).expect("room");
        let again = stack.import(second, &it, &[], &[]);
        assert_eq!(again, Err(Error::AddressInUse), "the kernel has it");
        stack.close(second).expect("there");
        assert_eq!(stack.forget_handed_over(9, |_| false), 0, "somebody doesn't know yet");
        assert!(!stack.leave_handed_over(Handle { generation: left.generation, ..socket }, other));
        assert!(stack.leave_handed_over(socket, other));
        assert_eq!(stack.forget_handed_over(9, |_| true), 0, "the kernel still has it");
        stack.parts.recover(stack.shared, |lost| panic!("{lost:?}"));
        assert_eq!(stack.forget_handed_over(9, |tcb| tcb.local_port != it.local.1), 1);
        assert_eq!(stack.state(left), Err(Error::BadHandle));
        assert_eq!(stack.parts.check(), Ok(()));
        // Processes that hold one end as any other.
        let (_, second) = (giver, stack.parts.tcp_socket(false, other.index).expect("room"));
        stack.import(second, &it, &[], &[]).expect("nobody has it");
        let (_, left) = stack.begin_handover(second, |_| {}, |_| {}).expect("established");
        while stack.end_process(other, 64) == Ok(true) {}
        assert_eq!(stack.forget_handed_over(9, |_| false), 1);
        assert_eq!(stack.state(left), Err(Error::BadHandle));
    });
    host.check();
}
