//! One process as /proc shows it: its name, its children, and whether the library is in it.

use crate::launch::LIBRARY;
use crate::program::verdict::{self, Kind};
use crate::refusal::Refusal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why accel is, or is not, in a process that publishes no cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The library is loaded.
    Loaded,
    /// It is not, for this reason.
    Absent(String),
}

/// The name of a process, as `ps` shows it.
pub(crate) fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

/// Refuses a process that does not exist or may not be looked at.
pub(crate) fn check(pid: i32) -> Result<(), Refusal> {
    let Ok(facts) = fs::metadata(format!("/proc/{pid}")) else {
        return Err(Refusal::with(1, format!("there is no process {pid}; `ps` shows which there are.")));
    };
    fs::read_dir(format!("/proc/{pid}/fd")).map(drop).map_err(|error| {
        Refusal::with(
            1,
            format!(
                "process {pid} ({}) may not be looked at ({error}); run accel as its user ({}) or as root.",
                name(pid),
                facts.uid()
            ),
        )
    })
}

/// The memory of stacks that a process uses.
pub(crate) fn regions(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = format!("/memfd:{}", engine::region::NAME);
        fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with(&name))
    })
}

/// All processes.
pub(crate) fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// A process and its living descendants.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                if !found.contains(&child) {
                    found.push(child);
                }
            }
        }
    }
    found
}

/// The value of a variable in the environment with which the process started.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|&byte| byte == 0).find_map(|entry| {
        let text = String::from_utf8_lossy(entry);
        text.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
    })
}

/// Whether the library is in the process, and why not.
pub(crate) fn presence(pid: i32) -> Presence {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if maps.lines().any(|line| line.contains(&format!("/{LIBRARY}"))) {
        return Presence::Loaded;
    }
    let preload = variable(pid, "LD_PRELOAD").unwrap_or_default();
    let is_asked_for = preload
        .split([' ', ':'])
        .any(|entry| Path::new(entry).file_name().is_some_and(|name| name == LIBRARY));
    let executable = PathBuf::from(format!("/proc/{pid}/exe"));
    let mut verdict = verdict::judge(&executable, None);
    verdict.binary = fs::read_link(&executable).unwrap_or(verdict.binary);
    // What could not be read says nothing about the process.
    let is_known = !matches!(verdict.kind, Kind::Unreadable | Kind::Unknown(_) | Kind::PlainText);
    let obstacle = verdict.warning().filter(|_| is_known);
    Presence::Absent(match (obstacle, is_asked_for) {
        (Some(warning), _) => warning.replace("so it runs", "so it would run in any case"),
        (None, true) => format!(
            "LD_PRELOAD names {preload}, but the library is not loaded: the file was missing, of another \
             namespace, or the program was started with more rights."
        ),
        (None, false) => format!(
            "its environment has no LD_PRELOAD with {LIBRARY}: it was not started with accel, or \
             sudo, env -i or a service manager cleaned the environment; start it as `accel COMMAND`."
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn a_process_without_the_library_is_told_why() {
        let Presence::Absent(why) = presence(own()) else { panic!("no library here") };
        assert!(why.contains("no LD_PRELOAD with libaccel.so"), "{why}");
    }

    #[test]
    fn children_are_in_the_tree() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let found = tree(own());
        let pid = i32::try_from(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found[0], own());
        // Kernels without CONFIG_PROC_CHILDREN list none.
        if Path::new("/proc/self/task").join(own().to_string()).join("children").exists() {
            assert!(found.contains(&pid));
        }
    }

    #[test]
    fn a_missing_process_is_refused() {
        let refusal = check(i32::MAX).unwrap_err();
        assert_eq!(refusal.status, 1);
        assert!(refusal.message.contains("there is no process"));
        assert_eq!(check(own()), Ok(()));
    }
}
