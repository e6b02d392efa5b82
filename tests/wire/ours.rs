//! Our stack on the wire, in real time: a host of the simulation, whose device's packets go to the kernel.
//!
//! Its calls block as a plain program's do: while one waits, the stack is polled when packets arrive and when its deadline comes.

use std::os::fd::AsFd;

use stack::device::Link;
use stack::region::Limits;
use stack::stack::Stack;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

use super::calls::Calls;
use super::line::Lines;
use super::tun::Tun;
use super::{clock, sys, vnet};
use crate::sim::port::{Packet, Port, Setup};
use crate::sim::tcp::TcpHost;
use crate::sim::trace::{Trace, What};

/// Packets that are read before the others' turn, as many as the stack takes at once.
const BURST: usize = 32;
/// Bursts that are read before the stack is polled, half of its ring.
const BURSTS: usize = 16;

/// The host.
pub struct Ours {
    /// Its region.
    pub host: TcpHost,
    /// Its device.
    pub port: Port,
    tun: Tun,
    /// The wire to the kernel.
    pub there: Lines,
    /// The wire from the kernel.
    pub back: Lines,
    /// The VLAN of our end, if it is a switch's trunk: on the way to the kernel, whose port knows of none, the switch takes the tag off, and
    /// on the way back it puts one on.
    pub trunk: Option<u16>,
    /// Frames of ours that had not the trunk's tag; the switch has dropped them.
    pub foreign: u64,
    /// Who has the wire in our place, if somebody has.
    elsewhere: Option<Tun>,
    deadline: Option<Instant>,
    packet: Packet,
    /// The last packets, printed when a test fails.
    trace: Trace,
}

/// Our number in a trace.
const OURS: usize = 2;

impl Drop for Ours {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace.lines().join("\n"));
        }
    }
}

impl Ours {
    /// The host with this number, on the other end of an interface.
    #[must_use]
    pub fn new(number: u8, limits: &Limits, setup: Setup, tun: Tun, lines: [Lines; 2]) -> Self {
        let mut host = TcpHost::new(number, limits);
        // Enough ports for ten thousand connections that are closed.
        if let Some(lease) = host.parts().leases.first_mut() {
            (lease.first, lease.count) = (20_000, 40_000);
        }
        let [there, back] = lines;
        let port = Port::new(setup, 1);
        Self {
            host,
            port,
            tun,
            there,
            back,
            trunk: None,
            foreign: 0,
            elsewhere: None,
            deadline: None,
            packet: Packet::default(),
            trace: Trace::default(),
        }
    }

    /// From now on the wire is another interface's, or ours again; whose it was before.
    pub fn give_wire(&mut self, to: Option<Tun>) -> Option<Tun> {
        std::mem::replace(&mut self.elsewhere, to)
    }

    /// Moves packets between the two interfaces of the kernel's.
    fn pass_on(&mut self, now: Instant) {
        let Some(elsewhere) = &mut self.elsewhere else { return };
        for _ in 0..BURST {
            let Some(packet) = elsewhere.read() else { break };
            self.trace.note(now.0, OURS, What::Sent, Link::Ip, packet);
            self.there.put(now, packet);
        }
        for _ in 0..BURST {
            let Some(packet) = self.tun.read() else { break };
            self.trace.note(now.0, OURS, What::Got, Link::Ip, packet);
            self.back.put(now, packet);
        }
        while let Some(packet) = self.there.take(now) {
            self.tun.write(packet);
        }
        while let Some(packet) = self.back.take(now) {
            elsewhere.write(packet);
        }
    }

