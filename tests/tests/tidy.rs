//! The repository's own rules: who may use whom, words that have no place, sizes, and README's tables.
//!
//! ```text
//! ACCEL_BLESS=1 cargo test -p accel-tests --test tidy      writes README's tables anew from their rows
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use driver::cards::COUNTERS;
use rows::calls::{CALLS, VARIADIC};
use rows::options::{FOR_TESTS, Kind, OPTIONS};
use rows::reasons::REASONS;

/// What may stand at the top besides files whose names begin with a dot.
const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "driver", "shim", "stack", "tests", "tools"];

/// Each crate of ours, where it is, which of ours it may use, and which of other people's.
const ARROWS: &[(&str, &str, &[&str], &[&str])] = &[
    ("accel-stack", "stack", &["proptest", "zerocopy"], &[]),
    ("accel-rows", "shim/rows", &[], &[]),
    ("accel-driver", "driver", &["accel-stack"], &["libc", "loom", "proptest"]),
    ("accel-engine", "shim/engine", &["accel-stack", "accel-driver"], &["libc"]),
    ("accel-shim", "shim", &["accel-stack", "accel-driver", "accel-engine", "accel-rows"], &["libc"]),
    (
        "accel-tools",
        "tools",
        &["accel-stack", "accel-driver", "accel-engine", "accel-rows"],
        &["clap", "etherparse", "hdrhistogram", "libc", "pcap-file", "serde", "serde_json", "toml"],
    ),
    (
        "accel-tests",
        "tests",
        &[
            "accel-stack",
            "accel-driver",
            "accel-engine",
            "accel-rows",
            "accel-shim",
            "accel-tools",
            "accel-packetdrill",
        ],
        &["libc", "pcap-file", "proptest", "serde_json", "smoltcp"],
    ),
    ("accel-packetdrill", "tests/packetdrill", &["accel-stack"], &["libc"]),
];

/// Longest source file of the crates that make the product.
const LINES_MAX: usize = 700;

/// Misspellings that tests make on purpose.
const MISSPELT: &[&str] = &["ACCEL_SPINN", "ACCEL_SPIN_USED"];

/// Files in which a word for unfinished work means something else.
const OTHER_MEANING: &[&str] = &["tests/suites/ids.py"]; // a directive of TAP

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// Every file that is, or could be, committed; relative to the root.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output();
    let mut found: Vec<String> = match listed {
        Ok(listed) if listed.status.success() => {
            String::from_utf8_lossy(&listed.stdout).split_terminator('\0').map(str::to_owned).collect()
        }
        // Not a clone: an archive of the sources.
        _ => {
            let mut found = Vec::new();
            walk(&root(), "", &mut found);
            found
        }
    };
    found.retain(|path| root().join(path).is_file());
    found.sort();
    found.dedup();
    assert!(found.len() > 50, "the files of the repository: {found:?}");
    found
}

fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            if path != "target" && name != ".git" && name != "__pycache__" {
                walk(&entry.path(), &format!("{path}/"), found);
            }
        } else {
            found.push(path);
        }
    }
}

/// The text of a file, if it is text.
fn read(path: &str) -> Option<String> {
    String::from_utf8(fs::read(root().join(path)).ok()?).ok()
}

/// Rust files below a directory, with their text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let inside = |path: &String| path.starts_with(&format!("{directory}/")) && path.ends_with(".rs");
    files().into_iter().filter(inside).filter_map(|path| Some((path.clone(), read(&path)?))).collect()
}

fn is_test_cfg(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("#[cfg(") && contains_word(line, "test") && !line.contains("not(test)")
}

/// The part of each file that is compiled into the product: no comments, nothing under `cfg(test)`.
fn product(directory: &str) -> Vec<(String, String)> {
    let all = sources(directory);
    let mut only_tests = BTreeSet::new();
    for (path, text) in &all {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| is_test_cfg(pair[0])) {
            if let Some(name) = pair[1].trim().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                let stem = path.trim_end_matches(".rs").trim_end_matches("/lib").trim_end_matches("/mod");
                only_tests.insert(format!("{stem}/{name}.rs"));
                only_tests.insert(format!("{stem}/{name}/mod.rs"));
            }
        }
    }
    let code = |text: &str| {
        let mut code = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            // By our style the tests are the end of a file.
            if is_test_cfg(line)
                && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod tests {"))
            {
                break;
            }
            if !line.trim_start().starts_with("//") {
                code.push_str(line);
            }
            code.push('\n');
        }
        code
    };
    all.into_iter()
        .filter(|(path, _)| !only_tests.contains(path))
        .map(|(path, text)| (path, code(&text)))
        .collect()
}

