//! The `accel` command: runs a program with the library, and shows what the library does.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`config`] | options: files, profiles, environment, precedence |
//! | [`program`] | finding a command and judging its binary |
//! | [`launch`] | starting it |
//! | [`inspect`] | `explain` and `stat`: the sockets of live processes |
//! | [`dump`] | packets of the network path |
//! | [`bench`] | the kernel against accel, measured |
//! | [`keeper`] | the process that has the rights to an interface |
//! | [`doctor`] | what this machine allows |
//! | [`help`] | the tables |

#![deny(unsafe_code)]

// Its sock.rs makes the calls that are measured.
#[allow(unsafe_code)]
mod bench;
mod cli;
mod config;
mod doctor;
mod dump;
mod help;
mod inspect;
mod keeper;
mod launch;
mod program;
mod refusal;
mod sys;
mod user;
mod words;

use clap::error::ErrorKind;
use refusal::Refusal;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut root = cli::command();
    let matches = match root.try_get_matches_from_mut(std::env::args_os()) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&cli::refusal(&error)),
    };
    let outcome = match matches.subcommand() {
        // Its workers use sockets, on which SIGPIPE must not end them.
        Some(("bench", chosen)) => cli::check_subcommand("bench", &matches).map(|()| bench::run(chosen)),
        Some((name, chosen)) => {
            sys::end_at_closed_pipe();
            cli::check_subcommand(name, &matches).and_then(|()| subcommand(name, chosen, &mut root))
        }
        None if matches.get_flag("dry-run") => {
            sys::end_at_closed_pipe();
            launch::dry_run(&cli::order(&matches))
        }
        None => launch::run(&cli::order(&matches)),
    };
    outcome.unwrap_or_else(|refusal| fail(&refusal))
}

fn subcommand(name: &str, chosen: &clap::ArgMatches, root: &mut clap::Command) -> Result<ExitCode, Refusal> {
    match name {
        "explain" => match chosen.get_one::<i32>("pid") {
            Some(pid) => inspect::explain::run(*pid),
            None => inspect::follow::run(&cli::order(chosen)),
        },
        "stat" => inspect::stat::run(inspect::stat::Request {
            pid: chosen.get_one::<i32>("pid").copied(),
            is_json: chosen.get_flag("json"),
            interval: chosen.get_one::<u32>("watch").copied(),
        }),
        "dump" => dump::run(&cli::dump_request(chosen)),
        "doctor" => Ok(doctor::run()),
        "keeper" => Ok(keeper::run(&cli::keeper_order(chosen))),
        "keeper-half" => {
            let name = chosen.get_one::<String>("interface").map(String::as_str);
            Ok(keeper::half::run(name.unwrap_or_default()))
        }
        _ => help::run(chosen.get_one::<String>("topic").map(String::as_str), root),
    }
}

fn fail(refusal: &Refusal) -> ExitCode {
    launch::say(&refusal.to_string());
    ExitCode::from(refusal.status)
}
