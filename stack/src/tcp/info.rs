//! TCP_INFO: what a connection knows of itself, in the kernel's layout (`struct tcp_info` of include/uapi/linux/tcp.h, up to
//! tcpi_total_rto_time).
//!
//! What is always 0: `fackets` and `last_ack_sent`, as in Linux since 4.15; `rehash`, since there are no flow
//! labels to change; `total_rto` and what follows it, which the counters of the whole stack tell. `rcv_ooopack`, `dsack_dups` and
//! `reord_seen` stay at 65,535. `busy_time` and its like are whole milliseconds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::connection::{Connection, clock_ms};
use super::output::emit::pacing_rate;
use super::state::State;
use super::tcb::{Flags, Mark};
use crate::device::Device;
use crate::error::Error;
use crate::ip::hop::Hop;
use crate::region::slab::Handle;
use crate::stack::Stack;
use crate::time::Duration;

macro_rules! info {
    ($($name:ident: $Type:ty = $offset:literal;)+) => {
        /// The structure, by the names of its fields without `tcpi_`. Times are microseconds, but for `last_…`: milliseconds.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Info {
            $(#[doc = concat!("`tcpi_", stringify!($name), "`.")] pub $name: $Type,)+
        }

        const _: () = {
            $(assert!(core::mem::offset_of!(Info, $name) == $offset);)+
        };
    };
}

info! {
    state: u8 = 0;
    ca_state: u8 = 1;
    retransmits: u8 = 2;
    probes: u8 = 3;
    backoff: u8 = 4;
    options: u8 = 5;
    // snd_wscale in the low four bits, rcv_wscale in the high ones.
    wscales: u8 = 6;
    // delivery_rate_app_limited in the lowest bit, fastopen_client_fail in the next two.
    bits: u8 = 7;
    rto: u32 = 8;
    ato: u32 = 12;
    snd_mss: u32 = 16;
    rcv_mss: u32 = 20;
    unacked: u32 = 24;
    sacked: u32 = 28;
    lost: u32 = 32;
    retrans: u32 = 36;
    fackets: u32 = 40;
    last_data_sent: u32 = 44;
    last_ack_sent: u32 = 48;
    last_data_recv: u32 = 52;
    last_ack_recv: u32 = 56;
    pmtu: u32 = 60;
    rcv_ssthresh: u32 = 64;
    rtt: u32 = 68;
    rttvar: u32 = 72;
    snd_ssthresh: u32 = 76;
    snd_cwnd: u32 = 80;
    advmss: u32 = 84;
    reordering: u32 = 88;
    rcv_rtt: u32 = 92;
    rcv_space: u32 = 96;
    total_retrans: u32 = 100;
    pacing_rate: u64 = 104;
    max_pacing_rate: u64 = 112;
    bytes_acked: u64 = 120;
    bytes_received: u64 = 128;
    segs_out: u32 = 136;
    segs_in: u32 = 140;
    notsent_bytes: u32 = 144;
    min_rtt: u32 = 148;
    data_segs_in: u32 = 152;
    data_segs_out: u32 = 156;
    delivery_rate: u64 = 160;
    busy_time: u64 = 168;
    rwnd_limited: u64 = 176;
    sndbuf_limited: u64 = 184;
    delivered: u32 = 192;
    delivered_ce: u32 = 196;
    bytes_sent: u64 = 200;
    bytes_retrans: u64 = 208;
    dsack_dups: u32 = 216;
    reord_seen: u32 = 220;
    rcv_ooopack: u32 = 224;
    snd_wnd: u32 = 228;
    rcv_wnd: u32 = 232;
    rehash: u32 = 236;
    total_rto: u16 = 240;
    total_rto_recoveries: u16 = 242;
    total_rto_time: u32 = 244;
}

/// Bits of `options` (TCPI_OPT_…).
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const SCALING: u8 = 4;
const ECN: u8 = 8;
const SYN_DATA: u8 = 32;
/// Segments out of order that mean no loss yet (net.ipv4.tcp_reordering).
const REORDERING: u32 = 3;

/// Its bytes.
#[must_use]
pub fn bytes(info: &Info) -> [u8; size_of::<Info>()] {
    zerocopy::transmute!(*info)
}

fn micros(length: Option<Duration>) -> u32 {
    length.map_or(0, super::micros)
}

/// What waits in a send queue, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// All that is not acknowledged (SIOCOUTQ).
    pub all: u32,
    /// What of it was not sent (SIOCOUTQNSD).
    pub unsent: u32,
}

