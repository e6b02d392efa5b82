//! The search for what a path takes without a word from routers, by segments of TCP that are larger than the others
//! (RFC 4821, RFC 8899 §6; Linux's net.ipv4.tcp_mtu_probing and icsk_mtup).
//!
//! A probe is a segment of ordinary text. If it alone is lost the path is too narrow for it, and that is no sign of
//! congestion; if it arrives so did everything smaller.
//!
//! Sizes are of IP datagrams. [`Search`] is of one connection.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::host::Host;
use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// The least that a segment carries, options with it (net.ipv4.tcp_min_snd_mss).
const SND_MSS_MIN: u16 = 48;
/// A congestion window, in segments, below which nothing is risked (tcp_mtu_probe).
const CWND_MIN: u32 = 11;

/// When paths are searched: net.ipv4.tcp_mtu_probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never: 0, Linux's default.
    Never,
    /// From the moment that a black hole is suspected: 1.
    BlackHole,
    /// Always: 2.
    Always,
}

impl Mode {
    /// The mode of this number.
    const fn of(number: u32) -> Self {
        match number {
            0 => Self::Never,
            1 => Self::BlackHole,
            _ => Self::Always,
        }
    }
}

/// How paths are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// When.
    pub mode: Mode,
    /// Where the search begins, as an MSS without options (net.ipv4.tcp_base_mss). RFC 4821 §7.2: "It is RECOMMENDED that
    /// search_low be initially set to an MTU size that is likely to work over a very wide range of environments. Given today's
    /// technologies, a value of 1024 bytes is probably safe enough."
    pub base_mss: u16,
    /// The least that the search goes down to (net.ipv4.tcp_mtu_probe_floor).
    pub floor_mss: u16,
    /// After which the search begins anew, for paths change (net.ipv4.tcp_probe_interval).
    pub interval: Duration,
    /// An interval below which the search has ended, in bytes (net.ipv4.tcp_probe_threshold).
    pub threshold: u16,
}

impl Rules {
    /// Those of a host.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let bytes = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        Self {
            mode: Mode::of(host.tcp_mtu_probing),
            base_mss: bytes(host.tcp_base_mss),
            floor_mss: bytes(host.tcp_mtu_probe_floor),
            interval: Duration::from_secs(host.tcp_probe_interval.into()),
            threshold: bytes(host.tcp_probe_threshold),
        }
    }
}

/// What stands in front of the text of a segment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Of IP and TCP without options: 40, or 60 with IPv6.
    pub fixed: u16,
    /// Options that every segment has: 12 with timestamps.
    pub options: u16,
    /// The datagram that every link takes: 1280 with IPv6 (RFC 8200 §5), or 0. A search begins there if its base is
    /// smaller, where Linux has one base for both.
    pub least: u16,
}

impl Headers {
    /// The text of a segment in a datagram of this size, with at most the MSS that the peer offered (tcp_mtu_to_mss).
    #[must_use]
    pub fn mss(&self, mtu: u16, mss_clamp: u16) -> u16 {
        let mss = mtu.saturating_sub(self.fixed).min(mss_clamp).max(SND_MSS_MIN);
        mss.saturating_sub(self.options).max(1)
    }

    /// The datagram of a segment with so much text (tcp_mss_to_mtu).
    #[must_use]
    pub fn mtu(&self, mss: u16) -> u16 {
        mss.saturating_add(self.options).saturating_add(self.fixed)
    }

    /// The datagram with which a search begins.
    #[must_use]
    pub fn base(&self, rules: &Rules) -> u16 {
        self.mtu(rules.base_mss).max(self.least)
    }
}

/// The state of the search. Zero bytes are one that is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Search {
    /// When it began, in nanoseconds.
    began: u64,
    /// Where the probe's text starts.
    start: Seq,
    /// Where it ends.
    end: Seq,
    /// Known to pass (search_low).
    low: u16,
    /// The most that may pass (search_high).
    high: u16,
    /// The probe that is on its way; 0 is none.
    probe: u16,
    /// [`ON`] and [`WAITS`].
    enabled: u16,
}

