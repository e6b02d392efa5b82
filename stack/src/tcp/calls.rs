//! What the user asks for (RFC 9293 §3.10.1–§3.10.6), with Linux's results: connect(2), listen(2), accept(2), send(2), recv(2),
//! shutdown(2), close(2).

use super::connection::{Connection, Offer, RECEIVE_FRAMES_MAX, means};
use super::fast_open::client::FastSyn;
use super::isn;
use super::open::traffic::Want;
use super::options;
use super::state::{Event, State};
use super::tcb::{Flags, Mark, Rcv, Snd};
use super::timers::Timer;
use crate::demux::End;
use crate::device::Device;
use crate::error::Error;
use crate::events;
use crate::region::slab::Handle;
use crate::sendq::{Copied, SendQueue};
use crate::settings::Switch;
use crate::stack::Stack;
use crate::stats::Counter;
use crate::time::{Duration, Instant};
use crate::wire::checksum::Sum;
use crate::wire::ip::Ip;

/// Which direction shutdown(2) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SHUT_RD.
    Read,
    /// SHUT_WR.
    Write,
    /// SHUT_RDWR.
    Both,
}

/// How long a write waits for memory when nothing of its own will give some back.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// A window up to this many octets is sent into whole (TCP_MSS_DEFAULT).
const MSS_DEFAULT: u32 = 536;

/// How text is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// It is all that there is now.
    Whole,
    /// MSG_MORE.
    More,
    /// MSG_OOB.
    Urgent,
}