    /// Moves packets from the device to the kernel, and from the kernel to the device; whether any came.
    fn carry(&mut self, now: Instant) -> bool {
        if self.elsewhere.is_some() {
            self.pass_on(now);
            return false;
        }
        let link = self.port.setup().link;
        while let Some(mut packet) = self.port.take_sent() {
            self.trace.note(now.0, OURS, What::Sent, link, &packet.bytes);
            if self.trunk.is_some_and(|vlan| !untag(&mut packet.bytes, vlan)) {
                self.foreign += 1;
                continue;
            }
            if self.has_header() {
                vnet::put(&packet, link, &mut self.packet.bytes);
                self.there.put(now, &self.packet.bytes);
            } else {
                self.there.put(now, &packet.bytes);
            }
            self.port.spare.push(packet.bytes);
        }
        while let Some(packet) = self.there.take(now) {
            self.tun.write(packet);
        }
        for _ in 0..BURST {
            let Some(packet) = self.tun.read() else { break };
            self.back.put(now, packet);
        }
        let mut came = 0;
        while came < BURST {
            let has_header = self.has_header();
            let Some(bytes) = self.back.take(now) else { break };
            if !has_header {
                self.packet.bytes.clear();
                self.packet.bytes.extend_from_slice(bytes);
                if let Some(vlan) = self.trunk {
                    let [high, low] = vlan.to_be_bytes();
                    self.packet.bytes.splice(ADDRESSES..ADDRESSES, [0x81, 0, high, low]);
                }
            } else if vnet::take(bytes, &mut self.packet).is_none() {
                continue;
            }
            self.trace.note(now.0, OURS, What::Got, link, &self.packet.bytes);
            self.port.deliver(&self.packet);
            came += 1;
        }
        came > 0
    }

    /// Whether packets have a header of virtio's: where the device cuts.
    fn has_header(&self) -> bool {
        self.port.setup().tso_bytes_max > 0
    }

    /// Packets that the kernel did not take.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.tun.refused
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, length: Duration) {
        let until = clock() + length;
        while clock() < until {
            self.turn(until);
        }
    }
}

impl Calls for Ours {
    type Device = Port;

    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Self::Device>) -> R) -> R {
        let now = clock();
        self.port.now = now;
        // What came while this process was away, the stack has before it looks at its timers.
        for _ in 0..BURSTS {
            if self.elsewhere.is_some() || !self.carry(now) {
                break;
            }
        }
        let (result, polled) = self.host.with(now, &mut self.port, |stack| {
            // What has arrived is there for the caller; no more can come before the packets are carried.
            while stack.poll().more {}
            (act(stack), stack.poll())
        });
        self.deadline = polled.deadline;
        if self.carry(now) || polled.more {
            self.deadline = Some(now);
        }
        result
    }

    fn turn(&mut self, until: Instant) {
        let now = clock();
        let came = self.carry(now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.elsewhere.is_none() && (came || is_due(self.deadline) || is_due(self.port.next_completion()))
        {
            return self.with(|_| ());
        }
        let deadline = self.deadline.filter(|_| self.elsewhere.is_none());
        let next = [deadline, self.there.next(), self.back.next(), Some(until)];
        let next = next.into_iter().flatten().min().unwrap_or(until);
        if next > now {
            let elsewhere = self.elsewhere.as_ref().unwrap_or(&self.tun);
            // A signal is no reason to stop.
            let _ = sys::wait(&[self.tun.as_fd(), elsewhere.as_fd()], next - now);
        }
    }

    fn address(&self, is_v6: bool) -> Ip {
        self.host.addresses[usize::from(is_v6)]
    }
}

/// Bytes of Ethernet's addresses, behind which a tag is.
const ADDRESSES: usize = 12;

/// Takes the tag of a VLAN off a frame (IEEE 802.1Q §9.6); false if it has another one or none.
fn untag(frame: &mut Vec<u8>, vlan: u16) -> bool {
    let [high, low] = vlan.to_be_bytes();
    let is_it = frame.get(ADDRESSES..ADDRESSES + 4) == Some(&[0x81, 0, high, low]);
    if is_it {
        frame.drain(ADDRESSES..ADDRESSES + 4);
    }
    is_it
}

/// What kind of device our end of an interface is.
#[must_use]
pub fn setup(number: u8, link: Link, mtu: u32, frames: u32) -> Setup {
    // A frame holds the largest packet, and its own headroom when it is sent from.
    let largest = mtu + 128;
    let frame_size = if largest <= 2048 { 2048 } else { u16::try_from(largest).unwrap_or(u16::MAX) };
    Setup { link, mtu, frames, frame_size, headroom: 0, ring: 1024, ..Setup::plain(number) }
}
