//! What several processes do with the sockets of one region: fork, close, death, sockets sent from one to another, over
//! whole stacks.

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::ip;
use harness::sim::tcp::{PATIENCE, PORT, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::error::Error;
use stack::events::{READ_HUNG_UP, READABLE};
use stack::frames::state::State as FrameState;
use stack::process::Identity;
use stack::region::slab::Handle;
use stack::stack::Stack;
use stack::stats::Counter;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

/// Two hosts whose programs are the test itself.
struct World {
    network: Simulation<TcpHost>,
    ours: Node,
    theirs: Node,
}

const fn who(pid: u32) -> Identity {
    Identity { pid, started: 1000 + pid as u64, uid: 0 }
}

impl World {
    fn new() -> Self {
        let mut network = Simulation::new(1);
        let ours = network.add(TcpHost::new(1, &limits(1024)), Setup::plain(1));
        let theirs = network.add(TcpHost::new(2, &limits(1024)), Setup::plain(2));
        let path = Path::delayed(Duration::from_millis(1));
        network.wire(ours, theirs, path, path);
        Self { network, ours, theirs }
    }

    /// A call into a host's stack, every invariant after it, and a tenth of a second.
    fn at<R>(&mut self, node: Node, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(node);
        let done = host.with(now, port, act);
        host.check();
        self.network.run_for(Duration::from_millis(100));
        self.network.host(node).check();
        done
    }

    fn ours<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        self.at(self.ours, act)
    }

    fn theirs<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        self.at(self.theirs, act)
    }

    fn process(&mut self, pid: u32) -> Handle {
        self.ours(|stack| stack.parts.attach_process(&who(pid)).expect("room"))
    }

    /// A listener of ours, held by this process.
    fn listener(&mut self, process: Handle) -> Handle {
        self.ours(|stack| {
            let socket = stack.parts.tcp_socket(false, process.index).expect("room");
            stack.parts.tcp_bind(socket, (&Ip::UNSPECIFIED_V4, PORT)).expect("free");
            stack.listen(socket, 8).expect("free");
            socket
        })
    }

    /// Their connection to it.
    fn dial(&mut self) -> Handle {
        self.theirs(|stack| {
            let socket = stack.parts.tcp_socket(false, 0).expect("room");
            assert_eq!(stack.connect(socket, &ip(2), (&ip(1), PORT)), Err(Error::InProgress));
            socket
        })
    }

    /// A connection that this process has accepted: our end and theirs.
    fn accepted(&mut self, listener: Handle, process: Handle) -> (Handle, Handle) {
        let theirs = self.dial();
        (self.ours(|stack| stack.accept(listener, process.index)).expect("a connection"), theirs)
    }

    fn their_state(&mut self, socket: Handle) -> State {
        self.theirs(|stack| stack.state(socket).expect("there"))
    }

    fn end(&mut self, process: Handle) {
        while self.ours(|stack| stack.end_process(process, 32)).expect("there") {}
    }
}

#[test]
fn whoever_closes_first_closes_for_himself_and_the_last_for_both() {
    let mut world = World::new();
    let parent = world.process(10);
    let listener = world.listener(parent);
    let (ours, theirs) = world.accepted(listener, parent);
    let child = world.ours(|stack| {
        let child = stack.parts.fork_process(parent).expect("room");
        stack.parts.name_process(child, &who(11)).expect("expected");
        child
    });
    assert_eq!(world.ours(|stack| stack.close_by(ours, parent)), Ok(false));
    assert_eq!(world.ours(|stack| stack.close_by(ours, parent)), Err(Error::BadHandle), "twice");
    // The parent has gone on; the connection is the child's.
    assert_eq!(world.ours(|stack| stack.send(ours, &[b"from the child"], false)), Ok(14));
    let mut got = [0; 20];
    assert_eq!(world.theirs(|stack| stack.receive(theirs, &mut [&mut got])), Ok(14));
    assert_eq!(world.their_state(theirs), State::Established);
    assert_eq!(world.ours(|stack| stack.close_by(ours, child)), Ok(true));
    assert_eq!(world.their_state(theirs), State::CloseWait, "a FIN");
    assert!(world.ours(|stack| stack.close_by(ours, child)).is_err(), "nobody holds it");
}

