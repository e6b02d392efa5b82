//! The rings that AF_XDP shares between kernel and program (Documentation/networking/af_xdp.rst, include/uapi/linux/if_xdp.h).
//!
//! A ring is two positions, which only grow, and a power of two of entries. One side writes entries and then the producer's position, the
//! other reads entries and then writes the consumer's.
//!
//! Nothing is kept here that another process with the same ring could make stale: both positions are read from the ring each time. They are
//! in the cache of whoever used them last, which is this core as long as it is the one that works.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys::{self, Errno, Fd};

/// Where the parts of a ring are in its mapping, in bytes: the kernel's `struct xdp_ring_offset`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    /// The producer's position.
    pub producer: u64,
    /// The consumer's.
    pub consumer: u64,
    /// The word with XDP_RING_NEED_WAKEUP.
    pub flags: u64,
    /// The entries.
    pub entries: u64,
}

/// The kernel waits to be called: XDP_RING_NEED_WAKEUP.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// A ring in this process's memory.
#[derive(Debug)]
struct Ring<T> {
    base: NonNull<u8>,
    length: usize,
    offsets: Offsets,
    size: u32,
    entries: PhantomData<T>,
}

// SAFETY: it owns its mapping, and everything in it is read and written atomically or, entries, as the positions allow.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps a ring of `size` entries from a socket's page offset; EINVAL when that is no power of two, or a part doesn't fit.
    fn map(socket: &Fd, page: u64, offsets: Offsets, size: u32) -> sys::Result<Self> {
        let length = offsets.entries as usize + size as usize * size_of::<T>();
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        let fits = size.is_power_of_two()
            && words.iter().all(|word| word.is_multiple_of(4) && word + 4 <= length as u64)
            && offsets.entries.is_multiple_of(align_of::<T>() as u64);
        if !fits {
            return Err(Errno(libc::EINVAL));
        }
        let base = NonNull::new(sys::mmap_shared(socket, length, page)?).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { base, length, offsets, size, entries: PhantomData })
    }

    #[inline]
    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `map` has checked that the word is aligned and within the mapping, which lives as long as `self`; the kernel and other
        // processes use it atomically, too.
        unsafe { self.base.add(offset as usize).cast::<AtomicU32>().as_ref() }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    #[inline]
    fn place(&self, position: u32) -> NonNull<T> {
        let index = (position & (self.size - 1)) as usize;
        // SAFETY: the index is less than the number of entries, for which `map` has mapped memory.
        unsafe { self.base.add(self.offsets.entries as usize).cast::<T>().add(index) }
    }

    /// Entries that the producer has published and the consumer not yet given back; not more than there are, whatever the positions say.
    #[inline]
    fn used(&self, producer: u32, consumer: u32) -> u32 {
        producer.wrapping_sub(consumer).min(self.size)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping but `self`.
        unsafe { sys::munmap(self.base.as_ptr(), self.length) };
    }
}

/// A ring whose entries this side writes: the fill ring and the transmit ring.
#[derive(Debug)]
pub struct Producer<T>(Ring<T>);

// SAFETY: entries are written with `&mut self` only, positions are atomic.
unsafe impl<T: Send> Sync for Producer<T> {}

