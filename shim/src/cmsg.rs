//! Control messages (cmsg(3)) as accel gives them itself.

use libc::{c_int, c_void};

use crate::buffers::is_plausible;

/// A caller's room for control messages, filled from the front.
#[derive(Debug)]
pub(crate) struct Room {
    at: *mut u8,
    length: usize,
    used: usize,
    /// MSG_CTRUNC, if something did not fit.
    flags: c_int,
}

impl Room {
    /// The room at `at`, of `length` bytes.
    ///
    /// # Safety
    /// It is writable as long as this lives, unless no room can be there.
    pub(crate) unsafe fn new(at: *mut c_void, length: usize) -> Self {
        let length = if is_plausible(at) { length } else { 0 };
        Self { at: at.cast(), length, used: 0, flags: 0 }
    }

    /// One message more, or as much of it as there is room for (put_cmsg in net/core/scm.c).
    pub(crate) fn put(&mut self, level: c_int, kind: c_int, value: &[u8]) {
        let (header, left) = (size_of::<libc::cmsghdr>(), self.length - self.used);
        if left < header {
            self.flags |= libc::MSG_CTRUNC;
            return;
        }
        let whole = header + value.len();
        let length = whole.min(left);
        if length < whole {
            self.flags |= libc::MSG_CTRUNC;
        }
        // SAFETY: an all-zero header is a valid one; header and value stay inside the room.
        unsafe {
            let mut message: libc::cmsghdr = core::mem::zeroed();
            message.cmsg_len = length as _;
            (message.cmsg_level, message.cmsg_type) = (level, kind);
            let at = self.at.add(self.used);
            at.cast::<libc::cmsghdr>().write_unaligned(message);
            at.add(header).copy_from_nonoverlapping(value.as_ptr(), length - header);
        }
        self.used += whole.next_multiple_of(size_of::<usize>()).min(left);
    }

    /// `msg_controllen` and the flags that the program's message has afterwards.
    pub(crate) const fn given(&self) -> (usize, c_int) {
        (self.used, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let mut bytes = [u64::MAX; 8];
        // SAFETY: a live array.
        let mut room = unsafe { Room::new(bytes.as_mut_ptr().cast(), 44) };
        room.put(1, 2, &7u32.to_ne_bytes());
        assert_eq!(room.given(), (24, 0));
        assert_eq!(bytes[..3], [20, 2 << 32 | 1, 0xffff_ffff_0000_0007]);
        room.put(3, 4, &[9; 8]);
        assert_eq!(room.given(), (44, libc::MSG_CTRUNC));
        assert_eq!((bytes[3], bytes[5] as u32), (20, 0x0909_0909));
        room.put(5, 6, &[1]);
        assert_eq!(room.given(), (44, libc::MSG_CTRUNC));
        // SAFETY: nothing is written where there is no room.
        let mut nowhere = unsafe { Room::new(core::ptr::null_mut(), 64) };
        nowhere.put(1, 2, &[1]);
        assert_eq!(nowhere.given(), (0, libc::MSG_CTRUNC));
    }
}