#[test]
fn a_process_that_is_killed_leaves_a_fin_or_a_reset() {
    let mut world = World::new();
    let (parent, victim) = (world.process(10), world.process(12));
    let listener = world.listener(parent);
    let (_, quiet) = world.accepted(listener, victim);
    let (_, unread) = world.accepted(listener, victim);
    let (sending, draining) = world.accepted(listener, victim);
    let (kept, other) = world.accepted(listener, parent);
    assert_eq!(world.theirs(|stack| stack.send(unread, &[b"nobody will read it"], false)), Ok(19));
    // What the process has sent before it died arrives, and the FIN behind it.
    let text = vec![7; 60_000];
    let sent = world.ours(|stack| stack.send(sending, &[&text], false)).expect("room");
    world.end(victim);
    assert_eq!(world.their_state(quiet), State::CloseWait);
    assert_eq!(world.theirs(|stack| stack.take_error(unread)), Ok(Some(Error::ConnectionReset)));
    let mut got = vec![0; 100_000];
    let mut len = 0;
    while let Ok(more @ 1..) = world.theirs(|stack| stack.receive(draining, &mut [&mut got[len..]])) {
        len += more;
    }
    assert_eq!((len, &got[..len]), (sent, &text[..sent]));
    assert_eq!(world.theirs(|stack| stack.receive(draining, &mut [&mut got])), Ok(0));
    // The other process's connection does not know of it.
    assert_eq!(world.their_state(other), State::Established);
    assert_eq!(world.ours(|stack| stack.parts.holders(kept)), Ok(1 << parent.index));
    assert_eq!(world.ours(|stack| stack.end_process(victim, 32)), Err(Error::BadHandle), "its slot is free");
    // The two that wait for the peer's FIN are nobody's.
    assert_eq!(world.network.look(world.ours).counter(Counter::ResetsOut), 1);
}

#[test]
fn workers_share_a_listener_until_the_last_is_gone() {
    let mut world = World::new();
    let master = world.process(10);
    let listener = world.listener(master);
    let workers = [11, 12].map(|pid| {
        world.ours(|stack| {
            let child = stack.parts.fork_process(master).expect("room");
            stack.parts.name_process(child, &who(pid)).expect("expected");
            child
        })
    });
    world.end(master);
    let (first, _) = world.accepted(listener, workers[0]);
    let (second, theirs) = world.accepted(listener, workers[1]);
    assert_eq!(world.ours(|stack| (stack.parts.holders(first), stack.parts.holders(second))), {
        let bit = |worker: Handle| Ok(1 << worker.index);
        (bit(workers[0]), bit(workers[1]))
    });
    world.end(workers[0]);
    assert_eq!(world.their_state(theirs), State::Established);
    // Two wait when the last worker dies: nobody will accept them (inet_csk_listen_stop).
    let waiting = [world.dial(), world.dial()];
    world.end(workers[1]);
    for socket in waiting {
        assert_eq!(world.theirs(|stack| stack.take_error(socket)), Ok(Some(Error::ConnectionReset)));
    }
    let refused = world.dial();
    assert_eq!(world.theirs(|stack| stack.take_error(refused)), Ok(Some(Error::ConnectionRefused)));
    let held = world.network.host(world.ours).held();
    assert_eq!((held[0], held[2]), (2, 0), "the two that were accepted wait for the peer's FIN");
}

#[test]
fn a_socket_on_its_way_to_another_process_outlives_its_sender() {
    let mut world = World::new();
    let (sender, receiver) = (world.process(10), world.process(20));
    let listener = world.listener(sender);
    let (ours, theirs) = world.accepted(listener, sender);
    let message = world.ours(|stack| {
        let message = stack.parts.expect_process(sender).expect("room");
        stack.parts.share_socket(ours, sender, message).expect("its own");
        message
    });
    world.end(sender);
    assert_eq!(world.their_state(theirs), State::Established, "the message holds it");
    assert_eq!(world.ours(|stack| stack.parts.take_over(message, receiver)), Ok(()));
    assert_eq!(world.theirs(|stack| stack.send(theirs, &[b"hello"], false)), Ok(5));
    assert_eq!(world.ours(|stack| stack.events(ours).ready) & READABLE, READABLE);
    // A message that nobody took is ended as a process that has died.
    let lost = world.ours(|stack| {
        let lost = stack.parts.expect_process(receiver).expect("room");
        stack.parts.share_socket(ours, receiver, lost).expect("its own");
        stack.close_by(ours, receiver).expect("its own");
        lost
    });
    world.end(lost);
    assert_eq!(world.theirs(|stack| stack.take_error(theirs)), Ok(Some(Error::ConnectionReset)), "unread");
}

