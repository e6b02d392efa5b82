//! The stack's device over AF_XDP: all queues of an interface, and a packet socket for what the kernel is to cut.
//!
//! A packet leaves by the transmit ring or by the socket ([`crate::packet`]). None overtakes another: once one is queued for the socket,
//! what follows goes there too until the queue is empty, and the sender empties the ring before each packet.

use std::sync::Arc;

use libc::xdp_desc;
use stack::device::tap::Tap;
use stack::device::{
    Capabilities, Device, Fragment, FrameIndex, Memory, Outgoing, Received, Refused as NotSent,
};

use super::kick::{Kicker, Packets};
use super::socket::Socket;
use super::umem::Umem;
use crate::clock::monotonic_ns;
use crate::packet::{Cut, Header, PIECES};
use crate::sys::{self, Errno};

/// The next entry is of the same packet: XDP_PKT_CONTD.
const CONTINUES: u32 = libc::XDP_PKT_CONTD;
/// Most queues of an interface.
pub const QUEUES: usize = 64;
/// Most fragments of a packet in copy mode: a page fragment for each but the first (MAX_SKB_FRAGS).
pub const FRAGMENTS: u16 = 17;
/// Bytes that the kernel cuts at most: what a length field can say (RFC 791 §3.1).
const CUT_MAX: u32 = 65_535;
/// Bytes of a packet that the kernel keeps in one piece with its headers, where nobody says how long these are.
const HEAD_MAX: u16 = 128;

/// Where a checksum is in UDP's header, and how long that is (RFC 768).
const UDP_CHECKSUM: u16 = 6;
const UDP_LEN: u16 = 8;
// linux/if_ether.h: what says that a tag of a VLAN follows.
const VLAN: [u8; 2] = [0x81, 0x00];
const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

/// Where IP's header is, behind Ethernet's with up to two tags.
fn ip_at(bytes: &[u8]) -> Option<usize> {
    let kind = |at: usize| bytes.get(at..at + 2);
    let tags = [12, 16]
        .into_iter()
        .take_while(|at| kind(*at).is_some_and(|kind| kind == VLAN || kind == SERVICE_VLAN));
    Some(14 + 4 * tags.count())
}

/// The device.
#[derive(Debug)]
pub struct AfXdp {
    umem: Umem,
    queues: Vec<Socket>,
    capabilities: Capabilities,
    /// Most fragments of a packet in the transmit ring.
    fragments_max: usize,
    /// The queue that is looked at first: each in turn, so that none starves another.
    turn: usize,
    kicker: Arc<Kicker>,
    /// Where packets are copied while somebody wants to see them.
    tap: Option<Tap<'static>>,
}

impl AfXdp {
    /// Over these sockets, each of another queue, which share these frames; with `packets` the device cuts, too. `capabilities` are AF_XDP's,
    /// or those of the same device in another process.
    ///
    /// # Errors
    /// ENODEV without sockets; what mmap(2) says.
    pub fn new(
        umem: Umem,
        queues: Vec<Socket>,
        packets: Option<Packets>,
        capabilities: Capabilities,
    ) -> sys::Result<Self> {
        let fragments_max = capabilities.fragments_max.min(FRAGMENTS);
        let (tso_bytes_max, most) =
            if packets.is_some() { (CUT_MAX, PIECES as u16) } else { (0, fragments_max) };
        let capabilities = Capabilities { tso_bytes_max, fragments_max: most, ..capabilities };
        let waker = queues.first().ok_or(Errno(libc::ENODEV))?.waker()?;
        let kicker = Arc::new(Kicker::new(waker, packets, &umem));
        Ok(Self {
            umem,
            queues,
            capabilities,
            fragments_max: fragments_max.into(),
            turn: 0,
            kicker,
            tap: None,
        })
    }

    /// The sockets, by queue.
    #[must_use]
    pub fn queues(&self) -> &[Socket] {
        &self.queues
    }

    /// Packets are copied there from now on, whenever somebody wants them.
    pub const fn set_tap(&mut self, tap: Option<Tap<'static>>) {
        self.tap = tap;
    }

