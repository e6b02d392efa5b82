//! Errors of system calls: their numbers and names.

use stack::error::Error;

/// The number of an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

macro_rules! names {
    ($($name:ident)+) => {
        /// Each name that a script may use, and its number.
        pub const NAMES: &[(&str, i32)] = &[$((stringify!($name), libc::$name)),+];
    };
}

names! {
    EPERM EIO EBADF EAGAIN EACCES EFAULT EINVAL EPIPE EPROTO EMFILE ENOTSOCK EDESTADDRREQ EMSGSIZE ENOPROTOOPT EPROTONOSUPPORT
    EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ETIMEDOUT ECONNREFUSED EHOSTDOWN ENONET EDOM EHOSTUNREACH EALREADY EINPROGRESS EINTR ENOTTY EEXIST ENOENT ESPIPE ENODEV
}

impl Errno {
    /// The number of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|row| row.0 == name).map(|row| Self(row.1))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.1 == self.0).map_or("an error without a name", |row| row.0)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self::named(error.errno()).unwrap_or(Self(libc::EIO))
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use stack::error::ERRORS;

    use super::*;

    #[test]
    fn every_error_of_the_stack_has_its_number() {
        for (error, name, _) in ERRORS {
            assert_eq!(Errno::from(*error).name(), *name);
        }
    }
}
