//! One TOML file, read and checked: option keys, `profiles`, `[app."name"]` sections.

use super::settings::{by_key, check, suggest_key};
use crate::refusal::Refusal;
use crate::sys;
use rows::options::{Kind, Row};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// No configuration is larger; a larger file is a mistake.
const SIZE_MAX: u64 = 1 << 20;

/// What a file may hold besides option keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `accel.toml`: `profiles` and `[app."…"]` sections.
    Config,
    /// A profile: a `description`.
    Profile,
}

/// One `key = value`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The option.
    pub row: &'static Row,
    /// Its value, as the library reads it.
    pub text: String,
    /// The line where it is written.
    pub line: usize,
}

/// The keys of a file or of one of its sections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    /// Profiles to apply before the entries.
    pub profiles: Vec<String>,
    /// The option keys, in the order of the file.
    pub entries: Vec<Entry>,
}

/// A file that passed all checks.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Where it was read, or `built in`.
    pub path: PathBuf,
    /// What a profile says about itself.
    pub description: String,
    /// The keys outside of sections.
    pub top: Section,
    /// Patterns of program names, and what holds for the programs that match.
    pub apps: Vec<(String, Section)>,
}

/// Reads and checks a file; `None` if there is none.
pub(crate) fn read(path: &Path, role: Role) -> Result<Option<File>, Refusal> {
    match read_text(path) {
        Ok(text) => parse(path, &text?, role).map(Some),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Refusal::usage(format!(
            "{} could not be read: {error}; make it readable or remove it.",
            path.display()
        ))),
    }
}

/// The inner result is a refusal to use the file, although it can be read.
fn read_text(path: &Path) -> io::Result<Result<String, Refusal>> {
    // Not blocking: somebody may have put a FIFO here.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let facts = file.metadata()?;
    let refuse = |what: &str| Ok(Err(Refusal::usage(format!("{} {what}.", path.display()))));
    if !facts.is_file() {
        return refuse("is not a plain file; put a TOML file there or remove it");
    }
    if facts.len() > SIZE_MAX {
        return refuse(
            "is larger than 1 MiB, which no accel configuration is; remove it or name another file",
        );
    }
    if let Some(what) = untrusted(sys::effective_user(), facts.uid(), facts.mode()) {
        return refuse(&what);
    }
    let mut bytes = Vec::new();
    file.by_ref().take(SIZE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes)
        .map_err(|_| Refusal::usage(format!("{} is not UTF-8 text; save it as UTF-8.", path.display()))))
}

/// Why this user must not obey a file with this owner and mode: root obeys only what root alone can write.
fn untrusted(user: u32, owner: u32, mode: u32) -> Option<String> {
    if user != 0 {
        None
    } else if owner != 0 {
        Some(format!(
            "belongs to user {owner}, and accel run by root obeys only files of root; \
             `chown root` it or remove it"
        ))
    } else if mode & 0o022 != 0 {
        Some(format!(
            "has mode {:04o}, so others than root can write it, and accel run by root does not obey it; \
             `chmod go-w` it",
            mode & 0o7777
        ))
    } else {
        None
    }
}

/// Checks the text of a file.
pub(crate) fn parse(path: &Path, text: &str, role: Role) -> Result<File, Refusal> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| format!(" line {}", line(text, span.start)));
        let what = error.message().lines().next().unwrap_or_default().to_owned();
        Refusal::usage(format!("{}{place} is not TOML: {what}.", path.display()))
    })?;
    let reader = Reader { path, text, role };
    let mut file =
        File { path: path.to_owned(), description: String::new(), top: Section::default(), apps: Vec::new() };
    for (key, value) in in_order(table.get_ref()) {
        match (role, key.get_ref().as_ref(), value.get_ref()) {
            (Role::Profile, "description", DeValue::String(words)) => file.description = words.to_string(),
            (Role::Config, "app", DeValue::Table(apps)) => {
                for (pattern, section) in in_order(apps) {
                    let DeValue::Table(keys) = section.get_ref() else {
                        return Err(reader.refuse(
                            pattern,
                            &format!("`app.{0}` must be a section, written [app.\"{0}\"]", pattern.get_ref()),
                        ));
                    };
                    let mut found = Section::default();
                    for (key, value) in in_order(keys) {
                        reader.entry(&mut found, key, value)?;
                    }
                    file.apps.push((pattern.get_ref().to_string(), found));
                }
            }
            _ => reader.entry(&mut file.top, key, value)?,
        }
    }
    Ok(file)
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    role: Role,
}

impl Reader<'_> {
    fn entry(&self, section: &mut Section, key: &Key<'_>, value: &Value<'_>) -> Result<(), Refusal> {
        let name = key.get_ref().as_ref();
        if self.role == Role::Config && name == "profiles" {
            section.profiles = profile_names(value.get_ref()).ok_or_else(|| {
                self.refuse(key, "`profiles` must be a list of names such as [\"latency\"]")
            })?;
            return Ok(());
        }
        let also: &[&str] = match self.role {
            Role::Config => &["profiles", "app"],
            Role::Profile => &["description"],
        };
        let row = by_key(name).ok_or_else(|| match (self.role, name) {
            (Role::Profile, "profiles" | "app") => {
                self.refuse(key, &format!("`{name}` belongs into accel.toml, not into a profile"))
            }
            _ if also.contains(&name) => {
                self.refuse(key, &format!("`{name}` must not be {}", article(value.get_ref())))
            }
            _ => self.refuse(key, &format!("there is no option `{name}`{}", suggest_key(name, also))),
        })?;
        let text =
            value_text(row, value.get_ref()).map_err(|why| self.refuse(value, &format!("`{name}` {why}")))?;
        section.entries.push(Entry { row, text, line: line(self.text, key.span().start) });
        Ok(())
    }

    fn refuse<T>(&self, at: &Spanned<T>, what: &str) -> Refusal {
        let line = line(self.text, at.span().start);
        Refusal::usage(format!("{} line {line}: {what}.", self.path.display()))
    }
}

fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

fn profile_names(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::String(name) => Some(name.split(',').map(|name| name.trim().to_owned()).collect()),
        DeValue::Array(names) => {
            names.iter().map(|name| name.get_ref().as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

/// The value as the library reads it from the environment; the type must fit the option.
fn value_text(row: &Row, value: &DeValue<'_>) -> Result<String, String> {
    let text = match (row.kind, value) {
        (_, DeValue::String(text)) => text.to_string(),
        (Kind::Bool, DeValue::Boolean(on)) => (if *on { "on" } else { "off" }).to_owned(),
        (Kind::Number { .. } | Kind::Ports, DeValue::Integer(_)) => scalar(value),
        (Kind::Ports, DeValue::Array(ports))
            if ports
                .iter()
                .all(|port| matches!(port.get_ref(), DeValue::Integer(_) | DeValue::String(_))) =>
        {
            ports.iter().map(|port| scalar(port.get_ref())).collect::<Vec<_>>().join(",")
        }
        _ => return Err(format!("must be {}, not {}", row.allowed(), article(value))),
    };
    check(row, &text)
}

fn scalar(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
        _ => String::new(),
    }
}

fn article(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(on) => format!("the truth value {on}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<File, String> {
        parse(Path::new("a.toml"), text, Role::Config).map_err(|refusal| refusal.message)
    }

    fn values(text: &str) -> Vec<(String, String)> {
        let file = parsed(text).unwrap();
        file.top.entries.iter().map(|entry| (entry.row.key(), entry.text.clone())).collect()
    }

    #[test]
    fn toml_types_become_the_text_that_the_library_reads() {
        let text = "enabled = false\nspin_usec = 1_000\nlocal_ring = \"1M\"\nlocal_memory = 0x100000\n\
                    ports = [80, \"8000-8100\"]\nports_exclude = 443\nspin = \"hard\"\n";
        let expected = [
            ("enabled", "off"),
            ("spin_usec", "1000"),
            ("local_ring", "1M"),
            ("local_memory", "1048576"),
            ("ports", "80,8000-8100"),
            ("ports_exclude", "443"),
            ("spin", "hard"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        assert_eq!(values(text), expected);
    }

    #[test]
    fn mistakes_are_named_with_file_line_key_value_and_what_is_allowed() {
        for (text, expected) in [
            ("\nspin_used = 4", "a.toml line 2: there is no option `spin_used` (did you mean `spin_usec`?)."),
            (
                "spin_usec = \"soon\"",
                "a.toml line 1: `spin_usec` must be a whole number from 0 to 1000000000 (microseconds), \
                 not `soon`.",
            ),
            (
                "spin_usec = true",
                "a.toml line 1: `spin_usec` must be a whole number from 0 to 1000000000 (microseconds), \
                 not the truth value true.",
            ),
            (
                "local_after = 1000001",
                "a.toml line 1: `local_after` must be a whole number from 0 to 1000000 (messages), \
                 not `1000001`.",
            ),
            (
                "local_after = -1",
                "a.toml line 1: `local_after` must be a whole number from 0 to 1000000 (messages), not `-1`.",
            ),
            ("profiles = 3", "a.toml line 1: `profiles` must be a list of names such as [\"latency\"]."),
            ("app = 3", "a.toml line 1: `app` must not be the number 3."),
            ("[app]\nredis = 3", "a.toml line 2: `app.redis` must be a section, written [app.\"redis\"]."),
            ("profile = \"x\"", "a.toml line 1: there is no option `profile` (did you mean `profiles`?)."),
        ] {
            assert_eq!(parsed(text).unwrap_err(), expected);
        }
        let broken = parsed("spin = \"hard\"\nspin_usec = = 3").unwrap_err();
        assert!(broken.starts_with("a.toml line 2 is not TOML: "), "{broken}");
        assert!(parsed("spin = \"hard\"\nspin = \"never\"").unwrap_err().contains("line 2 is not TOML"));
    }

    #[test]
    fn sections_keep_their_order_and_their_profiles() {
        let file = parsed(
            "profiles = [\"safe\"]\n[app.\"z*\"]\nspin = \"hard\"\n\
             [app.\"a\"]\nprofiles = \"latency, mine\"\n",
        )
        .unwrap();
        assert_eq!(file.top.profiles, ["safe"]);
        assert_eq!(file.apps.iter().map(|app| app.0.as_str()).collect::<Vec<_>>(), ["z*", "a"]);
        assert_eq!(file.apps[1].1.profiles, ["latency", "mine"]);
    }

    #[test]
    fn root_obeys_only_what_root_alone_can_write() {
        assert_eq!(untrusted(0, 0, 0o100_644), None);
        assert_eq!(untrusted(1000, 1000, 0o100_666), None, "an ordinary user may do as they like");
        assert!(untrusted(0, 1000, 0o100_644).unwrap().contains("user 1000"));
        assert!(untrusted(0, 0, 0o100_664).unwrap().contains("0664"));
        assert!(untrusted(0, 0, 0o100_646).is_some());
    }
}
