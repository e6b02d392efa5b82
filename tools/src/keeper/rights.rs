//! The rights that driving an interface needs.

use std::fs;

/// Capabilities by their numbers (capabilities(7)), and what needs them.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (BPF, "CAP_BPF")];
const BPF: u32 = 39;
/// Before CAP_BPF was split off, this was the right to load programs.
const SYS_ADMIN: u32 = 21;

/// What makes a command have them, whoever starts it. CAP_IPC_LOCK lifts the limit on locked memory, which frames are.
pub(crate) const SETCAP: &str = "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep";

/// The needed capabilities that a process with this `/proc/PID/status` doesn't have.
pub(crate) fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    let has = |bit: u32| bits >> bit & 1 != 0;
    let is_had = |bit: u32| has(bit) || (bit == BPF && has(SYS_ADMIN));
    NEEDED.iter().filter(|(bit, _)| !is_had(*bit)).map(|(_, name)| *name).collect()
}

/// Those that this process doesn't have.
pub(crate) fn missing() -> Vec<&'static str> {
    missing_in(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(missing_in("Name:\tx\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing_in("CapEff:\t0000000000201000\n"), ["CAP_NET_RAW"]);
        assert_eq!(missing_in("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(missing_in("").len(), 3);
    }
}
