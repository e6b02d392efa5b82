//! What an administrator sets for all sockets of a stack: one row each, under the name that it has in Linux and with the
//! value that it has there unless somebody changes it.
//!
//! Sockets' own options, where there are such, come before these.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcp::rtt;
use crate::tcp::tcb::Flags;
use crate::tcp::timers::{keepalive, limits};

macro_rules! host {
    ($($name:ident = $default:expr, $least:literal..=$most:expr, $doc:literal;)+) => {
        /// The values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Host {
            $(#[doc = $doc] #[doc = concat!("\n\n", stringify!($least), " to ", stringify!($most), ".")] pub $name: u32,)+
        }

        /// Name, meaning, default, least and most of each, in the order of [`Host`].
        pub const HOST: &[(&str, &str, u32, u32, u32)] =
            &[$((stringify!($name), $doc, $default, $least, $most)),+];

        impl Host {
            /// Linux's values.
            pub const DEFAULT: Self = Self { $($name: $default),+ };

            /// Sets the value of this name; false if there is none, or it can't have this value.
            pub fn set(&mut self, name: &str, value: u32) -> bool {
                match name {
                    $(stringify!($name) if ($least..=$most).contains(&value) => self.$name = value,)+
                    _ => return false,
                }
                true
            }

            /// The value of this name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u32> {
                Some(match name {
                    $(stringify!($name) => self.$name,)+
                    _ => return None,
                })
            }
        }
    };
}