/// It is on.
const ON: u16 = 1;
/// Text is held back until a probe can be sent.
const WAITS: u16 = 2;

/// What of a connection a probe depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Neither recovery nor reordering goes on, nor do the last acknowledgments report blocks (TCP_CA_Open, num_sacks).
    pub is_undisturbed: bool,
    /// In segments.
    pub cwnd: u32,
    /// Segments in flight.
    pub pipe: u32,
    /// Segments that may overtake each other before a loss is seen in it (tcp_reordering, RFC 5681's 3).
    pub reordering: u32,
    /// Text of the segments that are sent now.
    pub mss: u16,
    /// MSS that the peer offered.
    pub mss_clamp: u16,
    /// Text that waits to be sent.
    pub unsent: u32,
    /// SND.WND.
    pub wnd: u32,
    /// What of it is not in use: SND.UNA + SND.WND − SND.NXT.
    pub wnd_left: u32,
}

/// Whether a probe is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// None: text is sent as always.
    None,
    /// Soon: text is held back until the next acknowledgment, for the probe needs it.
    Wait,
    /// A segment with so much text, then [`Search::sent`].
    Send(u16),
}

/// What the congestion window and the segments' size become once a probe has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    /// In segments of the new size: as many bytes as before (tcp_mtup_probe_success).
    pub cwnd: u32,
    /// What the path is known to take.
    pub mtu: u16,
}

/// Half of a size, and not more than the base.
fn lower(mtu: u16, headers: &Headers, mss_clamp: u16, rules: &Rules) -> u16 {
    let half = headers.mss(mtu, mss_clamp) / 2;
    headers.mtu(half.min(rules.base_mss).max(rules.floor_mss).max(SND_MSS_MIN))
}

impl Search {
    /// Of a connection whose segments pass in datagrams of `low` bytes, and may pass in those of `high` bytes.
    #[must_use]
    pub fn new(low: u16, high: u16, now: Instant) -> Self {
        Self { began: now.0, low, high, enabled: ON, ..Self::default() }
    }