/// Whether `word` is in the text and not a part of a longer word.
fn contains_word(text: &str, word: &str) -> bool {
    let is_part =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next())
    })
}

/// `path:line: word` for each line of the product code that has one of the words.
fn found_words(directory: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in product(directory) {
        for (number, line) in code.lines().enumerate() {
            for word in words.iter().filter(|word| contains_word(line, word)) {
                found.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    found
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn the_top_level_holds_what_it_should() {
    let top: BTreeSet<String> =
        files().iter().map(|path| path.split('/').next().unwrap_or(path).to_owned()).collect();
    let strange: Vec<String> =
        top.into_iter().filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    none("does not belong at the top", &strange);
}

/// The names under every `[…dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = section.ends_with("dependencies");
            // `[dependencies.name]`
            if let Some((before, name)) = section.rsplit_once('.')
                && before.ends_with("dependencies")
            {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            names.push(line[..end].trim_matches('"').to_owned());
        }
    }
    names
}

#[test]
fn dependencies_follow_the_arrows() {
    let mut wrong = Vec::new();
    for (name, directory, ours, others) in ARROWS {
        let manifest = read(&format!("{directory}/Cargo.toml")).expect("a manifest");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{directory} is {name}");
        for dependency in dependencies(&manifest) {
            if !ours.contains(&dependency.as_str()) && !others.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    none("not among the arrows", &wrong);
    let manifests: Vec<String> = files().into_iter().filter(|path| path.ends_with("/Cargo.toml")).collect();
    let known = |path: &String| ARROWS.iter().any(|row| path == &format!("{}/Cargo.toml", row.1));
    let unknown: Vec<String> = manifests.into_iter().filter(|path| !known(path)).collect();
    none("a crate without a row in ARROWS", &unknown);
}

#[test]
fn the_stack_touches_nothing() {
    let head = read("stack/src/lib.rs").expect("the stack");
    assert!(head.contains("#![forbid(unsafe_code)]"), "stack/src/lib.rs forbids unsafe code");
    let words =
        ["unsafe", "libc", "std::net", "std::time", "Instant::now", "SystemTime", "std::fs", "std::thread"];
    none("has no place in the stack", &found_words("stack", &words));
    assert!(read("shim/rows/src/lib.rs").expect("the rows").contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_library_prints_nothing_and_opens_no_sockets_by_std() {
    // std's sockets and streams end in our own exports (and so in ourselves).
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "std::net"];
    none("in code that is preloaded", &found_words("shim/src", &words));
    none("in code that is preloaded", &found_words("driver/src", &words));
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let calls = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore]")];
    let mut found = Vec::new();
    for path in files().iter().filter(|path| !OTHER_MEANING.contains(&path.as_str())) {
        let Some(text) = read(path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let word = words.iter().find(|word| contains_word(line, word));
            let call = calls.iter().find(|call| path.ends_with(".rs") && line.contains(**call));
            if let Some(what) = word.or(call) {
                found.push(format!("{path}:{}: {what}", number + 1));
            }
        }
    }
    none("unfinished, or a test ignored without a reason", &found);
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for directory in ["shim", "stack", "driver", "tools"] {
        for (path, text) in sources(directory) {
            let lines = text.lines().count();
            if lines > LINES_MAX {
                long.push(format!("{path}: {lines} lines, {LINES_MAX} are allowed"));
            }
        }
    }
    none("too long: one file, one idea", &long);
}

#[test]
fn every_variable_is_an_option() {
    let known = |name: &str| {
        OPTIONS.iter().any(|row| row.name == name) || FOR_TESTS.contains(&name) || MISSPELT.contains(&name)
    };
    let mut strange = BTreeMap::new();
    let named =
        |path: &String| ["shim/", "tools/", "driver/src/", "README.md"].iter().any(|at| path.starts_with(at));
    for path in files().into_iter().filter(named) {
        let Some(text) = read(&path) else { continue };
        for (at, prefix) in text.match_indices("ACCEL_") {
            let rest = &text[at + prefix.len()..];
            let length =
                rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_').unwrap_or(rest.len());
            let name = &text[at..at + prefix.len() + length];
            // `ACCEL_*` is all of them.
            if length > 0 && !known(name) {
                strange.insert(name.to_owned(), path.clone());
            }
        }
    }
    assert!(strange.is_empty(), "neither an option nor a variable of the tests: {strange:?}");
}

#[test]
fn no_file_names_a_developers_machine() {
    let places =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut found = Vec::new();
    for path in files() {
        let Some(text) = read(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(**place)) {
                found.push(format!("{path}:{}: {place}", number + 1));
            }
        }
    }
    none("a path of one machine", &found);
}

// ---- README's tables ----

/// Text for one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn options_table() -> String {
    let mut table = "| variable | key | values | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for row in OPTIONS {
        let values = match row.kind {
            Kind::Choice(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            _ => row.allowed(),
        };
        let default = if row.default.is_empty() { "none".to_owned() } else { format!("`{}`", row.default) };
        let (name, key, doc) = (row.name, row.key(), cell(row.doc));
        let _ = writeln!(table, "| `{name}` | `{key}` | {} | {default} | {doc} |", cell(&values));
    }
    table
}

/// One line for each function; its aliases and fortified forms stand beside it.
fn calls_table() -> String {
    let mut lines: Vec<(Vec<&str>, &str, &str)> = Vec::new();
    for call in CALLS.iter().chain(VARIADIC) {
        let of = call.doc.strip_prefix("alias of ").or_else(|| call.doc.strip_prefix("fortified "));
        let line = match of {
            Some(of) => lines.iter_mut().find(|line| line.0.contains(&of)),
            None => lines.iter_mut().find(|line| (line.1, line.2) == (call.kind, call.doc)),
        };
        match line {
            Some(line) => line.0.push(call.name),
            None => lines.push((vec![call.name], call.kind, call.doc)),
        }
    }
    let mut table = "| functions | when | what accel does |\n|---|---|---|\n".to_owned();
    for (names, kind, doc) in lines {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(table, "| {} | `{kind}` | {} |", names.join(", "), cell(doc));
    }
    table
}

fn reasons_table() -> String {
    let mut table = "| reason | meaning |\n|---|---|\n".to_owned();
    for (_, word, doc) in &REASONS[1..] {
        let _ = writeln!(table, "| `{word}` | {} |", cell(doc));
    }
    table
}

fn counters_table() -> String {
    let mut table = "| counter | meaning |\n|---|---|\n".to_owned();
    for (name, doc) in COUNTERS {
        let _ = writeln!(table, "| `{name}` | {} |", cell(doc.trim()));
    }
    table
}

/// The packages of `.ci/packages` as one command.
fn packages() -> String {
    let list = read(".ci/packages").expect(".ci/packages");
    let names: Vec<&str> = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect();
    let mut text = "```\napt-get install --no-install-recommends".to_owned();
    let mut width = text.len();
    for name in names {
        if width + name.len() > 100 {
            text.push_str(" \\\n   ");
            width = 3;
        }
        width += name.len() + 1;
        let _ = write!(text, " {name}");
    }
    text + "\n```\n"
}

#[test]
fn the_readme_shows_the_rows() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let tables = [
        ("options", options_table()),
        ("calls", calls_table()),
        ("reasons", reasons_table()),
        ("counters", counters_table()),
        ("packages", packages()),
    ];
    let mut fresh = readme.clone();
    for (name, table) in &tables {
        let opening = format!("<!-- table: {name} -->\n");
        let start =
            fresh.find(&opening).unwrap_or_else(|| panic!("README.md has no {opening:?}")) + opening.len();
        let length = fresh[start..].find("<!-- end -->").unwrap_or_else(|| panic!("table {name} has no end"));
        fresh.replace_range(start..start + length, table);
    }
    if std::env::var_os("ACCEL_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, fresh).expect("README.md can be written");
        return;
    }
    let old: BTreeSet<&str> = readme.lines().collect();
    let missing: Vec<&str> = fresh.lines().filter(|line| !old.contains(line)).collect();
    assert!(
        fresh == readme,
        "README.md does not show the tables of shim/rows, driver::cards and .ci/packages; write them anew with\n  \
         ACCEL_BLESS=1 cargo test -p accel-tests --test tidy the_readme\nmissing there:\n{}",
        missing.join("\n")
    );
}
