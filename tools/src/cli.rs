//! The command line: what may be written, and the sentence when it is wrong.

use crate::launch::Order;
use crate::refusal::Refusal;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::time::Duration;

const AFTER_HELP: &str = "\
Profiles (built in): latency, throughput, safe. `accel help profiles` shows them.
A program that is named like a command of accel is started after `--`: accel -- stat

  accel redis-server --port 7000       run a program with accel
  accel -p latency -o ports=7000 cmd   with a profile and an option
  accel explain PID                    which sockets are accelerated, and why the others are not
  accel help options                   the table of options

Exit status: the program's own; 127 no such program, 126 it can't be executed, 125 accel refuses
(--strict, no library), 2 bad options or configuration.";

/// The command line of `accel`.
pub(crate) fn command() -> Command {
    Command::new("accel")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Makes the sockets of a program fast, without changing the program.")
        .override_usage(
            "accel [OPTIONS] [--] COMMAND [ARGUMENTS]...\n       accel explain|stat|dump|bench|doctor|help ...",
        )
        .after_help(AFTER_HELP)
        .disable_help_subcommand(true)
        .args(run_options())
        .arg(
            Arg::new("user")
                .short('u')
                .long("user")
                .value_name("NAME")
                .help("Open the interfaces with the rights of root, and run the program as this user"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print the resolved environment and what accel thinks of the program; start nothing"),
        )
        .arg(program().trailing_var_arg(true).help("The program to run and its arguments"))
        .subcommand(
            Command::new("explain")
                .about("Show each socket of a process: its path, or the reason why it is on the kernel")
                .override_usage("accel explain PID\n       accel explain [OPTIONS] -- COMMAND [ARGUMENTS]...")
                .args(run_options())
                .arg(
                    pid()
                        .required_unless_present("program")
                        .conflicts_with("program")
                        .help("The process to explain"),
                )
                .arg(
                    program()
                        .last(true)
                        .help("Run this program with accel, and explain its sockets at its end"),
                ),
        )
        .subcommand(
            Command::new("stat")
                .about("Show the counters of each socket, of one process or of all that run under accel")
                .arg(pid().help("The process; all that this user may see if it is left out"))
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print JSON, one line per reading"),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .short('w')
                        .value_name("SECONDS")
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("1")
                        .value_parser(value_parser!(u32).range(1..=86400))
                        .help("Read again every second, or every so many seconds"),
                ),
        )
        .subcommand(dump())
        .subcommand(keeper())
        .subcommand(keeper_half())
        .subcommand(crate::bench::command())
        .subcommand(
            Command::new("doctor")
                .about("Check what this machine allows, and name the command that fixes what is missing"),
        )
        .subcommand(
            Command::new("help")
                .about("Show help on a command, or on options, profiles, calls, reasons")
                .arg(
                    Arg::new("topic")
                        .value_name("TOPIC")
                        .help("options, profiles, calls, reasons, or a command"),
                ),
        )
}

const FILTERS: &str = "\
Filters are those of pcap-filter(7), as far as they are useful here:
  tcp, udp, icmp, icmp6, arp, ip, ip6                 a protocol
  [src|dst] [host] ADDRESS, [src|dst] net NET/BITS    addresses
  [src|dst] port N, [src|dst] portrange N-M           ports
  inbound, outbound, and, or, not, ( )

  accel dump -i eth1 tcp port 6379                    a line for each packet
  accel dump --pid 4711 -w packets.pcapng             for Wireshark
  accel dump -w - | tshark -r -";

/// Packets of the network path.
fn dump() -> Command {
    let value = |name: &'static str, short: char, metavar: &'static str| {
        Arg::new(name).long(name).short(short).value_name(metavar).num_args(1)
    };
    Command::new("dump")
        .about("Show the packets of the network path, which tcpdump cannot see, or write them as pcapng")
        .override_usage("accel dump [OPTIONS] [FILTER]...")
        .after_help(FILTERS)
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_name("PID")
                .value_parser(value_parser!(i32).range(1..))
                .help("Only packets of this process's ports; without it those of all that this user may see"),
        )
        .arg(value("interface", 'i', "NAME").help("Only packets on this interface"))
        .arg(value("write", 'w', "FILE").help("Write pcapng to a file, or to standard output (`-`)"))
        .arg(
            value("snap", 's', "BYTES")
                .value_parser(value_parser!(u32).range(14..=1 << 17))
                .default_value("131072")
                .help("Bytes of each packet that are kept"),
        )
        .arg(
            value("count", 'c', "NUMBER")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many packets"),
        )
        .arg(Arg::new("filter").value_name("FILTER").num_args(0..).help("Which packets"))
}

