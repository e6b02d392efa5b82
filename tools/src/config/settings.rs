//! The options as they stand: at most one value for each row of the table, and where it came from.

use crate::refusal::Refusal;
use crate::words;
use rows::options::{Id, Kind, OPTIONS, Row};

/// One option's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The value as the library will read it.
    pub text: String,
    /// Where it was written, e.g. `/etc/accel/accel.toml line 3`.
    pub origin: String,
}

/// Every option that somebody set, and the profiles that were applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    values: Vec<(&'static Row, Setting)>,
    profiles: Vec<String>,
}

impl Settings {
    /// Sets an option; the last word counts. The text must have been checked.
    pub(crate) fn set(&mut self, row: &'static Row, text: impl Into<String>, origin: impl Into<String>) {
        let setting = Setting { text: text.into(), origin: origin.into() };
        match self.values.iter_mut().find(|(known, _)| known.name == row.name) {
            Some((_, old)) => *old = setting,
            None => self.values.push((row, setting)),
        }
    }

    /// Notes that a profile was applied.
    pub(crate) fn note_profile(&mut self, name: &str) {
        self.profiles.retain(|known| known != name);
        self.profiles.push(name.to_owned());
    }

    /// The profiles that were applied, in that order, as `ACCEL_PROFILE` has them.
    pub(crate) fn profiles(&self) -> String {
        self.profiles.join(",")
    }

    /// An option's value as text: what was set, or else its default.
    pub(crate) fn text(&self, id: Id) -> String {
        let row = id.row();
        let set = self.values.iter().find(|(known, _)| known.name == row.name);
        set.map_or_else(|| row.default.to_owned(), |(_, setting)| setting.text.clone())
    }

    /// What was set, in the order of the table of options.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Row, &Setting)> {
        OPTIONS.iter().filter_map(|row| {
            self.values.iter().find(|(known, _)| known.name == row.name).map(|(row, setting)| (*row, setting))
        })
    }

    /// The variables that the program gets.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables: Vec<_> =
            self.iter().map(|(row, setting)| (row.name, setting.text.clone())).collect();
        if !self.profiles.is_empty() {
            variables.push((Id::Profile.row().name, self.profiles()));
        }
        variables
    }
}

/// The options that a person may set: all but `ACCEL_PROFILE`, which the launcher writes.
pub(crate) fn settable() -> impl Iterator<Item = &'static Row> {
    OPTIONS.iter().filter(|row| row.name != Id::Profile.row().name)
}

/// The row of a profile key such as `spin_usec`.
pub(crate) fn by_key(key: &str) -> Option<&'static Row> {
    settable().find(|row| row.key() == key)
}

/// The end of a sentence about an unknown key.
pub(crate) fn suggest_key(key: &str, also: &[&str]) -> String {
    let keys: Vec<String> = settable().map(Row::key).collect();
    let candidates = keys.iter().map(String::as_str).chain(also.iter().copied());
    match words::nearest(key, candidates) {
        Some(near) => format!(" (did you mean `{near}`?)"),
        None => "; `accel help options` lists them".to_owned(),
    }
}

/// Checks a value and gives it as the library reads it.
pub(crate) fn check(row: &Row, text: &str) -> Result<String, String> {
    let text = text.trim();
    if row.parse(text).is_some() {
        return Ok(text.to_owned());
    }
    let suggestion = match row.kind {
        Kind::Choice(choices) => words::did_you_mean(text, choices.iter().copied()),
        Kind::Bool => words::did_you_mean(text, ["on", "off", "true", "false"]),
        _ => String::new(),
    };
    Err(format!("must be {}, not `{text}`{suggestion}", row.allowed()))
}

/// Reads a `key=value` of the command line; the variable's name is as good as the key.
pub(crate) fn parse_assignment(text: &str) -> Result<(&'static Row, String), Refusal> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Refusal::usage(format!("-o takes key=value, such as -o spin=hard, not `{text}`.")));
    };
    let key = key.trim();
    let row = by_key(key).or_else(|| settable().find(|row| row.name == key)).ok_or_else(|| {
        Refusal::usage(format!("-o {text}: there is no option `{key}`{}.", suggest_key(key, &[])))
    })?;
    let value =
        check(row, value).map_err(|why| Refusal::usage(format!("-o {text}: `{}` {why}.", row.key())))?;
    Ok((row, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_an_option_counts_and_remembers_its_origin() {
        let mut settings = Settings::default();
        settings.set(Id::Spin.row(), "hard", "a");
        settings.set(Id::Spin.row(), "never", "b");
        let all: Vec<_> = settings.iter().collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1, &Setting { text: "never".into(), origin: "b".into() });
    }

    #[test]
    fn profiles_are_named_once_in_the_order_in_which_they_count() {
        let mut settings = Settings::default();
        for name in ["safe", "latency", "safe"] {
            settings.note_profile(name);
        }
        assert_eq!(settings.environment(), [("ACCEL_PROFILE", "latency,safe".to_owned())]);
    }

    #[test]
    fn assignments_take_keys_and_variables_and_say_what_is_wrong() {
        assert_eq!(parse_assignment("spin=hard").unwrap().1, "hard");
        assert_eq!(parse_assignment("ACCEL_SPIN=never").unwrap().0.name, "ACCEL_SPIN");
        assert_eq!(parse_assignment("ports_exclude=").unwrap().1, "");
        let wrong = parse_assignment("spin=hrad").unwrap_err();
        assert_eq!(
            wrong.message,
            "-o spin=hrad: `spin` must be one of adapt, hard, never, not `hrad` (did you mean `hard`?)."
        );
        assert!(parse_assignment("spinn=hard").unwrap_err().message.contains("did you mean `spin`?"));
        assert!(parse_assignment("spin").unwrap_err().message.contains("key=value"));
        assert!(parse_assignment("profile=x").is_err(), "the launcher writes ACCEL_PROFILE itself");
        assert_eq!(wrong.status, 2);
    }
}
