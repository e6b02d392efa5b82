//! Instructions by callgrind: a measurement's process under valgrind, and what its profile says, by stage.
//!
//! Inlined code is counted at the file that it stands in, and the standard library's at the file of ours that uses it: so the
//! stages are the stack's own modules, however the compiler cuts them into functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::report::Figures;

/// Instructions per echo.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    /// Of the stack.
    pub(crate) stack: f64,
    /// Of the bench's own card, which stands for a driver's rings, and of what calls the stack.
    pub(crate) bench: f64,
    /// Those of the stack, by stage.
    pub(crate) stages: BTreeMap<&'static str, f64>,
}

/// The stages, in the order of a segment's way.
pub(crate) const STAGES: &[&str] = &["parse", "demux", "tcp input", "read", "write", "output"];

/// A phase of the echo is one function of the bench; what is counted in which.
const PHASES: [(&str, &str); 3] =
    [("*phase_poll*", "tcp input"), ("*phase_read*", "read"), ("*phase_write*", "write")];

/// Whether valgrind is there.
pub(crate) fn is_there() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Counts the stages of an echo.
///
/// # Errors
/// What went wrong, in one sentence.
pub(crate) fn stages(part: &[String]) -> Result<Count, String> {
    let mut count = Count::default();
    for (function, phase) in PHASES {
        let (cost, echoes) = run(part, function)?;
        for (file, instructions) in cost {
            count.add(stage(phase, &file), instructions as f64 / echoes);
        }
    }
    Ok(count)
}

/// Counts an echo as a whole, which is this function of the bench's.
///
/// # Errors
/// What went wrong, in one sentence.
pub(crate) fn total(part: &[String], function: &str) -> Result<Count, String> {
    let (cost, echoes) = run(part, function)?;
    let mut count = Count::default();
    for (file, instructions) in cost {
        count.add(stage("write", &file), instructions as f64 / echoes);
    }
    Ok(count)
}

impl Count {
    fn add(&mut self, stage: Option<&'static str>, instructions: f64) {
        match stage {
            Some(stage) => {
                self.stack += instructions;
                *self.stages.entry(stage).or_default() += instructions;
            }
            None => self.bench += instructions,
        }
    }
}

/// Which stage a file's instructions belong to in this phase; `None` for the bench's own.
fn stage(phase: &'static str, file: &str) -> Option<&'static str> {
    if file.contains("benches/stack/") {
        return None;
    }
    let Some((_, module)) = file.rsplit_once("stack/src/") else { return Some(phase) };
    let is_in = |names: &[&str]| names.iter().any(|name| module.starts_with(name));
    Some(match phase {
        _ if is_in(&["demux", "hash", "region/table"]) => "demux",
        _ if is_in(&["tcp/output"]) => "output",
        "tcp input" if is_in(&["wire", "stack/ingress"]) => "parse",
        "write" if is_in(&["wire"]) => "output",
        _ => phase,
    })
}

/// Runs a measurement's process; instructions by file while `function` runs, and how many echoes it made.
fn run(part: &[String], function: &str) -> Result<(BTreeMap<String, u64>, f64), String> {
    let file = std::env::temp_dir().join(format!("accel-stack-bench-{}.callgrind", std::process::id()));
    let exe = std::env::current_exe().map_err(|error| format!("the bench's own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--instr-atstart=no", "--dump-line=yes"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(format!("--toggle-collect={function}"))
        .arg(exe)
        .arg("--part")
        .args(part)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let profile = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    let figures = Figures::read(&String::from_utf8_lossy(&output.stdout));
    let Some(figures) = figures.filter(|_| output.status.success()) else {
        return Err(format!("under valgrind: {}", String::from_utf8_lossy(&output.stderr)));
    };
    let cost = by_file(&profile, Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")));
    Ok((cost, figures.of("echoes")))
}

/// Instructions by source file, of callgrind's profile (valgrind's manual, "Callgrind Format Specification").
fn by_file(profile: &str, ours: &Path) -> BTreeMap<String, u64> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut cost: BTreeMap<String, u64> = BTreeMap::new();
    let (mut own, mut is_call) = (String::new(), false);
    for line in profile.lines() {
        if let Some((kind, value)) = line.split_once('=') {
            match kind {
                "fl" | "fi" | "fe" => {
                    let here = named(&mut names, value);
                    if kind == "fl" || Path::new(&here).starts_with(ours) {
                        own = here;
                    }
                }
                "cfi" | "cfl" => drop(named(&mut names, value)),
                "calls" => is_call = true,
                _ => {}
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let instructions = line.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            // The line after `calls=` is what the callee cost; it is counted there.
            if !std::mem::take(&mut is_call) {
                *cost.entry(own.clone()).or_default() += instructions;
            }
        }
    }
    cost
}

/// `(3) name` says what 3 stands for from then on; `(3)` is it.
fn named(names: &mut BTreeMap<String, String>, value: &str) -> String {
    let (number, name) = value.split_once(' ').unwrap_or((value, ""));
    if !name.is_empty() {
        names.insert(number.to_owned(), name.to_owned());
    }
    names.get(number).cloned().unwrap_or_default()
}