impl<T: Copy> Producer<T> {
    /// Maps it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(socket: &Fd, page: u64, offsets: Offsets, size: u32) -> sys::Result<Self> {
        Ring::map(socket, page, offsets, size).map(Self)
    }

    /// Entries that there is room for.
    #[inline]
    #[must_use]
    pub fn room(&self) -> u32 {
        let ring = &self.0;
        // Acquire: the kernel has read the entries that it gives back.
        let consumer = ring.consumer().load(Ordering::Acquire);
        ring.size - ring.used(ring.producer().load(Ordering::Relaxed), consumer)
    }

    /// Entries that the other side hasn't taken.
    #[inline]
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.size - self.room()
    }

    /// Writes entries and publishes them, all or, without room for all, none.
    #[inline]
    pub fn push(&mut self, entries: impl ExactSizeIterator<Item = T>) -> bool {
        let count = entries.len() as u32;
        if count > self.room() {
            return false;
        }
        let ring = &self.0;
        let producer = ring.producer().load(Ordering::Relaxed);
        for (at, entry) in (0..count).zip(entries) {
            // SAFETY: the place is in the mapping and ours: there is room for it, and the other side reads it after the store below.
            unsafe { ring.place(producer.wrapping_add(at)).write_volatile(entry) };
        }
        ring.producer().store(producer.wrapping_add(count), Ordering::Release);
        true
    }

    /// Entries that were ever published, modulo 2^32.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.0.producer().load(Ordering::Relaxed)
    }

    /// Whether the kernel is to be called before it looks at the ring.
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.word(self.0.offsets.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// A ring whose entries this side reads: the receive ring and the completion ring.
#[derive(Debug)]
pub struct Consumer<T>(Ring<T>);

impl<T: Copy> Consumer<T> {
    /// Maps it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(socket: &Fd, page: u64, offsets: Offsets, size: u32) -> sys::Result<Self> {
        Ring::map(socket, page, offsets, size).map(Self)
    }

    /// Entries that can be read.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        let ring = &self.0;
        // Acquire: the entries were written before the position.
        let producer = ring.producer().load(Ordering::Acquire);
        ring.used(producer, ring.consumer().load(Ordering::Relaxed))
    }

    /// Entries that were ever given back, modulo 2^32.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.0.consumer().load(Ordering::Relaxed)
    }

    /// Whether there is nothing to read.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry that comes so many after the oldest; to be asked only for those that [`Self::len`] counted.
    #[inline]
    #[must_use]
    pub fn get(&self, at: u32) -> T {
        let ring = &self.0;
        let consumer = ring.consumer().load(Ordering::Relaxed);
        // SAFETY: the place is in the mapping, whatever `at` is, and every bit pattern is an entry: they are plain numbers.
        unsafe { ring.place(consumer.wrapping_add(at)).read_volatile() }
    }

    /// Gives the oldest entries back.
    #[inline]
    pub fn release(&mut self, count: u32) {
        let consumer = self.0.consumer();
        // Release: they were read before.
        consumer.store(consumer.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// Both sides of a ring, without a kernel.
    fn pair(size: u32) -> (Producer<u64>, Consumer<u64>) {
        let file = sys::memfd_create(c"ring", 0).expect("a memfd");
        sys::ftruncate(&file, 4096).expect("room");
        let producer = Producer::map(&file, 0, OFFSETS, size).expect("a ring");
        (producer, Consumer::map(&file, 0, OFFSETS, size).expect("the same ring"))
    }

    #[test]
    fn entries_arrive_in_order() {
        let (mut producer, mut consumer) = pair(8);
        assert!(consumer.is_empty());
        for round in 0..1000u64 {
            assert!(producer.push([round * 3, round * 3 + 1, round * 3 + 2].into_iter()));
            assert_eq!((producer.waiting(), consumer.len()), (3, 3));
            for at in 0..3 {
                assert_eq!(consumer.get(at), round * 3 + u64::from(at));
            }
            consumer.release(3);
        }
        assert!(consumer.is_empty());
    }

    #[test]
    fn what_has_no_room_is_not_taken_at_all() {
        let (mut producer, mut consumer) = pair(4);
        assert!(producer.push([1, 2, 3].into_iter()));
        assert!(!producer.push([4, 5].into_iter()));
        assert_eq!((producer.room(), consumer.len()), (1, 3));
        consumer.release(1);
        assert!(producer.push([4, 5].into_iter()));
        assert_eq!([consumer.get(0), consumer.get(3)], [2, 5]);
    }

    #[test]
    fn positions_wrap() {
        let (mut producer, mut consumer) = pair(4);
        for word in [producer.0.producer(), producer.0.consumer()] {
            word.store(u32::MAX - 1, Ordering::Relaxed);
        }
        assert!(producer.push([7, 8, 9].into_iter()));
        assert_eq!([consumer.get(0), consumer.get(1), consumer.get(2)], [7, 8, 9]);
        consumer.release(3);
        assert_eq!((producer.room(), consumer.len()), (4, 0));
    }

    /// Another process died in the middle of something, or the kernel has an error: what is read stays in the ring.
    #[test]
    fn positions_that_make_no_sense_are_bounded() {
        let (producer, consumer) = pair(4);
        producer.0.consumer().store(1 << 31, Ordering::Relaxed);
        assert_eq!((producer.room(), consumer.len()), (0, 4));
        let _ = consumer.get(u32::MAX);
    }

    #[test]
    fn a_ring_that_does_not_fit_is_refused() {
        let file = sys::memfd_create(c"ring", 0).expect("a memfd");
        sys::ftruncate(&file, 4096).expect("room");
        let odd = Offsets { producer: 2, ..OFFSETS };
        assert!(Producer::<u64>::map(&file, 0, odd, 4).is_err());
        assert!(Producer::<u64>::map(&file, 0, OFFSETS, 3).is_err());
        assert!(Consumer::<u64>::map(&file, 0, Offsets { producer: 1 << 20, ..OFFSETS }, 4).is_err());
    }
}
