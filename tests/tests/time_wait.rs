//! Connections that nobody uses any more: TIME-WAIT that gives way, how many of it there may be, and how many that their
//! programs have closed.

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PORT, Plan, TcpHost, limits};
use harness::sim::{Node, Simulation};
use stack::error::Error;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stack::Stack;
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

/// A client whose calls a test makes, and a server that finishes when its peer has.
struct World {
    network: Simulation<TcpHost>,
    client: Node,
    server: Node,
    remote: Ip,
}

impl World {
    fn new(seed: u64, remote: Ip, sysctls: &[(&str, u32)]) -> Self {
        let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]);
        for (name, value) in sysctls {
            assert!(client.parts().host.set(name, *value));
        }
        client.checks = true;
        let mut network = Simulation::new(seed);
        let client = network.add(client, Setup::plain(1));
        let plan = Plan { echoes: true, ..Plan::default() };
        let server = TcpHost::server(2, &limits(1024), plan).knowing(&[1]);
        let server = network.add(server, Setup::plain(2));
        let path = Path::delayed(Duration::from_millis(1));
        network.wire(client, server, path, path);
        Self { network, client, server, remote }
    }

    fn wait(&mut self, millis: u64) {
        self.network.run_for(Duration::from_millis(millis));
    }

    fn on<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(self.client);
        let done = host.with(now, port, |stack| {
            let done = act(stack);
            stack.poll();
            done
        });
        host.check();
        self.network.run_for(Duration(0));
        done
    }

    /// connect(2) from this port.
    fn connect(&mut self, port: u16) -> (Handle, Result<(), Error>) {
        let remote = self.remote;
        self.on(|stack| {
            let socket = stack.parts.tcp_socket(!remote.is_v4(), 0).expect("room");
            let values = Values { options: Switch::REUSE_ADDRESS, ..Values::default() };
            stack.parts.set_tcp_options(socket, &values).expect("room");
            let wildcard = if remote.is_v4() { Ip::UNSPECIFIED_V4 } else { Ip::UNSPECIFIED };
            if port != 0 {
                stack.parts.tcp_bind(socket, (&wildcard, port)).expect("a port");
            }
            (socket, stack.connect(socket, &Ip::UNSPECIFIED, (&remote, PORT)))
        })
    }

    /// A connection from this port that the client closes first.
    fn leave_in_time_wait(&mut self, port: u16) -> u16 {
        let (socket, begun) = self.connect(port);
        assert_eq!(begun, Err(Error::InProgress));
        self.wait(5);
        let port = self.on(|stack| stack.parts.tcb(socket).expect("a socket").local_port);
        self.on(|stack| stack.close(socket)).expect("a socket");
        self.wait(10);
        port
    }

    fn left(&mut self) -> (u32, u32) {
        let left = *self.network.host(self.client).parts().left;
        (left.orphans, left.time_waits)
    }

    fn state(&mut self, socket: Handle) -> Option<State> {
        self.on(|stack| stack.state(socket)).ok()
    }
}

#[test]
fn a_port_that_was_chosen_is_taken_over_at_once() {
    for remote in [ip(2), ip6(2)] {
        let mut world = World::new(1, remote, &[]);
        world.leave_in_time_wait(5000);
        assert_eq!(world.left(), (0, 1));
        // The server's own end is closed: only our timestamps matter (RFC 6191).
        let (socket, begun) = world.connect(5000);
        assert_eq!((begun, world.left()), (Err(Error::InProgress), (0, 0)));
        world.wait(5);
        assert_eq!(world.state(socket), Some(State::Established));
        assert_eq!(world.network.look(world.client).counter(Counter::SegmentsRetransmitted), 0);
        world.on(|stack| stack.close(socket)).expect("a socket");
        world.network.run_for(Duration::from_secs(100));
        assert_eq!((world.left(), world.network.host(world.client).held()[0]), ((0, 0), 0));
    }
}

