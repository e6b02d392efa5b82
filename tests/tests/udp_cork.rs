//! Datagrams of several calls: MSG_MORE and UDP_CORK, beside the kernel's.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use harness::sim::random::Random;
use harness::sim::raw::ip;
use harness::sim::tcp::text;
use harness::sim::udp::{Net, address};
use stack::error::Error;
use stack::options::IPPROTO_UDP;
use stack::region::slab::Handle;
use stack::udp::send::Sending;

const UDP_CORK: i32 = 1;
const PORT: u16 = 7;

fn part(net: &mut Net, socket: Handle, to: Option<u16>, text: &[u8], more: bool) -> Result<usize, Error> {
    let how = Sending { to: to.map(|port| (ip(2), port)), more, ..Sending::default() };
    net.on(0, |stack| stack.udp_send(socket, &[text], &how))
}

fn cork(net: &mut Net, socket: Handle, is_on: bool) {
    let value = i32::from(is_on).to_ne_bytes();
    net.on(0, |stack| stack.udp_set_option(socket, IPPROTO_UDP, UDP_CORK, &value)).expect("an option");
}

/// Both, where the first sends and the second has a port.
fn pair(seed: u64) -> (Net, [Handle; 2]) {
    let mut net = Net::new(seed);
    let sockets = [net.socket(0, false), net.bound(1, false, PORT)];
    (net, sockets)
}

#[test]
fn parts_become_one_datagram() {
    for size in [0, 1, 700, 1473, 2100, 30_000] {
        let (mut net, [sender, receiver]) = pair(1);
        let data = text(2, size);
        let (first, rest) = data.split_at(size / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        assert_eq!(part(&mut net, sender, Some(PORT), first, true), Ok(first.len()));
        net.run();
        assert_eq!(net.receive(1, receiver), Err(Error::WouldBlock), "it goes on");
        // Only the first call says where to.
        assert_eq!(part(&mut net, sender, Some(9), second, true), Ok(second.len()));
        assert_eq!(part(&mut net, sender, None, third, false), Ok(third.len()));
        net.run();
        let (got, bytes) = net.receive(1, receiver).expect("a datagram");
        assert!(bytes == data && got.source.0 == address(1, false), "{size}: {}", bytes.len());
        assert_eq!(net.receive(1, receiver), Err(Error::WouldBlock));
        net.end(&[(0, sender), (1, receiver)]);
    }
}

#[test]
fn a_cork_keeps_all_until_it_is_pulled() {
    let (mut net, [sender, receiver]) = pair(3);
    cork(&mut net, sender, true);
    for piece in [&b"one, "[..], b"two, ", b"three"] {
        assert_eq!(part(&mut net, sender, Some(PORT), piece, false), Ok(piece.len()));
    }
    net.run();
    assert_eq!(net.receive(1, receiver), Err(Error::WouldBlock));
    cork(&mut net, sender, false);
    net.run();
    assert_eq!(net.receive(1, receiver).map(|(_, bytes)| bytes), Ok(b"one, two, three".to_vec()));
    // Now each is one by itself.
    part(&mut net, sender, Some(PORT), b"four", false).expect("room");
    net.run();
    assert_eq!(net.receive(1, receiver).map(|(_, bytes)| bytes), Ok(b"four".to_vec()));
    net.end(&[(0, sender), (1, receiver)]);
}

/// What has no room in a datagram loses all that was kept of it; and so does who closes.
#[test]
fn who_fails_loses_all() {
    let (mut net, [sender, receiver]) = pair(4);
    assert_eq!(part(&mut net, sender, None, b"to whom?", true), Err(Error::DestinationRequired));
    assert_eq!(part(&mut net, sender, Some(PORT), &text(5, 60_000), true), Ok(60_000));
    assert_eq!(part(&mut net, sender, Some(PORT), &text(6, 6_000), true), Err(Error::MessageSize));
    assert_eq!(part(&mut net, sender, Some(PORT), b"anew", false), Ok(4));
    net.run();
    assert_eq!(net.receive(1, receiver).map(|(_, bytes)| bytes), Ok(b"anew".to_vec()));
    assert_eq!(part(&mut net, sender, Some(PORT), b"never sent", true), Ok(10));
    net.end(&[(0, sender), (1, receiver)]);
}

/// The kernel's sockets, on its loopback.
struct Kernel {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Kernel {
    fn new() -> Self {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        receiver.set_nonblocking(true).expect("O_NONBLOCK");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.connect(receiver.local_addr().expect("its address")).expect("a peer");
        sender.set_write_timeout(Some(Duration::from_secs(10))).expect("SO_SNDTIMEO");
        Self { sender, receiver }
    }

    fn send(&self, text: &[u8], more: bool) -> Result<usize, i32> {
        let flags = if more { libc::MSG_MORE } else { 0 };
        // SAFETY: the text is readable for its length.
        let sent = unsafe { libc::send(self.sender.as_raw_fd(), text.as_ptr().cast(), text.len(), flags) };
        let failed = || std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
        usize::try_from(sent).map_err(|_| failed())
    }

    fn cork(&self, is_on: bool) {
        let (value, size) = (i32::from(is_on), size_of::<i32>() as u32);
        let fd = self.sender.as_raw_fd();
        // SAFETY: the value is readable for its size.
        let done =
            unsafe { libc::setsockopt(fd, libc::IPPROTO_UDP, UDP_CORK, (&raw const value).cast(), size) };
        assert_eq!(done, 0);
    }

    fn receive(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 66_000];
        let next = || {
            let len = self.receiver.recv(&mut buffer).ok()?;
            Some(buffer[..len].to_vec())
        };
        std::iter::from_fn(next).collect()
    }
}

/// Any calls in any order: the same answers and the same datagrams.
#[test]
fn the_kernel_keeps_and_sends_alike() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let kernel = Kernel::new();
        let (mut net, [sender, receiver]) = pair(seed);
        let peer = ip(2);
        net.on(0, |stack| stack.udp_connect(sender, (&peer, PORT))).expect("a peer");
        for step in 0..40 {
            let what = random.below(10);
            if what < 2 {
                kernel.cork(what == 0);
                cork(&mut net, sender, what == 0);
            } else {
                let len = [0, 1, 100, 1472, 2048, 20_000, 40_000][random.below(7) as usize];
                let (piece, more) = (text(seed * 100 + step, len), random.below(2) == 0);
                let ours = part(&mut net, sender, None, &piece, more).map_err(Error::number);
                assert_eq!(ours, kernel.send(&piece, more), "seed {seed}, step {step}: {len} {more}");
            }
            net.run();
            let ours: Vec<Vec<u8>> =
                std::iter::from_fn(|| net.receive(1, receiver).ok().map(|(_, bytes)| bytes)).collect();
            let theirs = kernel.receive();
            let lens = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
            assert!(ours == theirs, "seed {seed}, step {step}: {:?} {:?}", lens(&ours), lens(&theirs));
        }
        net.end(&[(0, sender), (1, receiver)]);
    }
}
