//! Fast open (RFC 7413) between whole stacks: cookies, text in SYNs, and what becomes of it where something goes wrong.

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, PORT, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::error::Error;
use stack::events::{READABLE, WRITABLE};
use stack::options::IPPROTO_TCP;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stack::Stack;
use stack::stats::Counter;
use stack::tcp::fast_open::KEY_LEN;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

/// One way.
const DELAY: Duration = Duration::from_millis(5);
const FASTOPEN_KEY: i32 = 33;

/// Two hosts, whose calls a test makes.
struct World {
    network: Simulation<TcpHost>,
    client: Node,
    server: Node,
    listener: Handle,
    remote: Ip,
}

/// What a listener with room for so many fast opens has set.
fn values(fast_open_queue: u32) -> Values {
    Values { fast_open_queue, ..Values::default() }
}

impl World {
    fn new(seed: u64, remote: Ip, listener: &Values) -> Self {
        let plan = Plan { accepts_from: Instant(u64::MAX), ..Plan::default() };
        let mut server = TcpHost::server(2, &limits(1024), plan).knowing(&[1]);
        let socket = server.listener.expect("a listener");
        server.parts().set_tcp_options(socket, listener).expect("room");
        let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]);
        for host in [&mut client, &mut server] {
            assert!(host.parts().host.set("tcp_fastopen", 3));
            host.checks = true;
        }
        let mut network = Simulation::new(seed);
        let client = network.add(client, Setup::plain(1));
        let server = network.add(server, Setup::plain(2));
        network.wire(client, server, Path::delayed(DELAY), Path::delayed(DELAY));
        Self { network, client, server, listener: socket, remote }
    }

    /// Lets so many milliseconds pass.
    fn wait(&mut self, millis: u64) {
        self.network.run_for(Duration::from_millis(millis));
    }

    fn on<R>(&mut self, node: Node, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(node);
        let done = host.with(now, port, |stack| {
            let done = act(stack);
            stack.poll();
            done
        });
        self.network.run_for(Duration(0));
        done
    }

    fn socket(&mut self, values: &Values) -> Handle {
        let is_v6 = !self.remote.is_v4();
        self.on(self.client, |stack| {
            let socket = stack.parts.tcp_socket(is_v6, 0).expect("room");
            stack.parts.set_tcp_options(socket, values).expect("room");
            socket
        })
    }

    /// sendto(2) with MSG_FASTOPEN on a new socket.
    fn send_fast(&mut self, text: &[u8]) -> (Handle, Result<usize, Error>) {
        let socket = self.socket(&Values::default());
        let remote = self.remote;
        let done = self.on(self.client, |stack| {
            stack.send_fast_open(socket, &Ip::UNSPECIFIED, (&remote, PORT), &[text])
        });
        (socket, done)
    }

    fn accept(&mut self) -> Result<Handle, Error> {
        let listener = self.listener;
        self.on(self.server, |stack| stack.accept(listener, 0))
    }

    fn read(&mut self, node: Node, socket: Handle) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; 20_000];
        let got = self.on(node, |stack| stack.receive(socket, &mut [&mut bytes]))?;
        bytes.truncate(got);
        Ok(bytes)
    }

    fn send(&mut self, node: Node, socket: Handle, text: &[u8]) -> Result<usize, Error> {
        self.on(node, |stack| stack.send(socket, &[text], false))
    }

    fn state(&mut self, node: Node, socket: Handle) -> State {
        self.on(node, |stack| stack.state(socket)).expect("a socket")
    }

    fn count(&self, node: Node, counter: Counter) -> u64 {
        self.network.look(node).counter(counter)
    }

    fn close(&mut self, node: Node, socket: Handle) {
        self.on(node, |stack| stack.close(socket)).expect("a socket");
    }

    /// A handshake that begins with a request, of which so much leaves with the SYN: the client's socket, and the one that is accepted when
    /// it is over.
    fn open(&mut self, wanted: Result<usize, Error>) -> (Handle, Handle) {
        let (socket, sent) = self.send_fast(b"request");
        assert_eq!(sent, wanted, "what left with the SYN");
        self.wait(30);
        (socket, self.accept().expect("a connection"))
    }

    /// Both programs have closed.
    fn end(&mut self, socket: Handle, accepted: Handle) {
        self.close(self.client, socket);
        self.close(self.server, accepted);
    }

    /// The client has a cookie after this, and no connection.
    fn learn(&mut self) {
        // There is none yet.
        let (socket, accepted) = self.open(Err(Error::InProgress));
        self.close(self.client, socket);
        self.wait(30);
        self.close(self.server, accepted);
        self.wait(30);
    }

    /// After TIME-WAIT nothing is left but the listener.
    fn settle(&mut self) {
        self.network.run_for(Duration::from_secs(400));
        for (node, listeners) in [(self.client, 0), (self.server, 1)] {
            self.on(node, |_| ());
            let host = self.network.host(node);
            host.check();
            assert_eq!(host.held(), [listeners, 0, 0, 0], "sockets, queues, SYNs, frames");
        }
        let listener = self.network.host(self.server).parts().listeners[0];
        assert_eq!((listener.fast_open_len, listener.accept_len), (listener.fast_open_resets, 0));
    }
}

