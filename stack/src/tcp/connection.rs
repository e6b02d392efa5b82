//! One connection with everything that work on it needs, borrowed from the region, the shared words and the device at once.

use crate::device::{Capabilities, Device};
use crate::error::Error;
use crate::frames::Frames;
use crate::frames::blocks::Blocks;
use crate::frames::pool::Charge;
use crate::hash::Secret;
use crate::host::Host;
use crate::ip::hop::Hop;
use crate::sendq::Shape;
use crate::settings::{Discovery, Switch, Values};
use crate::stats::{Counter, Stats};
use crate::time::{Duration, Instant};
use crate::wire::ip::Ip;
use crate::wire::tcp::options::{Options, Timestamps};

use super::chronograph::Cause;
use super::isn::Tuple;
use super::recovery::scoreboard::Scoreboard;
use super::rtt::{Bounds, RTO_MIN};
use super::state::{Event, State};
use super::tcb::{Flags, Seldom, Tcb, Traffic};
use super::timers::Timer;
use super::timers::limits;
use super::timestamps;
use super::window::{self, Space};

/// Bytes before the text of a frame: link header with two tags, IPv6, TCP with all of its options, to a round number.
pub(crate) const HEADROOM: u16 = 128;
/// Bytes of IPv4's and IPv6's headers, and of TCP's.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;
/// Bytes of the timestamps option, padded.
const TIMESTAMPS_LEN: u16 = 12;
/// RFC 9293 §3.7.1: "TCP implementations MUST assume a default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 - 60)
/// for IPv6 (MUST-15)" if no option is received.
const DEFAULT_V4: u16 = 536;
const DEFAULT_V6: u16 = 1220;
/// Least MSS, options with it, whatever a peer says (net.ipv4.tcp_min_snd_mss; CVE-2019-11479).
pub(super) const MSS_MIN: u16 = 48;
/// Frames of the first receive buffer: 64 KiB of text.
const RECEIVE_FRAMES: u32 = 64;
/// Frames of the largest one that tuning makes (net.ipv4.tcp_rmem[2], 6 MiB).
pub(crate) const RECEIVE_FRAMES_MAX: u32 = 6144;
/// Bytes of the smallest and the largest send buffer that tuning makes (net.ipv4.tcp_wmem).
pub(super) const SEND_BYTES_MIN: u32 = 65_536;
const SEND_BYTES_MAX: u32 = 4 << 20;

/// A connection at work.
pub(crate) struct Connection<'w, D> {
    pub(crate) index: u32,
    pub(crate) tcb: &'w mut Tcb,
    pub(crate) seldom: &'w mut Seldom,
    /// Its queues; ones that nobody keeps if it has none.
    pub(crate) traffic: &'w mut Traffic,
    pub(crate) frames: Frames<'w>,
    pub(crate) blocks: Blocks<'w>,
    pub(crate) device: &'w mut D,
    pub(crate) values: &'w Values,
    pub(crate) host: &'w Host,
    pub(crate) stats: Stats<'w>,
    pub(crate) secret: &'w Secret,
    pub(crate) hop: Hop,
    pub(crate) now: Instant,
    /// The override timeout of silly-window avoidance has expired.
    pub(crate) overridden: bool,
    /// Something came that a reader hasn't seen.
    pub(crate) arrived: bool,
    /// It has moved to CLOSED: no segment is to find it any more.
    pub(crate) is_over: bool,
    /// The first of the timers that the short way has armed.
    pub(crate) armed: Option<Instant>,
}

/// What a queue of a connection works with: the fields, not the whole, so that the queue itself is free.
macro_rules! means {
    ($connection:expr, $charge:ident) => {
        crate::frames::Means {
            frames: &mut $connection.frames,
            blocks: &mut $connection.blocks,
            memory: &mut *$connection.device,
            charge: &mut $connection.tcb.$charge,
            owner: $connection.index,
        }
    };
}
pub(crate) use means;

/// Our MSS option towards an address over a link with this MTU (RFC 9293 §3.7.1, RFC 6691 §2: without options).
pub(crate) fn advertised_mss(mtu: u32, remote: &Ip) -> u16 {
    let headers = if remote.is_v4() { HEADERS_V4 } else { HEADERS_V6 };
    u16::try_from(mtu).unwrap_or(u16::MAX).saturating_sub(headers)
}

