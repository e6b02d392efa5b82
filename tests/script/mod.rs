//! Scripts of packetdrill's language, run over the stack in virtual time.
//!
//! [`parse`] reads a script, [`run`] runs it. What is understood: packets of TCP and errors of ICMP, in and out, with their
//! options and ECN's bits; system calls, those that wait among them; times absolute, relative, in ranges, or none;
//! assertions about TCP_INFO; and commands that set the kernel's parameters, as far as they mean something here. The same
//! files are to pass under packetdrill itself on Linux.

use std::fs;
use std::path::{Path, PathBuf};

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

/// The suite of this repository.
#[must_use]
pub fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("script/suite")
}

/// Every script below a directory.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn scripts(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of scripts").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(scripts(&path));
        } else if path.extension().is_some_and(|extension| extension == "pkt") {
            found.push(path);
        }
    }
    found.sort();
    found
}