#[test]
fn without_timestamps_time_wait_is_waited_for() {
    let mut world = World::new(2, ip(2), &[]);
    world.leave_in_time_wait(5000);
    let parts = world.network.host(world.client).parts();
    let old = parts.tcbs.iter_mut().find(|tcb| tcb.state() == State::TimeWait).expect("one in TIME-WAIT");
    old.flags = old.flags.without(stack::tcp::tcb::Flags::TIMESTAMPS);
    let (socket, begun) = world.connect(5000);
    assert_eq!(begun, Err(Error::AddressNotAvailable));
    world.network.run_for(Duration::from_secs(61));
    let remote = world.remote;
    let begun = world.on(|stack| stack.connect(socket, &Ip::UNSPECIFIED, (&remote, PORT)));
    assert_eq!(begun, Err(Error::InProgress));
}

#[test]
fn ports_of_the_stacks_choice_come_back_after_a_second_if_the_host_says_so() {
    for (reuse, delay, wait, is_free) in [
        (0, 1000, 5000, false),
        (2, 1000, 5000, false),
        (1, 1000, 900, false),
        (1, 1000, 1100, true),
        (1, 50, 60, true),
    ] {
        let mut world = World::new(3, ip(2), &[("tcp_tw_reuse", reuse), ("tcp_tw_reuse_delay", delay)]);
        let parts = world.network.host(world.client).parts();
        parts.leases[0].count = 1;
        let port = world.leave_in_time_wait(0);
        world.wait(wait);
        let (socket, begun) = world.connect(0);
        if !is_free {
            assert_eq!(begun, Err(Error::AddressNotAvailable), "reuse {reuse} after {wait} ms");
            continue;
        }
        assert_eq!(begun, Err(Error::InProgress), "reuse {reuse} after {wait} ms");
        world.wait(5);
        assert_eq!(world.state(socket), Some(State::Established));
        assert_eq!(world.on(|stack| stack.parts.tcb(socket).expect("a socket").local_port), port);
    }
}

/// A program that has shut down both ways still has its descriptor.
#[test]
fn who_still_holds_what_was_taken_over_can_read_what_it_has_received() {
    let mut world = World::new(4, ip(2), &[]);
    world.network.host(world.server).plan.answer = b"answer".to_vec();
    let (held, _) = world.connect(5000);
    world.wait(5);
    world.on(|stack| stack.shutdown(held, How::Write)).expect("a connection");
    world.wait(20);
    assert_eq!((world.state(held), world.left()), (Some(State::TimeWait), (0, 1)));
    let (socket, begun) = world.connect(5000);
    assert_eq!(begun, Err(Error::InProgress));
    world.wait(5);
    assert_eq!((world.state(held), world.state(socket)), (Some(State::Closed), Some(State::Established)));
    let mut bytes = [0; 10];
    assert_eq!(world.on(|stack| stack.receive(held, &mut [&mut bytes])), Ok(6));
    assert_eq!(world.on(|stack| stack.receive(held, &mut [&mut bytes])), Ok(0), "the end");
    for socket in [held, socket] {
        world.on(|stack| stack.close(socket)).expect("a socket");
    }
    world.network.run_for(Duration::from_secs(100));
    assert_eq!(world.network.host(world.client).held()[0], 0);
}

#[test]
fn there_are_as_many_in_time_wait_as_the_host_allows() {
    let mut world = World::new(5, ip(2), &[("tcp_max_tw_buckets", 2)]);
    for port in 5000..5004 {
        world.leave_in_time_wait(port);
    }
    assert_eq!(world.left(), (0, 2));
    assert_eq!(world.network.look(world.client).counter(Counter::TimeWaitsKilled), 2);
    assert_eq!(world.network.host(world.client).held()[0], 2);
    // The peer has its last acknowledgment all the same.
    assert_eq!(world.network.look(world.server).counter(Counter::SegmentsRetransmitted), 0);
    assert_eq!(world.network.host(world.server).held()[0], 1, "the listener");
}

