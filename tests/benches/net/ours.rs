//! A message to and fro over our stack.

use std::net::SocketAddr;
use std::time::Instant;

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

use super::{MESSAGE, TRIPS, Trips, kernel};

const PORT: u16 = 7000;
const FRAMES: u32 = 4096;

/// Sends a message, and has the kernel carry it.
fn say(stack: &mut Stack<'_, '_, AfXdp>, socket: Handle, text: &[u8]) {
    assert_eq!(stack.send(socket, &[text], false), Ok(text.len()));
    kick(stack);
}

fn kick(stack: &mut Stack<'_, '_, AfXdp>) {
    if stack.device.flush() {
        stack.device.kick();
    }
}

/// The next message, or what there is of it when the connection ends.
fn hear(stack: &mut Stack<'_, '_, AfXdp>, socket: Handle, to: &mut [u8; MESSAGE]) -> usize {
    let mut done = 0;
    while done < MESSAGE {
        stack.now = clock();
        while stack.poll().more {}
        match stack.receive(socket, &mut [&mut to[done..]]) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(Error::WouldBlock) => kick(stack),
            Err(error) => panic!("{error:?}"),
        }
    }
    done
}

/// So many messages to and fro; how long each took.
fn ask(stack: &mut Stack<'_, '_, AfXdp>, socket: Handle) -> Vec<u64> {
    let mut buffer = [7; MESSAGE];
    let trip = |_| {
        let from = Instant::now();
        say(stack, socket, &buffer);
        assert_eq!(hear(stack, socket, &mut buffer), MESSAGE);
        from.elapsed().as_nanos() as u64
    };
    (0..TRIPS).map(trip).collect()
}

/// Both ends are ours.
pub(crate) fn trips(cable: Cable) -> Option<Trips> {
    let hosts = cable.lay()?;
    let mut near = Xsk::new(&hosts[0], (1, 2), FRAMES, None, PORT);
    let mut far = Xsk::new(&hosts[1], (2, 1), FRAMES, None, PORT);
    let listener = far.listen(PORT, &Values::default());
    let ended = Ended::default();
    let there = ended.clone();
    let echo = std::thread::spawn(move || {
        sys::pin(1);
        let socket = far.accept(listener).expect("a connection");
        let mut buffer = [0; MESSAGE];
        far.with(|stack| {
            for _ in 0..TRIPS {
                assert_eq!(hear(stack, socket, &mut buffer), MESSAGE);
                say(stack, socket, &buffer);
            }
        });
        far.part(socket, &there);
    });
    let asking = std::thread::spawn(move || {
        sys::pin(0);
        let socket = near.connect(ip(2), PORT, &Values::default()).expect("a connection");
        let times = near.with(|stack| ask(stack, socket));
        near.part(socket, &ended);
        times
    });
    let times = joined(asking);
    joined(echo);
    Some(Trips::of(times))
}

/// The far end is the kernel's, with a socket that spins or waits.
pub(crate) fn trips_to_kernel(cable: Cable, spins: bool) -> Option<Trips> {
    let hosts = cable.lay()?;
    let mut near = Xsk::new(&hosts[0], (1, 2), FRAMES, None, PORT);
    let echo = kernel::echo(&hosts[1], SocketAddr::new(address(2, false), PORT), spins);
    let asking = std::thread::spawn(move || {
        sys::pin(0);
        let socket = near.connect(ip(2), PORT, &Values::default()).expect("a connection");
        let times = near.with(|stack| ask(stack, socket));
        near.close(socket);
        near.join(echo);
        times
    });
    Some(Trips::of(joined(asking)))
}