/// What `accel dump` is to show.
pub(crate) fn dump_request(matches: &ArgMatches) -> crate::dump::Request {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    crate::dump::Request {
        pid: matches.get_one::<i32>("pid").copied(),
        interface: text("interface"),
        file: text("write"),
        snap: matches.get_one::<u32>("snap").copied().unwrap_or_default(),
        count: matches.get_one::<u64>("count").copied(),
        filter: matches.get_many::<String>("filter").into_iter().flatten().cloned().collect(),
    }
}

/// What the launcher starts for an interface. Numbers are checked where their options are.
fn keeper() -> Command {
    let value =
        |name: &'static str, metavar: &'static str| Arg::new(name).long(name).value_name(metavar).num_args(1);
    let number = |name, most: u32, default: &'static str| {
        let range = value_parser!(u32).range(..=i64::from(most));
        value(name, "NUMBER").value_parser(range).default_value(default)
    };
    Command::new("keeper")
        .about("Keep an interface for the programs of a user, until the last of them has ended")
        .hide(true)
        .arg(value("interface", "NAME").required(true))
        .arg(number("user", u32::MAX, "0").required(true))
        .arg(number("frames", 1 << 22, "16384"))
        .arg(number("ports", 16_384, "1024"))
        .arg(number("linger", 600_000, "2000").value_name("MILLISECONDS"))
        .arg(number("watchdog", 3600, "10").value_name("SECONDS"))
        .arg(Arg::new("bypass-firewall").long("bypass-firewall").action(ArgAction::SetTrue))
        .arg(Arg::new("alone").long("alone").action(ArgAction::SetTrue))
        .arg(Arg::new("background").long("background").action(ArgAction::SetTrue))
}

/// What the keeper starts for the programs' user.
fn keeper_half() -> Command {
    Command::new("keeper-half")
        .about("Run the stack of an interface for connections whose programs have ended")
        .hide(true)
        .arg(Arg::new("interface").long("interface").value_name("NAME").num_args(1).required(true))
}

/// What `accel keeper` is to do.
pub(crate) fn keeper_order(matches: &ArgMatches) -> crate::keeper::Order {
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or_default();
    crate::keeper::Order {
        interface: matches.get_one::<String>("interface").cloned().unwrap_or_default(),
        user: number("user"),
        frames: number("frames").max(64),
        ports: u16::try_from(number("ports")).unwrap_or(u16::MAX),
        linger: Duration::from_millis(number("linger").into()),
        watchdog: Duration::from_secs(number("watchdog").into()),
        alone: matches.get_flag("alone"),
        bypass: matches.get_flag("bypass-firewall"),
        background: matches.get_flag("background"),
    }
}

fn run_options() -> [Arg; 4] {
    [
        Arg::new("profile")
            .short('p')
            .long("profile")
            .value_name("NAME[,NAME]")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .help("Apply profiles, from left to right"),
        Arg::new("option")
            .short('o')
            .long("option")
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .help("Set an option; may be repeated"),
        Arg::new("verbose")
            .short('v')
            .long("verbose")
            .action(ArgAction::SetTrue)
            .help("Say what was decided, and where each option came from"),
        Arg::new("strict")
            .long("strict")
            .action(ArgAction::SetTrue)
            .help("Refuse (125) a program that cannot be accelerated, instead of running it on the kernel"),
    ]
}

fn program() -> Arg {
    Arg::new("program").value_name("COMMAND").num_args(1..).value_parser(value_parser!(OsString))
}

fn pid() -> Arg {
    Arg::new("pid").value_name("PID").value_parser(value_parser!(i32).range(1..))
}

/// What `-p`, `-o`, `-v`, `-u`, `--strict` and the command say.
pub(crate) fn order(matches: &ArgMatches) -> Order {
    let texts = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
    };
    Order {
        profiles: texts("profile"),
        assignments: texts("option"),
        is_verbose: matches.get_flag("verbose"),
        is_strict: matches.get_flag("strict"),
        user: matches.try_get_one::<String>("user").ok().flatten().cloned(),
        command: matches.get_many::<OsString>("program").into_iter().flatten().cloned().collect(),
    }
}

