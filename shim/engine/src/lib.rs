//! A stack that runs: its region in memory that processes share, the lock that one of them holds at a time, its device, and
//! the kernel's tables that it follows.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | [`region`] | the memory of a stack's state, mapped | yes |

pub mod region;
