//! SYNs that a listener keeps for its user: TCP_SAVE_SYN and TCP_SAVED_SYN (tcp_reqsk_record_syn).
//!
//! A SYN that is kept is nobody's: it is found by both ends of its connection and its sequence number, in one of [`WAYS`] places
//! that follow from the ends. So neither a SYN that waits nor an idle connection has a byte for it, and when they end nothing has
//! to be given back. Where all places are taken the oldest SYN is forgotten, and its user reads nothing: as in Linux, where there
//! was no memory for it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::listener::SynEntry;
use super::tcb::Tcb;
use crate::region::Parts;
use crate::seq::Seq;
use crate::wire::ip::Ip;

/// Places that a SYN may be in.
pub const WAYS: usize = 4;
/// Bytes of the headers that are kept: two tags of VLANs, IPv4 with options or IPv6, and TCP.
const HEADERS_MAX: usize = 144;

/// What a SYN is found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    local: Ip,
    remote: Ip,
    local_port: u16,
    remote_port: u16,
    irs: Seq,
}

impl Name {
    /// Of a SYN that waits.
    pub(crate) const fn of_syn(syn: &SynEntry) -> Self {
        let SynEntry { local, remote, local_port, remote_port, irs, .. } = *syn;
        Self { local, remote, local_port, remote_port, irs }
    }

    /// Of the connection that came of it.
    pub(crate) const fn of_connection(tcb: &Tcb) -> Self {
        let Tcb { local, remote, local_port, remote_port, .. } = *tcb;
        Self { local, remote, local_port, remote_port, irs: tcb.irs() }
    }
}

/// The headers of a SYN. Zero bytes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SavedSyn {
    name: Name,
    /// Milliseconds at which it arrived.
    at: u32,
    /// Bytes of them.
    len: u32,
    headers: [u8; HEADERS_MAX],
}

const _: () = assert!(size_of::<SavedSyn>() == 192);

impl SavedSyn {
    /// Its bytes.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.headers.get(..self.len as usize).unwrap_or_default()
    }

    /// It was read.
    pub const fn forget(&mut self) {
        self.len = 0;
    }
}

/// Keeps the headers of a SYN in one of these places, if they aren't longer than any should be.
fn keep(places: &mut [SavedSyn], name: &Name, at: u32, headers: &[u8]) {
    // The same SYN again is kept once.
    let rank = |saved: &SavedSyn| match saved {
        saved if saved.name == *name => u32::MAX,
        saved if saved.len == 0 => u32::MAX - 1,
        saved => at.wrapping_sub(saved.at).min(u32::MAX - 2),
    };
    let place = places.iter_mut().max_by_key(|saved| rank(saved));
    let Some(saved) = place.filter(|_| headers.len() <= HEADERS_MAX) else { return };
    (saved.name, saved.at, saved.len) = (*name, at, headers.len() as u32);
    saved.headers[..headers.len()].copy_from_slice(headers);
}

impl Parts<'_> {
    /// Where a SYN of this name may be.
    fn saved_syn_places(&mut self, name: &Name) -> &mut [SavedSyn] {
        let (local, remote) = ((&name.local, name.local_port), (&name.remote, name.remote_port));
        let hash = self.header.secret.tuple(local, remote) as usize;
        let sets = (self.saved_syns.len() / WAYS).max(1);
        let first = hash % sets * WAYS;
        self.saved_syns.get_mut(first..first + WAYS).unwrap_or_default()
    }

    /// Keeps the headers of a SYN that arrives at this millisecond.
    pub(crate) fn save_syn(&mut self, name: &Name, at: u32, headers: &[u8]) {
        keep(self.saved_syn_places(name), name, at, headers);
    }

    /// The SYN of this name, if it is there and was not read.
    pub(crate) fn saved_syn(&mut self, name: &Name) -> Option<&mut SavedSyn> {
        let places = self.saved_syn_places(name).iter_mut();
        places.into_iter().find(|saved| saved.name == *name && !saved.headers().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn the_oldest_gives_way_and_the_same_again_does_not_take_another_place() {
        let mut places = vec![SavedSyn::new_zeroed(); WAYS];
        let name = |port| Name { remote_port: port, ..Name::default() };
        let has = |places: &[SavedSyn], port| places.iter().filter(|saved| saved.name == name(port)).count();
        // The clock passes its end.
        for (port, at) in (1..).zip([u32::MAX - 1, u32::MAX, 0, 1]) {
            keep(&mut places, &name(port), at, &[port as u8; 40]);
        }
        keep(&mut places, &name(1), 2, &[9; 44]);
        assert_eq!([1, 2, 3, 4].map(|port| has(&places, port)), [1; 4]);
        keep(&mut places, &name(5), 3, &[5; 40]);
        assert_eq!([1, 2, 3, 4, 5].map(|port| has(&places, port)), [1, 0, 1, 1, 1], "2 was the oldest");
        places[0].forget();
        keep(&mut places, &name(6), 4, &[6; HEADERS_MAX]);
        assert_eq!((places[0].name, places[0].headers()), (name(6), &[6; HEADERS_MAX][..]));
        keep(&mut places, &name(7), 5, &[7; HEADERS_MAX + 1]);
        assert_eq!(has(&places, 7), 0, "longer than any should be");
        places[1].len = u32::MAX;
        assert_eq!(places[1].headers(), b"", "bytes that nobody wrote");
    }
}
