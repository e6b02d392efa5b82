//! The echo of a datagram of 64 B: it arrives, the program reads it and sends as much back to whom it came from. Ours on a socket
//! without a peer; Linux's by three system calls, as in [`super::kernel`].

use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant as Clock};

use stack::device::Link;
use stack::region::slab::Handle;
use stack::udp::send::Sending;
use stack::wire::checksum::Sum;
use stack::wire::ip::Ip;
use stack::wire::{ethernet, ipv4, protocol, udp};

use super::card::Offload;
use super::echo::{Samples, samples};
use super::far::{MESSAGE, NEAR, PORT, far_end};
use super::machine::{Machine, limits};
use super::sys;

/// Between two echoes, in nanoseconds of virtual time.
const STEP: u64 = 1_000;
/// Bytes before the data.
const HEADERS: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + udp::HEADER_LEN;

/// The request, with its Ethernet header.
fn request() -> Vec<u8> {
    let far = far_end(0);
    let (from, to, data) = (Ip::v4(far.address), Ip::v4(NEAR.address), [7; MESSAGE]);
    let link = |number| ethernet::Address([2, 0, 0, 0, 0, number]);
    let head =
        ethernet::Frame { destination: link(1), source: link(2), tags: [None; 2], ethertype: ethernet::IPV4 };
    let mut bytes = vec![0; HEADERS];
    let at = head.emit(&mut bytes).expect("room");
    let header = ipv4::Header::new(&from, &to, protocol::UDP, 64).expect("IPv4");
    let at = at + header.emit(udp::HEADER_LEN + MESSAGE, &mut bytes[at..]).expect("room");
    let ends = ((&from, far.port), (&to, PORT));
    udp::Header::emit(ends.0, ends.1, MESSAGE, Some(Sum::ZERO.bytes(&data)), &mut bytes[at..]).expect("room");
    bytes.extend(data);
    bytes
}

/// Whether a packet of IP is the answer.
fn is_answer(packet: &[u8]) -> bool {
    let Ok((datagram, payload)) = ipv4::parse(packet) else { return false };
    let (source, destination) = (datagram.header.source(), datagram.header.destination());
    let parsed = udp::parse(payload, true);
    parsed.is_ok_and(|(header, data)| {
        udp::verify(header, data, &source, &destination).is_ok()
            && data == [7; MESSAGE]
            && (destination, header.destination.get()) == (Ip::v4(far_end(0).address), far_end(0).port)
    })
}

/// What callgrind counts: three calls of the stack, and the device's flush.
#[inline(never)]
fn echo_datagram(machine: &mut Machine, socket: Handle, buffer: &mut [u8]) -> usize {
    machine.poll();
    let got = machine.stack().udp_receive(socket, &mut [buffer]).expect("a datagram").expect("no end");
    let how = Sending { to: Some(got.source), ..Sending::default() };
    let data = &buffer[..got.len];
    let sent = machine.stack().udp_send(socket, &[data], &how);
    stack::device::Device::flush(&mut machine.card);
    sent.expect("room")
}

/// Our stack's echoes.
pub(crate) fn ours(echoes: usize, longest: Duration) -> Samples {
    let limits = limits(1, 8, 4096);
    let mut machine = Machine::new(1, 2, &limits, (Link::Ethernet, Offload::None));
    let socket = machine.stack().udp_open(false, 0).expect("room");
    machine.parts.udp_bind(socket, (&Ip::UNSPECIFIED_V4, PORT)).expect("a free port");
    let (request, mut buffer) = (request(), [0; 2048]);
    sys::start_instrumentation();
    let once = || {
        machine.now.0 += STEP;
        machine.card.deliver(&request);
        let from = Clock::now();
        let sent = echo_datagram(&mut machine, socket, &mut buffer);
        let took = from.elapsed().as_nanos() as u64;
        assert_eq!(sent, MESSAGE);
        let answer = machine.card.take(|bytes, _, _| is_answer(&bytes[ethernet::HEADER_LEN..]));
        assert_eq!(answer, Some(true));
        took
    };
    samples(once, echoes, longest)
}

/// The kernel's.
///
/// # Errors
/// The system's, where a TUN device may not be made.
pub(crate) fn kernels(echoes: usize, longest: Duration) -> std::io::Result<Samples> {
    let mut tun = sys::tun(NEAR.address)?;
    sys::dont_wait(tun.as_raw_fd())?;
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    let (request, mut buffer, mut packet) = (request(), [0; 2048], [0; 2048]);
    let once = || {
        let from = Clock::now();
        tun.write_all(&request[ethernet::HEADER_LEN..]).expect("a packet is taken");
        let (len, peer) = socket.recv_from(&mut buffer).expect("a datagram");
        let sent = socket.send_to(&buffer[..len], peer).expect("room");
        let took = from.elapsed().as_nanos() as u64;
        assert_eq!(sent, MESSAGE);
        let until = Clock::now();
        loop {
            match tun.read(&mut packet) {
                // The kernel asks for routers of IPv6, too.
                Ok(len) if is_answer(&packet[..len]) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(until.elapsed().as_secs() < 5, "no answer");
                }
                Err(error) => panic!("the device: {error}"),
            }
        }
        took
    };
    Ok(samples(once, echoes, longest))
}