impl<D: Device> Stack<'_, '_, D> {
    /// What waits to be sent or acknowledged.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn queued(&mut self, socket: Handle) -> Result<Queued, Error> {
        self.work(socket, None, |connection| Queued {
            all: connection.traffic.send.bytes(),
            unsent: connection.unsent(),
        })
    }

    /// STATUS (RFC 9293 §3.10.6), as TCP_INFO has it. Of a listener: how many wait for accept(2) in `unacked`, and how many
    /// may in `sacked`.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn status(&mut self, socket: Handle) -> Result<Info, Error> {
        let state = self.parts.tcb(socket)?.state();
        let queue = self.parts.seldoms.get(socket.index as usize).map_or(0, |seldom| seldom.queue);
        let listener =
            queue.checked_sub(1).and_then(|index| self.parts.listeners.get(index as usize)).copied();
        let mut spare = None;
        let info = self.connection(socket, &mut spare, Hop::default())?.info();
        Ok(match (state, listener) {
            (State::Listen, Some(listener)) => Info {
                state: info.state,
                unacked: listener.accept_len,
                sacked: listener.backlog,
                snd_cwnd: info.snd_cwnd,
                reordering: info.reordering,
                max_pacing_rate: info.max_pacing_rate,
                ..Info::default()
            },
            _ => info,
        })
    }
}

impl<D: Device> Connection<'_, D> {
    fn info(&self) -> Info {
        let (tcb, board) = (&*self.tcb, self.board());
        let ms = clock_ms(self.now);
        let has = |flag: Flags, bit: u8| if tcb.flags.has(flag) { bit } else { 0 };
        let options = has(Flags::TIMESTAMPS, TIMESTAMPS)
            | has(Flags::SACK, SACK)
            | has(Flags::SCALING, SCALING)
            | if tcb.episode.ecn.is_on() { ECN } else { 0 }
            | if tcb.is(Mark::SYN_DATA_ACKED) { SYN_DATA } else { 0 };
        let max = self.values.max_pacing_rate;
        let since = |then: u32| ms.wrapping_sub(then);
        let is_open = tcb.has_peer();
        let min_rtt = tcb.rtt.min_rtt().filter(|_| tcb.data_segs_out != 0 && tcb.acked > 1);
        let rate = tcb.rate.with_single(tcb.mss, min_rtt);
        let [busy, window, buffer] = self.traffic.chronograph.read(ms, &tcb.waited);
        // The SYNs are no text.
        let sent = tcb.acked.saturating_sub(1) + u64::from(tcb.snd.nxt - tcb.snd.una);
        Info {
            state: tcb.state().as_linux(),
            ca_state: tcb.episode.state() as u8,
            retransmits: tcb.retransmits,
            probes: tcb.probes,
            backoff: tcb.rtt.backoff(),
            options,
            wscales: tcb.shifts,
            bits: tcb.fast_open_failure() << 1 | u8::from(rate.is_app_limited()),
            rto: super::micros(self.rto()),
            ato: super::micros(tcb.delayed_ack.ato()),
            snd_mss: if tcb.mss == 0 { 536 } else { tcb.mss.into() },
            rcv_mss: tcb.delayed_ack.rcv_mss().into(),
            unacked: board.packets_out,
            sacked: board.sacked_out,
            lost: board.lost_out,
            retrans: board.retrans_out,
            last_data_sent: if is_open { since(tcb.last_data_sent) } else { 0 },
            last_data_recv: if is_open { since(tcb.delayed_ack.received_ms()) } else { 0 },
            last_ack_recv: if is_open { since(tcb.last_ack_received) } else { 0 },
            pmtu: tcb.path_mtu.into(),
            rcv_ssthresh: self.space().offer_max.min(self.space().full),
            rtt: micros(tcb.rtt.srtt()),
            rttvar: super::micros(tcb.rtt.rttvar()),
            snd_ssthresh: tcb.congestion.ssthresh(),
            snd_cwnd: tcb.congestion.cwnd(),
            advmss: tcb.advertised_mss.into(),
            reordering: REORDERING,
            rcv_rtt: micros(tcb.autotune.rtt()),
            rcv_space: tcb.autotune.copied(),
            total_retrans: tcb.total_retrans,
            pacing_rate: pacing_rate(self),
            max_pacing_rate: if max == 0 { u64::MAX } else { max },
            bytes_acked: tcb.acked,
            bytes_received: tcb.received.saturating_sub(1),
            segs_out: tcb.segs_out,
            segs_in: tcb.segs_in,
            notsent_bytes: self.unsent(),
            min_rtt: tcb.rtt.min_rtt().map_or(u32::MAX, super::micros),
            data_segs_in: tcb.data_segs_in,
            data_segs_out: tcb.data_segs_out,
            delivery_rate: rate.bytes_per_second(),
            busy_time: busy * 1000,
            rwnd_limited: window * 1000,
            sndbuf_limited: buffer * 1000,
            delivered: tcb.delivered,
            delivered_ce: tcb.delivered_ce,
            bytes_sent: sent.saturating_add(self.seldom.bytes_retrans),
            bytes_retrans: self.seldom.bytes_retrans,
            dsack_dups: tcb.dsack_dups.into(),
            reord_seen: tcb.reord_seen.into(),
            rcv_ooopack: tcb.rcv_ooopack.into(),
            snd_wnd: tcb.snd.wnd,
            rcv_wnd: tcb.rcv.wnd,
            ..Info::default()
        }
    }
}
