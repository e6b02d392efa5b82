//! Puts the layers of options on top of each other.

use super::file::{self, File, Role, Section};
use super::profile::{self, Asker, Places};
use super::settings::{self, Settings};
use crate::refusal::Refusal;
use crate::words;
use rows::options::{self, Id, OPTIONS};
use std::ffi::OsString;

/// What the command line and the environment say about options.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// `-p`, split at commas.
    pub profiles: Vec<String>,
    /// `-o`, in order.
    pub assignments: Vec<String>,
    /// The file name of the program, for `[app."…"]` sections.
    pub program: String,
    /// The caller's environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// The settings with which the program starts.
pub(crate) fn resolve(request: &Request, places: &Places) -> Result<Settings, Refusal> {
    let mut settings = Settings::default();
    let mut files = Vec::new();
    for path in places.config_files() {
        files.extend(file::read(&path, Role::Config)?);
    }
    for file in &files {
        apply(&mut settings, file, &file.top, "", places)?;
    }
    for file in &files {
        for (pattern, section) in &file.apps {
            if words::matches(pattern, &request.program) {
                apply(&mut settings, file, section, &format!(" [app.\"{pattern}\"]"), places)?;
            }
        }
    }
    for name in &request.profiles {
        let profile = profile::load(name, Asker::CommandLine, places)?;
        apply_profile(&mut settings, name, &profile);
    }
    apply_environment(&mut settings, &request.environment)?;
    for text in &request.assignments {
        let (row, value) = settings::parse_assignment(text)?;
        settings.set(row, value, "the command line");
    }
    Ok(settings)
}

fn apply(
    settings: &mut Settings,
    file: &File,
    section: &Section,
    place: &str,
    places: &Places,
) -> Result<(), Refusal> {
    for name in &section.profiles {
        let profile = profile::load(name, Asker::File(&file.path), places)?;
        apply_profile(settings, name, &profile);
    }
    for entry in &section.entries {
        let origin = format!("{} line {}{place}", file.path.display(), entry.line);
        settings.set(entry.row, entry.text.as_str(), origin);
    }
    Ok(())
}

fn apply_profile(settings: &mut Settings, name: &str, profile: &File) {
    let origin = format!("profile {name} ({})", profile.path.display());
    let origin = origin.replace(&format!("(built-in profile {name})"), "(built in)");
    for entry in &profile.top.entries {
        settings.set(entry.row, entry.text.as_str(), origin.as_str());
    }
    settings.note_profile(name);
}

fn apply_environment(settings: &mut Settings, environment: &[(OsString, OsString)]) -> Result<(), Refusal> {
    for (name, value) in environment {
        let name = name.to_string_lossy();
        let ours = name == "ACCEL" || name.starts_with("ACCEL_");
        if !ours || options::FOR_TESTS.contains(&&*name) {
            continue;
        }
        let Some(row) = options::by_name(&name) else {
            let names = OPTIONS.iter().map(|row| row.name);
            return Err(Refusal::usage(format!(
                "the environment has {name}, which accel does not know{}; \
                 unset it, or see `accel help options`.",
                words::did_you_mean(&name, names)
            )));
        };
        let Some(value) = value.to_str() else {
            return Err(Refusal::usage(format!("{name} in the environment is not UTF-8 text; unset it.")));
        };
        if row.name == Id::Profile.row().name {
            for profile in value.split(',').filter(|profile| !profile.is_empty()) {
                settings.note_profile(profile);
            }
            continue;
        }
        let value = settings::check(row, value)
            .map_err(|why| Refusal::usage(format!("{name} in the environment {why}.")))?;
        settings.set(row, value, "the environment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("accel-resolve-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("user/profiles")).unwrap();
            std::fs::create_dir_all(path.join("system")).unwrap();
            Self(path)
        }

        fn write(&self, path: &str, text: &str) {
            std::fs::write(self.0.join(path), text).unwrap();
        }

        fn places(&self) -> Places {
            Places { system: self.0.join("system"), user: Some(self.0.join("user")) }
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all::<&Path>(&self.0);
        }
    }

    fn value(settings: &Settings, id: Id) -> Option<(String, String)> {
        settings
            .iter()
            .find(|(row, _)| row.name == id.row().name)
            .map(|(_, setting)| (setting.text.clone(), setting.origin.clone()))
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn each_layer_overrides_the_one_below_it() {
        let home = Home::new("layers");
        home.write("system/accel.toml", "local_after = 1\n[app.\"redis-*\"]\nlocal_after = 3\n");
        let mut request = Request { program: "nginx".into(), ..Request::default() };
        let now =
            |request: &Request| value(&resolve(request, &home.places()).unwrap(), Id::LocalAfter).unwrap().0;
        assert_eq!(now(&request), "1");
        home.write("user/accel.toml", "local_after = 2\n");
        assert_eq!(now(&request), "2", "the user's file is above the system's");
        request.program = "redis-server".into();
        assert_eq!(now(&request), "3", "a section is above both files");
        home.write("user/profiles/a.toml", "local_after = 4\n");
        home.write("user/profiles/b.toml", "local_after = 5\n");
        request.profiles = vec!["b".into(), "a".into()];
        assert_eq!(now(&request), "4", "the last profile counts");
        request.environment = variables(&[("ACCEL_LOCAL_AFTER", "6"), ("PATH", "/bin")]);
        assert_eq!(now(&request), "6");
        request.assignments = vec!["local_after=7".into()];
        assert_eq!(now(&request), "7");
    }

    #[test]
    fn a_file_is_above_the_profiles_that_it_names() {
        let home = Home::new("named");
        home.write("user/accel.toml", "profiles = [\"latency\"]\nspin = \"never\"\n");
        let settings = resolve(&Request::default(), &home.places()).unwrap();
        assert_eq!(value(&settings, Id::Spin).unwrap().0, "never");
        let (text, origin) = value(&settings, Id::SpinUsec).unwrap();
        assert_eq!((text.as_str(), origin.as_str()), ("100000000", "profile latency (built in)"));
        assert_eq!(settings.profiles(), "latency");
    }

    #[test]
    fn unknown_and_wrong_variables_are_refused() {
        let home = Home::new("variables");
        let refused = |pairs: &[(&str, &str)]| {
            let request = Request { environment: variables(pairs), ..Request::default() };
            resolve(&request, &home.places()).unwrap_err().message
        };
        assert!(refused(&[("ACCEL_SPIN_USED", "3")]).contains("did you mean `ACCEL_SPIN_USEC`?"));
        assert_eq!(
            refused(&[("ACCEL", "maybe")]),
            "ACCEL in the environment must be on or off, not `maybe`."
        );
    }

    #[test]
    fn a_program_that_accel_starts_may_start_accel() {
        let home = Home::new("nested");
        let request = Request {
            profiles: vec!["safe".into()],
            environment: variables(&[("ACCEL_PROFILE", "latency"), ("ACCEL_SPIN", "hard")]),
            ..Request::default()
        };
        let settings = resolve(&request, &home.places()).unwrap();
        assert_eq!(value(&settings, Id::Spin).unwrap().0, "hard", "what the caller exported counts");
        assert_eq!(settings.profiles(), "safe,latency");
    }
}
