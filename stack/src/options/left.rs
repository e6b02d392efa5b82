//! Options that Linux has and the stack has not, and what becomes of a socket that sets one.
//!
//! Whoever has a socket of ours and one of the kernel's to choose from asks [`left`] before [`Error::NoSuchOption`]: what is
//! [`Verdict::Kernel`] can only be had from the kernel's socket, and what is a [`Verdict::Hint`] changes nothing that a program or its
//! peer could see here, so that it is enough to remember it. A number that is neither here nor among the stack's own is one that Linux
//! doesn't know either: a test asks it. One option is in both tables, because the stack has a part of it: SO_TIMESTAMPING.
//!
//! [`Error::NoSuchOption`]: crate::error::Error::NoSuchOption

use super::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET, What};

/// What becomes of a socket that sets such an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays with the kernel, or goes back to it.
    Kernel,
    /// It stays where it is, and its value is remembered.
    Hint,
}

/// Whose option it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Both,
    Tcp,
    Udp,
}

/// An option that the stack has not.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// How it is called.
    pub what: What,
    /// What becomes of its socket.
    pub verdict: Verdict,
    /// Why.
    pub reason: &'static str,
    of: Of,
}

impl Left {
    /// Whether a socket of this protocol has it.
    #[must_use]
    pub const fn is_of(&self, protocol: i32) -> bool {
        match self.of {
            Both => true,
            Tcp => protocol == IPPROTO_TCP,
            Udp => protocol == IPPROTO_UDP,
        }
    }
}

/// The option with this number, if the kernel has it and the stack has not.
#[must_use]
pub fn left(protocol: i32, level: i32, number: i32) -> Option<&'static Left> {
    LEFT.iter().find(|left| left.what.level == level && left.what.number == number && left.is_of(protocol))
}

const fn kernel(of: Of, level: i32, number: i32, name: &'static str, reason: &'static str) -> Left {
    Left { what: What { level, number, name }, verdict: Verdict::Kernel, reason, of }
}

const fn hint(of: Of, level: i32, number: i32, name: &'static str, reason: &'static str) -> Left {
    Left { what: What { level, number, name }, verdict: Verdict::Hint, reason, of }
}

use Of::{Both, Tcp, Udp};

const FILTER: &str = "a program in the kernel looks at what arrives";
const WAY: &str = "packets go by an interface, an address or a port of the program's choice";
const HEADERS: &str = "headers and options of IP that the stack's packets don't have";
const TOLD: &str = "control messages that the stack doesn't make";
const QUEUE: &str = "the kernel's queues and devices do it";
const PAGES: &str = "pages of the program's are shared with the kernel";
const SECURITY: &str = "the kernel encrypts, signs or labels";
const REPAIR: &str = "the kernel's own connection is taken apart";
const LISTS: &str = "whole lists of sources, or groups by interface";
const STREAM: &str = "no group and no datagram concerns a stream";
const POLLING: &str = "how the kernel polls and places work";
const NOTHING: &str = "it does nothing in Linux, or nothing but bookkeeping";
const THIN: &str = "Linux reads it and does nothing by it, or would send again sooner";