impl<D: Device> Connection<'_, D> {
    /// What is ready, for the event word (tcp_poll).
    pub(crate) fn ready(&self) -> u64 {
        let (tcb, state) = (&*self.tcb, self.tcb.state());
        let mut ready = 0;
        let mut set = |on: bool, bit| ready |= if on { bit } else { 0 };
        let is_over = self.is_over || state == State::Closed;
        let reads_end = is_over || state.has_received_fin() || tcb.flags.has(Flags::RECEIVE_SHUT);
        // A write makes the SYN of one that is deferred, and one that a cookie vouches for need not wait (tcp_poll).
        let is_fast = tcb.is(Mark::FAST_CHILD) || tcb.is_deferred();
        let is_open = is_over || state.is_synchronized() || is_fast;
        let wrote_all = is_over || tcb.flags.has(Flags::FIN_QUEUED);
        set(self.has_enough_to_read() || reads_end, events::READABLE);
        set(reads_end, events::READ_HUNG_UP);
        set(is_open && (wrote_all || self.may_write()), events::WRITABLE);
        set(tcb.error != 0, events::FAILED);
        set(is_over || reads_end && wrote_all, events::HUNG_UP);
        ready | self.urgent_ready()
    }

    /// Whether there is as much as a reader waits for (SO_RCVLOWAT), or no room for more (tcp_stream_is_readable).
    fn has_enough_to_read(&self) -> bool {
        let bytes = self.readable_bytes();
        bytes != 0
            && (bytes >= self.values.receive_low_water
                || self.tcb.rcv.wnd <= self.tcb.delayed_ack.rcv_mss().into()
                || self.frames.pool.is_under_pressure())
    }

    /// Whether a writer is told of room: when a third of the buffer is free (sk_stream_is_writeable), and less than half of
    /// TCP_NOTSENT_LOWAT waits to be sent; and there are queues. Where memory was short, room comes with what is acknowledged.
    #[inline]
    pub(crate) fn may_write(&self) -> bool {
        let (max, low_water) = (self.send_bytes_max(), self.values.unsent_low_water);
        let (bytes, short) = (self.traffic.send.bytes(), self.traffic.short);
        bytes < max - max / 3
            && (short == 0 || bytes + 1 < short)
            && (low_water == 0 || self.unsent().saturating_mul(2) < low_water)
            && !self.tcb.waits_for_queues(self.seldom.queue)
    }

    /// The user writes again: whether the path had waited for it.
    fn note_app_limited(&mut self) {
        let board = self.board();
        let (pipe, is_repaired) = (board.pipe(), board.lost_out <= board.retrans_out);
        if self.unsent() < self.tcb.mss.into() && pipe < self.tcb.congestion.cwnd() && is_repaired {
            self.traffic.delivery.note_app_limited(self.tcb.delivered, pipe);
        }
    }

    /// A write found no memory for more. Whoever waits is told when there is less in the queue, or if that is empty, in a
    /// while: what others give back tells nobody.
    fn note_short(&mut self) {
        self.traffic.short = self.traffic.send.bytes().saturating_add(1);
        if self.traffic.send.is_empty() {
            self.tcb.timers.arm(Timer::Pacing, self.now + SHORT_WAIT);
        }
    }

    /// The SYN of an active open: RFC 9293 §3.10.1, "select an initial send sequence number". How much of the text that a fast open
    /// has was taken.
    pub(super) fn open(&mut self, fast_open: &FastSyn<'_>) -> usize {
        let (iss, ts_offset) = isn::beginning(&self.secret.0, &self.tuple(), self.now);
        self.begin(ts_offset);
        // In the place of one in TIME-WAIT it begins where that has ended.
        let iss = if self.tcb.recent.is_known() { self.tcb.snd.una } else { iss };
        let Offer { wnd, shift, .. } = self.offer();
        let kept = self.tcb.flags.0 & (Flags::NO_DELAY.0 | Flags::CORK.0);
        self.tcb.flags = Flags(kept) | self.host.offered();
        if self.host.tcp_ecn == 1 {
            self.tcb.flags |= Flags::ECN;
        }
        self.tcb.set_shifts(0, shift);
        self.tcb.snd = Snd { una: iss, nxt: iss + 1, ..Snd::default() };
        self.tcb.rcv = Rcv { wnd, ..Rcv::default() };
        (self.tcb.acked, self.tcb.received, self.tcb.retransmits, self.tcb.probes) = (0, 0, 0, 0);
        (self.tcb.rtt, self.tcb.episode) = Default::default();
        (self.tcb.error, self.tcb.soft_error, self.tcb.snd_wnd_max, self.tcb.offer) = (0, 0, 0, 0);
        self.tcb.marks &= !Mark::FAST_OPEN;
        (self.tcb.rate, self.tcb.waited) = Default::default();
        let is_interactive = self.tcb.delayed_ack.is_interactive();
        (self.tcb.delayed_ack, self.tcb.challenges, self.tcb.pacing) = Default::default();
        if is_interactive {
            // TCP_QUICKACK was switched off.
            self.tcb.delayed_ack.be_interactive();
        }
        self.tcb.timers.disarm_all();
        // What a connection before it has learned was about another path.
        let (rack, prr, send) = (Default::default(), Default::default(), SendQueue::new(self.tcb.snd.nxt));
        (self.traffic.rack, self.traffic.prr, self.traffic.send) = (rack, prr, send);
        let taken = self.emit_first_syn(fast_open);
        // A SYN for which there is no room now is sent by its timer.
        self.arm_syn();
        taken
    }

    /// Takes the pending error (SO_ERROR).
    fn take_error(&mut self) -> Option<Error> {
        Error::from_code(core::mem::take(&mut self.tcb.error))
    }

    fn send(&mut self, text: &[&[u8]], how: Sent) -> Result<usize, Error> {
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        let state = self.tcb.state();
        if self.tcb.flags.has(Flags::FIN_QUEUED) {
            return Err(Error::BrokenPipe);
        }
        match state {
            State::SynReceived if self.tcb.is(Mark::FAST_CHILD) => {}
            State::SynSent | State::SynReceived => return Err(Error::WouldBlock),
            State::Established | State::CloseWait => {}
            // Linux says the same where there was never a peer (sk_stream_wait_connect).
            _ => return Err(Error::BrokenPipe),
        }
        let all: usize = text.iter().map(|piece| piece.len()).sum();
        let (mut done, mut room) = (0, self.room());
        self.note_app_limited();
        self.traffic.short = 0;
        while done < all && room > 0 {
            let asked = (all - done).min(room);
            let put = self.put(text, done, asked);
            done += put;
            if put < asked {
                self.note_short();
                break;
            }
            if done < all {
                // What is there leaves, as far as it may, before it is looked whether there is room for more (tcp_push_one).
                self.output_corked();
                room = self.room();
            }
        }
        if done == 0 && all > 0 {
            return Err(Error::WouldBlock);
        }
        if how == Sent::Urgent && done == all && all > 0 {
            self.mark_urgent();
        }
        // What had no room for all of it is pushed all the same: whoever waits can't say what follows (tcp_sendmsg_locked).
        if how == Sent::More && done == all {
            self.output_corked();
        } else {
            self.traffic.unpushed = 0;
            self.traffic.send.mark_push(&mut self.frames);
            self.output();
        }
        Ok(done)
    }

    /// How much may be written now. A buffer that the user has set takes as much as is sent at once while it isn't full, as in
    /// Linux, where it is the memory of what was written before that counts (sk_stream_memory_free).
    fn room(&self) -> usize {
        let (max, bytes) = (self.send_bytes_max(), self.traffic.send.bytes());
        let mut room = max.saturating_sub(bytes);
        if self.values.send_buffer != 0 {
            let goal = self.size_goal();
            let begun = self.unsent() % goal;
            room = if begun != 0 || bytes < max { goal - begun } else { 0 };
        }
        if self.values.unsent_low_water != 0 {
            // At least a segment, so that a mark that is smaller stops nobody.
            let unsent = self.values.unsent_low_water.saturating_sub(self.unsent());
            room = room.min(if unsent == 0 { 0 } else { unsent.max(self.tcb.mss.into()) });
        }
        room as usize
    }

    /// Octets that are sent at once: whole segments, and half the largest window that the peer has offered (tcp_xmit_size_goal,
    /// tcp_bound_to_half_wnd).
    fn size_goal(&self) -> u32 {
        let (mss, window) = (u32::from(self.tcb.mss).max(1), self.tcb.snd_wnd_max);
        let half = if window > MSS_DEFAULT { window / 2 } else { window };
        (half.min(u16::MAX.into()) / mss).max(1) * mss
    }

    /// Puts `len` octets of the slices, from the octet `skip` on, into the queue; how many.
    fn put(&mut self, text: &[&[u8]], mut skip: usize, len: usize) -> usize {
        let (shape, frames_max, device) = (self.shape(), self.send_frames_max(), self.capabilities());
        // What leaves as a part of a run is summed by who cuts it; if it leaves by itself after all, it is summed then.
        let is_cut = device.tso_bytes_max != 0 && len > 2 * usize::from(shape.mss);
        let is_summed = !device.checksum_out && !is_cut;
        let mut done = 0;
        for piece in text {
            let begin = skip.min(piece.len());
            skip -= begin;
            let mut left = &piece[begin..piece.len().min(begin + len - done)];
            let asked = left.len();
            let appended =
                self.traffic.send.append(&mut means!(self, send_charge), shape, asked, frames_max, |to| {
                    let (now, later) = left.split_at(to.len().min(left.len()));
                    left = later;
                    if is_summed {
                        return Copied { len: now.len(), sum: Some(Sum::ZERO.copy(now, to)) };
                    }
                    to[..now.len()].copy_from_slice(now);
                    Copied { len: now.len(), sum: None }
                });
            done += appended.bytes;
            if appended.bytes < asked {
                break;
            }
        }
        done
    }

    /// Output of what is to go on: as corked until the next call, and without PSH at its end.
    fn output_corked(&mut self) {
        self.traffic.unpushed = 1;
        let corked = self.tcb.flags.has(Flags::CORK);
        self.tcb.flags |= Flags::CORK;
        self.output();
        if !corked {
            self.tcb.flags = self.tcb.flags.without(Flags::CORK);
        }
    }

    /// Copies what was received into the slices; how many bytes.
    #[inline]
    pub(super) fn read(&mut self, to: &mut [&mut [u8]], most: usize) -> usize {
        let mut done = 0;
        for piece in to.iter_mut() {
            let (mut at, len) = (0, piece.len().min(most - done));
            let got = self.traffic.receive.read(&mut means!(self, receive_charge), len, |text| {
                piece[at..at + text.len()].copy_from_slice(text);
                at += text.len();
                text.len()
            });
            done += got;
            if got < len {
                break;
            }
        }
        done
    }

    fn receive(&mut self, to: &mut [&mut [u8]]) -> Result<usize, Error> {
        self.step_over_urgent();
        let (_, most) = self.read_limits();
        let done = self.read(to, most);
        self.end_urgent();
        self.read_so(done, to.iter().all(|piece| piece.is_empty()))
    }

    /// MSG_TRUNC: what would be read is dropped.
    fn discard(&mut self, len: usize) -> Result<usize, Error> {
        self.step_over_urgent();
        let (_, most) = self.read_limits();
        let done = self.traffic.receive.consume(&mut means!(self, receive_charge), len.min(most));
        self.end_urgent();
        self.read_so(done, len == 0)
    }

    /// MSG_PEEK: what would be read, from the octet `skip` on, stays.
    fn peek(&mut self, skip: usize, to: &mut [&mut [u8]]) -> Result<usize, Error> {
        let (begin, most) = self.read_limits();
        let skip = skip + self.tcb.peek_from.saturating_sub(1) as usize;
        let most = most.saturating_sub(skip);
        let mut done = 0;
        for piece in to.iter_mut() {
            let (mut at, len) = (0, piece.len().min(most - done));
            let from = begin + skip + done;
            let got = self.traffic.receive.peek(&means!(self, receive_charge), from, len, |text| {
                piece[at..at + text.len()].copy_from_slice(text);
                at += text.len();
                text.len()
            });
            done += got;
            if got < len {
                break;
            }
        }
        if self.tcb.peek_from != 0 {
            self.tcb.peek_from = self.tcb.peek_from.saturating_add(done as u32);
        }
        if done > 0 { Ok(done) } else { self.read_so(0, to.iter().all(|piece| piece.is_empty())) }
    }

    /// What a read that took so much comes to.
    fn read_so(&mut self, done: usize, wants_none: bool) -> Result<usize, Error> {
        if done > 0 {
            if let Some(from) = self.tcb.peek_from.checked_sub(1) {
                self.tcb.peek_from = from.saturating_sub(done as u32).saturating_add(1);
            }
            self.after_reading();
            return Ok(done);
        }
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        let state = self.tcb.state();
        match state {
            _ if state.has_received_fin() || self.tcb.flags.has(Flags::RECEIVE_SHUT) => Ok(0),
            State::Closed | State::Listen => Err(Error::NotConnected),
            _ if wants_none => Ok(0),
            _ => Err(Error::WouldBlock),
        }
    }

    /// The user has read: the buffer may grow, and the peer be told that there is room.
    fn after_reading(&mut self) {
        self.note_reading();
        self.output();
    }

    /// The same, without the output.
    #[inline]
    pub(super) fn note_reading(&mut self) {
        let unread = self.traffic.receive.bytes();
        let copied = crate::seq::Seq(self.tcb.rcv.nxt.0.wrapping_sub(unread));
        let mss = self.tcb.advertised_mss;
        let grown = self.tcb.autotune.on_read(self.now, copied, mss);
        if let Some(bytes) = grown.filter(|_| self.values.options & Switch::RECEIVE_BUFFER_LOCKED == 0) {
            let most = RECEIVE_FRAMES_MAX.min(self.frames.pool.limits.low);
            let frames = bytes.div_ceil(self.frame_share()).min(most);
            self.tcb.receive_charge.limit = self.tcb.receive_charge.limit.max(frames);
        }
        let is_drained = unread == 0 && self.tcb.flags.has(Flags::ACK_OWED);
        if is_drained && self.tcb.delayed_ack.is_due_when_read() || self.needs_window_update() {
            self.owe_ack(true);
        }
    }

    /// SHUT_WR: "Queue this request until all preceding SENDs have been segmentized" (RFC 9293 §3.10.4).
    fn finish_sending(&mut self) {
        if self.tcb.flags.has(Flags::FIN_QUEUED) {
            return;
        }
        self.tcb.flags |= Flags::FIN_QUEUED;
        match self.tcb.state() {
            State::SynSent => self.enter(Event::Close),
            // The FIN waits for the handshake.
            State::SynReceived => {}
            _ => self.enter(Event::Close),
        }
        self.output();
    }

    fn shutdown(&mut self, how: How) -> Result<(), Error> {
        // A connection in TIME-WAIT is its socket's no more, in Linux.
        if matches!(self.tcb.state(), State::Closed | State::TimeWait) {
            return Err(Error::NotConnected);
        }
        if how != How::Write {
            self.tcb.flags |= Flags::RECEIVE_SHUT;
            self.arrived = true;
        }
        if how != How::Read {
            self.finish_sending();
        }
        Ok(())
    }

    /// The last holder closes (tcp_close): what is unread, or SO_LINGER of no time, makes it a reset (RFC 9293 §3.6.1,
    /// RFC 2525 §2.17); else a FIN follows what waits, and the connection ends by itself.
    fn close(&mut self) {
        self.tcb.flags |= Flags::ORPHAN;
        let lingers = self.values.options & Switch::LINGER != 0 && self.values.linger_s == 0;
        let is_unread = !self.traffic.receive.is_empty();
        self.drop_received();
        match self.tcb.state() {
            State::Closed | State::Listen | State::SynSent => return self.end(),
            State::TimeWait => return,
            // Nothing is lost by it: both FINs are on their way (tcp_need_reset).
            State::Closing | State::LastAck if lingers && !is_unread => return self.end(),
            _ if is_unread || lingers => {
                self.emit_reset();
                return self.end();
            }
            State::FinWait2 if self.values.linger2_s < 0 => {
                self.emit_reset();
                return self.end();
            }
            State::FinWait2 => {
                let at = self.now + self.fin_wait_2();
                self.tcb.timers.arm(Timer::FinWait2, at);
            }
            _ => {}
        }
        self.finish_sending();
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// connect(2) of a socket that does not wait: the SYN is on its way. An unspecified `source` is what the route wants.
    ///
    /// # Errors
    /// `InProgress` in this case, too: readiness tells the end. `Already` and `IsConnected` later; those of
    /// [`crate::region::Parts::tcp_connect`]. None with TCP_FASTOPEN_CONNECT and a cookie: the SYN waits for text.
    pub fn connect(&mut self, socket: Handle, source: &Ip, remote: End<'_>) -> Result<(), Error> {
        if let Some(error) = Error::from_code(core::mem::take(&mut self.parts.tcb(socket)?.error)) {
            return Err(error);
        }
        self.begin_connecting(socket, source, remote)?;
        if self.parts.tcp_options(socket)?.options & Switch::FAST_OPEN_CONNECT != 0 {
            return self.connect_fast(socket);
        }
        self.count(Counter::ActiveOpens);
        self.work(socket, None, |connection| connection.open(&FastSyn::default()))?;
        Err(Error::InProgress)
    }

    /// The connection has both of its ends, and no SYN was sent yet.
    pub(super) fn begin_connecting(
        &mut self,
        socket: Handle,
        source: &Ip,
        remote: End<'_>,
    ) -> Result<(), Error> {
        if self.parts.tcb(socket)?.is_deferred() {
            return Err(Error::IsConnected);
        }
        let way = self.way(remote.0)?;
        let source = if source.is_unspecified() { way.source } else { *source };
        self.parts.tcp_connect(socket, &source, remote, self.now)?;
        self.parts.tcb(socket)?.route = 0;
        Ok(())
    }

    /// listen(2).
    ///
    /// # Errors
    /// Those of [`crate::region::Parts::tcp_listen`].
    pub fn listen(&mut self, socket: Handle, backlog: u32) -> Result<(), Error> {
        let backlog = backlog.min(self.parts.host.somaxconn);
        self.parts.tcp_listen(socket, backlog)?;
        self.tell_listener(socket.index, false);
        Ok(())
    }

    /// accept(2), for the process in slot `holder`.
    ///
    /// # Errors
    /// `WouldBlock` if none waits; `Invalid` if the socket doesn't listen.
    pub fn accept(&mut self, socket: Handle, holder: u32) -> Result<Handle, Error> {
        let accepted = self.parts.tcp_accept(socket, holder)?;
        self.tell_listener(socket.index, false);
        Ok(accepted)
    }

    /// send(2): as many bytes of the slices as there is room for. `more` is MSG_MORE.
    ///
    /// # Errors
    /// `WouldBlock` without room; a pending error; `BrokenPipe` after shutdown; `NotConnected`.
    #[inline]
    pub fn send(&mut self, socket: Handle, text: &[&[u8]], more: bool) -> Result<usize, Error> {
        match self.predicted_send(socket, text, more)? {
            Some(done) => Ok(done),
            None => self.send_slowly(socket, text, if more { Sent::More } else { Sent::Whole }),
        }
    }

    /// send(2) with MSG_OOB: the last byte is urgent.
    ///
    /// # Errors
    /// As [`Stack::send`].
    pub fn send_urgent(&mut self, socket: Handle, text: &[&[u8]]) -> Result<usize, Error> {
        self.send_slowly(socket, text, Sent::Urgent)
    }

    fn send_slowly(&mut self, socket: Handle, text: &[&[u8]], how: Sent) -> Result<usize, Error> {
        let tcb = self.parts.tcb(socket)?;
        if tcb.is_deferred() {
            return self.send_deferred(socket, text);
        }
        let can = (tcb.state().may_send() || tcb.is(Mark::FAST_CHILD))
            && !tcb.flags.has(Flags::FIN_QUEUED)
            && tcb.error == 0;
        match self.work(socket, can.then_some(Want::Sending), |connection| connection.send(text, how)) {
            Err(Error::NoBuffers) => {
                // All queues are in use: it waits, and isn't writable until one comes free.
                self.parts.tcp_wait(socket)?;
                self.work(socket, None, |_| ())?;
                Err(Error::WouldBlock)
            }
            done => done?,
        }
    }

    /// recv(2) into the slices; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; a pending error; `NotConnected`.
    #[inline]
    pub fn receive(&mut self, socket: Handle, to: &mut [&mut [u8]]) -> Result<usize, Error> {
        let received = match self.predicted_receive(socket, to)? {
            Some(done) => Ok(done),
            None => self.work(socket, None, |connection| connection.receive(to))?,
        };
        self.wake_senders();
        received
    }

    /// recv(2) with MSG_PEEK, from the octet `skip` on: MSG_WAITALL counts so what is there. With SO_PEEK_OFF that is behind what was
    /// peeked at before.
    ///
    /// # Errors
    /// As [`Stack::receive`].
    pub fn peek(&mut self, socket: Handle, skip: usize, to: &mut [&mut [u8]]) -> Result<usize, Error> {
        self.work(socket, None, |connection| connection.peek(skip, to))?
    }

    /// When the last of the next `len` octets arrived, as far as an ordinary read finds so many: what SO_TIMESTAMP, SO_TIMESTAMPNS and
    /// SO_TIMESTAMPING with SOF_TIMESTAMPING_RX_SOFTWARE tell of that read, before which it is to be asked (tcp_recv_timestamp).
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn text_arrived(&mut self, socket: Handle, len: usize) -> Result<Option<Instant>, Error> {
        self.work(socket, None, |connection| {
            let (begin, most) = connection.read_limits();
            let len = begin.saturating_add(len.min(most));
            connection.traffic.receive.arrived(&connection.frames, len)
        })
    }

    /// recv(2) with MSG_TRUNC: as much as would be read is dropped.
    ///
    /// # Errors
    /// As [`Stack::receive`].
    pub fn discard_text(&mut self, socket: Handle, len: usize) -> Result<usize, Error> {
        let done = self.work(socket, None, |connection| connection.discard(len))?;
        self.wake_senders();
        done
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&mut self, socket: Handle, how: How) -> Result<(), Error> {
        let state = self.parts.tcb(socket)?.state();
        if state == State::Listen {
            return Err(Error::NotConnected);
        }
        self.want_queues_for_fin(socket, state);
        self.work(socket, None, |connection| connection.shutdown(how))?
    }

    /// close(2) by the last holder. What was sent still arrives; the handle names nothing any more, but for that.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn close(&mut self, socket: Handle) -> Result<(), Error> {
        self.parts.forget_holders(socket)?;
        let state = self.parts.tcb(socket)?.state();
        if state == State::Listen {
            return self.close_listener(socket);
        }
        self.want_queues_for_fin(socket, state);
        self.work(socket, None, |connection| connection.close())?;
        self.limit_orphans(socket)?;
        self.wake_senders();
        Ok(())
    }

    /// A FIN needs queues. If there are none, it waits for some ([`Connection::lacks_queues`]).
    fn want_queues_for_fin(&mut self, socket: Handle, state: State) {
        if matches!(state, State::Established | State::CloseWait) {
            let _ = self.parts.tcp_traffic(socket, Want::Sending);
        }
    }

    /// A listener closes: connections that nobody will accept are reset (inet_csk_listen_stop).
    fn close_listener(&mut self, socket: Handle) -> Result<(), Error> {
        for _ in 0..self.parts.tcbs.len() {
            let Ok(child) = self.parts.tcp_accept(socket, u64::BITS) else { break };
            self.work(child, None, |connection| {
                connection.tcb.flags |= Flags::ORPHAN;
                if connection.tcb.has_peer() {
                    connection.emit_reset();
                }
                connection.end();
            })?;
        }
        self.parts.tcp_release(socket)?;
        if let Some(word) = self.shared.tcp_events.get(socket.index as usize) {
            events::clear(word);
        }
        Ok(())
    }

    /// TCP_NODELAY and TCP_CORK: what they held back leaves when they allow it.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn set_delay(&mut self, socket: Handle, no_delay: bool, cork: bool) -> Result<(), Error> {
        for (name, on) in [(options::TCP_NODELAY, no_delay), (options::TCP_CORK, cork)] {
            self.set_option(socket, crate::options::IPPROTO_TCP, name, &i32::from(on).to_ne_bytes())?;
        }
        Ok(())
    }

    /// connect(2) with AF_UNSPEC: the connection is over, for the peer too, and the socket may connect again (tcp_disconnect). A
    /// departure: no error stays behind for SO_ERROR.
    ///
    /// # Errors
    /// `Invalid` while it listens; `BadHandle`.
    pub fn disconnect(&mut self, socket: Handle) -> Result<(), Error> {
        let state = self.state(socket)?;
        if state == State::Listen {
            return Err(Error::Invalid);
        }
        self.work(socket, None, |connection| {
            if connection.tcb.has_peer() {
                if state.is_synchronized() && state != State::TimeWait {
                    connection.emit_reset();
                }
                connection.end();
            }
            connection.drop_received();
        })?;
        let tcb = self.parts.tcb(socket)?;
        let kept = Flags::NO_DELAY.0 | Flags::CORK.0;
        (tcb.flags, tcb.error, tcb.soft_error) = (Flags(tcb.flags.0 & kept), 0, 0);
        self.work(socket, None, |_| ())
    }

    /// What TCP_CM_INQ tells of: bytes that wait to be read, or 1 if only the end does (tcp_inq_hint).
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn unread(&mut self, socket: Handle) -> Result<u32, Error> {
        self.work(socket, None, |connection| {
            let is_ended = connection.tcb.state().has_received_fin();
            connection.readable_bytes().max(is_ended.into())
        })
    }

    /// SO_ERROR: takes the pending error.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn take_error(&mut self, socket: Handle) -> Result<Option<Error>, Error> {
        self.work(socket, None, |connection| connection.take_error())
    }

    /// What is ready on a socket.
    #[must_use]
    pub fn events(&self, socket: Handle) -> events::Events {
        let word = self.shared.tcp_events.get(socket.index as usize);
        word.map_or(events::Events { ready: 0, arrivals: 0, openings: 0 }, events::load)
    }
}
