//! Ports for sockets that ask for none.

use super::{Class, Lease, PORTS, Ports, Protocol, Purpose, Wish};
use crate::demux::End;
use crate::error::Error;

/// Counters of the double hash.
pub(super) const COUNTERS: usize = PORTS;

/// Steps of the counter that hide how many ports were tried (Linux: `get_random_u32_below(8)`).
const NOISE: u64 = 8;

impl Ports<'_> {
    /// The leases that a search may use, and how many ports they have. A lease that reaches beyond the last port is
    /// cut there.
    fn pool(&self, protocol: Protocol) -> impl Iterator<Item = (u16, u32)> {
        let usable = move |lease: &&Lease| {
            lease.tag.is_used() && lease.is_ephemeral != 0 && lease.protocols >> protocol as u8 & 1 == 1
        };
        let ports = |lease: &Lease| {
            let first = lease.first.max(1);
            (first, u32::from(lease.count).min(PORTS as u32 - u32::from(first)))
        };
        self.leases.iter().filter(usable).map(ports)
    }

    /// The port at this place of the pool.
    fn port_at(&self, protocol: Protocol, mut place: u32) -> Option<u16> {
        for (first, count) in self.pool(protocol) {
            if place < count {
                return first.checked_add(place as u16);
            }
            place -= count;
        }
        None
    }

    /// A number that nobody can predict.
    fn draw(&mut self) -> u64 {
        self.heads.draws = self.heads.draws.wrapping_add(1);
        self.secret.outside(Purpose::Draw, &[self.heads.draws])
    }

    /// The first suitable port from a place of the pool on, and how many were tried before it.
    fn search(
        &self,
        protocol: Protocol,
        start: u32,
        total: u32,
        mut suits: impl FnMut(&Self, u16) -> bool,
    ) -> Option<(u16, u32)> {
        (0..total).find_map(|tried| {
            let place = ((u64::from(start) + u64::from(tried)) % u64::from(total)) as u32;
            let port = self.port_at(protocol, place)?;
            suits(self, port).then_some((port, tried))
        })
    }

    /// bind(2) with port 0: a port that no socket has at an overlapping address, whatever is shared (as Linux,
    /// `inet_csk_find_open_port`; for UDP two sockets with SO_REUSEADDR may meet). RFC 6056 §3.3.1.
    ///
    /// # Errors
    /// `AddressInUse` when there is none; `NoBuffers` at the limit of records.
    pub fn bind_any(&mut self, wish: &Wish<'_>) -> Result<(u16, u32), Error> {
        let total = self.pool(wish.protocol).map(|pool| pool.1).sum::<u32>();
        // RFC 6056 §3.3.1: "next_ephemeral = min_ephemeral + (random() % num_ephemeral);"
        let start = (self.draw() % u64::from(total.max(1))) as u32;
        let asked = match wish.protocol {
            Protocol::Tcp => Class::default(),
            Protocol::Udp => Class(wish.class.0 & Class::REUSE_ADDRESS),
        };
        let suits = |ports: &Self, port| {
            !ports.conflicts(&Wish { local: (wish.local.0, port), class: asked, ..*wish })
        };
        let (port, _) = self.search(wish.protocol, start, total, suits).ok_or(Error::AddressInUse)?;
        Ok((port, self.join(&Wish { local: (wish.local.0, port), ..*wish })?))
    }

    /// connect(2) on a socket without a port: one that nobody has bound, at whatever address, and for which `is_free` says
    /// that the connection would be the only one of its kind. The caller joins it. RFC 6056 §3.3.4, the double hash.
    ///
    /// # Errors
    /// `AddressNotAvailable` when there is none.
    pub fn connect_any(
        &mut self,
        protocol: Protocol,
        local: &crate::wire::ip::Ip,
        remote: End<'_>,
        mut is_free: impl FnMut(u16) -> bool,
    ) -> Result<u16, Error> {
        let total = self.pool(protocol).map(|pool| pool.1).sum::<u32>();
        // "offset = F(local_IP, remote_IP, remote_port, secret_key1); index = G(local_IP, remote_IP, remote_port,
        // secret_key2);"
        let ends = ((local, 0), remote);
        // Both are halves of one hash, of which either says nothing about the other.
        let hash = self.secret.outside_tuple(Purpose::Port, ends.0, ends.1);
        let (offset, index) = (hash & 0xffff_ffff, (hash >> 32) as usize % COUNTERS);
        let counter = self.heads.counters[index];
        // "port = min_ephemeral + (offset + table[index]) % num_ephemeral;"
        let start = (offset.wrapping_add(u64::from(counter)) % u64::from(total.max(1))) as u32;
        let suits = |ports: &Self, port: u16| {
            ports.heads.heads[protocol as usize][usize::from(port)].explicit == 0 && is_free(port)
        };
        let found = self.search(protocol, start, total, suits);
        let (port, tried) = found.ok_or(Error::AddressNotAvailable)?;
        // "table[index]++;" once for each that was tried; and some more, so that the step tells nothing.
        let step = u64::from(tried).max(self.draw() % NOISE) + 1;
        self.heads.counters[index] = counter.wrapping_add(step as u16);
        Ok(port)
    }
}
