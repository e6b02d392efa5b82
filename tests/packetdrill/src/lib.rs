//! The stack as a host in virtual time: what a script of packetdrill's language sees of a kernel.
//!
//! [`host::Host`] is a region, a device that carries IP packets, and a clock that moves only when it is told. [`files`] is its
//! table of descriptors; [`calls`] are system calls that may have to wait, as operations that are tried again until they are
//! done. Two parties drive it: the runner of this repository's scripts (`tests/script`), and packetdrill itself, by the
//! C interface in `abi`, for which this crate is `libaccel_packetdrill.so`:
//!
//! ```text
//! packetdrill --so_filename=target/release/libaccel_packetdrill.so --so_flags="" script.pkt
//! ```
//!
//! Only `abi` has unsafe code.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod abi;
pub mod calls;
pub mod control;
pub mod errno;
pub mod files;
pub mod host;
pub mod link;
pub mod options;
pub mod world;