    /// Whether it is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.enabled & ON != 0
    }

    /// Whether a probe is on its way, or text is held back for one.
    #[inline]
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.probe != 0 || self.waits()
    }

    /// Whether text is held back for a probe.
    #[inline]
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.enabled & WAITS != 0
    }

    /// The MSS, with a path of which this much is known from elsewhere (tcp_sync_mss).
    pub fn mss(&mut self, path_mtu: u16, headers: &Headers, mss_clamp: u16) -> u16 {
        self.high = self.high.min(path_mtu);
        let mss = headers.mss(path_mtu, mss_clamp);
        if self.is_on() { mss.min(headers.mss(self.low, mss_clamp)) } else { mss }
    }

    /// Whether a probe can be sent now (tcp_mtu_probe). It is in the middle of what is possible. Behind it there is enough
    /// text for three duplicate acknowledgments to tell of its loss.
    pub fn next(&mut self, sender: &Sender, headers: &Headers, rules: &Rules, now: Instant) -> Next {
        let next = self.decide(sender, headers, rules, now);
        self.enabled = self.enabled & !WAITS | if next == Next::Wait { WAITS } else { 0 };
        next
    }

    fn decide(&mut self, sender: &Sender, headers: &Headers, rules: &Rules, now: Instant) -> Next {
        if !self.is_on() || self.probe != 0 || !sender.is_undisturbed || sender.cwnd < CWND_MIN {
            return Next::None;
        }
        let middle = self.low.saturating_add(self.high.saturating_sub(self.low) / 2);
        let text = headers.mss(middle, sender.mss_clamp);
        let has_ended = self.high.saturating_sub(self.low) < rules.threshold;
        if has_ended || text > headers.mss(self.high, sender.mss_clamp) || text <= sender.mss {
            self.begin_anew(sender, headers, rules, now);
            return Next::None;
        }
        let behind = sender.reordering.saturating_add(1).saturating_mul(sender.mss.into());
        let needed = behind.saturating_add(text.into());
        if sender.unsent < needed || sender.wnd < needed {
            Next::None
        } else if sender.wnd_left < needed || sender.pipe.saturating_add(2) > sender.cwnd {
            if sender.pipe == 0 { Next::None } else { Next::Wait }
        } else {
            Next::Send(text)
        }
    }

    /// Once the search has ended and ten minutes have gone by, paths may have become wider (tcp_mtu_check_reprobe).
    fn begin_anew(&mut self, sender: &Sender, headers: &Headers, rules: &Rules, now: Instant) {
        if now - Instant(self.began) >= rules.interval {
            *self = Self {
                began: now.0,
                low: headers.mtu(sender.mss),
                high: sender.mss_clamp.saturating_add(headers.fixed),
                probe: 0,
                ..*self
            };
        }
    }

    /// Text waits for no probe any more.
    pub fn stop_waiting(&mut self) {
        self.enabled &= !WAITS;
    }

    /// The probe is on its way, with this text at this place.
    pub fn sent(&mut self, text: u16, start: Seq, headers: &Headers) {
        (self.probe, self.start, self.end) = (headers.mtu(text), start, start + u32::from(text));
    }

    /// An acknowledgment has come: if the probe arrived, the path takes its size.
    pub fn acknowledged(&mut self, snd_una: Seq, cwnd: u32, mss: u16, headers: &Headers) -> Option<Grown> {
        if self.probe == 0 || snd_una.lt(self.end) {
            return None;
        }
        let bytes = u64::from(cwnd) * u64::from(headers.mtu(mss));
        let cwnd = (bytes / u64::from(self.probe)).clamp(1, u64::from(u32::MAX)) as u32;
        self.low = self.probe;
        self.probe = 0;
        Some(Grown { cwnd, mtu: self.low })
    }

    /// A loss is found before recovery has begun. True if it is the probe: the path doesn't take its size, what it
    /// carried is sent again in segments of the usual one at once, and the congestion window stays.
    ///
    /// RFC 4821 §7.6: "When only the probe is lost, it is treated as an indication that the Path MTU is smaller than the probe
    /// size. In this case alone, the loss SHOULD NOT be interpreted as congestion signal."
    pub fn lost(&mut self, snd_una: Seq) -> bool {
        if self.probe == 0 || snd_una != self.start {
            return false;
        }
        self.high = self.probe.saturating_sub(1);
        self.probe = 0;
        true
    }

    /// Something is sent again: what becomes of the probe now tells nothing (tcp_retransmit_skb).
    pub fn inconclusive(&mut self) {
        self.probe = 0;
    }

    /// The retransmission timer has expired [`RETRIES_1`](crate::tcp::timers::limits::RETRIES_1) times: perhaps large
    /// segments vanish (tcp_mtu_probing). The first time the search comes on, at its base; then each time lower. The
    /// caller takes [`Search::mss`] anew.
    ///
    /// RFC 4821 §7.7: "a full-stop timeout […] SHOULD be taken as an indication of some significantly disruptive event in the
    /// network"; "If eff_pmtu is larger than search_low, set eff_pmtu to search_low." Linux, and we, go on halving.
    pub fn black_hole(&mut self, headers: &Headers, mss_clamp: u16, rules: &Rules, now: Instant) {
        if rules.mode == Mode::Never {
            return;
        }
        if self.is_on() {
            self.low = lower(self.low, headers, mss_clamp, rules);
        } else {
            *self = Self::new(headers.base(rules), mss_clamp.saturating_add(headers.fixed), now);
        }
    }
}

#[cfg(test)]
mod tests;
