//! The stack over AF_XDP, on a cable between two hosts: with the kernel at the far end, and with itself.

use std::net::{SocketAddr, TcpListener, TcpStream};

use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::namespace::{Namespace, kernel_talks};
use harness::wire::veth::Cable;
use harness::wire::world::address;
use harness::wire::xsk::Xsk;
use stack::region::slab::Handle;
use stack::settings::Values;

const PORT: u16 = 7000;
const FRAMES: u32 = 4096;

/// Connections of either version, opened by either side, to the kernel at the other end; both send and read all.
fn talk_to_kernel(cable: Cable, len: usize) {
    let Some([near, far]) = cable.lay() else { return };
    let mut ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    for is_v6 in [false, true] {
        for connects in [false, true] {
            println!("IPv6 {is_v6}, we connect {connects}");
            let (socket, stream) = pair(&mut ours, &far, is_v6, connects);
            let (there, back) = (text(1, len), text(2, len));
            let kernel = kernel_talks(&stream, &back);
            let talked = ours.talk(socket, &there, true).expect("a talk");
            let got = ours.join(kernel);
            assert!(talked.got == back, "{} of {} came from the kernel", talked.got.len(), back.len());
            assert!(got == there, "{} of {} came to the kernel", got.len(), there.len());
            ours.close(socket);
        }
    }
    ours.host.check();
}

/// A connection between our stack and the kernel's.
fn pair(ours: &mut Xsk, far: &Namespace, is_v6: bool, connects: bool) -> (Handle, TcpStream) {
    if connects {
        let at = SocketAddr::new(address(2, is_v6), PORT);
        let listener = far.inside(move || TcpListener::bind(at).expect("a listener of the kernel's"));
        let remote = if is_v6 { harness::sim::raw::ip6(2) } else { harness::sim::raw::ip(2) };
        let socket = ours.connect(remote, PORT, &Values::default()).expect("a connection");
        let accepting = std::thread::spawn(move || listener.accept().expect("a connection").0);
        return (socket, ours.join(accepting));
    }
    let listener = ours.listen(PORT, &Values::default());
    let at = SocketAddr::new(address(1, is_v6), PORT);
    let connecting = far.spawn(move || TcpStream::connect(at).expect("a connection of the kernel's"));
    let socket = ours.accept(listener).expect("a connection");
    ours.close(listener);
    (socket, ours.join(connecting))
}

#[test]
fn the_kernel_at_the_far_end() {
    talk_to_kernel(Cable::default(), 4 << 20);
}
