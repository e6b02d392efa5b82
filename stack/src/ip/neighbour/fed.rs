//! A cache that somebody else feeds, who doesn't see what is sent: so he hears which of the neighbours that he takes for stale are in use.

use super::{Cache, Neighbour, State};
use crate::wire::ip::Ip;

impl Neighbour {
    /// It was stale when something was sent to it, and who feeds the cache hasn't looked after it since.
    pub(crate) const fn is_unconfirmed(&self) -> bool {
        self.is_used() && self.probes != 0 && matches!(self.state(), State::Stale | State::Reachable)
    }
}

impl Cache<'_> {
    /// Who feeds the cache has been told of this one ([`Self::used`]).
    pub fn told(&mut self, ip: &Ip, hash: u32) {
        if let Some(record) = self.index(ip, hash).and_then(|index| self.records.get_mut(index as usize))
            && record.is_unconfirmed()
        {
            record.probes = 0;
        }
    }
}
