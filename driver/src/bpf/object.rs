//! What bpf(2) makes: maps, programs, and links that attach them (include/uapi/linux/bpf.h, `union bpf_attr`).
//!
//! Each ends with its descriptor; a program stays attached as long as its link's descriptor is open somewhere.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16};

use crate::sys::{self, Errno, Fd};

// Commands.
const MAP_CREATE: u32 = 0;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const PROG_LOAD: u32 = 5;
const PROG_TEST_RUN: u32 = 10;
const PROG_QUERY: u32 = 16;
const LINK_CREATE: u32 = 28;

/// What a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys of any kind.
    Hash = 1,
    /// Numbers from 0 on; every entry is there from the beginning.
    Array = 2,
    /// An array of maps.
    ArrayOfMaps = 12,
    /// AF_XDP sockets.
    Xsk = 17,
}

/// A map may be written through mmap(2): BPF_F_MMAPABLE.
pub const MMAPABLE: u32 = 1 << 10;
/// A program can work on packets of several buffers: BPF_F_XDP_HAS_FRAGS.
const HAS_FRAGS: u32 = 1 << 5;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// How an XDP program is attached: XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE.
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
/// Programs of traffic control on an interface, either way: BPF_TCX_INGRESS, BPF_TCX_EGRESS (Linux 6.6).
const TCX: [u32; 2] = [46, 47];
/// Packets of a test run go where the program says: BPF_F_TEST_XDP_LIVE_FRAMES (Linux 5.18).
const LIVE_FRAMES: u32 = 1 << 1;
/// Bytes of a `struct xdp_md`.
const XDP_MD: usize = 24;
/// Bytes of what the verifier has to say.
const LOG: usize = 1 << 20;

/// A `union bpf_attr`, written field by field at the offsets of bpf.h.
struct Attributes([u8; 128]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 128])
    }

    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &Fd) -> Self {
        self.word(at, fd.raw() as u32)
    }

    /// Bytes that the kernel reads, or writes if they were borrowed so.
    fn pointer(mut self, at: usize, bytes: *const u8) -> Self {
        self.0[at..at + 8].copy_from_slice(&(bytes as u64).to_ne_bytes());
        self
    }

    fn name(mut self, at: usize, name: &str) -> Self {
        for (to, byte) in self.0[at..at + 15].iter_mut().zip(name.bytes()) {
            *to = byte;
        }
        self
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// # Safety
    /// What its pointers point to must be valid for what the command reads and writes.
    unsafe fn call(&mut self, command: u32) -> sys::Result<usize> {
        // SAFETY: the caller's.
        unsafe { sys::bpf(command, &mut self.0) }
    }

    /// # Safety
    /// As for `call`; and the command returns a descriptor.
    unsafe fn make(&mut self, command: u32) -> sys::Result<Fd> {
        // SAFETY: the caller's.
        unsafe { self.call(command) }.map(|fd| Fd::own(fd as i32))
    }
}

/// A map, and how large its keys and values are.
#[derive(Debug)]
pub struct Map {
    fd: Fd,
    key: usize,
    value: usize,
    entries: u32,
}

impl Map {
    /// Makes a map with this name for `bpftool map`. `inner` is what the entries of an array of maps are like.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; ENOMEM; E2BIG.
    pub fn new(
        kind: Kind,
        name: &str,
        (key, value): (usize, usize),
        entries: u32,
        flags: u32,
        inner: Option<&Self>,
    ) -> sys::Result<Self> {
        let mut attributes = Attributes::new()
            .word(0, kind as u32)
            .word(4, key as u32)
            .word(8, value as u32)
            .word(12, entries)
            .word(16, flags)
            .word(20, inner.map_or(0, |inner| inner.fd.raw() as u32))
            .name(28, name);
        // SAFETY: no pointers.
        let fd = unsafe { attributes.make(MAP_CREATE) }?;
        Ok(Self { fd, key, value, entries })
    }

