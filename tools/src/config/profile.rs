//! Profiles: named sets of options, looked up where people put them, and three that are built in.

use super::file::{self, File, Role};
use crate::refusal::Refusal;
use crate::words;
use std::path::{Path, PathBuf};

/// The profiles that come with accel.
pub(crate) const SHIPPED: &[(&str, &str)] = &[
    ("latency", include_str!("../profiles/latency.toml")),
    ("throughput", include_str!("../profiles/throughput.toml")),
    ("safe", include_str!("../profiles/safe.toml")),
];

/// Where configuration is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The system's directory, `/etc/accel`.
    pub system: PathBuf,
    /// The user's directory, `~/.config/accel`, if the user has a home.
    pub user: Option<PathBuf>,
}

impl Places {
    /// The directories of the process that runs.
    pub(crate) fn of_environment() -> Self {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        Self { system: PathBuf::from("/etc/accel"), user: user.map(|path| path.join("accel")) }
    }

    /// The configuration files, the stronger last.
    pub(crate) fn config_files(&self) -> impl Iterator<Item = PathBuf> {
        [Some(&self.system), self.user.as_ref()].into_iter().flatten().map(|path| path.join("accel.toml"))
    }

    fn profile_files(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let file = format!("{name}.toml");
        [self.user.as_ref(), Some(&self.system)]
            .into_iter()
            .flatten()
            .map(move |path| path.join("profiles").join(&file))
    }

    /// Names of all profiles that would be found, except those in the current directory.
    pub(crate) fn profile_names(&self) -> Vec<String> {
        let mut names: Vec<String> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
        for directory in [self.user.as_ref(), Some(&self.system)].into_iter().flatten() {
            for entry in std::fs::read_dir(directory.join("profiles")).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "toml")
                    && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
                {
                    names.push(stem.to_owned());
                }
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Who names the profile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker<'a> {
    /// `-p`: paths are relative to the current directory, where `NAME.toml` is looked for first.
    CommandLine,
    /// A configuration file: paths are relative to it, and the current directory does not matter.
    File(&'a Path),
}

/// Finds and reads a profile.
pub(crate) fn load(name: &str, asker: Asker<'_>, places: &Places) -> Result<File, Refusal> {
    let source = match asker {
        Asker::CommandLine => "-p".to_owned(),
        Asker::File(path) => format!("{}:", path.display()),
    };
    if name.is_empty() {
        return Err(Refusal::usage(format!("{source} an empty profile name; name one of {}.", list(places))));
    }
    if name.contains('/') {
        let path = match asker {
            Asker::CommandLine => PathBuf::from(name),
            Asker::File(file) => file.parent().unwrap_or(Path::new("/")).join(name),
        };
        return file::read(&path, Role::Profile)?
            .ok_or_else(|| Refusal::usage(format!("{source} {name}: there is no such profile file.")));
    }
    let here = matches!(asker, Asker::CommandLine).then(|| PathBuf::from(format!("./{name}.toml")));
    for path in here.into_iter().chain(places.profile_files(name)) {
        if let Some(file) = file::read(&path, Role::Profile)? {
            return Ok(file);
        }
    }
    if let Some((name, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return file::parse(Path::new(&format!("built-in profile {name}")), text, Role::Profile);
    }
    let names = places.profile_names();
    let near = words::did_you_mean(name, names.iter().map(String::as_str));
    Err(Refusal::usage(format!(
        "{source} {name}: there is no profile `{name}`{near}; there are {}, \
         and `./{name}.toml` would be read too.",
        list(places)
    )))
}

fn list(places: &Places) -> String {
    places.profile_names().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_valid_and_say_what_they_are_for() {
        let nowhere = Places { system: "/nonexistent".into(), user: None };
        for (name, _) in SHIPPED {
            let file = load(name, Asker::CommandLine, &nowhere).unwrap();
            assert!(!file.description.is_empty(), "{name}");
            assert!(!file.top.entries.is_empty(), "{name}");
        }
    }

    #[test]
    fn an_unknown_profile_is_refused_with_the_names_of_those_that_exist() {
        let nowhere = Places { system: "/nonexistent".into(), user: None };
        let refusal = load("latecny", Asker::CommandLine, &nowhere).unwrap_err();
        assert!(refusal.message.contains("did you mean `latency`?"), "{refusal}");
        assert!(refusal.message.contains("latency, safe, throughput"), "{refusal}");
        assert_eq!(refusal.status, 2);
    }
}
