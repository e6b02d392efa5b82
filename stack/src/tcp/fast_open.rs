//! TCP Fast Open (RFC 7413): a SYN with text, which a cookie vouches for.
//!
//! A client that has been given a cookie sends it, and text with it, in the SYN of its next connection to that host
//! ([`client`]); a listener that knows its own cookie takes the text before the handshake has ended
//! (`crate::stack::listen::fast_open`). Cookies are eight bytes, and with the same key the kernel's, so that a host's keys may be used
//! (net.ipv4.tcp_fastopen_key): SipHash-2-4 of the client's and the server's address.
//!
//! What a host knows of its own keys, and of boxes on the way that swallow such SYNs, is in [`FastOpen`]; what it knows of others
//! in [`crate::ip::destination`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::isn::siphash::{Key, siphash};
use super::state::State;
use super::tcb::{Mark, Tcb};
use crate::ip::destination::{Destination, Destinations, Order};
use crate::region::Parts;
use crate::settings::{Switch, Values};
use crate::time::{Duration, Instant};
use crate::wire::ip::Ip;
use crate::wire::tcp::options::Cookie;

pub(crate) mod client;

/// net.ipv4.tcp_fastopen: as client. RFC 7413 §4.2: "It MUST be turned on explicitly by the application."
pub const AS_CLIENT: u32 = 0x1;
/// As server, for listeners that ask for it (TCP_FASTOPEN).
pub const AS_SERVER: u32 = 0x2;
/// Text goes without a cookie.
pub const SENDS_WITHOUT_COOKIE: u32 = 0x4;
/// Text is taken without a cookie.
pub const TAKES_WITHOUT_COOKIE: u32 = 0x200;
/// Listeners need not ask for it.
pub const EVERY_LISTENER: u32 = 0x400;

/// Bytes of a key, as options have it.
pub const KEY_LEN: usize = 16;
/// Doublings of the pause after a black hole.
const DOUBLINGS_MAX: u32 = 6;

/// What a host knows: its keys, and of black holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FastOpen {
    /// Of listeners that have none of their own: the one that cookies are made with, and one before it.
    pub keys: [Key; 2],
    /// When the last black hole was found, in nanoseconds.
    black_hole_at: u64,
    /// How many of the keys are set; without one it follows from the region's secret.
    pub keys_len: u32,
    /// Black holes in a row.
    black_holes: u32,
    /// In which order destinations were used.
    pub order: Order,
}

impl FastOpen {
    /// Something on the way lets no SYN with data, or nothing behind one, pass: no socket tries for `pause`, and twice as long
    /// after each further one (tcp_fastopen_active_disable).
    pub fn note_black_hole(&mut self, now: Instant) {
        self.black_holes = self.black_holes.saturating_add(1);
        self.black_hole_at = now.0;
    }

    /// Text in a SYN has arrived: there is no such thing any more.
    pub fn note_success(&mut self) {
        self.black_holes = 0;
    }

    /// Whether none is tried now (tcp_fastopen_active_should_disable).
    #[must_use]
    pub fn is_paused(&self, now: Instant, pause: Duration) -> bool {
        let Some(doublings) = self.black_holes.checked_sub(1) else { return false };
        let pause = pause.0.saturating_mul(1 << doublings.min(DOUBLINGS_MAX));
        now.0.saturating_sub(self.black_hole_at) < pause
    }
}

/// A key from its bytes.
#[must_use]
pub fn key(bytes: &[u8; KEY_LEN]) -> Key {
    let (words, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// The bytes of a key.
#[must_use]
pub fn key_bytes(key: &Key) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes[..8].copy_from_slice(&key[0].to_le_bytes());
    bytes[8..].copy_from_slice(&key[1].to_le_bytes());
    bytes
}

/// The cookie of a client's address at a server's (__tcp_fastopen_cookie_gen_cipher).
#[must_use]
pub fn cookie(key: &Key, client: &Ip, server: &Ip) -> [u8; 8] {
    let mut message = [0; 32];
    let message = match (client.as_v4(), server.as_v4()) {
        (Some(client), Some(server)) => {
            message[..4].copy_from_slice(&client);
            message[4..8].copy_from_slice(&server);
            &message[..8]
        }
        _ => {
            message[..16].copy_from_slice(&client.0);
            message[16..].copy_from_slice(&server.0);
            &message[..]
        }
    };
    siphash(key, message).to_le_bytes()
}

/// The keys of a listener: the one that cookies are made with comes first.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    keys: [Key; 2],
    len: usize,
}

impl Keys {
    /// Them all.
    #[must_use]
    pub fn as_slice(&self) -> &[Key] {
        self.keys.get(..self.len).unwrap_or(&self.keys)
    }

    /// The cookie of a client, as an answer to what came under this kind.
    #[must_use]
    pub fn cookie(&self, client: &Ip, server: &Ip, experimental: bool) -> Option<Cookie> {
        Cookie::new(&cookie(&self.keys[0], client, server), experimental)
    }

    /// With which of them a cookie was made.
    #[must_use]
    pub fn find(&self, cookie: &Cookie, client: &Ip, server: &Ip) -> Option<usize> {
        self.as_slice().iter().position(|key| self::cookie(key, client, server) == cookie.as_slice())
    }
}

/// Messages whose hashes under the region's secret are the key of a host that has none.
const FIRST_HALF: &[u8] = b"fast open, first half";
const SECOND_HALF: &[u8] = b"fast open, second half";

