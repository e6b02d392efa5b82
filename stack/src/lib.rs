//! TCP, UDP and IP as a sans-I/O library.
//!
//! Bytes, time and randomness are arguments; frames, deadlines and events are results. The engine itself is
//! not here yet: until it is, `accel` has the local and the kernel path. What is here is what it stands on: the
//! [`region`] that holds all of its state, the formats on the [`wire`], and sockets as far as they need no packet.

#![forbid(unsafe_code)]

pub mod demux;
pub mod device;
pub mod error;
pub mod frames;
pub mod hash;
pub mod ip;
pub mod neighbour;
pub mod ports;
pub mod process;
pub mod reassembly;
pub mod recvq;
pub mod region;
pub mod route;
pub mod sendq;
pub mod seq;
pub mod settings;
pub mod stats;
pub mod tcp;
pub mod time;
pub mod udp;
pub mod wire;
