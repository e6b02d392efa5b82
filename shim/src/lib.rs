//! libaccel.so: the sockets of an unmodified program on their fastest path.
//!
//! **Life of a call.** `recv` enters through [`export`], generated from the table in `rows`. A descriptor that
//! accel does not follow costs one array load and a jump to libc. For a followed one the handler in [`calls`]
//! enters a [`guard`] (signal handlers wait until it leaves), finds the socket's [`slot`], and asks [`rx`]:
//! ring bytes first, then the kernel's, then spin, then sleep in libc's own `recv`.
//!
//! **Life of a connection.** `connect` and `accept` are the kernel's. After a few messages, and some time, the two ends
//! [`meet`] and share memory; from then on each direction is now in its ring, now on the kernel
//! (`driver::switch`). The descriptor is always the live kernel connection, so everything that accel does not
//! do itself stays true. [`close`] holds the ways in which rings end.
//!
//! **Life of a process.** [`family`]: fork, exec, exit. [`epoll`], [`poll`] and [`select`] wait over any mix.

#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(test, allow(dead_code))] // without the exports much is unused

mod buffers;
mod calls;
mod cgroup;
mod close;
mod cmsg;
mod config;
mod cores;
mod environment;
mod epoll;
mod errno;
mod execl;
#[cfg(not(test))]
mod export;
mod family;
mod fdtable;
mod fortify;
mod guard;
mod jump;
mod lock;
mod log;
mod meet;
mod nagle;
mod net;
mod poll;
mod process;
mod rawcall;
mod real;
mod rx;
mod select;
mod signals;
mod slot;
mod spin;
#[cfg(not(test))]
mod startup;
mod statistics;
mod stdio;
mod tx;
mod unread;
