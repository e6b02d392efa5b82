//! Which of the stack's counters have moved in any host of any test: each test's program adds their names to a file, if there is a name
//! for it, and the test `counters` reads them when all have run.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use stack::region::{Limits, Shared, shared};

/// The variable that names the file.
pub const FILE: &str = "STACK_COUNTERS";

/// What this program has written already.
static WRITTEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The words of a host's shared part. When it ends, its counters are noted.
#[derive(Debug)]
pub struct Words {
    words: Vec<AtomicU64>,
    limits: Limits,
}

impl Words {
    /// Those of a host with these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let words = (0..shared::words(limits)).map(|_| AtomicU64::new(0)).collect();
        Self { words, limits: *limits }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.words
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let (Some(file), Ok(shared)) = (std::env::var_os(FILE), Shared::split(&self.words, &self.limits)) {
            let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: String = shared
                .counters()
                .moved()
                .filter(|name| written.insert(name))
                .map(|name| format!("{name}\n"))
                .collect();
            if !lines.is_empty() {
                let opened = OpenOptions::new().create(true).append(true).open(&file);
                let done = opened.and_then(|mut file| file.write_all(lines.as_bytes()));
                assert!(done.is_ok(), "{}: {done:?}", file.display());
            }
        }
    }
}
