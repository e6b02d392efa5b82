//! Control messages: what recvmsg(2) tells besides the text.

use stack::settings::{Switch, Timestamping, Values};
use stack::time::Instant;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// `cmsg_level`.
    pub level: i32,
    /// `cmsg_type`.
    pub kind: i32,
    /// What is behind its head.
    pub data: Vec<u8>,
}

/// Bytes of a `struct cmsghdr`, and what everything in the buffer is a multiple of.
const HEAD: usize = 16;
const WORD: usize = 8;

/// SO_EE_ORIGIN_ZEROCOPY and SO_EE_CODE_ZEROCOPY_COPIED (linux/errqueue.h).
const ORIGIN_ZEROCOPY: u8 = 5;
const COPIED: u8 = 1;

/// All of them, as they are in `msg_control`.
#[must_use]
pub fn encode(all: &[Control]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for control in all {
        bytes.extend((HEAD + control.data.len()).to_ne_bytes());
        bytes.extend(control.level.to_ne_bytes());
        bytes.extend(control.kind.to_ne_bytes());
        bytes.extend(&control.data);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
    }
    bytes
}

/// What a read of a socket of TCP with these options tells: when its last text arrived, and how much is left (tcp_recvmsg).
#[must_use]
pub fn of_read(values: &Values, arrived: Option<Instant>, left: u32) -> Vec<Control> {
    let has = |bit: u32| values.options & bit != 0;
    let mut all = Vec::new();
    if has(Switch::QUEUE_TOLD) {
        let data = left.to_ne_bytes().to_vec();
        all.push(Control { level: libc::IPPROTO_TCP, kind: libc::TCP_CM_INQ, data });
    }
    let Some(Instant(ns)) = arrived else { return all };
    let time = |seconds: u64, rest: u64| [seconds.to_ne_bytes(), rest.to_ne_bytes()].concat();
    let (second, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let mut tell = |kind, data| all.push(Control { level: libc::SOL_SOCKET, kind, data });
    if has(Switch::TIMESTAMP_NS) {
        tell(libc::SO_TIMESTAMPNS, time(second, nanos));
    } else if has(Switch::TIMESTAMP) {
        tell(libc::SO_TIMESTAMP, time(second, nanos / 1_000));
    }
    if values.timestamping & Timestamping::SOFTWARE != 0 {
        // The second is of no use any more, the third a device's own.
        tell(libc::SO_TIMESTAMPING, [time(second, nanos), time(0, 0), time(0, 0)].concat());
    }
    all
}

/// SO_ZEROCOPY of a descriptor. The stack copies text, so what was sent is its user's again at once: that is told as Linux tells it
/// where it had to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZeroCopy {
    /// Whether it was switched on.
    pub is_on: bool,
    /// Calls with MSG_ZEROCOPY.
    sent: u32,
    /// The first and the last of those that were not read from the error queue.
    told: Option<(u32, u32)>,
    /// How often something was told: edges of EPOLLERR.
    pub edges: u32,
}

impl ZeroCopy {
    /// Of a new socket.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    /// Text was sent with MSG_ZEROCOPY. Calls that follow each other are told as one (skb_zerocopy_notify_extend).
    pub fn note(&mut self) {
        let first = self.told.map_or(self.sent, |told| told.0);
        self.told = Some((first, self.sent));
        (self.sent, self.edges) = (self.sent.wrapping_add(1), self.edges.wrapping_add(1));
    }

    /// Whether something waits to be read.
    #[must_use]
    pub const fn tells(&self) -> bool {
        self.told.is_some()
    }

    /// recvmsg(2) with MSG_ERRQUEUE: a `struct sock_extended_err`, and an address of nobody.
    pub fn take(&mut self, is_v6: bool) -> Option<Control> {
        let (first, last) = self.told.take()?;
        let (level, kind, address) = match is_v6 {
            true => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, size_of::<libc::sockaddr_in6>()),
            false => (libc::IPPROTO_IP, libc::IP_RECVERR, size_of::<libc::sockaddr_in>()),
        };
        let mut data = [0; 4].to_vec();
        data.extend([ORIGIN_ZEROCOPY, 0, COPIED, 0]);
        data.extend(first.to_ne_bytes().into_iter().chain(last.to_ne_bytes()));
        data.resize(data.len() + address, 0);
        Some(Control { level, kind, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_together_until_they_are_read() {
        let mut zerocopy = ZeroCopy::default();
        assert_eq!(zerocopy.take(false), None);
        for calls in [1, 3] {
            (0..calls).for_each(|_| zerocopy.note());
        }
        let told = zerocopy.take(false).expect("four calls");
        assert_eq!((told.level, told.kind, told.data.len()), (0, 11, 32));
        assert_eq!(told.data[..16], [0, 0, 0, 0, 5, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        zerocopy.note();
        let told = zerocopy.take(true).expect("one more");
        assert_eq!((told.level, told.kind, told.data.len(), told.data[8], told.data[12]), (41, 25, 44, 4, 4));
        assert!(!zerocopy.tells() && zerocopy.edges == 5);
    }

    #[test]
    fn messages_begin_at_words() {
        let values = Values { options: Switch::QUEUE_TOLD | Switch::TIMESTAMP, ..Values::default() };
        let all = of_read(&values, Some(Instant(3_000_007_000)), 9);
        let bytes = encode(&all);
        assert_eq!(bytes.len(), 24 + 32);
        assert_eq!((bytes[0], bytes[8], bytes[12], bytes[16]), (20, 6, 36, 9));
        assert_eq!((bytes[24], bytes[32], bytes[36], bytes[40], bytes[48]), (32, 1, 29, 3, 7));
        assert_eq!(of_read(&values, None, 9).len(), 1);
    }
}
