//! The stack's device over AF_XDP: all queues of an interface.

use libc::xdp_desc;
use stack::device::{
    Capabilities, Device, Fragment, FrameIndex, Memory, Outgoing, Received, Refused as NotSent,
};

use super::socket::Socket;
use super::umem::Umem;

/// The next entry is of the same packet: XDP_PKT_CONTD.
const CONTINUES: u32 = libc::XDP_PKT_CONTD;
/// Most queues of an interface.
pub const QUEUES: usize = 64;

/// The device.
#[derive(Debug)]
pub struct AfXdp {
    umem: Umem,
    queues: Vec<Socket>,
    capabilities: Capabilities,
    /// The queue that is looked at first: each in turn, so that none starves another.
    turn: usize,
    /// Something was sent that the kernel hasn't been told of.
    owes_kick: bool,
}

impl AfXdp {
    /// Over these sockets, each of another queue, which share these frames.
    #[must_use]
    pub const fn new(umem: Umem, queues: Vec<Socket>, capabilities: Capabilities) -> Self {
        Self { umem, queues, capabilities, turn: 0, owes_kick: false }
    }

    /// The sockets, by queue.
    #[must_use]
    pub fn queues(&self) -> &[Socket] {
        &self.queues
    }

    /// Pays the kick that [`Device::flush`] said is owed, without the stack's lock: a system call of 2 µs and more. Whether the
    /// kernel wants to be asked again.
    pub fn kick(&mut self) -> bool {
        self.owes_kick = self.queues.first().is_some_and(Socket::kick);
        self.owes_kick
    }

    /// Whether a kick is owed; whoever asks pays it ([`Socket::kick`]), after the stack's lock is given back.
    pub const fn take_kick(&mut self) -> bool {
        core::mem::replace(&mut self.owes_kick, false)
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
        self.queues.first().map_or(0, |socket| socket.tx.room() as usize)
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), NotSent> {
        let (count, size) = (packet.fragments.len(), usize::from(self.umem.frame_size()));
        let fits = |fragment: &Fragment| usize::from(fragment.offset) + usize::from(fragment.len) <= size;
        let is_fit = (1..=usize::from(self.capabilities.fragments_max)).contains(&count)
            && packet.checksum.is_none()
            && packet.gso_size == 0
            && packet.fragments.iter().all(fits);
        if !is_fit {
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
        self.owes_kick |= is_taken;
        if is_taken { Ok(()) } else { Err(NotSent::Full) }
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
        written
    }

    /// What is in the rings is published already.
    #[inline]
    fn flush(&mut self) -> bool {
        self.owes_kick
    }
}
