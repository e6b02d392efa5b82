//! What the stack must reach, measured, with its peers in the same harness.
//!
//! ```text
//! cargo bench -p accel-tests --bench stack                        every row
//! cargo bench -p accel-tests --bench stack -- echo bulk           some
//! cargo bench -p accel-tests --bench stack -- --list              what they are
//!     --quick               a tenth of everything, once
//!     --json FILE           figures, targets and what was met
//!     --svg DIRECTORY       pictures
//! ```
//!
//! Each measurement runs in a process of its own; measurement and peer take turns, and of three rounds the median is shown.
//!
//! **What is counted.** An echo's time is taken around the stack's calls, and what the clock itself takes is subtracted; its
//! instructions are those of the stack's files only. Where both ends run in one thread, carrying packets between the cards is
//! timed apart and subtracted (for smoltcp, too). The program's and the far ends' work in the other rows is a few percent and is counted.
//! What stands for a device here ([`card`]) is two queues and a copy: a driver's rings cost about as much, a system call none.

mod callgrind;
mod card;
mod crr;
mod echo;
mod far;
mod flood;
mod kernel;
mod machine;
mod pair;
mod parts;
mod pictures;
mod report;
mod rows;
mod server;
mod smol;
mod sockets;
mod sys;
mod table;
mod udp;

use std::path::PathBuf;
use std::process::ExitCode;

use rows::{Effort, Outcome, ROWS};

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    rows: Vec<String>,
    quick: bool,
    list: bool,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("--part") => run_part(&args[1..]),
        _ => parse(args).and_then(|asked| run(&asked)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_part(args: &[String]) -> Result<(), String> {
    let (name, numbers) = args.split_first().ok_or("no part")?;
    let numbers: Result<Vec<u32>, _> = numbers.iter().map(|word| word.parse()).collect();
    parts::run(name, &numbers.map_err(|error| format!("{args:?}: {error}"))?)?.print();
    Ok(())
}

fn parse(args: Vec<String>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut path = || args.next().map(PathBuf::from).ok_or(format!("{arg} needs a path"));
        match arg.as_str() {
            "--quick" => asked.quick = true,
            "--list" => asked.list = true,
            "--json" => asked.json = Some(path()?),
            "--svg" => asked.svg = Some(path()?),
            // What cargo adds.
            "--bench" => {}
            name if ROWS.iter().any(|row| row.name == name) => asked.rows.push(arg),
            _ => return Err(format!("no row or option {arg}; --list shows the rows")),
        }
    }
    Ok(asked)
}

fn run(asked: &Asked) -> Result<(), String> {
    if asked.list {
        ROWS.iter().for_each(|row| println!("{:<14}{}", row.name, row.doc));
        return Ok(());
    }
    let effort = if asked.quick { Effort { rounds: 1, part: 0.1 } } else { Effort { rounds: 3, part: 1.0 } };
    let mut outcome = Outcome::default();
    for row in
        ROWS.iter().filter(|row| asked.rows.is_empty() || asked.rows.iter().any(|name| name == row.name))
    {
        eprintln!("{}: {}", row.name, row.doc);
        (row.run)(&effort, &mut outcome);
    }
    print!("{}", table::text(&outcome.lines));
    outcome.skipped.iter().for_each(|line| println!("{line}"));
    if let Some(path) = &asked.json {
        write(path, &json(&outcome))?;
    }
    if let Some(directory) = &asked.svg {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let all = pictures::ratios(&outcome.lines).map(|svg| ("ratios.svg".to_owned(), svg));
        for (name, svg) in outcome.pictures.iter().chain(&all) {
            write(&directory.join(name), svg)?;
        }
    }
    Ok(())
}

fn json(outcome: &Outcome) -> String {
    let lines: Vec<_> = outcome
        .lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "row": line.row,
                "what": line.what.trim(),
                "unit": format!("{:?}", line.unit),
                "ours": line.ours,
                "peer": line.peer.map(|(name, value)| serde_json::json!({"name": name, "figure": value})),
                "target": format!("{:?}", line.target),
                "met": line.is_met(),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({"lines": lines, "skipped": outcome.skipped}))
}

fn write(path: &std::path::Path, content: &str) -> Result<(), String> {
    std::fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}
