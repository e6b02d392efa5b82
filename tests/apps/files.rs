//! Directories, ports and contents of a run.

use std::collections::HashSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A directory that goes with its owner, unless it is kept for the reader of a failure.
pub(crate) struct TempDir {
    path: PathBuf,
    kept: AtomicBool,
}

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let unique = format!("accel-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the directory is ours");
        Self { path, kept: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory behind and returns its name.
    pub(crate) fn keep(&self) -> PathBuf {
        self.kept.store(true, Ordering::Relaxed);
        self.path.clone()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A TCP port of 127.0.0.1 that nothing uses, below the range that the kernel gives to clients, and never given twice
/// by this process.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut guard = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let given = guard.get_or_insert_with(HashSet::new);
    let start = std::process::id() * 37;
    for step in 0..12_000 {
        let port = 12_000 + u16::try_from((start + step) % 12_000).expect("below 12,000");
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no port between 12000 and 24000 is free");
}

/// `len` bytes that do not repeat in step with any buffer size, printable so that line-minded programs take them.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len);
    for _ in 0..len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push(b'a' + u8::try_from((state >> 33) % 26).expect("below 26"));
    }
    bytes
}

/// An error that names the first difference, unless the file holds just `expected`.
pub(crate) fn same_file(path: &str, expected: &[u8]) -> Result<(), String> {
    let found = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    if found == expected {
        return Ok(());
    }
    let first =
        found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    Err(format!(
        "{path}: {} bytes, expected {}; they differ from byte {first} on",
        found.len(),
        expected.len()
    ))
}