#[test]
fn there_are_as_many_orphans_as_the_host_allows() {
    let mut world = World::new(6, ip(2), &[("tcp_max_orphans", 1)]);
    // A server that never finishes.
    world.network.host(world.server).plan =
        Plan { stays: true, reads_from: Instant(u64::MAX), ..Plan::default() };
    let sockets: Vec<Handle> = (5000..5003).map(|port| world.connect(port).0).collect();
    world.wait(5);
    for socket in &sockets {
        world.on(|stack| stack.close(*socket)).expect("a socket");
    }
    assert_eq!(world.left(), (1, 0));
    let client = world.network.look(world.client);
    assert_eq!((client.counter(Counter::OrphansAborted), client.counter(Counter::ResetsOut)), (2, 2));
    // FIN-WAIT-2 without a program ends by itself (tcp_fin_timeout).
    world.network.run_for(Duration::from_secs(59));
    assert_eq!(world.left(), (1, 0));
    world.network.run_for(Duration::from_secs(2));
    assert_eq!((world.left(), world.network.host(world.client).held()[0]), ((0, 0), 0));
}

/// Connections whose peer has fallen silent, closed with text that it lacks.
fn silenced(sysctls: &[(&str, u32)], count: u16) -> (World, Vec<Handle>) {
    let mut world = World::new(8, ip(2), sysctls);
    let sockets: Vec<Handle> = (5000..5000 + count).map(|port| world.connect(port).0).collect();
    world.wait(5);
    world.network.paths(world.server).0.loss = 1.0;
    for socket in &sockets {
        assert_eq!(world.on(|stack| stack.send(*socket, &[b"lost"], false)), Ok(4));
        world.on(|stack| stack.close(*socket)).expect("a socket");
    }
    (world, sockets)
}

/// Who has met an error of the way counts twice among those that are too many (tcp_out_of_resources).
#[test]
fn an_orphan_that_has_little_hope_gives_way_first() {
    let (mut world, sockets) = silenced(&[("tcp_max_orphans", 3)], 3);
    assert_eq!(world.left(), (3, 0));
    world.on(|stack| {
        stack.parts.tcb(sockets[1]).expect("a socket").soft_error = Error::HostUnreachable.code();
    });
    world.wait(1000);
    assert_eq!((world.left(), world.state(sockets[1])), ((2, 0), None));
    let counters = |world: &World| {
        [Counter::OrphansAborted, Counter::ResetsOut, Counter::TimedOut]
            .map(|counter| world.network.look(world.client).counter(counter))
    };
    assert_eq!(counters(&world), [1, 1, 0]);
    // The others are tried for as long as eight timeouts take, and then forgotten without a word.
    world.wait(90_000);
    assert_eq!(world.left(), (2, 0));
    world.wait(60_000);
    assert_eq!((world.left(), counters(&world)), ((0, 0), [1, 1, 2]));
}

/// Once its timeout grows no more, nothing is sent for an orphan of which a router has told an error (tcp_orphan_retries).
#[test]
fn an_orphan_of_which_a_router_has_spoken_is_tried_no_longer_than_its_timeout_grows() {
    let (mut world, sockets) = silenced(&[("tcp_rto_max_ms", 1000), ("tcp_orphan_retries", 40)], 2);
    world.on(|stack| {
        stack.parts.tcb(sockets[0]).expect("a socket").soft_error = Error::HostUnreachable.code();
    });
    world.wait(5000);
    assert_eq!([0, 1].map(|at| world.state(sockets[at])), [None, Some(State::FinWait1)]);
    world.wait(20_000);
    assert_eq!(world.state(sockets[1]), Some(State::FinWait1));
    world.wait(30_000);
    assert_eq!(world.left(), (0, 0));
}

