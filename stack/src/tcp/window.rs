//! The receiver's window: its scale, what is advertised, and how its buffer grows ([`autotune`]). The sender's side
//! of silly windows is in [`send`].

use crate::seq::Seq;
use crate::wire::tcp::options::WINDOW_SCALE_MAX;

pub mod autotune;
pub mod send;

/// The largest window that a segment can show without scaling.
pub const UNSCALED_MAX: u32 = u16::MAX as u32;

/// Rcv.Wind.Shift for a connection whose receive buffer may grow to so many bytes (tcp_select_initial_window).
///
/// RFC 7323 §2.3: the shift is fixed when the connection opens, so it is chosen for the largest window there may be.
#[must_use]
pub const fn shift(space_max: u32) -> u8 {
    // The largest shift whose unscaled window is still below 2¹⁶.
    let bits = u32::BITS - space_max.leading_zeros();
    let shift = bits.saturating_sub(u16::BITS);
    if shift > WINDOW_SCALE_MAX as u32 { WINDOW_SCALE_MAX } else { shift as u8 }
}

/// The window of a SYN or SYN-ACK. RFC 7323 §2.2: "The window field in a segment where the SYN bit is set (i.e., a
/// `<SYN>` or `<SYN,ACK>`) MUST NOT be scaled." Whole segments, if there is room for one.
#[must_use]
pub const fn initial(space: u32, mss: u16) -> u32 {
    let mss = mss as u32;
    let whole = if mss != 0 && space > mss { space - space % mss } else { space };
    if whole > UNSCALED_MAX { UNSCALED_MAX } else { whole }
}

/// SND.WND from a segment's field. RFC 7323 §2.3: "The window field (SEG.WND) of every outgoing segment, with the
/// exception of `<SYN>` segments, MUST be right-shifted by Rcv.Wind.Shift bits", and the other way round here.
#[inline]
#[must_use]
pub const fn unscaled(field: u16, snd_wnd_shift: u8, syn: bool) -> u32 {
    if syn { field as u32 } else { (field as u32) << min_shift(snd_wnd_shift) }
}

/// RFC 7323 §2.3: a larger shift than 14 counts as 14.
const fn min_shift(shift: u8) -> u8 {
    if shift > WINDOW_SCALE_MAX { WINDOW_SCALE_MAX } else { shift }
}

/// What the receiver's window depends on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Room for text: what the buffer can hold when it is empty.
    pub full: u32,
    /// Room that is left now.
    pub free: u32,
    /// What we think the peer's segments carry.
    pub rcv_mss: u16,
    /// The most that is offered while the sender starts (rcv_ssthresh), so that small segments cannot overrun the
    /// buffer.
    pub offer_max: u32,
    /// Rcv.Wind.Shift.
    pub shift: u8,
}

/// A receive window as it was advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// RCV.NXT + RCV.WND: the right edge.
    pub edge: Seq,
    /// RCV.WND.
    pub wnd: u32,
    /// SEG.WND.
    pub field: u16,
}

/// The window to advertise with the next segment, which acknowledges `rcv_nxt`, when the last one was `wnd` with its
/// edge at `edge`.
///
/// RFC 9293 §3.8.6: "A TCP receiver SHOULD NOT shrink the window, i.e., move the right window edge to the left
/// (SHLD-14)." Here it never does; where the shift cannot show the edge, it moves right by less than a unit (RFC 7323
/// §2.4).
#[inline]
#[must_use]
pub fn advertise(space: &Space, rcv_nxt: Seq, edge: Seq, wnd: u32) -> Advertised {
    let shift = min_shift(space.shift);
    let unit = 1u32 << shift;
    let offered = if rcv_nxt.lt(edge) { edge - rcv_nxt } else { 0 };
    let is_open = shift != 0 && space.rcv_mss != 0 && space.full != 0 && space.free >= space.full / 2;
    // As almost always, and what [`select`] says then.
    let select = if is_open { space.free.min(space.full).min(space.offer_max) } else { select(space, wnd) };
    let wnd = select.max(offered).min(UNSCALED_MAX << shift);
    // Rounded up: rounded down, the edge would move left.
    let wnd = (wnd.saturating_add(unit - 1) >> shift).min(UNSCALED_MAX) << shift;
    Advertised { edge: rcv_nxt + wnd, wnd, field: (wnd >> shift) as u16 }
}

/// RCV.WND as it should be for this space (__tcp_select_window), before what was offered already.
///
/// RFC 9293 §3.8.6.2.2: "A TCP implementation MUST include a SWS avoidance algorithm in the receiver (MUST-39)": the
/// edge stays until it can move by a segment of the peer's or by half of the buffer. When less than a segment is
/// left, or less than a sixteenth of the buffer, the window is closed.
fn select(space: &Space, wnd: u32) -> u32 {
    let unit = 1u32 << min_shift(space.shift);
    let mss = u32::from(space.rcv_mss).min(space.full);
    if mss == 0 {
        return 0;
    }
    let mut free = space.free.min(space.full);
    if free < space.full / 2 {
        free &= !(unit - 1);
        if free < space.full / 16 || free < mss {
            return 0;
        }
    }
    let free = free.min(space.offer_max);
    if space.shift != 0 {
        // A scaled window has no use for whole segments: only keep a small one from being scaled to nothing.
        free.saturating_add(unit - 1) & !(unit - 1)
    } else if wnd <= free.saturating_sub(mss) || wnd > free {
        free - free % mss
    } else if mss == space.full && free > wnd.saturating_add(space.full / 2) {
        free
    } else {
        wnd
    }
}

/// [`Space::offer_max`] after text has arrived in order that takes `charge` bytes of a buffer that may have up to `most`
/// (tcp_grow_window): it begins as the initial window, and grows by two segments while text takes no more than twice its own
/// length; up to a part of the largest window, if it takes more. So a sender of tiny segments is never offered a window that it
/// could overrun the buffer with.
#[must_use]
pub fn grown_offer(space: &Space, len: u32, charge: u32, mss: u16, most: u32) -> u32 {
    let room = space.full.min(space.free).saturating_sub(space.offer_max);
    let step = if charge / 2 <= len {
        2 * u32::from(mss)
    } else if is_worth_growing(space.offer_max, len, charge / 2, most) {
        2 * u32::from(space.rcv_mss)
    } else {
        return space.offer_max;
    };
    space.offer_max.saturating_add(step.max(len.saturating_mul(2)).min(room))
}

/// Whether the window is still a half of the largest, for text that takes four times its length, a quarter for eight times, and
/// so on (__tcp_grow_window).
fn is_worth_growing(offer_max: u32, len: u32, charge: u32, most: u32) -> bool {
    (1..u32::BITS).take_while(|shift| offer_max <= most >> shift).any(|shift| charge >> shift <= len)
}

/// Whether reading has opened the window so far that the peer must be told at once (__tcp_cleanup_rbuf): it is twice
/// what the peer knows of.
#[must_use]
pub fn needs_update(space: &Space, rcv_nxt: Seq, edge: Seq, wnd: u32) -> bool {
    let offered = if rcv_nxt.lt(edge) { edge - rcv_nxt } else { 0 };
    // Only when it could be that far open at all.
    offered <= space.full.min(space.offer_max) / 2 && {
        let now = select(space, wnd);
        now != 0 && now / 2 >= offered
    }
}

#[cfg(test)]
mod tests;
