//! What a change of an option does to a connection that is there.

use super::{Connection, IPPROTO_TCP, SOL_SOCKET, number};
use crate::device::Device;
use crate::settings::Switch;
use crate::tcp::congestion::Algorithm;
use crate::tcp::state::State;
use crate::tcp::tcb::Flags;
use crate::tcp::timers::Timer;

impl<D: Device> Connection<'_, D> {
    /// The option of this level and number was set to these bytes.
    pub(super) fn apply(&mut self, what: (i32, i32), bytes: &[u8]) {
        let value = number(what.0, bytes).unwrap_or(0);
        match what {
            // SO_RCVBUF, SO_RCVBUFFORCE.
            (SOL_SOCKET, 8 | 33) => {
                // What is there already stays, and the window that was offered does.
                self.tcb.receive_charge.limit = self.offer().frames;
            }
            // SO_KEEPALIVE, TCP_KEEPIDLE.
            (SOL_SOCKET, 9) | (IPPROTO_TCP, 4) => self.change_keepalive(),
            // SO_RCVLOWAT: as much must find room (tcp_set_rcvlowat).
            (SOL_SOCKET, 18) if self.values.options & Switch::RECEIVE_BUFFER_LOCKED == 0 => {
                let frames = self.values.receive_low_water.div_ceil(self.frame_share());
                let most = self.frames.pool.limits.low;
                let limit = &mut self.tcb.receive_charge.limit;
                *limit = frames.min(most).max(*limit);
            }
            // TCP_NODELAY: an explicit push, of what is corked too, as tcp(7) has it; TCP_CORK.
            (IPPROTO_TCP, 1) if value != 0 => {
                self.overridden = true;
                self.output();
            }
            (IPPROTO_TCP, 3) => self.output(),
            // TCP_QUICKACK.
            (IPPROTO_TCP, 12) => self.acknowledge_quickly(value),
            // TCP_CONGESTION.
            (IPPROTO_TCP, 13) => {
                let algorithm = Algorithm::decode(self.values.congestion);
                if self.tcb.congestion.algorithm() != algorithm {
                    self.tcb.congestion.set_algorithm(algorithm);
                }
            }
            _ => {}
        }
    }

    /// __tcp_sock_set_quickack.
    fn acknowledge_quickly(&mut self, value: i32) {
        let may = matches!(self.tcb.state(), State::Established | State::CloseWait);
        if value != 0 && may && self.tcb.flags.has(Flags::ACK_OWED) {
            self.owe_ack(true);
            self.output();
            if value & 1 == 0 {
                // Only this once.
                self.tcb.delayed_ack.be_interactive();
            }
        }
    }

    /// tcp_set_keepalive: the timer runs from what was heard last.
    fn change_keepalive(&mut self) {
        let is_open = self.tcb.state().is_synchronized() && self.tcb.state() != State::TimeWait;
        if !is_open || self.tcb.timers.at(Timer::FinWait2).is_some() {
            return;
        }
        self.tcb.timers.disarm(Timer::Keepalive);
        self.begin_keepalive();
    }
}
