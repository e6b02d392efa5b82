//! Scripts of packetdrill's language, run over the stack in virtual time.
//!
//! [`parse`] reads a script, [`run`] runs it. What is understood: packets of TCP and errors of ICMP, in and out, with their
//! options and ECN's bits; system calls, those that wait among them; times absolute, relative, in ranges, or none;
//! assertions about TCP_INFO; and commands that set the kernel's parameters, as far as they mean something here. The same
//! files are to pass under packetdrill itself on Linux.

pub mod code;
pub mod coverage;
pub mod flow;
pub mod options;
pub mod parse;
pub mod run;
pub mod scan;
pub mod shell;
pub mod symbols;
pub mod syntax;
pub mod system;
pub mod wire;
