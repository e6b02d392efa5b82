//! What a command is: found along PATH, followed through `#!` lines, and looked at before it runs.

pub(crate) mod elf;
pub(crate) mod find;
pub(crate) mod verdict;