#[test]
fn many_sockets_of_a_dead_process_are_closed_a_few_at_a_time() {
    let mut world = World::new();
    let process = world.process(10);
    let listener = world.listener(process);
    let theirs: Vec<Handle> = (0..20).map(|_| world.accepted(listener, process).1).collect();
    let mut calls = 0;
    while world.ours(|stack| stack.end_process(process, 4)).expect("there") {
        calls += 1;
        let closed = theirs.iter().filter(|socket| {
            let ready = world.network.host_and_port(world.theirs);
            let (host, port) = ready;
            host.with(Instant(0), port, |stack| stack.events(**socket).ready) & READ_HUNG_UP != 0
        });
        assert!(closed.count() <= 4 * calls);
    }
    assert!(calls >= 5, "{calls}");
    for socket in theirs {
        assert_eq!(world.their_state(socket), State::CloseWait);
    }
}

/// A device that completes what it sends up to three seconds late, and in any order, on a wire that loses: retransmissions, resets
/// and closes find frames that the device still has. It compares the bytes of each when it is complete, and the words of frames say
/// of none that it has that anybody else may have it.
#[test]
fn late_completions_find_their_frames_as_they_were() {
    for seed in 0..8 {
        let (there, back) = (text(seed, 60_000), text(seed ^ 1 << 40, 30_000));
        let client = TcpHost::new(1, &limits(1024)).opening(Instant(0), ip(2), there.clone());
        let plan = Plan { answer: back.clone(), closes_unread: seed % 4 == 3, ..Plan::default() };
        let server = TcpHost::server(2, &limits(1024), plan);
        let path = Path { loss: 0.05, ..Path::delayed(Duration::from_millis(5)) };
        let mut network = Simulation::new(seed);
        let late = |number| Setup { completion_lag: Duration::from_secs(3), ..Setup::plain(number) };
        let nodes = [network.add(client, late(1)), network.add(server, late(2))];
        network.wire(nodes[0], nodes[1], path, path);
        let (mut most, mut again) = (0, 0);
        while !nodes.into_iter().all(|node| network.look(node).is_done()) {
            assert!(network.step() && network.now() < Instant(PATIENCE.0), "seed {seed}: it does not end");
            for node in nodes {
                let held = network.port(node).held();
                let (host, _) = network.host_and_port(node);
                let [fill, sending, sent_for_none] = in_states(host);
                assert_eq!(held, (fill, sending + sent_for_none), "seed {seed}: who has a frame");
                most = most.max(sending);
                again += usize::from(sent_for_none > 0);
            }
        }
        assert!(most > 5 && again > 0, "seed {seed}: frames were in flight and in queues at once");
        if seed % 4 != 3 {
            assert!(most > 10 && again > 10, "seed {seed}: {most} {again}");
            let got = nodes.map(|node| network.look(node).talks[0].got.clone());
            assert!(got == [back, there], "seed {seed}");
        }
        network.run_for(Duration::from_secs(400));
        for node in nodes {
            network.host(node).check();
            assert_eq!(network.host(node).held()[3], 0, "seed {seed}: every frame is back");
        }
    }
}

/// How many frames the words say the device receives into, sends for a queue, and sends for nobody any more.
fn in_states(host: &mut TcpHost) -> [usize; 3] {
    let states = host.frame_states();
    let count = |state: FrameState| states.iter().filter(|found| **found == state).count();
    [FrameState::Fill, FrameState::TxSocket, FrameState::Tx].map(count)
}
