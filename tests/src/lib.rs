//! Helpers that the tests share.

/// A network in virtual time.
#[path = "../sim/mod.rs"]
pub mod sim;

/// Scripts of packetdrill's language, in virtual time.
#[path = "../script/mod.rs"]
pub mod script;