    /// Who wants to see packets at this moment.
    #[inline]
    fn tapped(&self) -> Option<&Tap<'static>> {
        self.tap.as_ref().filter(|tap| tap.is_on())
    }

    /// Copies packets that have arrived.
    #[cold]
    fn show_received(&self, tap: &Tap<'static>, packets: &[Received]) {
        let now = monotonic_ns();
        for packet in packets.split_inclusive(|fragment| !fragment.continues) {
            tap.record(now, false, packet.iter().filter_map(|received| self.piece(&received.fragment)));
        }
    }

    /// Copies a packet that is about to be sent.
    #[cold]
    fn show_sent(&self, tap: &Tap<'static>, packet: &Outgoing<'_>) {
        tap.record(monotonic_ns(), true, packet.fragments.iter().filter_map(|piece| self.piece(piece)));
    }

    fn piece(&self, fragment: &Fragment) -> Option<&[u8]> {
        let (from, len) = (usize::from(fragment.offset), usize::from(fragment.len));
        self.umem.bytes(fragment.frame)?.get(from..from + len)
    }

    /// What pays kicks, for who has left the stack's lock.
    #[must_use]
    pub const fn kicker(&self) -> &Arc<Kicker> {
        &self.kicker
    }

    /// Pays the kick that [`Device::flush`] said is owed: see [`Kicker::kick`].
    pub fn kick(&mut self) -> bool {
        self.kicker.kick()
    }

    /// What the kernel is told of a packet; `None` if it couldn't cut it.
    fn header(&self, packet: &Outgoing<'_>) -> Option<Header> {
        let first = packet.fragments.first()?;
        let Some(request) = packet.checksum else {
            return (packet.gso_size == 0).then(|| Header::whole(first.len.min(HEAD_MAX)));
        };
        let bytes = self.umem.bytes(first.frame)?.get(first.offset.into()..)?;
        let transport = bytes.get(request.start.into()..)?;
        let is_v6 = bytes.get(ip_at(bytes)?)? >> 4 == 6;
        let (cut, len) = match (request.offset, is_v6) {
            (UDP_CHECKSUM, _) => (Cut::Udp, UDP_LEN),
            (_, false) => (Cut::TcpV4, u16::from(transport.get(12)? >> 4) * 4),
            (_, true) => (Cut::TcpV6, u16::from(transport.get(12)? >> 4) * 4),
        };
        let head_len = request.start + len;
        // One segment is nothing to cut, and the kernel wouldn't (virtio_net_hdr_to_skb).
        let one = usize::from(head_len) + usize::from(packet.gso_size);
        let is_fit = packet.gso_size != 0 && head_len <= first.len && packet.len() > one;
        is_fit.then(|| Header::cut(cut, packet.gso_size, head_len, (request.start, request.offset)))
    }

    /// Leaves a packet to the packet socket.
    fn queue(&self, packet: &Outgoing<'_>, packets: &Packets) -> Result<(), NotSent> {
        let header = self.header(packet).filter(|_| packet.fragments.len() <= PIECES);
        let header = header.ok_or(NotSent::Unfit)?;
        if packets.queue.push(&header, packet.fragments) { Ok(()) } else { Err(NotSent::Full) }
    }

    /// Puts a packet into the transmit ring.
    fn put(&mut self, packet: &Outgoing<'_>) -> Result<(), NotSent> {
        let count = packet.fragments.len();
        if count > self.fragments_max || packet.checksum.is_some() || packet.gso_size != 0 {
            return Err(NotSent::Unfit);
        }
        let (base, last) = (u64::from(self.umem.frame_size()), count - 1);
        let entries = packet.fragments.iter().enumerate().map(|(at, fragment)| xdp_desc {
            addr: u64::from(fragment.frame.0) * base + u64::from(fragment.offset),
            len: fragment.len.into(),
            options: if at == last { 0 } else { CONTINUES },
        });
        // One queue for all that is sent: a second one would only let packets overtake each other.
        let is_taken = self.queues.first_mut().is_some_and(|socket| socket.tx.push(entries));
        if is_taken { Ok(()) } else { Err(NotSent::Full) }
    }

    fn fragment(&self, entry: &xdp_desc) -> Fragment {
        let size = u64::from(self.umem.frame_size());
        Fragment {
            frame: FrameIndex((entry.addr / size) as u32),
            offset: (entry.addr % size) as u16,
            len: entry.len as u16,
        }
    }

    /// Whole packets of one queue, as many as there is room for. The oldest is dropped if it needs more than `most` entries.
    fn receive_from(&mut self, queue: usize, packets: &mut [Received], most: usize) -> usize {
        let Some(socket) = self.queues.get(queue) else { return 0 };
        let (mut whole, mut written) = (0, 0);
        for (at, to) in (0..socket.rx.len()).zip(packets.iter_mut()) {
            let entry = socket.rx.get(at);
            let continues = entry.options & CONTINUES != 0;
            *to = Received { fragment: self.fragment(&entry), continues, ..Received::EMPTY };
            written += 1;
            if !continues {
                whole = written;
            }
        }
        if whole == 0 && written == most {
            self.drop_packet(queue);
        } else if let Some(socket) = self.queues.get_mut(queue) {
            socket.rx.release(whole as u32);
        }
        whole
    }

    /// The oldest packet of a queue has more frames than anybody has room for: they are filled again.
    #[cold]
    fn drop_packet(&mut self, queue: usize) {
        let Some(socket) = self.queues.get_mut(queue) else { return };
        let all = socket.rx.len();
        let Some(last) = (0..all).find(|at| socket.rx.get(*at).options & CONTINUES == 0) else { return };
        let size = u64::from(self.umem.frame_size());
        let Socket { rx, fill, .. } = socket;
        if fill.push((0..last + 1).map(|at| rx.get(at).addr / size * size)) {
            rx.release(last + 1);
        }
    }

    /// The queue that has fewest frames to receive into.
    #[inline]
    fn hungriest(&self) -> usize {
        match self.queues.len() {
            0 | 1 => 0,
            count => (0..count).max_by_key(|queue| self.queues[*queue].fill.room()).unwrap_or(0),
        }
    }
}