#[test]
fn a_cookie_is_asked_for_once_and_then_text_arrives_with_the_syn() {
    for remote in [ip(2), ip6(2)] {
        let mut world = World::new(1, remote, &values(4));
        world.learn();
        let asked = world.count(world.server, Counter::FastOpenCookiesIn);
        let (socket, sent) = world.send_fast(b"request");
        assert_eq!(sent, Ok(7));
        world.wait(6);
        // One way has passed: the server has the text, and answers before the handshake has ended.
        let accepted = world.accept().expect("a connection that a cookie vouches for");
        assert_eq!(world.state(world.server, accepted), State::SynReceived);
        assert_eq!(world.read(world.server, accepted), Ok(b"request".to_vec()));
        assert_eq!(world.send(world.server, accepted, b"answer"), Ok(6));
        world.wait(6);
        assert_eq!(world.read(world.client, socket), Ok(b"answer".to_vec()), "after one round trip");
        world.wait(30);
        assert_eq!(world.state(world.server, accepted), State::Established);
        for (node, socket) in [(world.client, socket), (world.server, accepted)] {
            let info = world.on(node, |stack| stack.status(socket)).expect("a connection");
            assert_eq!((info.options & 32, info.bits >> 1), (32, 0), "TCPI_OPT_SYN_DATA");
            assert_eq!((info.total_retrans, info.unacked), (0, 0));
        }
        assert_eq!(world.count(world.server, Counter::FastOpenCookiesIn), asked, "not again");
        assert_eq!(world.count(world.client, Counter::FastOpenOut), 1);
        assert_eq!(world.count(world.server, Counter::FastOpenIn), 1);
        world.end(socket, accepted);
        world.settle();
    }
}

#[test]
fn a_syn_takes_a_segment_less_forty_bytes_and_the_rest_follows() {
    let mut world = World::new(2, ip(2), &values(4));
    world.learn();
    let all = text(2, 5000);
    let (socket, sent) = world.send_fast(&all);
    assert_eq!(sent, Ok(1460 - 40), "room for options that boxes on the way may add");
    world.wait(30);
    assert_eq!(world.send(world.client, socket, &all[1420..]), Ok(3580));
    let accepted = world.accept().expect("a connection");
    world.wait(30);
    assert!(world.read(world.server, accepted) == Ok(all));
    assert_eq!(world.count(world.client, Counter::SegmentsRetransmitted), 0);
    world.end(socket, accepted);
    world.settle();
}

#[test]
fn text_that_the_syn_ack_leaves_out_is_sent_again_at_once() {
    let mut world = World::new(3, ip(2), &values(4));
    world.learn();
    let listener = world.listener;
    let set = |stack: &mut Stack<'_, '_, Port>| {
        stack.set_option(listener, IPPROTO_TCP, FASTOPEN_KEY, &[7; KEY_LEN])
    };
    world.on(world.server, set).expect("a key");
    // The cookie is of another key now: the server says so by a new one, and takes the SYN alone.
    let (socket, sent) = world.send_fast(b"request");
    assert_eq!(sent, Ok(7));
    world.wait(11);
    assert_eq!(world.count(world.server, Counter::FastOpenCookiesBad), 1);
    assert_eq!(world.count(world.client, Counter::SegmentsRetransmitted), 1, "without a timeout");
    world.wait(5);
    let accepted = world.accept().expect("a connection");
    assert_eq!(world.read(world.server, accepted), Ok(b"request".to_vec()));
    world.wait(60);
    let info = world.on(world.client, |stack| stack.status(socket)).expect("a connection");
    assert_eq!((info.options & 32, info.bits >> 1), (0, 2), "TFO_DATA_NOT_ACKED");
    assert_eq!((info.snd_cwnd, info.ca_state), (10, 0), "it was no congestion");
    let (next, sent) = world.send_fast(b"second");
    assert_eq!(sent, Ok(6));
    world.wait(6);
    let second = world.accept().expect("with the new cookie at once");
    for (node, socket) in
        [(world.client, socket), (world.client, next), (world.server, accepted), (world.server, second)]
    {
        world.close(node, socket);
    }
    world.settle();
}

