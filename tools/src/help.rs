//! `accel help TOPIC`: tables made from the rows that the library itself is made from.

use crate::config::file::{self, Role};
use crate::config::profile::{Places, SHIPPED};
use crate::refusal::Refusal;
use crate::words;
use rows::calls::CALLS;
use rows::options::Row;
use rows::reasons::REASONS;
use std::path::Path;
use std::process::ExitCode;

/// The topics that are not commands.
pub(crate) const TOPICS: &[&str] = &["options", "profiles", "calls", "reasons"];

const WIDTH: usize = 100;

/// Prints a topic.
pub(crate) fn run(topic: Option<&str>, root: &mut clap::Command) -> Result<ExitCode, Refusal> {
    match topic {
        None => print!("{}", root.render_long_help()),
        Some("options") => print!("{}", options()),
        Some("profiles") => print!("{}", profiles(&Places::of_environment())),
        Some("calls") => print!("{}", calls()),
        Some("reasons") => print!("{}", reasons()),
        Some(name) => match root.find_subcommand_mut(name) {
            Some(command) => print!("{}", command.render_long_help()),
            None => {
                let commands: Vec<String> =
                    root.get_subcommands().map(|command| command.get_name().to_owned()).collect();
                let all: Vec<&str> =
                    TOPICS.iter().copied().chain(commands.iter().map(String::as_str)).collect();
                return Err(Refusal::usage(format!(
                    "there is no help on `{name}`{}; there is on {}.",
                    words::did_you_mean(name, all.iter().copied()),
                    all.join(", ")
                )));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// The options, one paragraph each.
pub(crate) fn options() -> String {
    let mut text = String::from(
        "Options, as `-o key=value`, as keys of profiles and of accel.toml, or as \
         variables of the environment.\nLater counts: defaults, /etc/accel/accel.toml, \
         ~/.config/accel/accel.toml, \
         their [app.\"name\"] sections,\n-p profiles, the environment, -o.\n",
    );
    for row in crate::config::settings::settable() {
        text += &option(row);
    }
    text
}

fn option(row: &Row) -> String {
    let default = if row.default.is_empty() { "empty" } else { row.default };
    let mut head = format!("\n{}  ({})\n", row.key(), row.name);
    head += &wrap(&format!("{}; default {default}.", row.allowed()), 4);
    head += &wrap(row.doc, 4);
    if !row.onload.is_empty() {
        head += &format!("    Onload: {}\n", row.onload);
    }
    head
}

/// The profiles, a paragraph each, with what they set.
pub(crate) fn profiles(places: &Places) -> String {
    let mut text = String::from("Profiles, for -p and for `profiles = [\"name\"]` in accel.toml.\n");
    for (name, source) in SHIPPED {
        let Ok(file) = file::parse(Path::new(name), source, Role::Profile) else { continue };
        text += &format!("\n{name}  (built in)\n{}", wrap(&file.description, 4));
        for entry in &file.top.entries {
            text += &format!("    {} = {}\n", entry.row.key(), entry.text);
        }
    }
    let shipped = |name: &String| SHIPPED.iter().any(|(known, _)| known == name);
    let others: Vec<String> = places.profile_names().into_iter().filter(|name| !shipped(name)).collect();
    if !others.is_empty() {
        text += &format!("\nInstalled here: {}\n", others.join(", "));
    }
    text += "\nYour own: NAME.toml with option keys, in the current directory, in ~/.config/accel/profiles\n\
             or in /etc/accel/profiles; or name the file by a path with a slash.\n";
    text
}

/// The interposed calls, a line each.
pub(crate) fn calls() -> String {
    let mut text =
        format!("The {} functions of libc that accel interposes, and what it does.\n\n", CALLS.len());
    for call in CALLS {
        text += &format!("{:<18} {}\n", call.name, call.doc);
    }
    text
}

/// The reasons that `accel explain` gives, a paragraph each.
pub(crate) fn reasons() -> String {
    let mut text =
        String::from("Why a socket is on the kernel, as `accel explain` and `accel stat` name it.\n\n");
    for (_, word, doc) in REASONS {
        text += &format!("{word:<22} {}\n", wrap(doc, 23).trim());
    }
    text
}

/// Breaks a paragraph into lines that begin with `indent` spaces.
pub(crate) fn wrap(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = " ".repeat(indent);
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() > WIDTH && line.trim() != "" {
            lines += line.trim_end();
            lines.push('\n');
            line = " ".repeat(indent);
        }
        line += word;
        line.push(' ');
    }
    lines += line.trim_end();
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use rows::options::OPTIONS;

    #[test]
    fn every_row_of_every_table_is_shown() {
        let text = options();
        for row in OPTIONS.iter().filter(|row| row.name != "ACCEL_PROFILE") {
            assert!(text.contains(&format!("({})", row.name)), "{}", row.name);
        }
        assert!(calls().contains("epoll_wait"));
        assert_eq!(calls().lines().count(), CALLS.len() + 2);
        for (_, word, _) in REASONS {
            assert!(reasons().contains(word));
        }
    }

    #[test]
    fn lines_break_at_words() {
        let text = wrap(&"word ".repeat(60), 4);
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")));
        assert_eq!(text.split_whitespace().count(), 60);
    }
}