    /// A map that somebody else has made like this.
    #[must_use]
    pub const fn adopt(fd: Fd, (key, value): (usize, usize), entries: u32) -> Self {
        Self { fd, key, value, entries }
    }

    /// Its descriptor.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        &self.fd
    }

    fn attributes(&self, key: &[u8]) -> Result<Attributes, Errno> {
        if key.len() != self.key {
            return Err(Errno(libc::EINVAL));
        }
        Ok(Attributes::new().fd(0, &self.fd).pointer(8, key.as_ptr()))
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// EINVAL for a key or value of another length; E2BIG when a hash is full.
    pub fn set(&self, key: &[u8], value: &[u8]) -> sys::Result<()> {
        let attributes = self.attributes(key)?;
        if value.len() != self.value {
            return Err(Errno(libc::EINVAL));
        }
        // SAFETY: key and value have the lengths that the kernel reads, and live until it returns.
        unsafe { attributes.pointer(16, value.as_ptr()).call(MAP_UPDATE) }.map(drop)
    }

    /// Removes an entry; false if there was none.
    ///
    /// # Errors
    /// EINVAL for a key of another length, and for arrays.
    pub fn remove(&self, key: &[u8]) -> sys::Result<bool> {
        // SAFETY: the key has the length that the kernel reads, and lives until it returns.
        match unsafe { self.attributes(key)?.call(MAP_DELETE) } {
            Ok(_) => Ok(true),
            Err(Errno(libc::ENOENT)) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Maps the values of an array that is [`MMAPABLE`].
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn mapped(&self) -> sys::Result<Values> {
        let stride = self.value.next_multiple_of(8);
        let length = (stride * self.entries as usize).next_multiple_of(4096);
        let base = NonNull::new(sys::mmap_shared(&self.fd, length, 0)?).ok_or(Errno(libc::ENOMEM))?;
        Ok(Values { base, length, stride, value: self.value, entries: self.entries })
    }
}

/// The values of an array, in memory that XDP programs read.
#[derive(Debug)]
pub struct Values {
    base: NonNull<u8>,
    length: usize,
    stride: usize,
    value: usize,
    entries: u32,
}

// SAFETY: it owns its mapping, whose bytes are only used atomically.
unsafe impl Send for Values {}
// SAFETY: likewise.
unsafe impl Sync for Values {}

impl Values {
    /// One byte of the value of an entry.
    #[must_use]
    pub fn byte(&self, entry: u32, at: usize) -> Option<&AtomicU8> {
        // SAFETY: every place is a byte's.
        self.place(entry, at, 1).map(|place| unsafe { place.cast().as_ref() })
    }

    /// Two bytes of it, from an even place on.
    #[must_use]
    pub fn half(&self, entry: u32, at: usize) -> Option<&AtomicU16> {
        // SAFETY: values begin at multiples of eight, so an even place is aligned.
        self.place(entry, at, 2)
            .filter(|_| at.is_multiple_of(2))
            .map(|place| unsafe { place.cast().as_ref() })
    }

    /// So many bytes of the value of an entry: within the mapping, which lives as long as `self`, and which other processes and the kernel
    /// use atomically, too.
    fn place(&self, entry: u32, at: usize, size: usize) -> Option<NonNull<u8>> {
        let is_there = entry < self.entries && at.checked_add(size).is_some_and(|end| end <= self.value);
        // SAFETY: an entry that there is, and a place in it, are in the mapping.
        is_there.then(|| unsafe { self.base.add(entry as usize * self.stride + at) })
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping but `self`.
        unsafe { sys::munmap(self.base.as_ptr(), self.length) };
    }
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Behind the device's driver: every interface.
    Generic,
    /// In the device's driver.
    Native,
}

/// A program that the verifier has accepted.
#[derive(Debug)]
pub struct Program {
    fd: Fd,
}

impl Program {
    /// Loads an XDP program.
    ///
    /// # Errors
    /// What the kernel says, with the verifier's last words.
    pub fn load(name: &str, code: &[[u8; 8]]) -> Result<Self, (Errno, String)> {
        let attempt = |log: &mut [u8]| {
            let mut attributes = Attributes::new()
                .word(0, PROG_TYPE_XDP)
                .word(4, code.len() as u32)
                .pointer(8, code.as_ptr().cast())
                .pointer(16, c"GPL".as_ptr().cast())
                .word(24, u32::from(!log.is_empty()))
                .word(28, log.len() as u32)
                .pointer(32, if log.is_empty() { core::ptr::null() } else { log.as_mut_ptr() })
                .word(44, HAS_FRAGS)
                .name(48, name)
                .word(68, ATTACH_XDP);
            // SAFETY: code, licence and log are as long as said, and live until it returns.
            unsafe { attributes.make(PROG_LOAD) }
        };
        attempt(&mut []).map(|fd| Self { fd }).map_err(|errno| {
            let mut log = vec![0; LOG];
            let _ = attempt(&mut log);
            let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            (errno, last.into_iter().rev().collect::<Vec<_>>().join("; "))
        })
    }

    /// Attaches it to an interface, for as long as the link lives.
    ///
    /// # Errors
    /// EBUSY or EEXIST when another program is attached; EOPNOTSUPP, ERANGE when the driver can't run it.
    pub fn attach(&self, interface: u32, how: Attach) -> sys::Result<Fd> {
        let mode = match how {
            Attach::Generic => SKB_MODE,
            Attach::Native => DRV_MODE,
        };
        let mut attributes =
            Attributes::new().fd(0, &self.fd).word(4, interface).word(8, ATTACH_XDP).word(12, mode);
        // SAFETY: no pointers.
        unsafe { attributes.make(LINK_CREATE) }
    }

    /// Runs it on a packet of queue 0: what it returned, and nanoseconds of one of `repeat` runs.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn test(&self, packet: &[u8], repeat: u32) -> sys::Result<(u32, u32)> {
        let mut attributes = Attributes::new()
            .fd(0, &self.fd)
            .word(8, packet.len() as u32)
            .pointer(16, packet.as_ptr())
            .word(32, repeat);
        // SAFETY: the packet is as long as said and lives until it returns; nothing is written but the attributes.
        unsafe { attributes.call(PROG_TEST_RUN) }?;
        Ok((attributes.get(4), attributes.get(36)))
    }

    /// Has it see a packet that a queue of an interface has received, so to speak: the packet then goes where the program says.
    ///
    /// # Errors
    /// EINVAL before Linux 5.18, and for a queue that there isn't; what bpf(2) says.
    pub fn receive(&self, packet: &[u8], interface: u32, queue: u32) -> sys::Result<()> {
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let mut context = [0; XDP_MD];
        context[4..8].copy_from_slice(&(packet.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&interface.to_ne_bytes());
        context[16..20].copy_from_slice(&queue.to_ne_bytes());
        let mut attributes = Attributes::new()
            .fd(0, &self.fd)
            .word(8, packet.len() as u32)
            .pointer(16, packet.as_ptr())
            .word(32, 1)
            .word(40, XDP_MD as u32)
            .pointer(48, context.as_ptr())
            .word(64, LIVE_FRAMES);
        // SAFETY: packet and context are as long as said and live until it returns.
        unsafe { attributes.call(PROG_TEST_RUN) }.map(drop)
    }
}

/// How many programs of traffic control are attached to an interface; none where the kernel has no such.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn traffic_programs(interface: u32) -> sys::Result<u32> {
    let mut count = 0;
    for direction in TCX {
        let mut attributes = Attributes::new().word(0, interface).word(4, direction);
        // SAFETY: no pointers: only the number is asked for.
        match unsafe { attributes.call(PROG_QUERY) } {
            Ok(_) => count += attributes.get(24),
            Err(Errno(libc::EPERM)) => return Err(Errno(libc::EPERM)),
            Err(_) => {}
        }
    }
    Ok(count)
}