/// The same for a socket with these options: TCP_MAXSEG makes it smaller (tcp_mss_clamp).
pub(crate) fn offered_mss(mtu: u32, remote: &Ip, values: &Values) -> u16 {
    let mss = advertised_mss(mtu, remote);
    if values.mss != 0 { mss.min(values.mss) } else { mss }
}

/// The peer's MSS option, or the default.
pub(crate) fn peer_mss(option: Option<u16>, remote: &Ip) -> u16 {
    option.unwrap_or(if remote.is_v4() { DEFAULT_V4 } else { DEFAULT_V6 })
}

/// Bytes of the options that every segment of a connection has.
pub(crate) const fn options_len(flags: Flags) -> u16 {
    if flags.has(Flags::TIMESTAMPS) { TIMESTAMPS_LEN } else { 0 }
}

/// Bytes of a frame that count for a receive buffer: half of it, for what is lost at both of its ends and to short
/// segments (net.ipv4.tcp_adv_win_scale of 1).
pub(crate) fn frame_share(device: &Capabilities) -> u32 {
    u32::from(device.frame_size / 2).max(1)
}

/// What a new connection offers its peer (tcp_select_initial_window).
pub(crate) struct Offer {
    /// Frames of its receive buffer.
    pub(crate) frames: u32,
    /// The first window, in bytes.
    pub(crate) wnd: u32,
    /// Rcv.Wind.Shift: for the largest buffer that it may ever have, which is this one if the user has set it.
    pub(crate) shift: u8,
}

impl Offer {
    /// For a socket with these options and this MSS, of a device, of a pool that lets sockets have so many frames.
    pub(crate) fn new(values: &Values, device: &Capabilities, high: u32, mss: u16) -> Self {
        let share = frame_share(device);
        let frames = match values.receive_buffer {
            0 => RECEIVE_FRAMES,
            bytes => bytes.div_ceil(share),
        };
        let frames = frames.clamp(4, high.max(4));
        let is_locked = values.options & Switch::RECEIVE_BUFFER_LOCKED != 0;
        let largest = if is_locked { frames } else { RECEIVE_FRAMES_MAX.min(high).max(frames) };
        let clamped = |frames: u32| {
            let bytes = frames.saturating_mul(share);
            if values.window_clamp == 0 { bytes } else { bytes.min(values.window_clamp) }
        };
        Self { frames, wnd: window::initial(clamped(frames), mss), shift: window::shift(clamped(largest)) }
    }
}

/// The bounds of timeouts of a socket with these options, over a route that wants them to be so long at least: what an
/// administrator says of a route comes first (tcp_rto_min).
pub(crate) fn bounds(values: &Values, host: &Host, route_ms: u16) -> Bounds {
    let min = match (route_ms, values.rto_min_ms) {
        (0, 0) => Duration::from_micros(host.tcp_rto_min_us.into()),
        (0, ms) | (ms, _) => Duration::from_millis(ms.into()),
    };
    let max = if values.rto_max_ms == 0 { host.tcp_rto_max_ms } else { values.rto_max_ms };
    let max = Duration::from_millis(max.into());
    Bounds { min: min.min(max), max }
}

/// Milliseconds of the stack's clock, in 32 bits.
pub(crate) const fn clock_ms(now: Instant) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// Bytes that may wait to be sent or acknowledged: SO_SNDBUF as it is read back, or twice the congestion window (tcp_sndbuf_expand).
pub(crate) fn send_buffer(tcb: &Tcb, values: &Values) -> u32 {
    if values.send_buffer != 0 {
        return values.send_buffer.saturating_mul(2);
    }
    let window = tcb.congestion.cwnd().saturating_mul(u32::from(tcb.mss));
    window.saturating_mul(2).clamp(SEND_BYTES_MIN, SEND_BYTES_MAX)
}

