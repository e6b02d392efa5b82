//! Why a call failed, or what became of a connection.
//!
//! One closed set for the whole stack. Each row says which errno of Linux it becomes, with its number on x86-64 and aarch64. A
//! socket keeps a pending one as a byte ([`Error::code`]): 0 is none, and a byte that no row has is [`Error::Corrupt`].

use core::fmt;

macro_rules! errors {
    ($($(#[doc = $doc:literal])+ $name:ident => $errno:ident $number:literal,)+) => {
        /// Why a call failed, or what became of a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Error {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nBecomes `", stringify!($errno), "`.")] $name,)+
        }

        /// Every error, the name of its errno, and what it means.
        pub const ERRORS: &[(Error, &str, &str)] =
            &[$((Error::$name, stringify!($errno), concat!($($doc),+))),+];

        impl Error {
            /// The number of its errno.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self {
                    $(Self::$name => $number,)+
                }
            }
        }
    };
}

errors! {
    /// The region holds what no stack has written: a record, a list or a table is broken.
    Corrupt => EIO 5,
    /// Nothing can be done now without waiting; readiness tells when.
    WouldBlock => EAGAIN 11,
    /// The handshake has begun and goes on (connect(2) on a socket that does not wait).
    InProgress => EINPROGRESS 115,
    /// A handshake that was begun earlier still goes on.
    Already => EALREADY 114,
    /// The socket has a peer already.
    IsConnected => EISCONN 106,
    /// The socket has no peer.
    NotConnected => ENOTCONN 107,
    /// A datagram without a destination on a socket without a peer.
    DestinationRequired => EDESTADDRREQ 89,
    /// Another socket has the address and port, and they are not shared.
    AddressInUse => EADDRINUSE 98,
    /// The address is not one of ours, or no ephemeral port is left towards that peer.
    AddressNotAvailable => EADDRNOTAVAIL 99,
    /// The address is of a family that this socket does not speak.
    AddressFamily => EAFNOSUPPORT 97,
    /// The arguments, or the socket's state, make no sense for this call.
    Invalid => EINVAL 22,
    /// The call is for another kind of socket; or a source route failed (ICMP).
    NotSupported => EOPNOTSUPP 95,
    /// There is no such option.
    NoSuchOption => ENOPROTOOPT 92,
    /// The handle names no socket: it was closed, or never was one.
    BadHandle => EBADF 9,
    /// A broadcast without SO_BROADCAST, or what the owner of the stack, a router or a firewall forbids.
    Forbidden => EACCES 13,
    /// The datagram is larger than the protocol, or the path without fragments, carries.
    MessageSize => EMSGSIZE 90,
    /// The region's limit of such records, or of frames, is reached.
    NoBuffers => ENOBUFS 105,
    /// Sending after the sending side was shut down, or after the connection ended.
    BrokenPipe => EPIPE 32,
    /// The peer answered with a reset while we asked for a connection, or the port of a datagram is closed.
    ConnectionRefused => ECONNREFUSED 111,
    /// The peer reset the connection.
    ConnectionReset => ECONNRESET 104,
    /// The connection ended before accept(2) could give it.
    ConnectionAborted => ECONNABORTED 103,
    /// The peer did not acknowledge in time (RFC 9293 §3.8.3, R2; RFC 5482; keep-alive).
    TimedOut => ETIMEDOUT 110,
    /// A router or the link says that the host is not reached.
    HostUnreachable => EHOSTUNREACH 113,
    /// There is no route.
    NetworkUnreachable => ENETUNREACH 101,
    /// The interface is down or gone.
    NetworkDown => ENETDOWN 100,
    /// The destination does not speak the protocol (ICMP, protocol unreachable).
    ProtocolUnreachable => ENOPROTOOPT 92,
    /// A message of the network that fits no other row (ICMP, parameter problem).
    Protocol => EPROTO 71,
    /// A router does not know the host (ICMP, host unknown).
    HostDown => EHOSTDOWN 112,
    /// A router says that our own host is isolated (ICMP, source host isolated).
    NoNetwork => ENONET 64,
    /// The caller lacks a right for this value of an option.
    NotPermitted => EPERM 1,
    /// There is no congestion control of this name.
    NotFound => ENOENT 2,
    /// A number that is no part of a time.
    OutOfDomain => EDOM 33,
    /// There is no such interface here.
    NoDevice => ENODEV 19,
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