/// Every one of them, as of Linux 6.18.
#[rustfmt::skip]
pub const LEFT: &[Left] = &[
    hint(Both, SOL_SOCKET, 1, "SO_DEBUG", NOTHING),
    hint(Both, SOL_SOCKET, 14, "SO_BSDCOMPAT", NOTHING),
    kernel(Both, SOL_SOCKET, 25, "SO_BINDTODEVICE", WAY),
    kernel(Both, SOL_SOCKET, 26, "SO_ATTACH_FILTER", FILTER),
    hint(Both, SOL_SOCKET, 27, "SO_DETACH_FILTER", NOTHING),
    kernel(Both, SOL_SOCKET, 37, "SO_TIMESTAMPING", "times of sending, which the kernel's queues and devices know; those of arrival are here"),
    hint(Both, SOL_SOCKET, 41, "SO_WIFI_STATUS", NOTHING),
    kernel(Udp, SOL_SOCKET, 42, "SO_PEEK_OFF", "how far was peeked is kept for streams only"),
    hint(Both, SOL_SOCKET, 43, "SO_NOFCS", NOTHING),
    kernel(Both, SOL_SOCKET, 44, "SO_LOCK_FILTER", FILTER),
    kernel(Both, SOL_SOCKET, 45, "SO_SELECT_ERR_QUEUE", "errors are told as POLLPRI, too"),
    hint(Both, SOL_SOCKET, 46, "SO_BUSY_POLL", POLLING),
    kernel(Udp, SOL_SOCKET, 47, "SO_MAX_PACING_RATE", QUEUE),
    hint(Both, SOL_SOCKET, 49, "SO_INCOMING_CPU", POLLING),
    kernel(Both, SOL_SOCKET, 50, "SO_ATTACH_BPF", FILTER),
    kernel(Both, SOL_SOCKET, 51, "SO_ATTACH_REUSEPORT_CBPF", FILTER),
    kernel(Both, SOL_SOCKET, 52, "SO_ATTACH_REUSEPORT_EBPF", FILTER),
    hint(Both, SOL_SOCKET, 53, "SO_CNX_ADVICE", POLLING),
    kernel(Both, SOL_SOCKET, 60, "SO_ZEROCOPY", PAGES),
    kernel(Both, SOL_SOCKET, 61, "SO_TXTIME", QUEUE),
    kernel(Both, SOL_SOCKET, 62, "SO_BINDTOIFINDEX", WAY),
    kernel(Both, SOL_SOCKET, 63, "SO_TIMESTAMP_NEW", TOLD),
    kernel(Both, SOL_SOCKET, 64, "SO_TIMESTAMPNS_NEW", TOLD),
    kernel(Both, SOL_SOCKET, 65, "SO_TIMESTAMPING_NEW", TOLD),
    hint(Both, SOL_SOCKET, 68, "SO_DETACH_REUSEPORT_BPF", NOTHING),
    hint(Both, SOL_SOCKET, 69, "SO_PREFER_BUSY_POLL", POLLING),
    hint(Both, SOL_SOCKET, 70, "SO_BUSY_POLL_BUDGET", POLLING),
    kernel(Both, SOL_SOCKET, 72, "SO_BUF_LOCK", "a buffer of a fixed size is tuned again"),
    hint(Both, SOL_SOCKET, 73, "SO_RESERVE_MEM", POLLING),
    hint(Tcp, SOL_SOCKET, 74, "SO_TXREHASH", "flow labels are not drawn anew"),
    kernel(Both, SOL_SOCKET, 75, "SO_RCVMARK", TOLD),
    kernel(Both, SOL_SOCKET, 80, "SO_DEVMEM_DONTNEED", PAGES),
    kernel(Both, SOL_SOCKET, 82, "SO_RCVPRIORITY", TOLD),

    kernel(Both, IPPROTO_IP, 4, "IP_OPTIONS", HEADERS),
    kernel(Both, IPPROTO_IP, 5, "IP_ROUTER_ALERT", HEADERS),
    kernel(Both, IPPROTO_IP, 6, "IP_RECVOPTS", TOLD),
    kernel(Both, IPPROTO_IP, 7, "IP_RETOPTS", TOLD),
    kernel(Both, IPPROTO_IP, 16, "IP_IPSEC_POLICY", SECURITY),
    kernel(Both, IPPROTO_IP, 17, "IP_XFRM_POLICY", SECURITY),
    kernel(Both, IPPROTO_IP, 18, "IP_PASSSEC", SECURITY),
    kernel(Both, IPPROTO_IP, 19, "IP_TRANSPARENT", WAY),
    kernel(Both, IPPROTO_IP, 20, "IP_RECVORIGDSTADDR", TOLD),
    kernel(Both, IPPROTO_IP, 21, "IP_MINTTL", "what comes from too far is dropped"),
    kernel(Both, IPPROTO_IP, 23, "IP_CHECKSUM", TOLD),
    kernel(Udp, IPPROTO_IP, 24, "IP_BIND_ADDRESS_NO_PORT", WAY),
    kernel(Both, IPPROTO_IP, 25, "IP_RECVFRAGSIZE", TOLD),
    kernel(Both, IPPROTO_IP, 26, "IP_RECVERR_RFC4884", TOLD),
    hint(Tcp, IPPROTO_IP, 32, "IP_MULTICAST_IF", STREAM),
    hint(Tcp, IPPROTO_IP, 33, "IP_MULTICAST_TTL", STREAM),
    hint(Tcp, IPPROTO_IP, 34, "IP_MULTICAST_LOOP", STREAM),
    hint(Tcp, IPPROTO_IP, 35, "IP_ADD_MEMBERSHIP", STREAM),
    hint(Tcp, IPPROTO_IP, 36, "IP_DROP_MEMBERSHIP", STREAM),
    hint(Tcp, IPPROTO_IP, 37, "IP_UNBLOCK_SOURCE", STREAM),
    hint(Tcp, IPPROTO_IP, 38, "IP_BLOCK_SOURCE", STREAM),
    hint(Tcp, IPPROTO_IP, 39, "IP_ADD_SOURCE_MEMBERSHIP", STREAM),
    hint(Tcp, IPPROTO_IP, 40, "IP_DROP_SOURCE_MEMBERSHIP", STREAM),
    kernel(Both, IPPROTO_IP, 41, "IP_MSFILTER", LISTS),
    kernel(Both, IPPROTO_IP, 42, "MCAST_JOIN_GROUP", LISTS),
    kernel(Both, IPPROTO_IP, 43, "MCAST_BLOCK_SOURCE", LISTS),
    kernel(Both, IPPROTO_IP, 44, "MCAST_UNBLOCK_SOURCE", LISTS),
    kernel(Both, IPPROTO_IP, 45, "MCAST_LEAVE_GROUP", LISTS),
    kernel(Both, IPPROTO_IP, 46, "MCAST_JOIN_SOURCE_GROUP", LISTS),
    kernel(Both, IPPROTO_IP, 47, "MCAST_LEAVE_SOURCE_GROUP", LISTS),
    kernel(Both, IPPROTO_IP, 48, "MCAST_MSFILTER", LISTS),
    hint(Tcp, IPPROTO_IP, 49, "IP_MULTICAST_ALL", STREAM),
    kernel(Both, IPPROTO_IP, 50, "IP_UNICAST_IF", WAY),
    kernel(Both, IPPROTO_IP, 51, "IP_LOCAL_PORT_RANGE", WAY),

    kernel(Tcp, IPPROTO_TCP, 14, "TCP_MD5SIG", SECURITY),
    hint(Tcp, IPPROTO_TCP, 16, "TCP_THIN_LINEAR_TIMEOUTS", THIN),
    hint(Tcp, IPPROTO_TCP, 17, "TCP_THIN_DUPACK", THIN),
    kernel(Tcp, IPPROTO_TCP, 19, "TCP_REPAIR", REPAIR),
    kernel(Tcp, IPPROTO_TCP, 20, "TCP_REPAIR_QUEUE", REPAIR),
    kernel(Tcp, IPPROTO_TCP, 21, "TCP_QUEUE_SEQ", REPAIR),
    kernel(Tcp, IPPROTO_TCP, 22, "TCP_REPAIR_OPTIONS", REPAIR),
    kernel(Tcp, IPPROTO_TCP, 29, "TCP_REPAIR_WINDOW", REPAIR),
    kernel(Tcp, IPPROTO_TCP, 31, "TCP_ULP", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 32, "TCP_MD5SIG_EXT", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 37, "TCP_TX_DELAY", QUEUE),
    kernel(Tcp, IPPROTO_TCP, 38, "TCP_AO_ADD_KEY", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 39, "TCP_AO_DEL_KEY", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 40, "TCP_AO_INFO", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 42, "TCP_AO_REPAIR", SECURITY),
    kernel(Tcp, IPPROTO_TCP, 46, "TCP_DELACK_MAX_US", "acknowledgments are delayed by what the host says"),

    kernel(Udp, IPPROTO_UDP, 100, "UDP_ENCAP", SECURITY),

    kernel(Both, IPPROTO_IPV6, 1, "IPV6_ADDRFORM", "the socket becomes one of IPv4"),
    kernel(Both, IPPROTO_IPV6, 2, "IPV6_2292PKTINFO", TOLD),
    kernel(Both, IPPROTO_IPV6, 3, "IPV6_2292HOPOPTS", TOLD),
    kernel(Both, IPPROTO_IPV6, 4, "IPV6_2292DSTOPTS", TOLD),
    kernel(Both, IPPROTO_IPV6, 5, "IPV6_2292RTHDR", TOLD),
    kernel(Both, IPPROTO_IPV6, 6, "IPV6_2292PKTOPTIONS", HEADERS),
    kernel(Both, IPPROTO_IPV6, 8, "IPV6_2292HOPLIMIT", TOLD),
    kernel(Both, IPPROTO_IPV6, 11, "IPV6_FLOWINFO", TOLD),
    hint(Tcp, IPPROTO_IPV6, 19, "IPV6_MULTICAST_LOOP", STREAM),
    hint(Tcp, IPPROTO_IPV6, 20, "IPV6_ADD_MEMBERSHIP", STREAM),
    hint(Tcp, IPPROTO_IPV6, 21, "IPV6_DROP_MEMBERSHIP", STREAM),
    kernel(Both, IPPROTO_IPV6, 27, "IPV6_JOIN_ANYCAST", WAY),
    kernel(Both, IPPROTO_IPV6, 28, "IPV6_LEAVE_ANYCAST", WAY),
    hint(Tcp, IPPROTO_IPV6, 29, "IPV6_MULTICAST_ALL", STREAM),
    hint(Both, IPPROTO_IPV6, 30, "IPV6_ROUTER_ALERT_ISOLATE", NOTHING),
    kernel(Both, IPPROTO_IPV6, 31, "IPV6_RECVERR_RFC4884", TOLD),
    kernel(Both, IPPROTO_IPV6, 32, "IPV6_FLOWLABEL_MGR", HEADERS),
    kernel(Both, IPPROTO_IPV6, 33, "IPV6_FLOWINFO_SEND", HEADERS),
    kernel(Both, IPPROTO_IPV6, 34, "IPV6_IPSEC_POLICY", SECURITY),
    kernel(Both, IPPROTO_IPV6, 35, "IPV6_XFRM_POLICY", SECURITY),
    kernel(Both, IPPROTO_IPV6, 42, "MCAST_JOIN_GROUP", LISTS),
    kernel(Both, IPPROTO_IPV6, 43, "MCAST_BLOCK_SOURCE", LISTS),
    kernel(Both, IPPROTO_IPV6, 44, "MCAST_UNBLOCK_SOURCE", LISTS),
    kernel(Both, IPPROTO_IPV6, 45, "MCAST_LEAVE_GROUP", LISTS),
    kernel(Both, IPPROTO_IPV6, 46, "MCAST_JOIN_SOURCE_GROUP", LISTS),
    kernel(Both, IPPROTO_IPV6, 47, "MCAST_LEAVE_SOURCE_GROUP", LISTS),
    kernel(Both, IPPROTO_IPV6, 48, "MCAST_MSFILTER", LISTS),
    kernel(Both, IPPROTO_IPV6, 50, "IPV6_PKTINFO", WAY),
    kernel(Tcp, IPPROTO_IPV6, 51, "IPV6_RECVHOPLIMIT", TOLD),
    kernel(Both, IPPROTO_IPV6, 53, "IPV6_RECVHOPOPTS", TOLD),
    kernel(Both, IPPROTO_IPV6, 54, "IPV6_HOPOPTS", HEADERS),
    kernel(Both, IPPROTO_IPV6, 55, "IPV6_RTHDRDSTOPTS", HEADERS),
    kernel(Both, IPPROTO_IPV6, 56, "IPV6_RECVRTHDR", TOLD),
    kernel(Both, IPPROTO_IPV6, 57, "IPV6_RTHDR", HEADERS),
    kernel(Both, IPPROTO_IPV6, 58, "IPV6_RECVDSTOPTS", TOLD),
    kernel(Both, IPPROTO_IPV6, 59, "IPV6_DSTOPTS", HEADERS),
    kernel(Both, IPPROTO_IPV6, 60, "IPV6_RECVPATHMTU", TOLD),
    hint(Tcp, IPPROTO_IPV6, 62, "IPV6_DONTFRAG", STREAM),
    kernel(Tcp, IPPROTO_IPV6, 66, "IPV6_RECVTCLASS", TOLD),
    hint(Both, IPPROTO_IPV6, 70, "IPV6_AUTOFLOWLABEL", "packets are not labeled (RFC 6437 §2)"),
    kernel(Both, IPPROTO_IPV6, 72, "IPV6_ADDR_PREFERENCES", WAY),
    kernel(Both, IPPROTO_IPV6, 73, "IPV6_MINHOPCOUNT", "what comes from too far is dropped"),
    kernel(Both, IPPROTO_IPV6, 74, "IPV6_RECVORIGDSTADDR", TOLD),
    kernel(Both, IPPROTO_IPV6, 75, "IPV6_TRANSPARENT", WAY),
    kernel(Both, IPPROTO_IPV6, 76, "IPV6_UNICAST_IF", WAY),
    kernel(Both, IPPROTO_IPV6, 77, "IPV6_RECVFRAGSIZE", TOLD),
];
