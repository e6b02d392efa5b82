//! `accel bench instructions`: how many instructions a send and a recv cost, by callgrind.
//!
//! The machine need not be quiet for this, and no hardware counter is needed. A process connected to itself
//! sends and receives N and then 2 N messages; the difference over N is what one pair costs, without
//! start-up and without the meeting. Only instructions in user space are seen: the kernel's own work, which
//! is most of the kernel side, is not in the figure.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;

use super::job::{Context, Worker};
use super::show;
use super::side::{Profile, Side, Sides, find_library};
use super::spawn::Process;

const MESSAGES: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(120);

/// What one size of run found.
struct Count {
    instructions: u64,
    ring: Option<f64>,
}

/// Prints the instructions per pair on either side.
pub(crate) fn run(size: u32) -> Result<ExitCode, String> {
    let available = Command::new("valgrind").arg("--version").output().is_ok_and(|out| out.status.success());
    if !available {
        return Err("valgrind is not installed; it counts the instructions".to_owned());
    }
    // The connection is to be upgraded at its first calls, so that both runs are on the ring throughout.
    let extra = vec![("ACCEL_LOCAL_AFTER".to_owned(), "0".to_owned())];
    let sides = Sides { library: Some(find_library()?), extra };
    let context = Context { sides, measure: LIMIT / 4 };
    show(&format!("instructions in user space, {size} B messages, one process connected to itself\n"));
    show(&format!("{:<16}{:>14}{:>10}{:>10}{:>8}\n", "", "send + recv", "send", "recv", "ring"));
    let rows = [("kernel", Side::Kernel), ("accel default", Side::Accel(Profile::Default))];
    for (name, side) in rows {
        let (pair, ring) = per_pair(&context, side, size, None)?;
        let (send, _) = per_pair(&context, side, size, Some("send"))?;
        let (recv, _) = per_pair(&context, side, size, Some("recv"))?;
        let ring = ring.map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0));
        show(&format!("{name:<16}{pair:>14.1}{send:>10.1}{recv:>10.1}{ring:>8}\n"));
    }
    show(
        "\nsend + recv holds the worker's own loop too (marks, checks). The kernel's work inside the system\n\
         calls is not counted: the first row is libc only.\n",
    );
    Ok(ExitCode::SUCCESS)
}

/// Instructions per send and recv, in the whole program or inside one function.
fn per_pair(
    context: &Context,
    side: Side,
    size: u32,
    inside: Option<&str>,
) -> Result<(f64, Option<f64>), String> {
    let one = count(context, side, size, MESSAGES, inside)?;
    let two = count(context, side, size, 2 * MESSAGES, inside)?;
    let difference = two.instructions.saturating_sub(one.instructions);
    Ok((difference as f64 / MESSAGES as f64, two.ring))
}

fn count(
    context: &Context,
    side: Side,
    size: u32,
    messages: u64,
    inside: Option<&str>,
) -> Result<Count, String> {
    let file = std::env::temp_dir().join(format!("accel-bench-callgrind-{}", std::process::id()));
    let words = [format!("count={messages}"), format!("size={size}")];
    let command = under_valgrind(&Worker::new("selfloop", &words).command(context, side)?, &file, inside);
    let mut process = Process::start("valgrind", command, &[])?;
    let printed = process.output(LIMIT);
    let counted = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    let report: Value = serde_json::from_str(printed?.trim()).map_err(|error| format!("worker: {error}"))?;
    let text = counted.map_err(|error| format!("{}: {error}", file.display()))?;
    let instructions = total(&text).ok_or("callgrind wrote no summary")?;
    Ok(Count { instructions, ring: report.get("ring").and_then(Value::as_f64) })
}

/// The same program and environment, below valgrind.
fn under_valgrind(command: &Command, file: &Path, inside: Option<&str>) -> Command {
    let mut wrapped = Command::new("valgrind");
    wrapped.args(["--tool=callgrind", "-q"]);
    wrapped.arg(format!("--callgrind-out-file={}", file.display()));
    if let Some(function) = inside {
        wrapped.arg(format!("--toggle-collect={function}"));
    }
    wrapped.arg(PathBuf::from(command.get_program())).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// The instructions in a callgrind file: its line `totals:` or `summary:`.
fn total(text: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:"))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    text.lines().rev().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_last_of_its_lines() {
        assert_eq!(total("summary: 5\nfn=x\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\n"), None);
    }
}
