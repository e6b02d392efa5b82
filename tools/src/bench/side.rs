//! Kernel or accel: what a measured process finds in its environment, and where libaccel.so is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The configuration of accel that a process runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// No variable set: what `accel program` does.
    Default,
    Latency,
    Throughput,
    Safe,
}

/// Who carries a process's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Kernel,
    Accel(Profile),
}

impl Profile {
    /// Every profile.
    const ALL: [Self; 4] = [Self::Default, Self::Latency, Self::Throughput, Self::Safe];

    /// The profile's name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Safe => "safe",
        }
    }

    /// The profile of that name.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// The file that the launcher ships for it.
    fn file(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Latency => include_str!("../profiles/latency.toml"),
            Self::Throughput => include_str!("../profiles/throughput.toml"),
            Self::Safe => include_str!("../profiles/safe.toml"),
        }
    }

    /// The variables that the launcher makes of the shipped file. A user's own file of the same name does
    /// not count: figures are those of the profile that everybody has.
    fn variables(self) -> Vec<(String, String)> {
        let table: toml::Table = self.file().parse().unwrap_or_default();
        let variable = |(key, value): (String, toml::Value)| {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Boolean(on) => if on { "on" } else { "off" }.to_owned(),
                other => other.to_string(),
            };
            (format!("ACCEL_{}", key.to_uppercase()), text)
        };
        table.into_iter().filter(|(key, _)| key != "description").map(variable).collect()
    }
}

/// How processes are started on either side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sides {
    /// `None`: both sides are the kernel (`--null`).
    pub(crate) library: Option<PathBuf>,
    /// Further variables of the accel side.
    pub(crate) extra: Vec<(String, String)>,
}

impl Sides {
    /// Gives the command the environment of `side`; nothing of accel's is inherited.
    pub(crate) fn apply(&self, side: Side, command: &mut Command) {
        command.env_remove("LD_PRELOAD");
        for (name, _) in std::env::vars_os() {
            let is_ours = name.to_str().is_some_and(|name| name == "ACCEL" || name.starts_with("ACCEL_"));
            if is_ours {
                command.env_remove(name);
            }
        }
        if let (Side::Accel(profile), Some(library)) = (side, &self.library) {
            command.env("LD_PRELOAD", library);
            command.envs(profile.variables());
            command.envs(self.extra.iter().map(|(name, value)| (name, value)));
        }
    }
}

/// The library: `ACCEL_LIB`, else beside this program, else where packages put it.
pub(crate) fn find_library() -> Result<PathBuf, String> {
    const NAME: &str = "libaccel.so";
    if let Some(path) = std::env::var_os("ACCEL_LIB") {
        return absolute(Path::new(&path));
    }
    let program = std::env::current_exe().map_err(|error| format!("current program: {error}"))?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    let places =
        [folder.join(NAME), folder.join("../lib").join(NAME), folder.join("../lib/accel").join(NAME)];
    places.iter().find(|path| path.exists()).map_or_else(
        || {
            Err(format!(
                "{NAME} is not beside {}: build it (cargo build --release), or name it in ACCEL_LIB, \
                 or measure the kernel against itself with --null",
                program.display()
            ))
        },
        |path| absolute(path),
    )
}

/// LD_PRELOAD wants a path that holds in every working directory; it splits at spaces and colons.
fn absolute(path: &Path) -> Result<PathBuf, String> {
    let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    match path.to_str() {
        Some(text) if !text.contains([' ', ':']) => Ok(path),
        _ => Err(format!("{}: LD_PRELOAD cannot hold a path with spaces or colons", path.display())),
    }
}

/// Two processors for the two ends: the first allowed one, and one that shares no core with it if possible.
pub(crate) fn two_cpus(allowed: &[usize]) -> (usize, usize) {
    let first = allowed.first().copied().unwrap_or(0);
    let siblings = siblings(first);
    let others = || allowed.iter().copied().filter(|&cpu| cpu != first);
    let second = others().find(|cpu| !siblings.contains(cpu)).or_else(|| others().next());
    (first, second.unwrap_or(first))
}

/// The hardware threads of a processor's core, by the kernel's word.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map(|text| cpu_list(text.trim())).unwrap_or_default()
}

/// Reads `0,2-3`.
pub(crate) fn cpu_list(text: &str) -> Vec<usize> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let range = |part: &str| match part.split_once('-') {
        Some((low, high)) => Some(number(low)?..=number(high)?),
        None => number(part).map(|cpu| cpu..=cpu),
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_ranges() {
        assert_eq!(cpu_list("0,2-4"), [0, 2, 3, 4]);
        assert!(cpu_list("").is_empty());
    }

    #[test]
    fn shipped_profiles_become_variables() {
        let safe = Profile::Safe.variables();
        assert!(safe.contains(&("ACCEL_SPIN".to_owned(), "never".to_owned())), "{safe:?}");
        assert!(Profile::Default.variables().is_empty());
        for profile in [Profile::Latency, Profile::Throughput] {
            assert!(!profile.variables().is_empty(), "{}", profile.name());
        }
    }

    #[test]
    fn one_processor_serves_both_ends() {
        assert_eq!(two_cpus(&[5]), (5, 5));
    }
}
