//! The server's side of fast open: which SYNs are believed, and the connections that come of them at once (RFC 7413 §4.1.2,
//! §4.2.2; tcp_try_fastopen).

use super::super::Stack;
use crate::device::Device;
use crate::events;
use crate::region::slab::Handle;
use crate::seq::Seq;
use crate::settings::{Switch, Values};
use crate::stats::Counter;
use crate::tcp::fast_open::{AS_SERVER, EVERY_LISTENER, TAKES_WITHOUT_COOKIE};
use crate::tcp::listener::SynEntry;
use crate::tcp::open::traffic::Want;
use crate::tcp::segment::Segment;
use crate::tcp::tcb::Mark;
use crate::wire::tcp::Flags;
use crate::wire::tcp::options::Cookie;

/// What is made of a SYN.
pub(super) enum Verdict {
    /// A handshake, with this cookie in its answer, if it was asked for one.
    Handshake(Option<Cookie>),
    /// A connection at once; with the cookie of a newer key in its answer, if the SYN's was of the one before.
    Connection(Option<Cookie>),
}

impl<D: Device> Stack<'_, '_, D> {
    /// How many handshakes of a listener with these options may go on although their text was taken.
    fn fast_opens_max(&self, values: &Values, backlog: u32) -> u32 {
        match (self.parts.host.tcp_fastopen, values.fast_open_queue) {
            (host, _) if host & AS_SERVER == 0 => 0,
            (host, 0) if host & EVERY_LISTENER != 0 => backlog,
            (_, most) => most,
        }
    }

    /// Whether a SYN is believed.
    pub(super) fn fast_open(&mut self, listener: u32, seg: &Segment) -> Verdict {
        let asked = seg.options.fast_open;
        if asked.is_some_and(|cookie| cookie.as_slice().is_empty()) {
            self.count(Counter::FastOpenCookiesIn);
        }
        let values = self.listener_values(listener);
        let now = self.now;
        let backlog = self.parts.listeners.get(listener as usize).map_or(0, |listener| listener.backlog);
        let most = self.fast_opens_max(&values, backlog);
        if most == 0 || seg.text == 0 && asked.is_none() {
            return Verdict::Handshake(None);
        }
        let record = self.parts.listeners.get_mut(listener as usize);
        if !record.is_some_and(|record| record.may_fast_open(most, now)) {
            self.count(Counter::FastOpenFull);
            return Verdict::Handshake(None);
        }
        let needs_none = values.options & Switch::FAST_OPEN_NO_COOKIE != 0
            || self.parts.host.tcp_fastopen & TAKES_WITHOUT_COOKIE != 0;
        if needs_none {
            return Verdict::Connection(None);
        }
        let Some(asked) = asked else { return Verdict::Handshake(None) };
        let keys = self.parts.fast_open_keys(&values);
        let (client, server) = (&seg.remote.0, &seg.local.0);
        let own = keys.cookie(client, server, asked.experimental);
        if asked.as_slice().is_empty() {
            return Verdict::Handshake(own);
        }
        match keys.find(&asked, client, server) {
            Some(0) => Verdict::Connection(None),
            Some(_) => Verdict::Connection(own),
            None => {
                self.count(Counter::FastOpenCookiesBad);
                Verdict::Handshake(own)
            }
        }
    }

    /// A connection for a SYN that is believed, in the accept queue, with the SYN's text; its SYN-ACK is sent. `None` where
    /// there is no room for it: then it is a handshake like others.
    pub(super) fn open_fast(
        &mut self,
        listener: u32,
        syn: &SynEntry,
        seg: &mut Segment,
        cookie: Option<Cookie>,
    ) -> Option<Handle> {
        let child = self.parts.tcp_child(listener, syn).ok()?;
        if let Some(word) = self.shared.tcp_events.get(child.index as usize) {
            events::clear(word);
        }
        let queues = (seg.text > 0).then_some(Want::Reception);
        let queues = queues.filter(|want| self.parts.tcp_traffic(child, *want).is_ok());
        if let Some(record) = self.parts.listeners.get_mut(listener as usize) {
            record.fast_open_len = record.fast_open_len.saturating_add(1);
        }
        let _ = self.work(child, queues, |connection| {
            connection.begin_child(syn);
            connection.begin_fast_child(seg, listener);
            connection.emit_syn(Flags::SYN | Flags::ACK, cookie);
            connection.arm_syn();
        });
        self.count(Counter::PassiveOpens);
        if self.parts.tcb(child).is_ok_and(|tcb| tcb.is(Mark::SYN_DATA_ACKED)) {
            self.count(Counter::FastOpenIn);
        }
        let socket = self.parts.listeners.get(listener as usize).map(|listener| listener.socket);
        self.tell_listener(socket?, true);
        Some(child)
    }

    /// The handshake of a connection that a cookie has vouched for is over, or was reset: its listener, whose record was so
    /// named, may have another one.
    pub(in crate::stack) fn end_fast_open(&mut self, socket: Handle, listener: Seq, is_reset: bool) {
        let now = self.now;
        let Some(tcb) = self.parts.tcbs.get_mut(socket.index as usize) else { return };
        tcb.marks &= !Mark::FAST_CHILD;
        let record = listener.0.checked_sub(1).and_then(|index| self.parts.listeners.get_mut(index as usize));
        // It may have been closed meanwhile, and another one be in its place.
        if let Some(record) =
            record.filter(|record| record.tag.is_used() && record.local_port == tcb.local_port)
        {
            record.end_fast_open(is_reset, now);
        }
    }
}
