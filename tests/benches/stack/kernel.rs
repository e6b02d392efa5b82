//! The Linux kernel's own path as the peer: a TUN device in a network namespace of this thread.
//!
//! What is measured is three system calls: write(2) to the device, which makes an skb of the packet and, on the way back from the
//! kernel, takes it through IP and TCP to the socket's queue; read(2) from the socket; write(2) to it, which takes the answer through
//! TCP, IP, the queueing discipline and the device's transmit routine to the queue that read(2) of the device empties. That last
//! call is the far end's and isn't measured. No wake-up is in it: the reader never sleeps.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::far::{NEAR, PORT, Packet, Seen};
use super::server::Server;

/// The kernel.
pub(crate) struct Kernel {
    tun: File,
    listener: TcpListener,
    streams: Vec<TcpStream>,
    arrived: Vec<u8>,
    buffer: [u8; 2048],
}

impl Kernel {
    /// # Errors
    /// The system's, where such a device may not be made.
    pub(crate) fn new() -> io::Result<Self> {
        let tun = super::sys::tun(NEAR.address)?;
        super::sys::dont_wait(tun.as_raw_fd())?;
        let listener = TcpListener::bind(("0.0.0.0", PORT))?;
        Ok(Self { tun, listener, streams: Vec::new(), arrived: Vec::new(), buffer: [0; 2048] })
    }
}

impl Server for Kernel {
    fn deliver(&mut self, packet: &Packet) {
        self.arrived.clear();
        self.arrived.extend_from_slice(packet.ip());
    }

    fn poll(&mut self) {
        self.tun.write_all(&self.arrived).expect("a packet is taken");
    }

    fn accept(&mut self) -> usize {
        self.streams.push(self.listener.accept().expect("a connection").0);
        self.streams.len() - 1
    }

    fn echo(&mut self, connection: usize) -> usize {
        self.tun.write_all(&self.arrived).expect("a packet is taken");
        let stream = &mut self.streams[connection];
        let len = stream.read(&mut self.buffer).expect("text");
        stream.write_all(&self.buffer[..len]).expect("room");
        len
    }

    fn take(&mut self) -> Option<Seen> {
        let mut packet = [0; 2048];
        loop {
            match self.tun.read(&mut packet) {
                // The kernel asks for routers of IPv6, too.
                Ok(len) if packet[0] >> 4 == 4 => {
                    return Some(Seen::parse(&packet[..len], false).expect("a segment whose checksums hold"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("the device: {error}"),
            }
        }
    }

    fn advance(&mut self, _: u64) {}
}
