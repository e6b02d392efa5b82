//! A host of either kind: one with a whole stack, or one that sends raw packets and keeps what it gets: a router, an
//! attacker, a neighbour that stays silent.

use stack::time::Instant;

use super::Host;
use super::port::Port;
use super::raw::Raw;
use super::tcp::TcpHost;

/// The host.
pub enum Any {
    /// With a whole stack.
    Stack(Box<TcpHost>),
    /// With none.
    Raw(Box<Raw>),
}

impl From<TcpHost> for Any {
    fn from(host: TcpHost) -> Self {
        Self::Stack(Box::new(host))
    }
}

impl From<Raw> for Any {
    fn from(host: Raw) -> Self {
        Self::Raw(Box::new(host))
    }
}

impl Any {
    /// The host with a stack.
    ///
    /// # Panics
    /// If it has none.
    pub fn stack(&mut self) -> &mut TcpHost {
        match self {
            Self::Stack(host) => host,
            Self::Raw(_) => panic!("this host has no stack"),
        }
    }

    /// The same, to look at.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn look(&self) -> &TcpHost {
        match self {
            Self::Stack(host) => host,
            Self::Raw(_) => panic!("this host has no stack"),
        }
    }

    /// The host without one.
    ///
    /// # Panics
    /// If it has one.
    pub fn raw(&mut self) -> &mut Raw {
        match self {
            Self::Raw(host) => host,
            Self::Stack(_) => panic!("this host has a stack"),
        }
    }
}

impl Host for Any {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        match self {
            Self::Stack(host) => host.poll(now, port),
            Self::Raw(host) => host.poll(now, port),
        }
    }
}