/// Refuses options of a start in front of a subcommand: somebody means a program of that name, or an error.
pub(crate) fn check_subcommand(name: &str, root: &ArgMatches) -> Result<(), Refusal> {
    let order = order(root);
    let written = if !order.profiles.is_empty() {
        "-p"
    } else if !order.assignments.is_empty() {
        "-o"
    } else if order.is_verbose {
        "-v"
    } else if order.is_strict {
        "--strict"
    } else if order.user.is_some() {
        "-u"
    } else if root.get_flag("dry-run") {
        "--dry-run"
    } else {
        return Ok(());
    };
    Err(Refusal::usage(format!(
        "{written} has no meaning in front of accel's own command `{name}`; to start a program of that name, \
         write `accel {written} … -- {name}`."
    )))
}

/// One sentence for what clap found.
pub(crate) fn refusal(error: &clap::Error) -> Refusal {
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UnknownArgument => {
            let near = text(ContextKind::SuggestedArg);
            let near = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
            format!("there is no option `{argument}`{near}; options of the program come after its name")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() {
                format!("{argument} needs a value")
            } else {
                format!("`{value}` is not a value of {argument}")
            }
        }
        ErrorKind::ArgumentConflict => {
            format!("{argument} is written twice, or together with what excludes it")
        }
        ErrorKind::MissingRequiredArgument => {
            "a process number is missing, or a command after `--`".to_owned()
        }
        _ => {
            let text = error.to_string();
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .trim_end_matches('.')
                .to_owned()
        }
    };
    Refusal::usage(format!("{what}; see `accel --help`."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<ArgMatches, Refusal> {
        command().try_get_matches_from([&["accel"], line].concat()).map_err(|error| refusal(&error))
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        order(&parse(line).unwrap()).command
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
        for name in ["explain", "stat", "bench", "doctor", "help"] {
            assert!(command().find_subcommand(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        assert_eq!(
            words(&["ls", "-l", "-p", "--strict", "--", "-h"]),
            ["ls", "-l", "-p", "--strict", "--", "-h"]
        );
        assert_eq!(words(&["redis-server", "stat", "help"]), ["redis-server", "stat", "help"]);
        assert_eq!(words(&["-p", "safe", "ls", "-v"]), ["ls", "-v"]);
        assert_eq!(words(&["--", "stat", "-p"]), ["stat", "-p"]);
        assert_eq!(words(&["-v", "--", "ls", "--", "x"]), ["ls", "--", "x"]);
        assert!(!order(&parse(&["ls", "--strict"]).unwrap()).is_strict);
    }

    #[test]
    fn profiles_are_split_and_options_are_not() {
        let order =
            order(&parse(&["-p", "a,b", "-p", "c", "-o", "ports=1,2", "-o", "spin=hard", "ls"]).unwrap());
        assert_eq!(order.profiles, ["a", "b", "c"]);
        assert_eq!(order.assignments, ["ports=1,2", "spin=hard"]);
    }

    #[test]
    fn reserved_names_are_commands_in_front_only() {
        let matches = parse(&["explain", "12"]).unwrap();
        assert_eq!(matches.subcommand_name(), Some("explain"));
        let matches = parse(&["explain", "-p", "safe", "--", "ls", "-l"]).unwrap();
        assert_eq!(order(matches.subcommand_matches("explain").unwrap()).command, ["ls", "-l"]);
        let matches = parse(&["-v", "stat"]).unwrap();
        let refusal = check_subcommand("stat", &matches).unwrap_err();
        assert!(refusal.message.contains("`accel -v … -- stat`"), "{refusal}");
    }

    #[test]
    fn mistakes_are_one_sentence() {
        for (line, expected) in [
            (&["--stirct", "ls"][..], "there is no option `--stirct` (did you mean `--strict`?)"),
            (&["explain", "abc"][..], "`abc` is not a value of [PID]"),
            (&["stat", "0"][..], "`0` is not a value of [PID]"),
            (&["-p"][..], "-p"),
            (&["explain"][..], "a process number is missing"),
            (&["explain", "1", "--", "ls"][..], "together with what excludes it"),
        ] {
            let refusal = parse(line).unwrap_err();
            assert!(refusal.message.contains(expected), "{refusal}");
            assert_eq!(refusal.message.lines().count(), 1);
            assert_eq!(refusal.status, 2);
        }
    }
}
