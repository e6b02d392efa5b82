//! The rights that driving an interface needs.

use std::fs;
use std::path::{Path, PathBuf};

/// Capabilities by their numbers (capabilities(7)), and what needs them.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (BPF, "CAP_BPF")];
const BPF: u32 = 39;
/// Before CAP_BPF was split off, this was the right to load programs.
const SYS_ADMIN: u32 = 21;

/// What makes a command have them, whoever starts it. CAP_IPC_LOCK lifts the limit on locked memory, which frames are.
const SETCAP: &str = "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep";
/// A copy of our command with this name beside it is the keeper, if it is there. So rights can be given to that alone: the loader
/// cleans the environment of a command that has any (ld.so(8), secure-execution mode), and that of the programs which it starts.
const KEEPER: &str = "accel-keeper";

/// The file of this command.
fn own() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// The file of the keeper.
pub(crate) fn command() -> PathBuf {
    let own = own();
    let beside = own.with_file_name(KEEPER);
    if beside.is_file() { beside } else { own }
}

/// The command by which root gives the rights to whoever may execute the keeper.
pub(crate) fn fix() -> String {
    fix_of(&own(), &command())
}

fn fix_of(own: &Path, command: &Path) -> String {
    let keeper = own.with_file_name(KEEPER);
    let copy = if keeper == command || keeper == own {
        String::new()
    } else {
        format!("cp {} {} && ", own.display(), keeper.display())
    };
    format!("{copy}{SETCAP} {}", keeper.display())
}

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
    fn rights_are_given_to_the_keeper_alone() {
        let [own, keeper] = ["/usr/bin/accel", "/usr/bin/accel-keeper"].map(Path::new);
        let set = format!("{SETCAP} /usr/bin/accel-keeper");
        assert_eq!(fix_of(own, own), format!("cp /usr/bin/accel /usr/bin/accel-keeper && {set}"));
        assert_eq!((fix_of(own, keeper), fix_of(keeper, keeper)), (set.clone(), set));
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(missing_in("Name:\tx\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing_in("CapEff:\t0000000000201000\n"), ["CAP_NET_RAW"]);
        assert_eq!(missing_in("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(missing_in("").len(), 3);
    }
}
