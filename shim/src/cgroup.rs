//! How much memory the cgroup of this process allows.
//!
//! Rings are charged to it like the program's own memory, and a program that exceeds it is killed, where the kernel's
//! socket buffers would only have stayed small. So rings take a part of it at most. Nothing here allocates.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cores::contents;

/// The part that rings may take: one in so many bytes.
const PART: u64 = 4;
const UNKNOWN: u64 = 0;

/// Most bytes that rings may hold, so that the program stays alive; read once.
pub(crate) fn allowance() -> u64 {
    static KNOWN: AtomicU64 = AtomicU64::new(UNKNOWN);
    let known = KNOWN.load(Relaxed);
    if known != UNKNOWN {
        return known;
    }
    let allowance = (limit().unwrap_or(u64::MAX) / PART).max(1);
    KNOWN.store(allowance, Relaxed);
    allowance
}

/// The least limit of the process's memory cgroup and those above it, as far as they can be seen from here.
fn limit() -> Option<u64> {
    let mut text = [0u8; 4096];
    let (group, root, file) = memory_group(contents(c"/proc/self/cgroup", &mut text)?)?;
    let above = group.match_indices('/').map(|(at, _)| &group[..at]);
    above.chain([group.trim_end_matches('/')]).filter_map(|group| read([root, group, file])).min()
}

/// The memory cgroup's path in `/proc/self/cgroup`, where it is mounted, and the file with the limit.
fn memory_group(text: &str) -> Option<(&str, &'static str, &'static str)> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let first = fields.clone().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    match first {
        Some((_, group)) => Some((group, "/sys/fs/cgroup/memory", "/memory.limit_in_bytes")),
        None => fields
            .find(|(controllers, _)| controllers.is_empty())
            .map(|(_, group)| (group, "/sys/fs/cgroup", "/memory.max")),
    }
}

/// The number in a file whose path is these parts.
fn read(parts: [&str; 3]) -> Option<u64> {
    let mut path = [0u8; 4096];
    let mut length = 0;
    for part in parts {
        path.get_mut(length..length + part.len())?.copy_from_slice(part.as_bytes());
        length += part.len();
    }
    let mut text = [0u8; 64];
    contents(CStr::from_bytes_until_nul(&path).ok()?, &mut text)?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_group_is_found_in_both_versions() {
        let first = "9:cpu,cpuacct:/a\n4:memory:/docker/b\n0::/c\n";
        assert_eq!(memory_group(first).map(|(group, ..)| group), Some("/docker/b"));
        let second = "0::/user.slice/x.scope\n";
        assert_eq!(memory_group(second), Some(("/user.slice/x.scope", "/sys/fs/cgroup", "/memory.max")));
        assert_eq!(memory_group("nonsense"), None);
    }

    #[test]
    fn a_limit_is_a_number_and_none_is_not() {
        assert_eq!(read(["/proc", "/sys/kernel", "/pid_max"]).map(|most| most > 0), Some(true));
        assert_eq!(read(["/proc", "/sys/kernel", "/ostype"]), None);
        assert_eq!(read(["/no", "/such", "/file"]), None);
        assert!(allowance() > 0);
    }
}