impl<D: Device> Connection<'_, D> {
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    /// The shape of its segments: what is behind the headroom of a frame, and not more than MSS.
    pub(crate) fn shape(&self) -> Shape {
        let capabilities = self.capabilities();
        let headroom = HEADROOM + capabilities.headroom_out;
        Shape { headroom, mss: self.tcb.mss.min(capabilities.frame_size.saturating_sub(headroom)).max(1) }
    }

    pub(crate) const fn tuple(&self) -> Tuple {
        Tuple {
            local: self.tcb.local,
            remote: self.tcb.remote,
            local_port: self.tcb.local_port,
            remote_port: self.tcb.remote_port,
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.stats.add(counter, 1);
    }

    /// TSval and TSecr of what is sent now, if both sides agreed (RFC 7323 §3.2).
    pub(crate) fn timestamps(&self) -> Option<Timestamps> {
        self.tcb
            .flags
            .has(Flags::TIMESTAMPS)
            .then(|| Timestamps { tsval: self.tsval(), tsecr: self.tcb.recent.echo() })
    }

    pub(crate) fn tsval(&self) -> u32 {
        timestamps::clock(self.now, self.tcb.ts_offset)
    }

    /// Options of a segment without SYN, but for SACK's blocks.
    pub(crate) fn options(&self) -> Options {
        Options { timestamps: self.timestamps(), ..Options::default() }
    }

    /// The bounds of its timeouts.
    pub(crate) fn bounds(&self) -> Bounds {
        bounds(self.values, self.host, self.tcb.timers.rto_min_ms)
    }

    /// Those of how long it is patient, which do not fall with the timeouts (retransmits_timed_out, tcp_probe0_base).
    pub(crate) fn patience(&self) -> Bounds {
        Bounds { min: RTO_MIN, ..self.bounds() }
    }

    /// RTO.
    pub(crate) fn rto(&self) -> Duration {
        self.tcb.rtt.rto(&self.bounds())
    }

    /// TCP_USER_TIMEOUT, if it is set.
    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        let ms = self.values.user_timeout_ms;
        (ms != 0).then(|| Duration::from_millis(ms.into()))
    }

    /// The counts of what is in flight.
    pub(crate) fn board(&self) -> Scoreboard {
        let send = &self.traffic.send;
        let sacked =
            if self.tcb.flags.has(Flags::SACK) { send.sacked().frames } else { self.traffic.duplicates };
        Scoreboard {
            packets_out: send.sent().frames,
            sacked_out: sacked.min(send.sent().frames),
            lost_out: send.lost().frames,
            retrans_out: send.retransmitted().frames,
            fack: self.traffic.fack,
        }
    }

    /// Bytes of a frame that count for a receive buffer.
    pub(crate) fn frame_share(&self) -> u32 {
        frame_share(&self.capabilities())
    }

    /// What it offers its peer.
    pub(crate) fn offer(&self) -> Offer {
        let high = self.frames.pool.limits.high;
        Offer::new(self.values, &self.capabilities(), high, self.tcb.advertised_mss)
    }

    /// What the receive window depends on.
    pub(crate) fn space(&self) -> Space {
        let full = self.tcb.receive_charge.limit.saturating_mul(self.frame_share());
        let free = full.saturating_sub(self.traffic.receive.bytes());
        let offer = if self.tcb.offer == 0 { window::UNSCALED_MAX } else { self.tcb.offer };
        let clamp = self.values.window_clamp;
        Space {
            full,
            free,
            rcv_mss: self.tcb.delayed_ack.rcv_mss(),
            offer_max: if clamp == 0 { offer } else { offer.min(clamp) },
            shift: self.tcb.rcv_shift(),
        }
    }

    /// Bytes that may wait to be sent or acknowledged.
    pub(crate) fn send_bytes_max(&self) -> u32 {
        send_buffer(self.tcb, self.values)
    }

    /// The arrow of RFC 9293 figure 5 for this event, with the timers of the state that it leads to.
    pub(crate) fn enter(&mut self, event: Event) {
        let Some(state) = self.tcb.state().on(event) else { return };
        match state {
            // The record is taken out of its tables once the work is done: until then it keeps its old state.
            State::Closed => return self.end(),
            State::TimeWait => {
                self.count(Counter::TimeWaits);
                self.tcb.timers.disarm_all();
                self.tcb.timers.arm(Timer::TimeWait, self.now + limits::TIME_WAIT);
            }
            State::FinWait2 if self.tcb.flags.has(Flags::ORPHAN) => {
                self.tcb.timers.arm(Timer::FinWait2, self.now + self.fin_wait_2());
            }
            State::Established => self.begin_keepalive(),
            _ => {}
        }
        self.tcb.state = state as u8;
    }

    /// How long an abandoned FIN-WAIT-2 is waited for: TCP_LINGER2, or the default.
    pub(crate) fn fin_wait_2(&self) -> Duration {
        let seconds = match self.values.linger2_s {
            seconds @ 1.. => seconds.unsigned_abs(),
            _ => self.host.tcp_fin_timeout,
        };
        // Not less than it takes to find the peer's FIN lost and sent again (tcp_fin_time).
        let rto = self.rto().0;
        Duration::from_secs(seconds.into()).max(Duration(4 * rto - rto / 2))
    }

    /// It moves to CLOSED: what waits to be sent, or for a gap, is gone; what was received can still be read (tcp_done).
    pub(crate) fn end(&mut self) {
        self.traffic.send.clear(&mut means!(self, send_charge));
        let ms = clock_ms(self.now);
        self.traffic.chronograph.set(Cause::None, ms, &mut self.tcb.waited);
        self.traffic.reassembly.clear(&mut means!(self, receive_charge));
        self.traffic.has_fin = 0;
        self.tcb.timers.disarm_all();
        self.tcb.flags = self.tcb.flags.without(Flags::ACK_NOW).without(Flags::ACK_OWED)
            | Flags::RECEIVE_SHUT
            | Flags::FIN_QUEUED;
        self.arrived = true;
        self.is_over = true;
    }

    /// The same with an error for the user, who takes it with the next call.
    pub(crate) fn fail(&mut self, error: Error) {
        self.tcb.error = error.code();
        self.end();
    }

    /// What was received is dropped too: nobody reads it any more.
    pub(crate) fn drop_received(&mut self) {
        self.traffic.receive.clear(&mut means!(self, receive_charge));
    }

    /// An acknowledgment goes with the next output.
    pub(crate) fn owe_ack(&mut self, at_once: bool) {
        self.tcb.flags |= Flags::ACK_OWED;
        if at_once {
            self.tcb.flags |= Flags::ACK_NOW;
        }
    }

    /// Whether routers may fragment its packets, if the user has an opinion of that (ip_dont_fragment).
    #[cold]
    pub(crate) fn choose_fragments(&mut self) {
        self.hop.may_fragment = match self.values.discovery(true) {
            Discovery::Want => self.hop.may_fragment,
            Discovery::Do => false,
            _ => self.tcb.remote.is_v4(),
        };
    }

    /// Whether it believes what routers say of the path (ip_sk_accept_pmtu).
    pub(crate) fn believes_routers(&self) -> bool {
        let how = self.values.discovery(self.tcb.remote.is_v4());
        !matches!(how, Discovery::Interface | Discovery::Omit)
    }

    /// The path's MTU was looked up anew.
    pub(crate) fn set_path_mtu(&mut self, mtu: u16) {
        if mtu != self.tcb.path_mtu {
            self.tcb.path_mtu = mtu;
            self.set_mss();
        }
    }

    /// When the peer was heard of last.
    pub(crate) fn heard(&self) -> Instant {
        let ms = clock_ms(self.now).wrapping_sub(self.tcb.last_ack_received);
        Instant(self.now.0.saturating_sub(Duration::from_millis(ms.into()).0))
    }

    /// What a new connection starts with, once both ends and the way are known.
    pub(crate) fn begin(&mut self, ts_offset: u32) {
        let device = u16::try_from(self.capabilities().mtu).unwrap_or(u16::MAX);
        let or_device = |mtu: u16| if mtu == 0 { device } else { mtu };
        self.tcb.path_mtu = or_device(self.hop.mtu);
        self.tcb.advertised_mss =
            offered_mss(or_device(self.hop.link_mtu).into(), &self.tcb.remote, self.values);
        self.tcb.ts_offset = ts_offset;
        let most = self.frames.pool.limits.high.max(2);
        self.tcb.receive_charge = Charge { frames: 0, limit: self.offer().frames };
        self.tcb.send_charge = Charge { frames: 0, limit: most };
        let ms = clock_ms(self.now);
        (self.tcb.last_ack_received, self.tcb.last_data_sent) = (ms, ms);
    }
}