host! {
    somaxconn = 4096, 1..=65_535, "Most connections that may wait for accept(2), whatever listen(2) says.";
    rmem_max = 4 << 20, 2304..=1 << 30, "Bytes that SO_RCVBUF may ask for.";
    rmem_default = 212_992, 2304..=1 << 30, "Bytes of a new socket's receive buffer, as SO_RCVBUF tells them, but for TCP's.";
    wmem_default = 212_992, 4608..=1 << 30, "Bytes of a new socket's send buffer, as SO_SNDBUF tells them, but for TCP's.";
    wmem_max = 4 << 20, 4608..=1 << 30, "Bytes that SO_SNDBUF may ask for.";
    tcp_rmem_default = 131_072, 4096..=1 << 30, "Bytes of a new socket's receive buffer, as SO_RCVBUF tells them.";
    tcp_rmem_max = 32 << 20, 4096..=1 << 30, "Bytes up to which a receive buffer grows.";
    tcp_wmem_default = 16_384, 4096..=1 << 30, "Bytes of a new socket's send buffer, as SO_SNDBUF tells them.";
    tcp_timestamps = 1, 0..=1, "Timestamps (RFC 7323 §3) are offered, and taken where a peer offers them.";
    tcp_sack = 1, 0..=1, "So are selective acknowledgments (RFC 2018 §2).";
    tcp_window_scaling = 1, 0..=1, "So are scaled windows (RFC 7323 §2).";
    tcp_ecn = 2, 0..=2, "ECN (RFC 3168): never, with every peer that knows it, only if the peer asks.";
    tcp_syncookies = 1, 0..=2, "SYN cookies: never, while a listener's queue of SYNs is full, always (RFC 4987 §3.6).";
    tcp_abort_on_overflow = 0, 0..=1, "A handshake for which the accept queue has no room is reset, not held back.";
    tcp_syn_retries = limits::SYN_RETRIES as u32, 1..=127, "Retransmissions of a SYN.";
    tcp_synack_retries = 5, 0..=255, "Retransmissions of a SYN-ACK.";
    tcp_retries2 = limits::RETRIES_2 as u32, 0..=255, "Retransmissions after which a connection is given up (RFC 9293 §3.8.3, R2).";
    tcp_rto_min_us = rtt::RTO_MIN.as_micros() as u32, 1000..=1_000_000, "Microseconds that a retransmission timeout is longer than a round trip, at least.";
    tcp_rto_max_ms = rtt::RTO_MAX.as_millis() as u32, 1000..=120_000, "Milliseconds of the longest retransmission timeout.";
    tcp_orphan_retries = 0, 0..=255, "The same for a socket that its program has closed; 0 stands for 8.";
    tcp_fin_timeout = (limits::FIN_WAIT_2.0 / 1_000_000_000) as u32, 1..=65_535, "Seconds in FIN-WAIT-2 of such a socket.";
    tcp_max_orphans = 1 << 30, 0..=1 << 30, "Connections that live on when their programs have closed them, up to TIME-WAIT; Linux's default is by its memory.";
    tcp_max_tw_buckets = 1 << 30, 0..=1 << 30, "Connections in TIME-WAIT; Linux's default is by its memory.";
    tcp_tw_reuse = 2, 0..=2, "connect(2) takes over what is in TIME-WAIT: never, whenever timestamps tell old from new (RFC 6191), only over loopback.";
    tcp_tw_reuse_delay = 1000, 1..=60_000, "Milliseconds in TIME-WAIT before that.";
    tcp_keepalive_time = (keepalive::IDLE.0 / 1_000_000_000) as u32, 1..=32_767, "Seconds of silence before a probe (RFC 9293 §3.8.4).";
    tcp_keepalive_intvl = (keepalive::INTERVAL.0 / 1_000_000_000) as u32, 1..=32_767, "Seconds between probes.";
    tcp_keepalive_probes = keepalive::PROBES as u32, 1..=127, "Probes without an answer before a peer is given up.";
    tcp_fastopen = 1, 0..=0x607, "Fast open (RFC 7413), added: 1 as client, 2 as server; 4 sends and 512 takes text without a cookie; 1024 for listeners that don't ask.";
    tcp_tso_win_divisor = 8, 0..=255, "The part of a window that a device gets to cut in any case, as a divisor; 0 stands for more than three segments. Linux's default is 3, which leaves a sixth of a full window unused.";
    tcp_min_tso_segs = 2, 1..=255, "Segments that it gets at least, if there are so many, however slow the path is.";
    tcp_mtu_probing = 0, 0..=2, "Paths are searched for what they take (RFC 4821, RFC 8899): never, where large segments seem to vanish, always.";
    tcp_base_mss = 1024, 48..=65_535, "Octets of a segment, options with them, with which a search begins.";
    tcp_mtu_probe_floor = 48, 48..=65_535, "Octets of a segment that it doesn't go below.";
    tcp_probe_interval = 600, 0..=4_194_304, "Seconds after which it begins anew.";
    tcp_probe_threshold = 8, 0..=65_535, "Octets between what passes and what may not that end it.";
    tcp_fastopen_blackhole_timeout_sec = 0, 0..=1_000_000, "Seconds without fast open after SYNs with data went unanswered twice; 0 doesn't look.";
}

impl Host {
    /// What a SYN offers, and what is agreed upon where a peer's does.
    pub(crate) fn offered(&self) -> Flags {
        let rows = [
            (self.tcp_timestamps, Flags::TIMESTAMPS),
            (self.tcp_sack, Flags::SACK),
            (self.tcp_window_scaling, Flags::SCALING),
        ];
        rows.iter().filter(|row| row.0 != 0).fold(Flags::default(), |all, row| all | row.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_by_name_and_within_their_bounds() {
        let mut host = Host::DEFAULT;
        for (name, doc, default, least, most) in HOST {
            assert_eq!(host.get(name), Some(*default));
            assert!((least..=most).contains(&default) && doc.ends_with('.'), "{name}");
            assert!(host.set(name, *least) && host.get(name) == Some(*least));
            assert!(most.checked_add(1).is_none_or(|beyond| !host.set(name, beyond)), "{name}");
        }
        assert_eq!((host.set("tcp_nothing", 0), host.get("tcp_nothing")), (false, None));
    }
}
