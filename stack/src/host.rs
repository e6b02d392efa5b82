//! What an administrator sets for all sockets of a stack: one row each, under the name that it has in Linux and with the
//! value that it has there unless somebody changes it.
//!
//! Sockets' own options, where there are such, come before these.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! host {
    ($($name:ident = $default:literal, $least:literal..=$most:expr, $doc:literal;)+) => {
        /// The values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Host {
            $(#[doc = $doc] #[doc = concat!("\n\n", stringify!($least), " to ", stringify!($most), ".")] pub $name: u32,)+
        }

        /// Name, meaning, default, least and most of each, in the order of [`Host`].
        pub const HOST: &[(&str, &str, u32, u32, u32)] =
            &[$((stringify!($name), $doc, $default, $least, $most)),+];

        impl Host {
            /// Linux's values.
            pub const DEFAULT: Self = Self { $($name: $default),+ };

            /// Sets the value of this name; false if there is none, or it can't have this value.
            pub fn set(&mut self, name: &str, value: u32) -> bool {
                match name {
                    $(stringify!($name) if ($least..=$most).contains(&value) => self.$name = value,)+
                    _ => return false,
                }
                true
            }

            /// The value of this name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u32> {
                Some(match name {
                    $(stringify!($name) => self.$name,)+
                    _ => return None,
                })
            }
        }
    };
}

host! {
    tcp_syncookies = 1, 0..=2, "SYN cookies: never, while a listener's queue of SYNs is full, always (RFC 4987 §3.6).";
    tcp_abort_on_overflow = 0, 0..=1, "A handshake for which the accept queue has no room is reset, not held back.";
    tcp_synack_retries = 5, 0..=255, "Retransmissions of a SYN-ACK.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_by_name_and_within_their_bounds() {
        let mut host = Host::DEFAULT;
        for (name, doc, default, least, most) in HOST {
            assert_eq!(host.get(name), Some(*default));
            assert!((least..=most).contains(&default) && doc.ends_with('.'), "{name}");
            assert!(host.set(name, *least) && host.get(name) == Some(*least));
            assert!(most.checked_add(1).is_none_or(|beyond| !host.set(name, beyond)), "{name}");
        }
        assert_eq!((host.set("tcp_nothing", 0), host.get("tcp_nothing")), (false, None));
    }
}
