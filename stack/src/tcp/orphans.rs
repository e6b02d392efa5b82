//! Connections that live on when their programs have closed them, and give way when they are too many, or memory is short
//! (Linux's tcp_check_oom, tcp_out_of_resources and tcp_orphan_retries).

use super::connection::{Connection, clock_ms};
use super::tcb::{Flags, Standing};
use super::timers::limits;
use crate::device::Device;
use crate::error::Error;
use crate::region::slab::Handle;
use crate::stack::Stack;
use crate::stats::Counter;
use crate::time::Duration;

/// Bytes that any connection may have unacknowledged, however short memory is (SOCK_MIN_SNDBUF).
const SEND_BYTES_LEAST: u32 = 4608;

impl<D: Device> Connection<'_, D> {
    /// R2, or what stands for it once nobody holds the socket: then it is tried for longer while it `lives`, which is as long as
    /// its timeout grows, and not at all once a router has said that something is wrong.
    pub(super) fn retries(&self, lives: bool) -> u8 {
        let retries = match self.host.tcp_orphan_retries {
            _ if !self.tcb.flags.has(Flags::ORPHAN) => self.host.tcp_retries2,
            _ if self.tcb.soft_error != 0 && !lives => 0,
            0 if lives => limits::ORPHAN_RETRIES.into(),
            retries => retries,
        };
        retries.min(u8::MAX.into()) as u8
    }

    /// Whether its timeout is below the longest.
    pub(super) fn lives(&self) -> bool {
        self.rto() < self.bounds().max
    }

    /// Whether too many connections live on like this one. It counts twice if its peer takes nothing, and twice if a router has
    /// told of an error.
    fn is_one_too_many(&self, orphans: u32, doublings: u32) -> bool {
        u64::from(orphans) << doublings.min(2) > self.host.tcp_max_orphans.into()
    }

    /// Whether there is no memory for anybody's text, and it has more than its least (tcp_out_of_memory). Of frames alone there
    /// may be few: text goes to blocks.
    fn is_out_of_memory(&self) -> bool {
        let has_blocks = (self.blocks.slab.used() as usize) < self.blocks.blocks.len();
        self.traffic.send.bytes() > SEND_BYTES_LEAST && self.frames.pool.is_under_pressure() && !has_blocks
    }

    /// An orphan's timer has expired: whether it ends here, since it is too expensive. The peer is told if it `resets`, and also if
    /// it has lately been sent something or has closed its window.
    pub(super) fn gives_way(&mut self, orphans: u32, resets: bool) -> bool {
        if !self.tcb.flags.has(Flags::ORPHAN) {
            return false;
        }
        let silence = Duration::from_millis(clock_ms(self.now).wrapping_sub(self.tcb.last_data_sent).into());
        let is_silent = silence.0 > 2 * self.bounds().max.0 || !resets;
        let doublings = u32::from(is_silent) + u32::from(self.tcb.soft_error != 0);
        let is_over = self.is_one_too_many(orphans, doublings) || self.is_out_of_memory();
        if is_over {
            let is_closed = self.tcb.snd.wnd == 0 && self.traffic.send.sent().frames == 0;
            self.abort_orphan(resets || is_closed || silence <= limits::TIME_WAIT);
        }
        is_over
    }

    fn abort_orphan(&mut self, resets: bool) {
        self.count(Counter::OrphansAborted);
        if resets {
            self.emit_reset();
        }
        self.end();
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// A program has closed its connection, which may not be one too many (tcp_close).
    pub(super) fn limit_orphans(&mut self, socket: Handle) -> Result<(), Error> {
        let is_orphan = self.parts.tcb(socket).is_ok_and(|tcb| tcb.standing() == Standing::Orphan);
        let orphans = self.parts.left.orphans;
        if !is_orphan || orphans <= self.parts.host.tcp_max_orphans && self.has_blocks() {
            return Ok(());
        }
        self.work(socket, None, |connection| {
            if connection.is_one_too_many(orphans, 0) || connection.is_out_of_memory() {
                connection.abort_orphan(true);
            }
        })
    }

    fn has_blocks(&self) -> bool {
        (self.parts.slabs.blocks.used() as usize) < self.parts.blocks.len()
    }
}
