//! Which script covers which requirement.
//!
//! `requirements/rfcN.txt` lists what an RFC asks for: a name, and the words that say it. A script that covers one begins with a
//! comment: `// RFC 9293 MUST-36: "Probing of zero (offered) windows MUST be supported"`, of which the words stand in the list. What
//! scripts can't show is in `requirements/elsewhere.txt`: a test that does, or the reason why it isn't met.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// `9293`.
    pub rfc: String,
    /// `MUST-36`, or a section and a number.
    pub name: String,
    /// What it says.
    pub words: String,
}

/// How a requirement is covered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// By a script of the suite.
    Script(String),
    /// By a test: its file and name.
    Test(String, String),
    /// It isn't met, or isn't the stack's: why.
    Departure(String),
}

/// Scripts about system calls, which no RFC speaks of.
const CALLS: &str = "calls/";

/// Everything that is known of requirements, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The requirements, in their order.
    pub requirements: Vec<Requirement>,
    /// What covers each, by RFC and name.
    pub covers: BTreeMap<(String, String), Vec<Cover>>,
    /// What can't be true.
    pub wrong: Vec<String>,
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

impl Coverage {
    /// Reads the lists below `script`, the scripts, and the tests that are named in the workspace `root`.
    ///
    /// # Panics
    /// If a file of them can't be read.
    #[must_use]
    pub fn read(script: &Path, root: &Path, scripts: &[(String, String)]) -> Self {
        let mut coverage = Self::default();
        let mut lists: Vec<_> = fs::read_dir(script.join("requirements"))
            .expect("lists")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        lists.sort();
        for list in &lists {
            let name = list.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if let Some(rfc) = name.strip_prefix("rfc") {
                lines(list).iter().for_each(|line| coverage.requirement(rfc, line));
            }
        }
        for (path, text) in scripts {
            coverage.script(path, text);
        }
        for line in lines(&script.join("requirements/elsewhere.txt")) {
            coverage.elsewhere(root, &line);
        }
        coverage
    }

    fn requirement(&mut self, rfc: &str, line: &str) {
        let Some((name, words)) = line.split_once(" | ") else {
            return self.wrong.push(format!("RFC {rfc}: no words in {line}"));
        };
        let requirement = Requirement { rfc: rfc.to_owned(), name: name.to_owned(), words: squeezed(words) };
        if self.find(rfc, name).is_some() {
            self.wrong.push(format!("RFC {rfc} {name} is listed twice"));
        }
        self.requirements.push(requirement);
    }

    fn find(&self, rfc: &str, name: &str) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| requirement.rfc == rfc && requirement.name == name)
    }

    fn cover(&mut self, rfc: &str, name: &str, cover: Cover) {
        self.covers.entry((rfc.to_owned(), name.to_owned())).or_default().push(cover);
    }

    fn script(&mut self, path: &str, text: &str) {
        let mut is_named = false;
        for line in text.lines().filter_map(|line| line.strip_prefix("// RFC ")) {
            let Some((head, words)) = line.split_once(": \"") else { continue };
            let Some((rfc, name)) = head.split_once(' ') else { continue };
            let words = squeezed(words.strip_suffix('"').unwrap_or(words));
            match self.find(rfc, name) {
                None => self.wrong.push(format!("{path}: RFC {rfc} {name} is in no list")),
                Some(known) if !known.words.contains(&words) => {
                    self.wrong.push(format!("{path}: RFC {rfc} {name} doesn't say \"{words}\""));
                }
                Some(_) => {
                    is_named = true;
                    self.cover(rfc, name, Cover::Script(path.to_owned()));
                }
            }
        }
        if !is_named && !path.starts_with(CALLS) {
            self.wrong.push(format!("{path} names no requirement"));
        }
    }

    /// `RFC 9293 MUST-2 | test file: name`, or `RFC 9293 MUST-51 | departure: why`.
    fn elsewhere(&mut self, root: &Path, line: &str) {
        let parts = line.split_once(" | ").and_then(|(head, cover)| {
            let (rfc, name) = head.strip_prefix("RFC ")?.split_once(' ')?;
            let (kind, rest) = cover.split_once(' ')?;
            Some((rfc.to_owned(), name.to_owned(), kind, rest))
        });
        let Some((rfc, name, kind, rest)) = parts else {
            return self.wrong.push(format!("neither a test nor a departure: {line}"));
        };
        if self.find(&rfc, &name).is_none() {
            self.wrong.push(format!("RFC {rfc} {name} is in no list"));
        }
        match (kind, rest.split_once(": ")) {
            ("test", Some((file, test))) => {
                let text = fs::read_to_string(root.join(file)).unwrap_or_default();
                if !text.contains(&format!("fn {test}(")) {
                    self.wrong.push(format!("RFC {rfc} {name}: there is no test {test} in {file}"));
                }
                self.cover(&rfc, &name, Cover::Test(file.to_owned(), test.to_owned()));
            }
            ("departure:", _) => self.cover(&rfc, &name, Cover::Departure(rest.to_owned())),
            _ => self.wrong.push(format!("neither a test nor a departure: {line}")),
        }
    }

    /// Requirements that nothing covers.
    #[must_use]
    pub fn uncovered(&self) -> Vec<String> {
        let covered = |requirement: &&Requirement| {
            !self.covers.contains_key(&(requirement.rfc.clone(), requirement.name.clone()))
        };
        let open = self.requirements.iter().filter(covered);
        open.map(|requirement| format!("RFC {} {}: {}", requirement.rfc, requirement.name, requirement.words))
            .collect()
    }

    /// The table, as it stands beside the scripts.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = "# Requirements and what covers them\n\nWritten by `ACCEL_BLESS=1 cargo test -p accel-tests --test \
             script every_requirement`.\n"
            .to_owned();
        let mut rfc = "";
        for requirement in &self.requirements {
            if requirement.rfc != rfc {
                rfc = &requirement.rfc;
                let _ =
                    write!(table, "\n## RFC {rfc}\n\n| requirement | words | covered by |\n|---|---|---|\n");
            }
            let key = (requirement.rfc.clone(), requirement.name.clone());
            let covers: Vec<String> = self.covers.get(&key).into_iter().flatten().map(Cover::cell).collect();
            let words = requirement.words.replace('|', "\\|");
            let _ = writeln!(table, "| {} | {words} | {} |", requirement.name, covers.join("; "));
        }
        table
    }
}

impl Cover {
    fn cell(&self) -> String {
        match self {
            Self::Script(path) => format!("`{path}`"),
            Self::Test(file, name) => format!("{name} in `{file}`"),
            Self::Departure(why) => format!("**departure**: {why}"),
        }
    }
}
