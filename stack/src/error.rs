//! Why a call failed, or what became of a connection.
//!
//! One closed set for the whole stack. Each row says which errno of Linux it becomes; numbers belong to the shim. A
//! socket keeps a pending one as a byte ([`Error::code`]): 0 is none, and a byte that no row has is [`Error::Corrupt`].

use core::fmt;

macro_rules! errors {
    ($($(#[doc = $doc:literal])+ $name:ident => $errno:ident,)+) => {
        /// Why a call failed, or what became of a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Error {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nBecomes `", stringify!($errno), "`.")] $name,)+
        }

        /// Every error, the name of its errno, and what it means.
        pub const ERRORS: &[(Error, &str, &str)] =
            &[$((Error::$name, stringify!($errno), concat!($($doc),+))),+];
    };
}

errors! {
    /// The region holds what no stack has written: a record, a list or a table is broken.
    Corrupt => EIO,
    /// Nothing can be done now without waiting; readiness tells when.
    WouldBlock => EAGAIN,
    /// The handshake has begun and goes on (connect(2) on a socket that does not wait).
    InProgress => EINPROGRESS,
    /// A handshake that was begun earlier still goes on.
    Already => EALREADY,
    /// The socket has a peer already.
    IsConnected => EISCONN,
    /// The socket has no peer.
    NotConnected => ENOTCONN,
    /// A datagram without a destination on a socket without a peer.
    DestinationRequired => EDESTADDRREQ,
    /// Another socket has the address and port, and they are not shared.
    AddressInUse => EADDRINUSE,
    /// The address is not one of ours, or no ephemeral port is left towards that peer.
    AddressNotAvailable => EADDRNOTAVAIL,
    /// The address is of a family that this socket does not speak.
    AddressFamily => EAFNOSUPPORT,
    /// The arguments, or the socket's state, make no sense for this call.
    Invalid => EINVAL,
    /// The call is for another kind of socket; or a source route failed (ICMP).
    NotSupported => EOPNOTSUPP,
    /// There is no such option.
    NoSuchOption => ENOPROTOOPT,
    /// The handle names no socket: it was closed, or never was one.
    BadHandle => EBADF,
    /// A broadcast without SO_BROADCAST, or what the owner of the stack, a router or a firewall forbids.
    Forbidden => EACCES,
    /// The datagram is larger than the protocol, or the path without fragments, carries.
    MessageSize => EMSGSIZE,
    /// The region's limit of such records, or of frames, is reached.
    NoBuffers => ENOBUFS,
    /// Sending after the sending side was shut down, or after the connection ended.
    BrokenPipe => EPIPE,
    /// The peer answered with a reset while we asked for a connection, or the port of a datagram is closed.
    ConnectionRefused => ECONNREFUSED,
    /// The peer reset the connection.
    ConnectionReset => ECONNRESET,
    /// The connection ended before accept(2) could give it.
    ConnectionAborted => ECONNABORTED,
    /// The peer did not acknowledge in time (RFC 9293 §3.8.3, R2; RFC 5482; keep-alive).
    TimedOut => ETIMEDOUT,
    /// A router or the link says that the host is not reached.
    HostUnreachable => EHOSTUNREACH,
    /// There is no route.
    NetworkUnreachable => ENETUNREACH,
    /// The interface is down or gone.
    NetworkDown => ENETDOWN,
    /// The destination does not speak the protocol (ICMP, protocol unreachable).
    ProtocolUnreachable => ENOPROTOOPT,
    /// A message of the network that fits no other row (ICMP, parameter problem).
    Protocol => EPROTO,
    /// A router does not know the host (ICMP, host unknown).
    HostDown => EHOSTDOWN,
    /// A router says that our own host is isolated (ICMP, source host isolated).
    NoNetwork => ENONET,
}

impl Error {
    /// What a record keeps: never 0.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// What a record has kept.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let index = code.checked_sub(1)?;
        Some(ERRORS.get(usize::from(index)).map_or(Self::Corrupt, |row| row.0))
    }

    /// The name of its errno.
    #[must_use]
    pub const fn errno(self) -> &'static str {
        ERRORS[self as usize].1
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.errno(), ERRORS[*self as usize].2)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_an_error_or_none() {
        assert_eq!(Error::from_code(0), None);
        for (error, errno, doc) in ERRORS {
            assert_eq!(Error::from_code(error.code()), Some(*error));
            assert_eq!(error.errno(), *errno);
            assert!(errno.starts_with('E') && doc.ends_with('.'), "{error}");
        }
        for code in ERRORS.len() as u8 + 1..=u8::MAX {
            assert_eq!(Error::from_code(code), Some(Error::Corrupt));
        }
    }

    #[test]
    fn it_prints_its_errno_and_its_meaning() {
        let text = Error::NotConnected.to_string();
        assert_eq!(text, "ENOTCONN: The socket has no peer.");
    }
}
