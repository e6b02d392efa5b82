//! A message to and fro over the kernel's TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Instant;

use harness::wire::namespace::{Namespace, joined};
use harness::wire::sys;
use harness::wire::veth::Cable;
use harness::wire::world::address;

use super::{MESSAGE, TRIPS, Trips};

const PORT: u16 = 7001;

/// Reads a message; false at the end.
fn hear(stream: &mut TcpStream, to: &mut [u8; MESSAGE]) -> bool {
    let mut done = 0;
    while done < MESSAGE {
        match stream.read(&mut to[done..]) {
            Ok(0) => return false,
            Ok(len) => done += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    true
}

fn prepare(stream: &TcpStream, spins: bool) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.set_nonblocking(spins).expect("O_NONBLOCK");
}

/// A thread on the second core of a host that sends back what it hears on one connection, until that ends. It listens when this returns.
pub(crate) fn echo(host: &Namespace, at: SocketAddr, spins: bool) -> JoinHandle<()> {
    let listener = host.inside(move || TcpListener::bind(at).expect("a listener"));
    std::thread::spawn(move || {
        sys::pin(1);
        let (mut stream, _) = listener.accept().expect("a connection");
        prepare(&stream, spins);
        let mut buffer = [0; MESSAGE];
        while hear(&mut stream, &mut buffer) {
            stream.write_all(&buffer).expect("room");
        }
    })
}

/// Both ends are the kernel's.
pub(crate) fn trips(cable: Cable, spins: bool) -> Option<Trips> {
    let hosts = cable.lay()?;
    let at = SocketAddr::new(address(2, false), PORT);
    let echo = echo(&hosts[1], at, spins);
    let asking = hosts[0].spawn(move || {
        sys::pin(0);
        let mut stream = TcpStream::connect(at).expect("a connection");
        prepare(&stream, spins);
        let mut buffer = [7; MESSAGE];
        let trip = |_| {
            let from = Instant::now();
            stream.write_all(&buffer).expect("room");
            assert!(hear(&mut stream, &mut buffer));
            from.elapsed().as_nanos() as u64
        };
        (0..TRIPS).map(trip).collect()
    });
    let times = joined(asking);
    joined(echo);
    Some(Trips::of(times))
}
