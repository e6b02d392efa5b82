//! Helpers that the tests share.

/// A network in virtual time.
#[path = "../sim/mod.rs"]
pub mod sim;
