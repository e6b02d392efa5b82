//! `accel bench`: the kernel against accel, on this machine, in one run.
//!
//! | file | idea |
//! |---|---|
//! | `plan` | the rows: which cases there are, and their targets |
//! | `case` | what a case, an arm, a check and a result are |
//! | `run` | the rounds: every arm of every case in turn, A B A B |
//! | `job`, `apps`, `instructions` | one run of one arm: which processes, which figure |
//! | `side`, `spawn` | kernel or accel environment; a process with a time limit that is always reaped |
//! | `worker` | the programs that are measured, by plain libc calls |
//! | `table`, `json`, `svg` | what is shown |
//! | `sock` | every libc call and all `unsafe` |
//!
//! A figure is the median over the rounds of each round's median. The same worker code runs on both sides.
//! See `bench.md` for what each figure holds and does not hold.

#![deny(unsafe_code)]

mod apps;
mod case;
mod instructions;
mod job;
mod json;
mod plan;
mod run;
mod side;
#[allow(unsafe_code)]
mod sock;
mod spawn;
mod stats;
mod svg;
mod table;
mod worker;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use case::Case;
use job::Context;
use plan::Setting;
use side::{Profile, Sides};

const ABOUT: &str = "Measure the kernel against accel on this machine";
const AFTER: &str =
    "Needs no rights and no other program; redis, memcached, nginx with wrk, and sockperf are measured
if they are installed. Nothing else should run meanwhile: each line of the table is only as good as the
machine was quiet. `--null` runs the kernel against itself and so shows the noise.";

/// The command line of `accel bench`.
pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let value = |name: &'static str, text, help| Arg::new(name).long(name).value_name(text).help(help);
    Command::new("bench")
        .about(ABOUT)
        .after_help(AFTER)
        .args_conflicts_with_subcommands(true)
        .arg(flag("quick", "The main cases in about 20 seconds"))
        .arg(value("only", "NAME,…", "Only these cases or groups (see --list)").value_delimiter(','))
        .arg(flag("list", "List the cases and their targets, and measure nothing"))
        .arg(
            value("rounds", "N", "How often each is measured [default: 5, quick: 3]")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            value("ms", "N", "Milliseconds per measurement [default: 300, quick: 200]")
                .value_parser(value_parser!(u64).range(10..)),
        )
        .arg(value("cpus", "A,B", "Processors of client and server [default: two different cores]"))
        .arg(
            value("profile", "NAME", "Profile of tables by size, grid and applications")
                .default_value("default")
                .value_parser(["default", "latency", "throughput", "safe"]),
        )
        .arg(value("set", "NAME=VALUE", "A further variable of the accel side").action(ArgAction::Append))
        .arg(flag("null", "Kernel against kernel: the differences are noise"))
        .arg(flag("check", "Exit with status 2 if a target is missed"))
        .arg(value("json", "FILE", "Write everything that was measured").value_parser(value_parser!(PathBuf)))
        .arg(value("svg", "DIR", "Write pictures").value_parser(value_parser!(PathBuf)))
        .subcommand(instructions_command())
        .subcommand(worker_command())
}

fn instructions_command() -> Command {
    Command::new("instructions").about("Count the instructions of a 64-byte send and recv with valgrind").arg(
        Arg::new("size")
            .long("size")
            .value_name("BYTES")
            .default_value("64")
            .value_parser(value_parser!(u32).range(1..=65536))
            .help("Size of the messages"),
    )
}

fn worker_command() -> Command {
    Command::new("worker")
        .hide(true)
        .arg(Arg::new("role").required(true))
        .arg(Arg::new("words").action(ArgAction::Append))
}

/// Runs what the command line asks for.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    if let Some(("worker", matches)) = matches.subcommand() {
        let role = matches.get_one::<String>("role").map_or("", String::as_str);
        let words: Vec<String> = matches.get_many("words").into_iter().flatten().cloned().collect();
        return worker::run(role, &words);
    }
    sock::catch_interrupts();
    let outcome = match matches.subcommand() {
        Some(("instructions", matches)) => {
            let size = matches.get_one("size").copied().unwrap_or(64);
            instructions::run(size)
        }
        _ => measure(matches),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("accel bench: {message}");
        ExitCode::FAILURE
    })
}

