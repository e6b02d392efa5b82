//! Helpers that the tests share.

/// A network in virtual time.
#[path = "../sim/mod.rs"]
pub mod sim;

/// Scripts of packetdrill's language, in virtual time.
#[path = "../script/mod.rs"]
pub mod script;

/// A network in real time, with Linux on it.
#[path = "../wire/mod.rs"]
pub mod wire;