/// What a closed socket has not sent is given up when nobody gets memory any more, and not before.
#[test]
fn an_orphan_gives_way_when_memory_is_short() {
    let mut world = World::new(9, ip(2), &[]);
    let sockets: Vec<Handle> = (5000..5050).map(|port| world.connect(port).0).collect();
    world.wait(5);
    world.network.paths(world.server).0.loss = 1.0;
    let text = vec![7; 60_000];
    let (first, rest) = sockets.split_first().expect("fifty");
    for socket in [first, &rest[0]] {
        assert_eq!(world.on(|stack| stack.send(*socket, &[&text], false)), Ok(60_000));
    }
    world.on(|stack| stack.close(*first)).expect("a socket");
    assert_eq!(world.left(), (1, 0), "there is memory");
    let fill = |world: &mut World| {
        for socket in rest {
            while world.on(|stack| stack.send(*socket, &[&text], false)).is_ok() {}
        }
    };
    fill(&mut world);
    world.wait(400);
    assert_eq!((world.left(), world.state(*first)), ((0, 0), None), "its timer expired");
    assert_eq!(world.state(rest[0]), Some(State::Established));
    fill(&mut world);
    world.on(|stack| stack.close(rest[0])).expect("a socket");
    assert_eq!((world.left(), world.state(rest[0])), ((0, 0), None));
    assert_eq!(world.network.look(world.client).counter(Counter::OrphansAborted), 2);
}

/// connect(2) with AF_UNSPEC, and again with an address: of a connection that is there, of one that is being made, and of one that
/// is over.
#[test]
fn a_socket_that_gave_up_its_connection_connects_again() {
    let mut world = World::new(7, ip(2), &[]);
    let remote = world.remote;
    let again = |stack: &mut Stack<'_, '_, Port>, socket| {
        let before = stack.events(socket).ready;
        stack.disconnect(socket).expect("a socket");
        assert_eq!(stack.state(socket), Ok(State::Closed), "with {before:x} ready");
        stack.connect(socket, &Ip::UNSPECIFIED, (&remote, PORT))
    };
    for port in [0, 5000] {
        let (socket, _) = world.connect(port);
        assert_eq!(world.on(|stack| again(stack, socket)), Err(Error::InProgress), "from SYN-SENT");
        world.wait(5);
        assert_eq!(world.on(|stack| stack.send(socket, &[b"lost"], false)), Ok(4));
        let resets = world.network.look(world.client).counter(Counter::ResetsOut);
        assert_eq!(world.on(|stack| again(stack, socket)), Err(Error::InProgress), "from ESTABLISHED");
        assert_eq!(world.network.look(world.client).counter(Counter::ResetsOut), resets + 1);
        world.wait(10);
        assert_eq!(world.state(socket), Some(State::Established));
        // The new connection has nothing of the old one's.
        assert_eq!(world.on(|stack| stack.send(socket, &[b"kept"], false)), Ok(4));
        world.wait(50);
        let mut bytes = [0; 10];
        assert_eq!(world.on(|stack| stack.receive(socket, &mut [&mut bytes])), Ok(4));
        assert_eq!(&bytes[..4], b"kept");
        // Both directions have ended: TIME-WAIT is left, too.
        world.on(|stack| stack.shutdown(socket, How::Write)).expect("a connection");
        world.wait(20);
        assert_eq!(world.state(socket), Some(State::TimeWait));
        assert_eq!(world.on(|stack| again(stack, socket)), Err(Error::InProgress), "from TIME-WAIT");
        world.wait(5);
        assert_eq!(world.state(socket), Some(State::Established));
        world.on(|stack| stack.close(socket)).expect("a socket");
    }
    world.network.run_for(Duration::from_secs(100));
    assert_eq!((world.left(), world.network.host(world.client).held()), ((0, 0), [0; 4]));
}

/// A connection to ourselves is the kernel's: packets to an address of ours never reach the link.
#[test]
fn nobody_connects_to_his_own_address() {
    let mut world = World::new(8, ip(1), &[]);
    assert_eq!(world.connect(PORT).1, Err(Error::NetworkUnreachable));
}
