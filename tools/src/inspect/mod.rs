//! What runs under accel: the sockets of live processes, read without stopping them.
//!
//! Two sources are joined: the cards that the library publishes (`driver::cards`) and what /proc says of
//! every socket of the process, also of those that accel does not follow.

mod carried;
pub(crate) mod explain;
pub(crate) mod follow;
pub(crate) mod process;
pub(crate) mod sockets;
pub(crate) mod stat;
pub(crate) mod view;
