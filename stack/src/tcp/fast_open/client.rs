//! The client's side: text in the SYN of a connection to a host whose cookie is known, and the request for one to any other
//! (RFC 7413 §4.1.3, §4.2.1).

use super::AS_CLIENT;
use crate::demux::End;
use crate::device::Device;
use crate::error::Error;
use crate::region::slab::Handle;
use crate::sendq::{Copied, Shape};
use crate::settings::{Switch, Values};
use crate::stack::Stack;
use crate::stats::Counter;
use crate::tcp::connection::{Connection, means, options_len, peer_mss};
use crate::tcp::open::traffic::Want;
use crate::tcp::segment::Segment;
use crate::tcp::state::State;
use crate::tcp::tcb::{Mark, Tcb};
use crate::tcp::timers::Timer;
use crate::time::Duration;
use crate::wire::checksum::Sum;
use crate::wire::ip::Ip;
use crate::wire::tcp::options::Cookie;
use crate::wire::tcp::{Flags, OPTIONS_LEN_MAX};

/// What a SYN has of fast open; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::tcp) struct FastSyn<'t> {
    /// The option: a cookie, or the request for one.
    option: Option<Cookie>,
    /// The peer's MSS when it gave the cookie; 0 is unknown.
    mss: u16,
    /// Text.
    text: &'t [&'t [u8]],
}

/// What a connection to a host may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// A SYN like any other.
    None,
    /// The request for a cookie.
    Ask,
    /// Text, with a cookie unless none is needed, for a peer with this MSS.
    Text(Option<Cookie>, u16),
}