#[test]
fn after_two_silent_syns_with_text_none_has_any_for_a_while() {
    let mut world = World::new(4, ip(2), &values(4));
    world.learn();
    for (attempt, wanted) in [Ok(7), Ok(7), Err(Error::InProgress)].into_iter().enumerate() {
        // What has text is swallowed.
        world.network.paths(world.client).0.loss = 1.0;
        let (socket, sent) = world.send_fast(b"request");
        assert_eq!(sent, wanted, "attempt {attempt}");
        world.network.paths(world.client).0.loss = 0.0;
        // RFC 7413 §4.2.2: the SYN goes again without text.
        world.network.run_for(Duration::from_secs(2));
        let accepted = world.accept().expect("a connection");
        assert_eq!(world.state(world.client, socket), State::Established);
        world.network.run_for(Duration::from_secs(1));
        let got = world.read(world.server, accepted);
        assert_eq!(got, if wanted.is_ok() { Ok(b"request".to_vec()) } else { Err(Error::WouldBlock) });
        let info = world.on(world.client, |stack| stack.status(socket)).expect("a connection");
        assert_eq!(info.bits >> 1, if wanted.is_ok() { 3 } else { 0 }, "TFO_SYN_RETRANSMITTED");
        world.end(socket, accepted);
    }
    // RFC 7413 §4.1.3.1: negative responses are kept, and not for ever.
    world.network.run_for(Duration::from_secs(300));
    let (socket, accepted) = world.open(Ok(7));
    world.end(socket, accepted);
    world.settle();
}

#[test]
fn a_path_that_swallows_syns_with_text_stops_every_socket() {
    let mut world = World::new(5, ip(2), &values(4));
    world.learn();
    assert!(world.network.host(world.client).parts().host.set("tcp_fastopen_blackhole_timeout_sec", 3600));
    world.network.paths(world.client).0.loss = 1.0;
    let (socket, sent) = world.send_fast(b"request");
    assert_eq!(sent, Ok(7));
    world.network.run_for(Duration::from_secs(4));
    assert_eq!(world.count(world.client, Counter::FastOpenBlackHoles), 1, "at the second timeout");
    world.network.paths(world.client).0.loss = 0.0;
    world.network.run_for(Duration::from_secs(10));
    let accepted = world.accept().expect("a connection");
    world.end(socket, accepted);
    for (after, wanted) in [(100, Err(Error::InProgress)), (3600, Ok(7))] {
        world.network.run_for(Duration::from_secs(after));
        let (socket, accepted) = world.open(wanted);
        world.end(socket, accepted);
    }
    world.settle();
}

#[test]
fn a_connection_may_wait_for_its_first_write() {
    let mut world = World::new(6, ip(2), &values(4));
    let waits = Values { options: Switch::FAST_OPEN_CONNECT, ..Values::default() };
    let remote = world.remote;
    let connect =
        |stack: &mut Stack<'_, '_, Port>, socket| stack.connect(socket, &Ip::UNSPECIFIED, (&remote, PORT));
    // Without a cookie it asks for one.
    let socket = world.socket(&waits);
    assert_eq!(world.on(world.client, |stack| connect(stack, socket)), Err(Error::InProgress));
    world.wait(30);
    let accepted = world.accept().expect("a connection");
    world.end(socket, accepted);
    // With one it is there at once, and nothing leaves before there is text.
    let socket = world.socket(&waits);
    assert_eq!(world.on(world.client, |stack| connect(stack, socket)), Ok(()));
    world.wait(30);
    assert_eq!((world.state(world.client, socket), world.accept()), (State::SynSent, Err(Error::WouldBlock)));
    let ready = world.on(world.client, |stack| stack.events(socket)).ready;
    assert_eq!(ready & (READABLE | WRITABLE), WRITABLE);
    assert_eq!(world.on(world.client, |stack| connect(stack, socket)), Err(Error::IsConnected));
    assert_eq!(world.read(world.client, socket), Err(Error::WouldBlock));
    assert_eq!(world.send(world.client, socket, b"request"), Ok(7));
    world.wait(6);
    let accepted = world.accept().expect("a connection");
    assert_eq!(world.read(world.server, accepted), Ok(b"request".to_vec()));
    world.wait(30);
    assert_eq!(world.send(world.client, socket, b"more"), Ok(4));
    world.wait(30);
    assert_eq!(world.read(world.server, accepted), Ok(b"more".to_vec()));
    world.end(socket, accepted);
    // One that is closed before it writes leaves no trace.
    let socket = world.socket(&waits);
    assert_eq!(world.on(world.client, |stack| connect(stack, socket)), Ok(()));
    let before = world.count(world.client, Counter::SegmentsOut);
    world.close(world.client, socket);
    assert_eq!(world.count(world.client, Counter::SegmentsOut), before);
    world.settle();
}

