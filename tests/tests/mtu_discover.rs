//! IP_MTU_DISCOVER: which packets routers may fragment, and whether they are believed.

use harness::script::run::{How, run};
use harness::sim::Simulation;
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::trace::What;
use stack::settings::{Discovery, Values};
use stack::time::{Duration, Instant};

/// Whether each packet of TCP that the client sent has DF (RFC 791 §3.1).
fn client_sends(how: Discovery) -> Vec<bool> {
    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), ip(2), text(1, 20_000));
    client.values = Values { mtu_discover: how as u8 + 1, ..Values::default() };
    let mut network = Simulation::new(1);
    network.keep_journal();
    let server = TcpHost::server(2, &limits(1024), Plan::default()).knowing(&[1]);
    let (a, b) = (network.add(client, Setup::plain(1)), network.add(server, Setup::plain(2)));
    let path = Path::delayed(Duration::from_millis(5));
    network.wire(a, b, path, path);
    network.run_for(Duration::from_secs(2));
    assert!(network.look(b).talks[0].got == text(1, 20_000));
    let sent = network.journal().into_iter().filter(|(_, node, what, _)| (*node, *what) == (0, What::Sent));
    let tcp = sent.filter(|(.., bytes)| bytes[12..14] == [8, 0] && bytes[14 + 9] == 6);
    tcp.map(|(.., bytes)| bytes[14 + 6] & 0x40 != 0).collect()
}

#[test]
fn only_who_wants_to_find_out_forbids_fragments() {
    for (how, wanted) in [
        (Discovery::Dont, false),
        (Discovery::Want, true),
        (Discovery::Do, true),
        (Discovery::Probe, false),
        (Discovery::Interface, false),
        (Discovery::Omit, false),
    ] {
        let sent = client_sends(how);
        assert!(sent.len() > 14 && sent.iter().all(|has_df| *has_df == wanted), "{how:?}: {sent:?}");
    }
}

/// A connection whose first segment is too large for a path, as a router says.
const TOO_BIG: &str = "
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
   +0 setsockopt(3, SOL_IP, IP_MTU_DISCOVER, [MODE], 4) = 0
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0

   +0 < S 0:0(0) win 32792 <mss 1460,sackOK,nop,nop,nop,wscale 7>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 7>
  +.1 < . 1:1(0) ack 1 win 257
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 1460) = 1460
   +0 > P. 1:1461(1460) ack 1
  +.1 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
";

/// It is sent again in smaller ones.
const SMALLER: &str = "
   +0 > . 1:1161(1160) ack 1
   +0 > P. 1161:1461(300) ack 1
  +.1 < . 1:1(0) ack 1461 win 257
";

/// It is not, and what comes next is as large.
const AS_BEFORE: &str = "
  +.1 < . 1:1(0) ack 1461 win 257
   +0 write(4, ..., 1460) = 1460
   +0 > P. 1461:2921(1460) ack 1
  +.1 < . 1:1(0) ack 2921 win 257
";

/// It is not, but what comes next is smaller.
const LATER: &str = "
  +.1 < . 1:1(0) ack 1461 win 257
   +0 write(4, ..., 1460) = 1460
   +0 > . 1461:2621(1160) ack 1
   +0 > P. 2621:2921(300) ack 1
  +.1 < . 1:1(0) ack 2921 win 257
";

#[test]
fn routers_are_believed_unless_the_user_says_otherwise() {
    for (how, then) in [
        (Discovery::Dont, LATER),
        (Discovery::Want, SMALLER),
        (Discovery::Do, SMALLER),
        (Discovery::Probe, SMALLER),
        (Discovery::Interface, AS_BEFORE),
        (Discovery::Omit, AS_BEFORE),
    ] {
        let script = [&TOO_BIG.replace("MODE", &(how as u8).to_string()), then].concat();
        assert_eq!(run(&script, How { is_v6: false, ends_quiet: true }), Ok(()), "{how:?}");
    }
}
