//! What carries frames, as the stack sees it: AF_XDP, a packet socket with PACKET_VNET_HDR, VFIO, a test's wire.
//!
//! # Frames and packets
//!
//! The device's memory is cut into frames of one size (2 or 4 KiB), named by number. A packet is one or more
//! *fragments*, each a piece of one frame (AF_XDP's XDP_PKT_CONTD, a chain of virtio descriptors). A frame is in at most
//! one place, and whoever has it is the only one who may write to it:
//!
//! | has it | from | until |
//! |---|---|---|
//! | the device, to receive | [`Device::fill`] took it | [`Device::receive`] gave it back, with bytes in it |
//! | the device, to send | [`Device::send`] returned `Ok` | [`Device::completions`] named it |
//! | the stack | otherwise | it passes it on |
//!
//! What the stack has is for [`crate::frames`] to keep: its state words say of each frame where it is, and change
//! *before* the frame is passed on and before a descriptor of the device is believed. The device itself checks
//! nothing but bounds: a descriptor that it reads may have been written by a process that died, or by a kernel
//! with an error in it, so it hands on the number and the stack decides.
//!
//! While a frame is being sent its bytes may be read (a retransmission that can't wait copies them) but not changed: they may be
//! read by hardware at any moment until the completion.
//!
//! # What may fail, and back-pressure
//!
//! Nothing blocks and nothing makes a system call: the stack's lock is held around it. What a kernel must be told
//! (the transmit kick of AF_XDP, 2.3 µs) is owed after [`Device::flush`] said so, and paid by the caller when it
//! has unlocked. Every ring is finite: a device takes what fits and says how much it was. A full transmit ring is met by stopping the
//! output until completions made room; a fill ring that isn't full costs nothing as long as it isn't empty, since
//! what arrives then is lost. A device whose link is down takes frames and loses them, as a cable does.
//!
//! # What AF_XDP asks for
//!
//! - The kernel completes up to 255 frames late even when one packet is in flight, and in any order: nothing may rest on a
//!   completion that comes soon. So reception has a share of the frames that sending can't use up.
//! - Without XDP_USE_SG a packet that needs two frames vanishes. With it one ring entry is one fragment, and each
//!   fragment is completed on its own.
//! - Metadata for checksums (XDP_TX_METADATA) stands right before the first fragment in its own frame: [`Capabilities::headroom_out`].
//! - On veth a peer's checksum is the pseudo-header's sum alone and nothing marks it: [`ChecksumIn::Partial`].
//! - In generic mode TCP segments of up to 64 KiB arrive whole, as chains of 17 frames: [`Capabilities::gro`].

pub mod tap;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Instant;

/// The number of a frame in the device's memory.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct FrameIndex(pub u32);

/// What a packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// IP's header (a TUN device).
    Ip,
}

/// What is known of the transport checksums of arriving packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumIn {
    /// Each is verified, unless its packet is marked [`Checksum::Valid`].
    Verify,
    /// As before, but a field that holds no more than the pseudo-header's sum is good too: packets of this host's
    /// own kernel, which left the rest to a device that there isn't (veth, TUN).
    Partial,
}

/// What a device can do. It doesn't change while the device lives, but for the MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What a packet begins with.
    pub link: Link,
    /// Largest IP packet, in bytes, without the link's header.
    pub mtu: u32,
    /// Bytes of a frame.
    pub frame_size: u16,
    /// Bytes that the device wants free before the first fragment of a packet that it sends.
    pub headroom_out: u16,
    /// Most fragments of a packet that it sends: 1 without XDP_USE_SG, 17 with it in copy mode, what netlink's
    /// `xdp-zc-max-segs` says in zero-copy mode.
    pub fragments_max: u16,
    /// Transport checksums of what arrives.
    pub checksum_in: ChecksumIn,
    /// Whether it completes transport checksums of what is sent and not cut: [`Outgoing::checksum`].
    pub checksum_out: bool,
    /// Largest text, in bytes, that it cuts into segments ([`Outgoing::gso_size`]); 0 if it doesn't. Those of what it cuts it
    /// always completes.
    pub tso_bytes_max: u32,
    /// Whether packets larger than the MTU may arrive, several segments of one connection joined.
    pub gro: bool,
    /// Whether arriving packets have the device's own time.
    pub timestamps: bool,
}

