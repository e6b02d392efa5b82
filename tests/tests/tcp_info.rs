//! What TCP_INFO tells of what a sender waits for and of how fast its text arrives, between whole stacks; the short way tells what the long
//! one does.

use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::region::layout::Header;
use stack::tcp::info::Info;
use stack::time::{Duration, Instant};

/// A client with this plan and send buffer that sends so much to a server with that plan, half a round trip away.
struct Pair {
    network: Simulation<TcpHost>,
    client: Node,
}

impl Pair {
    fn new(len: usize, path: Path, plans: [Plan; 2], is_long: bool, send_buffer: u32) -> Self {
        let [plan, answers] = plans;
        let mut client =
            TcpHost::new(1, &limits(2048)).knowing(&[2]).opening(Instant(0), ip(2), text(1, len));
        (client.plan, client.values.send_buffer) = (Plan { stays: true, ..plan }, send_buffer);
        let mut server = TcpHost::server(2, &limits(2048), answers).knowing(&[1]);
        if is_long {
            client.parts().header.modes |= Header::LONG_WAY;
            server.parts().header.modes |= Header::LONG_WAY;
        }
        let mut network = Simulation::new(1);
        let setup = |number| Setup { frames: 2048, ring: 1024, ..Setup::plain(number) };
        let (client, server) = (network.add(client, setup(1)), network.add(server, setup(2)));
        network.wire(client, server, path, path);
        Self { network, client }
    }

    fn after(&mut self, length: Duration) -> Info {
        self.network.run_for(length);
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(self.client);
        let socket = host.talks[0].socket.expect("a connection");
        host.with(now, port, |stack| stack.status(socket)).expect("a connection")
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_sender_is_busy_while_text_is_on_its_way_and_no_longer() {
    for is_long in [false, true] {
        let echoes = Plan { echoes: true, write: 100, ..Plan::default() };
        let in_turn = Plan { in_turn: true, write: 100, ..Plan::default() };
        let mut pair = Pair::new(1000, Path::delayed(MS(10)), [in_turn, echoes], is_long, 0);
        let info = pair.after(MS(1000));
        // Ten turns of a round trip of twenty milliseconds each, after one for the handshake.
        assert_eq!((info.busy_time, info.rwnd_limited, info.sndbuf_limited), (200_000, 0, 0), "{is_long}");
        assert_eq!(pair.after(MS(5000)).busy_time, 200_000, "what is idle is not busy");
        // One segment in a round trip, which is no more than the application has.
        let rate = u64::from(info.snd_mss) * 50;
        assert_eq!((info.delivery_rate, info.bits & 1), (rate >> 7 << 7, 1), "{is_long}");
    }
}

#[test]
fn a_reader_that_does_not_read_is_waited_for() {
    let slow = Plan { reads_from: Instant(2_000_000_000), ..Plan::default() };
    let mut pair = Pair::new(1_000_000, Path::delayed(MS(10)), [Plan::default(), slow], false, 0);
    let info = pair.after(MS(1500));
    let early = info.busy_time - info.rwnd_limited;
    assert!(info.rwnd_limited > 1_200_000 && early < 200_000 && info.sndbuf_limited == 0, "{info:?}");
    let info = pair.after(MS(4500));
    assert!((1_700_000..3_000_000).contains(&info.rwnd_limited), "{info:?}");
    assert!(info.busy_time >= info.rwnd_limited && info.busy_time < 4_000_000, "{info:?}");
    assert_eq!(pair.after(MS(1000)).busy_time, info.busy_time);
}

#[test]
fn a_send_buffer_that_is_too_small_is_told() {
    let small = Plan { write: 5000, no_delay: true, ..Plan::default() };
    let mut pair = Pair::new(300_000, Path::delayed(MS(25)), [small, Plan::default()], false, 6000);
    let info = pair.after(MS(10_000));
    let all = info.busy_time;
    assert_eq!((info.notsent_bytes, info.unacked, info.rwnd_limited), (0, 0, 0), "{info:?}");
    // Two writes in each round trip of fifty milliseconds.
    assert!((1_000_000..1_900_000).contains(&all), "{all}");
    assert!(info.sndbuf_limited > all / 2, "{} of {all}", info.sndbuf_limited);
    // With a large one the window is what it waits for.
    let mut pair = Pair::new(300_000, Path::delayed(MS(25)), [Plan::default(), Plan::default()], false, 0);
    let info = pair.after(MS(10_000));
    assert!(info.busy_time > 150_000 && info.sndbuf_limited == 0, "{info:?}");
}