#[test]
fn as_many_handshakes_as_the_listener_allows_begin_with_text() {
    let mut world = World::new(7, ip(2), &values(2));
    world.learn();
    // Acknowledgments are held back: the handshakes go on.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (socket, sent) = world.send_fast(b"request");
        assert_eq!(sent, Ok(7));
        sockets.push(socket);
    }
    world.wait(6);
    assert_eq!(world.count(world.server, Counter::FastOpenIn), 2);
    assert_eq!(world.count(world.server, Counter::FastOpenFull), 1);
    world.wait(60);
    // The third is a connection all the same, a round trip later.
    for _ in 0..3 {
        let accepted = world.accept().expect("a connection");
        assert_eq!(world.read(world.server, accepted), Ok(b"request".to_vec()));
        world.close(world.server, accepted);
    }
    for socket in sockets {
        world.close(world.client, socket);
    }
    world.settle();
}

#[test]
fn where_nobody_needs_cookies_the_first_syn_has_text() {
    let none = Values { options: Switch::FAST_OPEN_NO_COOKIE, ..values(4) };
    let mut world = World::new(8, ip(2), &none);
    assert!(world.network.host(world.client).parts().host.set("tcp_fastopen", 5));
    let (socket, sent) = world.send_fast(b"request");
    assert_eq!(sent, Ok(7));
    world.wait(6);
    let accepted = world.accept().expect("a connection");
    assert_eq!(world.read(world.server, accepted), Ok(b"request".to_vec()));
    world.end(socket, accepted);
    world.settle();
}

/// RFC 7413 §4.2: "It MUST be turned on explicitly by the application."
#[test]
fn it_is_off_unless_both_sides_have_asked_for_it() {
    let mut world = World::new(9, ip(2), &values(0));
    let (socket, sent) = world.send_fast(b"request");
    assert_eq!(sent, Err(Error::InProgress));
    world.wait(30);
    assert_eq!(world.count(world.server, Counter::FastOpenCookiesIn), 1);
    let (other, sent) = world.send_fast(b"request");
    assert_eq!(sent, Err(Error::InProgress), "the listener gave no cookie");
    world.wait(30);
    assert!(world.network.host(world.client).parts().host.set("tcp_fastopen", 2));
    let (third, sent) = world.send_fast(b"request");
    assert_eq!((sent, world.state(world.client, third)), (Err(Error::NotSupported), State::Closed));
    for socket in [socket, other, third] {
        world.close(world.client, socket);
    }
    for _ in 0..2 {
        let accepted = world.accept().expect("a connection");
        world.close(world.server, accepted);
    }
    world.settle();
}

#[test]
fn transfers_that_begin_with_text_survive_a_bad_wire() {
    for seed in 0..60 {
        let (there, back) = (text(seed, 300 + 700 * seed as usize), text(seed ^ 1 << 40, 20_000));
        let remote = if seed % 2 == 0 { ip(2) } else { ip6(2) };
        let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]);
        for at in [0, 2_000, 4_000, 6_000] {
            client = client.opening(Instant(at * 1_000_000), remote, there.clone());
        }
        client.plan.fast_open = true;
        let mut server =
            TcpHost::server(2, &limits(1024), Plan { answer: back.clone(), ..Plan::default() }).knowing(&[1]);
        let listener = server.listener.expect("a listener");
        server.parts().set_tcp_options(listener, &values(4)).expect("room");
        for host in [&mut client, &mut server] {
            assert!(host.parts().host.set("tcp_fastopen", 3));
            host.checks = seed < 10;
        }
        let mut network = Simulation::new(seed);
        let (a, b) = (network.add(client, Setup::plain(1)), network.add(server, Setup::plain(2)));
        let path = Path {
            loss: [0.0, 0.05, 0.2][seed as usize % 3],
            duplicate: 0.02,
            reorder: 0.05,
            reorder_by: DELAY,
            ..Path::delayed(DELAY)
        };
        network.wire(a, b, path, path);
        while !(network.look(a).is_done() && network.look(b).is_done() && network.look(b).talks.len() == 4) {
            assert!(network.step(), "seed {seed}: nothing will ever happen");
            assert!(network.now() < Instant(PATIENCE.0), "seed {seed}: it does not end");
        }
        for (node, wanted) in [(a, &back), (b, &there)] {
            assert!(network.look(node).talks.iter().all(|talk| talk.got == *wanted), "seed {seed}");
        }
        let fast = network.look(a).counter(Counter::FastOpenOut);
        assert!(fast == 3 || seed % 3 > 0, "seed {seed}: {fast} SYNs with text");
        network.run_for(Duration::from_secs(400));
        for node in [a, b] {
            network.host(node).check();
        }
        assert_eq!(network.host(b).held(), [1, 0, 0, 0], "seed {seed}");
    }
}