impl<D: Device> Connection<'_, D> {
    /// The first SYN, with as much of the text as has room in it; how much that is.
    pub(in crate::tcp) fn emit_first_syn(&mut self, fast_open: &FastSyn<'_>) -> usize {
        let taken = self.queue_for_syn(fast_open);
        if taken > 0 && self.emit_syn_with_text(fast_open.option) {
            self.tcb.marks |= Mark::SYN_DATA;
            return taken;
        }
        if self.emit_syn(Flags::SYN, fast_open.option) && fast_open.option == Some(Cookie::REQUEST) {
            self.tcb.marks |= Mark::COOKIE_WANTED;
        }
        // What could not go with it follows the handshake.
        taken
    }

    /// Text of one segment, less all the options that there may be, so that boxes on the way have room for theirs
    /// (tcp_send_syn_data).
    fn queue_for_syn(&mut self, fast_open: &FastSyn<'_>) -> usize {
        if fast_open.text.iter().all(|piece| piece.is_empty()) {
            return 0;
        }
        // Of a peer that isn't known as much is expected as we take (tcp_send_syn_data).
        self.tcb.peer_mss = if fast_open.mss == 0 { self.tcb.advertised_mss } else { fast_open.mss };
        self.set_mss();
        let shape = self.shape();
        let room = (shape.mss + options_len(self.tcb.flags)).saturating_sub(OPTIONS_LEN_MAX as u16);
        let (shape, mut done) = (Shape { mss: room.min(shape.mss), ..shape }, 0);
        for piece in fast_open.text {
            let mut left = &piece[..piece.len().min(usize::from(room) - done)];
            let asked = left.len();
            let appended = self.traffic.send.append(&mut means!(self, send_charge), shape, asked, 1, |to| {
                let (now, later) = left.split_at(to.len().min(left.len()));
                let sum = Sum::ZERO.copy(now, to);
                left = later;
                Copied { len: now.len(), sum: Some(sum) }
            });
            done += appended.bytes;
        }
        done
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// sendto(2) with MSG_FASTOPEN: connects, with as much of the text as the SYN takes; how much.
    ///
    /// # Errors
    /// `InProgress` if none went with it: it is sent when the socket is writable. `NotSupported` if the host has no fast open;
    /// `Already` and `IsConnected` later; those of [`Stack::connect`].
    pub fn send_fast_open(
        &mut self,
        socket: Handle,
        source: &Ip,
        remote: End<'_>,
        text: &[&[u8]],
    ) -> Result<usize, Error> {
        if self.parts.host.tcp_fastopen & AS_CLIENT == 0 {
            return Err(Error::NotSupported);
        }
        if let Some(error) = self.take_error(socket)? {
            return Err(error);
        }
        if self.parts.tcb(socket)?.is_deferred() {
            return self.send_deferred(socket, text);
        }
        self.begin_connecting(socket, source, remote)?;
        self.send_syn(socket, text)
    }

    /// The first write to a connection whose SYN waits for it.
    pub(in crate::tcp) fn send_deferred(&mut self, socket: Handle, text: &[&[u8]]) -> Result<usize, Error> {
        self.send_syn(socket, text)
    }

    /// connect(2) with TCP_FASTOPEN_CONNECT: with a cookie the SYN waits for text (tcp_fastopen_defer_connect).
    pub(in crate::tcp) fn connect_fast(&mut self, socket: Handle) -> Result<(), Error> {
        if !matches!(self.access(socket)?, Access::Text(..)) {
            return self.send_syn(socket, &[]).map(|_| ());
        }
        self.work(socket, None, |connection| {
            connection.tcb.acked = 0;
            connection.tcb.timers.disarm_all();
        })
    }

    /// Sends the SYN, with what the connection may begin with.
    fn send_syn(&mut self, socket: Handle, text: &[&[u8]]) -> Result<usize, Error> {
        let access = self.access(socket)?;
        let mut fast = FastSyn::default();
        let mut queues = None;
        match access {
            Access::None => {}
            Access::Ask => fast.option = Some(Cookie::REQUEST),
            Access::Text(option, mss) => {
                fast = FastSyn { option, mss, text };
                queues = Some(Want::Sending);
            }
        }
        self.count(Counter::ActiveOpens);
        let sent = match self.work(socket, queues, |connection| connection.open(&fast)) {
            // All queues are in use: the text isn't taken.
            Err(Error::NoBuffers) if queues.is_some() => {
                let alone = FastSyn { text: &[], ..fast };
                self.work(socket, None, |connection| connection.open(&alone))?
            }
            sent => sent?,
        };
        if self.parts.tcb(socket)?.is(Mark::SYN_DATA) {
            self.count(Counter::FastOpenOut);
        }
        if sent > 0 { Ok(sent) } else { Err(Error::InProgress) }
    }

    /// What a connection may begin with (tcp_fastopen_cookie_check).
    fn access(&mut self, socket: Handle) -> Result<Access, Error> {
        let (remote, values) = (self.parts.tcb(socket)?.remote, self.parts.tcp_options(socket)?);
        let (known, now) = (self.parts.destination_of(&remote), self.now);
        let is_avoided = known.is_some_and(|known| known.is_avoided(now));
        if is_avoided || self.parts.fast_open.is_paused(now, self.black_hole_pause()) {
            return Ok(Access::None);
        }
        let mss = known.map_or(0, |known| known.mss);
        Ok(match known.and_then(|known| known.cookie()) {
            _ if self.goes_without_cookie(&values) => Access::Text(None, mss),
            Some(cookie) => Access::Text(Some(cookie), mss),
            None => Access::Ask,
        })
    }

    fn goes_without_cookie(&self, values: &Values) -> bool {
        values.options & Switch::FAST_OPEN_NO_COOKIE != 0
            || self.parts.host.tcp_fastopen & super::SENDS_WITHOUT_COOKIE != 0
    }

    fn black_hole_pause(&self) -> Duration {
        Duration::from_secs(self.parts.host.tcp_fastopen_blackhole_timeout_sec.into())
    }

    /// A SYN of ours that asked for fast open has a SYN-ACK as its answer (tcp_rcv_fastopen_synack, tcp_fastopen_cache_set). RFC 7413
    /// §4.1.3: "The client MUST cache cookies from servers for later Fast Open connections."
    pub(crate) fn note_fast_open(&mut self, socket: Handle, seg: &Segment) {
        let (remote, options) = (&seg.remote.0, &seg.options);
        let Ok(tcb) = self.parts.tcb(socket).copied() else { return };
        if tcb.state() == State::SynSent {
            return;
        }
        let cookie = options.fast_open.filter(|cookie| !cookie.as_slice().is_empty() && !cookie.experimental);
        let is_acked = tcb.is(Mark::SYN_DATA_ACKED);
        if is_acked {
            self.parts.fast_open.note_success();
        }
        // That the data was not taken is no failure if a new cookie says why.
        let has_failed = tcb.is(Mark::SYN_DATA) && !is_acked && cookie.is_none();
        let (now, mss) = (self.now, peer_mss(options.mss, remote));
        self.parts.learn_of(remote, |known| {
            if let Some(cookie) = cookie {
                known.set_cookie(&cookie, mss);
            }
            if has_failed {
                known.note_failure(now);
            } else if is_acked || cookie.is_some() {
                known.fast_open_failures = 0;
            }
        });
    }

    /// The timer of a connection that asked for fast open, and was this before, has expired: what it sent may be swallowed by
    /// something on the way (tcp_fastopen_active_detect_blackhole).
    #[cold]
    pub(crate) fn note_silence(&mut self, index: u32, before: &Tcb) {
        if before.marks & (Mark::SYN_DATA | Mark::COOKIE_WANTED) == 0 || before.is(Mark::FAST_CHILD) {
            return;
        }
        let (now, after) = (self.now, self.parts.tcbs.get(index as usize).copied().unwrap_or_default());
        let was_due = before.timers.at(Timer::Rto).is_some_and(|at| at <= now);
        let is_over = was_due && (after.tag != before.tag || !after.has_peer());
        let retransmits = if is_over { before.retransmits } else { after.retransmits };
        if is_over && before.asks_fast_open() && before.is(Mark::SYN_DATA) {
            self.parts.learn_of(&before.remote, |known| known.note_failure(now));
        }
        if !is_over && retransmits == before.retransmits {
            return;
        }
        let looks = self.parts.host.tcp_fastopen_blackhole_timeout_sec != 0;
        if looks && (retransmits == 2 || retransmits < 2 && is_over) {
            self.parts.fast_open.note_black_hole(now);
            self.count(Counter::FastOpenBlackHoles);
        }
    }
}
