//! A stack that runs: its region in memory that processes share, the lock that one of them holds at a time, its device, and
//! the kernel's tables that it follows.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | [`control`] | the control plane: the kernel's addresses, routes, rules and neighbours, mirrored | |
//! | [`region`] | the memory of a stack's state, mapped | yes |
//! | [`lock`] | the lock of a stack: one word that processes share | no |
//! | [`look`] | a region seen by a tool | yes |
//! | [`engine`] | the stack at work in this process | yes |
//! | [`bells`] | how those who sleep are told | yes |
//! | [`service`] | the thread that keeps the protocol moving | yes |

pub mod bells;
pub mod control;
pub mod engine;
pub mod lock;
pub mod look;
pub mod region;
pub mod service;