/// What a device says about the transport checksum of one packet that it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: see [`Capabilities::checksum_in`].
    #[default]
    Unchecked,
    /// It is right: virtio's DATA_VALID, or a network card's word.
    Valid,
    /// The field holds the pseudo-header's sum and the packet never was on a wire: virtio's NEEDS_CSUM.
    Partial,
}

/// A piece of a frame: bytes `offset..offset + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Which frame.
    pub frame: FrameIndex,
    /// Where the bytes begin in it.
    pub offset: u16,
    /// How many they are.
    pub len: u16,
}

/// One fragment of a packet that arrived. What is said about the packet stands in its first fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub fragment: Fragment,
    /// Whether the next entry belongs to the same packet.
    pub continues: bool,
    /// Its transport checksum.
    pub checksum: Checksum,
    /// Bytes of text in each segment of a joined packet but the last; 0 if it is one segment or nobody said.
    pub gso_size: u16,
    /// When it arrived, by the device's clock turned into the stack's; `None` without [`Capabilities::timestamps`].
    pub arrived: Option<Instant>,
}

impl Received {
    /// Nothing yet: what a device writes over.
    pub const EMPTY: Self = Self {
        fragment: Fragment { frame: FrameIndex(0), offset: 0, len: 0 },
        continues: false,
        checksum: Checksum::Unchecked,
        gso_size: 0,
        arrived: None,
    };
}

/// The checksum that the device is to complete: of all bytes from `start` to the packet's end, stored at
/// `start + offset`, where the pseudo-header's sum is now (virtio's `csum_start` and `csum_offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// Bytes from the packet's start to the transport header.
    pub start: u16,
    /// Bytes from there to the checksum field.
    pub offset: u16,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its bytes in order, headers first. No frame stands here twice.
    pub fragments: &'a [Fragment],
    /// What is left to the device, if it has [`Capabilities::checksum_out`] or is to cut the packet.
    pub checksum: Option<ChecksumRequest>,
    /// Bytes of text of each segment that the device is to make of it; 0 for a packet that is sent as it is. With it a
    /// checksum is asked for, and the headers are those of the first segment with the lengths of the whole.
    pub gso_size: u16,
}

impl Outgoing<'_> {
    /// Bytes of the whole packet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fragments.iter().map(|fragment| usize::from(fragment.len)).sum()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a packet was not taken. Its frames are still the stack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room until completions were taken: try again then.
    Full,
    /// It never fits: more fragments or bytes than the device can send, a fragment outside of its frame, a request
    /// that it can't serve.
    Unfit,
}

/// The bytes of frames. The memory is the device's and is lent one frame at a time; whoever asks says by it that
/// the frame is the stack's, or, for reading only, is being sent.
pub trait Memory {
    /// The bytes of a frame, to be read.
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]>;

    /// The bytes of a frame, to be written. `None` for a number that no frame has.
    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]>;

    /// The bytes of two frames, for a copy from the first to the second. `None` also if they are the same.
    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])>;
}

/// A device: see the module's description for who has a frame when.
pub trait Device: Memory {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// How many entries wait to be taken by [`Device::receive`]: those of whole packets.
    fn waiting(&self) -> usize;

    /// Takes what arrived, whole packets only, the oldest first; the number of entries that were written. A packet that needs
    /// more entries than `packets` has is dropped and its frames filled again.
    fn receive(&mut self, packets: &mut [Received]) -> usize;

    /// How many frames [`Device::fill`] would take.
    fn fill_room(&self) -> usize;

    /// Gives frames to receive into, as many from the front as there is room for; the number taken.
    fn fill(&mut self, frames: &[FrameIndex]) -> usize;

    /// How many fragments [`Device::send`] has room for.
    fn transmit_room(&self) -> usize;

    /// Takes a whole packet to be sent, or none of it. It is on its way after the next [`Device::flush`].
    ///
    /// # Errors
    /// See [`Refused`]; the frames are still the stack's then.
    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused>;

    /// Takes the names of frames whose bytes the device needs no longer, in any order; how many they are. Each fragment
    /// that was sent is named once. Some are named late, and those of a device that failed never.
    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize;

    /// Publishes everything that was given to the device before. Whether a kick is owed: a system call that the driver
    /// makes once the stack's lock is open.
    fn flush(&mut self) -> bool;
}
