//! Bytes one way, as fast as they go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant as Clock;

use driver::xdp::device::AfXdp;
use harness::sim::raw::ip;
use harness::wire::calls::Calls;
use harness::wire::clock;
use harness::wire::namespace::joined;
use harness::wire::sys;
use harness::wire::veth::Cable;
use harness::wire::world::address;
use harness::wire::xsk::{Ended, Xsk};
use stack::device::Device;
use stack::error::Error;
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::stack::Stack;

const PORT: u16 = 7002;
const FRAMES: u32 = 16_384;
/// Bytes of a transfer.
const BYTES: usize = 256 << 20;
/// Bytes of a call.
const CALL: usize = 128 << 10;
/// The kernel's congestion control, as ours.
const CUBIC: &[u8] = b"cubic";

/// Whose an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ours,
    Kernel,
}

fn send_all(stack: &mut Stack<'_, '_, AfXdp>, socket: Handle) {
    let (text, mut sent) = (vec![7; CALL], 0);
    while sent < BYTES {
        stack.now = clock();
        while stack.poll().more {}
        match stack.send(socket, &[&text[..CALL.min(BYTES - sent)]], false) {
            Ok(len) => sent += len,
            Err(Error::WouldBlock) => {}
            Err(error) => panic!("{error:?}"),
        }
        if stack.device.flush() {
            stack.device.kick();
        }
    }
}

fn receive_all(stack: &mut Stack<'_, '_, AfXdp>, socket: Handle) {
    let (mut buffer, mut got) = (vec![0; CALL], 0);
    while got < BYTES {
        stack.now = clock();
        while stack.poll().more {}
        match stack.receive(socket, &mut [&mut buffer]) {
            Ok(0) => panic!("{got} bytes and the end"),
            Ok(len) => got += len,
            Err(Error::WouldBlock) => {}
            Err(error) => panic!("{error:?}"),
        }
        if stack.device.flush() {
            stack.device.kick();
        }
    }
}

/// Gbit/s from the first end to the second.
pub(crate) fn rate(cable: Cable, [from, to]: [End; 2]) -> Option<f64> {
    let hosts = cable.lay()?;
    let at = SocketAddr::new(address(2, false), PORT);
    let ended = Ended::default();
    let there = ended.clone();
    let receiving = if to == End::Ours {
        let mut far = Xsk::new(&hosts[1], (2, 1), FRAMES, None, PORT);
        let listener = far.listen(PORT, &Values::default());
        std::thread::spawn(move || {
            sys::pin(1);
            let socket = far.accept(listener).expect("a connection");
            far.with(|stack| receive_all(stack, socket));
            let end = Clock::now();
            far.part(socket, &there);
            end
        })
    } else {
        let listener = hosts[1].inside(move || TcpListener::bind(at).expect("a listener"));
        std::thread::spawn(move || {
            sys::pin(1);
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut buffer, mut got) = (vec![0; CALL], 0);
            while got < BYTES {
                got += stream.read(&mut buffer).expect("text");
            }
            let end = Clock::now();
            there.end();
            end
        })
    };
    let sending = if from == End::Ours {
        let mut near = Xsk::new(&hosts[0], (1, 2), FRAMES, None, PORT);
        std::thread::spawn(move || {
            sys::pin(0);
            let socket = near.connect(ip(2), PORT, &Values::default()).expect("a connection");
            let begin = Clock::now();
            near.with(|stack| send_all(stack, socket));
            near.part(socket, &ended);
            begin
        })
    } else {
        hosts[0].spawn(move || {
            sys::pin(0);
            let mut stream = TcpStream::connect(at).expect("a connection");
            sys::set_option_bytes(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, CUBIC)
                .expect("cubic");
            let (text, begin) = (vec![7; CALL], Clock::now());
            for _ in 0..BYTES / CALL {
                stream.write_all(&text).expect("room");
            }
            ended.end();
            begin
        })
    };
    let end = joined(receiving);
    let begin = joined(sending);
    Some(BYTES as f64 * 8.0 / (end - begin).as_secs_f64() / 1e9)
}