impl Memory for AfXdp {
    #[inline]
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        self.umem.bytes(frame)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        self.umem.bytes_mut(frame)
    }

    #[inline]
    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        self.umem.pair(from, to)
    }
}

impl Device for AfXdp {
    #[inline]
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    #[inline]
    fn waiting(&self) -> usize {
        self.queues.iter().map(|socket| socket.rx.len() as usize).sum()
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let (count, most, mut written) = (self.queues.len(), packets.len(), 0);
        for _ in 0..count {
            let queue = self.turn;
            self.turn = if queue + 1 < count { queue + 1 } else { 0 };
            let Some(room) = packets.get_mut(written..).filter(|room| !room.is_empty()) else { break };
            written += self.receive_from(queue, room, most);
        }
        if let Some(tap) = self.tapped() {
            self.show_received(tap, packets.get(..written).unwrap_or_default());
        }
        written
    }

    #[inline]
    fn fill_room(&self) -> usize {
        self.queues.iter().map(|socket| socket.fill.room() as usize).sum()
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        let size = u64::from(self.umem.frame_size());
        for (at, frame) in frames.iter().enumerate() {
            let queue = self.hungriest();
            let Some(socket) = self.queues.get_mut(queue) else { return at };
            if !socket.fill.push(core::iter::once(u64::from(frame.0) * size)) {
                return at;
            }
        }
        frames.len()
    }

    #[inline]
    fn transmit_room(&self) -> usize {
        let ring = self.queues.first().map_or(0, |socket| socket.tx.room() as usize);
        self.kicker.packets().map_or(ring, |packets| ring.min(packets.queue.room()))
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), NotSent> {
        let (count, size) = (packet.fragments.len(), usize::from(self.umem.frame_size()));
        let fits = |fragment: &Fragment| usize::from(fragment.offset) + usize::from(fragment.len) <= size;
        if count == 0 || !packet.fragments.iter().all(fits) {
            return Err(NotSent::Unfit);
        }
        // Before it is sent: then the bytes are still the stack's, and the time is not later than the answer's.
        if let Some(tap) = self.tapped() {
            self.show_sent(tap, packet);
        }
        let is_large = packet.gso_size != 0 || count > self.fragments_max;
        let sent = match self.kicker.packets() {
            Some(packets) if is_large || packets.queue.is_busy() => self.queue(packet, packets),
            _ => self.put(packet),
        };
        if sent.is_ok() {
            self.kicker.owe();
        }
        sent
    }

    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let (size, mut written) = (u64::from(self.umem.frame_size()), 0);
        for socket in &mut self.queues {
            let Some(room) = frames.get_mut(written..) else { break };
            let mut count = 0;
            for (at, to) in (0..socket.completion.len()).zip(room) {
                *to = FrameIndex((socket.completion.get(at) / size) as u32);
                count += 1;
            }
            if count != 0 {
                socket.completion.release(count);
                written += count as usize;
            }
        }
        if let (Some(packets), Some(room)) = (self.kicker.packets(), frames.get_mut(written..)) {
            written += packets.queue.completions(room);
            if packets.queue.refuses() {
                self.capabilities.tso_bytes_max = 0;
            }
        }
        written
    }

    /// What is in the rings is published already.
    #[inline]
    fn flush(&mut self) -> bool {
        self.kicker.owes()
    }
}