impl Parts<'_> {
    /// The keys of a listener with these options (tcp_fastopen_get_ctx).
    #[must_use]
    pub fn fast_open_keys(&self, values: &Values) -> Keys {
        let [a, b, c, d] = values.fast_open_keys;
        let has = |bit: u32| values.options & bit != 0;
        if has(Switch::FAST_OPEN_KEY) {
            return Keys { keys: [[a, b], [c, d]], len: 1 + usize::from(has(Switch::FAST_OPEN_BACKUP)) };
        }
        match self.fast_open.keys_len {
            0 => {
                let secret = &self.header.secret.0;
                Keys { keys: [[siphash(secret, FIRST_HALF), siphash(secret, SECOND_HALF)], [0, 0]], len: 1 }
            }
            len => Keys { keys: self.fast_open.keys, len: len.min(2) as usize },
        }
    }

    /// What was learned about a destination.
    pub(crate) fn destination_of(&mut self, ip: &Ip) -> Option<Destination> {
        let hash = self.address_hash(ip);
        self.known_destinations().of(ip, hash)
    }

    /// Learns something about a destination.
    pub(crate) fn learn_of(&mut self, ip: &Ip, change: impl FnOnce(&mut Destination)) {
        let secret = self.header.secret;
        let hash_of = |ip: &Ip| secret.endpoint((ip, 0));
        self.known_destinations().change(ip, hash_of(ip), hash_of, change);
    }

    /// What was learned about destinations.
    pub(crate) fn known_destinations(&mut self) -> Destinations<'_> {
        Destinations {
            slab: &mut self.slabs.destinations,
            records: self.destinations,
            places: self.destination_places,
            order: &mut self.fast_open.order,
        }
    }
}

impl Tcb {
    /// connect(2) has returned, and the SYN waits for the text that it will carry (TCP_FASTOPEN_CONNECT).
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.state() == State::SynSent && self.snd.una == self.snd.nxt
    }

    /// Its SYN asked for fast open, and has no answer yet.
    #[must_use]
    pub fn asks_fast_open(&self) -> bool {
        self.state() == State::SynSent && self.marks & (Mark::SYN_DATA | Mark::COOKIE_WANTED) != 0
    }

    /// tcpi_fastopen_client_fail: 1 without a cookie, 2 when the text in the SYN was not acknowledged, 3 when the SYN had to be sent
    /// again.
    #[must_use]
    pub const fn fast_open_failure(&self) -> u8 {
        (self.is(Mark::COOKIE_WANTED) as u8) | (self.is(Mark::FAST_OPEN_FAILED) as u8) << 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4 as net.ipv4.tcp_fastopen_key has it.
    const KEY: [u8; KEY_LEN] =
        [0xa1, 0xa1, 0xa1, 0xa1, 0xb2, 0xb2, 0xb2, 0xb2, 0xc3, 0xc3, 0xc3, 0xc3, 0xd4, 0xd4, 0xd4, 0xd4];
    const V4: (Ip, Ip) = (Ip::v4([192, 0, 2, 1]), Ip::v4([192, 168, 0, 1]));
    const V6: (Ip, Ip) = (
        Ip([0xfd, 0x3d, 0xfa, 0x7b, 0xd1, 0x7d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Ip([0xfd, 0x3d, 0x0a, 0x0b, 0x17, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    );

    /// The kernel's, as its own scripts expect them (ksft_runner.sh of tools/testing/selftests/net/packetdrill).
    #[test]
    fn cookies_are_the_kernels() {
        let rows = [
            (KEY, V4, 0x3021_b9d8_8901_7eeb_u64),
            ([0; KEY_LEN], V4, 0xb7c1_2350_a90d_c8f5),
            (KEY, V6, 0xc1d1_e974_2a47_a9bc),
            ([0; KEY_LEN], V6, 0x82af_1a8f_9a20_5c34),
        ];
        for (bytes, (client, server), wanted) in rows {
            assert_eq!(cookie(&key(&bytes), &client, &server), wanted.to_be_bytes());
            assert_eq!(key_bytes(&key(&bytes)), bytes);
        }
    }

    #[test]
    fn a_cookie_of_the_key_before_is_believed_and_of_another_is_not() {
        let keys = Keys { keys: [[1, 2], [3, 4]], len: 2 };
        let of = |key: Key| Cookie::new(&cookie(&key, &V4.0, &V4.1), false).expect("eight bytes");
        assert_eq!(keys.find(&of([1, 2]), &V4.0, &V4.1), Some(0));
        assert_eq!(keys.find(&of([3, 4]), &V4.0, &V4.1), Some(1));
        assert_eq!(keys.find(&of([5, 6]), &V4.0, &V4.1), None);
        assert_eq!(Keys { len: 1, ..keys }.find(&of([3, 4]), &V4.0, &V4.1), None);
        assert_eq!(keys.find(&of([1, 2]), &V4.1, &V4.0), None, "of another address");
        assert_eq!(keys.cookie(&V4.0, &V4.1, false), Some(of([1, 2])));
    }

    #[test]
    fn after_a_black_hole_nobody_tries_for_longer_each_time() {
        let (mut state, pause) = (FastOpen::default(), Duration::from_secs(10));
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        assert!(!state.is_paused(at(5), pause));
        state.note_black_hole(at(5));
        assert!(state.is_paused(at(14), pause) && !state.is_paused(at(15), pause));
        assert!(!state.is_paused(at(6), Duration(0)), "the host doesn't look for them");
        state.note_black_hole(at(20));
        assert!(state.is_paused(at(39), pause) && !state.is_paused(at(40), pause));
        for _ in 0..50 {
            state.note_black_hole(at(100));
        }
        assert!(state.is_paused(at(739), pause) && !state.is_paused(at(740), pause), "64 times at most");
        state.note_success();
        assert!(!state.is_paused(at(100), pause));
    }
}