fn measure(matches: &ArgMatches) -> Result<ExitCode, String> {
    let setting = setting(matches)?;
    let mut cases = select(plan::cases(&setting), matches)?;
    if matches.get_flag("null") {
        cases
            .iter_mut()
            .flat_map(|case| &mut case.arms)
            .for_each(|arm| arm.name = arm.name.replace("accel", "null"));
    }
    if matches.get_flag("list") {
        show(&table::list(&cases));
        return Ok(ExitCode::SUCCESS);
    }
    let quick = matches.get_flag("quick");
    let context = context(matches, quick)?;
    let rounds = matches.get_one("rounds").copied().unwrap_or(if quick { 3 } else { 5 });
    let output = Output { json: matches.get_one("json"), svg: matches.get_one("svg") };
    output.prepare()?;
    eprintln!("{}", table::heading(&cases, rounds, &setting, &context));
    let results = run::rounds(&cases, rounds, &context);
    show(&table::results(&cases, &results));
    for remark in spawn::remarks() {
        eprintln!("the library said: {remark}");
    }
    output.write(&cases, &results, &setting, &context)?;
    Ok(exit_code(&cases, &results, matches.get_flag("check")))
}

/// Prints; whoever reads it may stop reading.
fn show(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Where the results go besides standard output.
struct Output<'a> {
    json: Option<&'a PathBuf>,
    svg: Option<&'a PathBuf>,
}

impl Output<'_> {
    /// Finds out before the measurement whether the results can be written after it.
    fn prepare(&self) -> Result<(), String> {
        if let Some(folder) = self.svg {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        if let Some(file) = self.json {
            std::fs::write(file, "{}\n").map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    fn write(
        &self,
        cases: &[Case],
        results: &[Vec<case::Results>],
        setting: &Setting,
        context: &Context,
    ) -> Result<(), String> {
        if let Some(file) = self.json {
            let text = format!("{:#}\n", json::document(cases, results, setting, context));
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        if let Some(folder) = self.svg {
            for (name, picture) in svg::pictures(cases, results) {
                let file = folder.join(name);
                std::fs::write(&file, picture).map_err(|error| format!("{}: {error}", file.display()))?;
                eprintln!("wrote {}", file.display());
            }
        }
        Ok(())
    }
}

/// 1: something failed, or Ctrl-C; 2: a target was missed and `--check` asks for it.
fn exit_code(cases: &[Case], results: &[Vec<case::Results>], check: bool) -> ExitCode {
    let failed =
        results.iter().flatten().any(|result| matches!(result.failure, Some(job::Failure::Failed(_))));
    if failed || sock::interrupted() {
        ExitCode::FAILURE
    } else if check && table::missed(cases, results) > 0 {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn setting(matches: &ArgMatches) -> Result<Setting, String> {
    let all_cpus = sock::allowed_cpus();
    let cpus = match matches.get_one::<String>("cpus") {
        None => side::two_cpus(&all_cpus),
        Some(text) => match side::cpu_list(text)[..] {
            [client, server] if all_cpus.contains(&client) && all_cpus.contains(&server) => (client, server),
            _ => return Err(format!("--cpus {text}: two of {all_cpus:?} are wanted, as in --cpus 0,1")),
        },
    };
    let profile = matches.get_one::<String>("profile").and_then(|name| Profile::by_name(name));
    Ok(Setting { cpus, all_cpus, profile: profile.unwrap_or(Profile::Default) })
}

fn context(matches: &ArgMatches, quick: bool) -> Result<Context, String> {
    let library = if matches.get_flag("null") { None } else { Some(side::find_library()?) };
    let pair = |text: &String| {
        let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| format!("--set {text}: expected NAME=VALUE"))
    };
    let extra = matches.get_many("set").into_iter().flatten().map(pair).collect::<Result<_, _>>()?;
    let ms = matches.get_one("ms").copied().unwrap_or(if quick { 200 } else { 300 });
    Ok(Context { sides: Sides { library, extra }, measure: Duration::from_millis(ms) })
}

/// The cases that `--quick` and `--only` leave.
fn select(mut cases: Vec<Case>, matches: &ArgMatches) -> Result<Vec<Case>, String> {
    if matches.get_flag("quick") {
        cases.retain(|case| case.quick);
    }
    let names: Vec<&String> = matches.get_many("only").into_iter().flatten().collect();
    let is = |case: &Case, name: &str| {
        let of_family = case.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
        case.name == name || case.group == name || of_family
    };
    if let Some(unknown) = names.iter().find(|name| !cases.iter().any(|case| is(case, name))) {
        return Err(format!("--only {unknown}: no such case or group; see accel bench --list"));
    }
    if !names.is_empty() {
        cases.retain(|case| names.iter().any(|name| is(case, name)));
    }
    Ok(cases)
}
