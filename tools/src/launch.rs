//! Starts a program with the library and the resolved options in its environment.

use crate::config::profile::Places;
use crate::config::resolve::{self, Request};
use crate::config::settings::Settings;
use crate::keeper;
use crate::program::find;
use crate::program::verdict::{self, Kind, Verdict};
use crate::refusal::{NOT_EXECUTABLE, REFUSED, Refusal};
use crate::user::User;
use crate::{sys, user};
use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file name of the library.
pub(crate) const LIBRARY: &str = "libaccel.so";

/// What the command line says about a start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// `-p`, split at commas.
    pub profiles: Vec<String>,
    /// `-o`, in order.
    pub assignments: Vec<String>,
    /// `-v`: say what was decided.
    pub is_verbose: bool,
    /// `--strict`: refuse what can't be accelerated.
    pub is_strict: bool,
    /// `-u`: who the program runs as.
    pub user: Option<String>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Everything that was decided about a start.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The file to execute.
    pub file: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<OsString>,
    /// The library.
    pub library: PathBuf,
    /// The options.
    pub settings: Settings,
    /// What the program is.
    pub verdict: Verdict,
    /// The whole environment of the program.
    pub environment: Vec<(OsString, OsString)>,
    /// Who it runs as, if not who started the command.
    pub user: Option<User>,
}

/// Decides everything about a start, without starting.
pub(crate) fn plan(order: &Order) -> Result<Plan, Refusal> {
    let Some(name) = order.command.first() else {
        return Err(Refusal::usage(
            "there is no command to start; write `accel COMMAND`, or see `accel --help`.",
        ));
    };
    let caller: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let program = Path::new(name).file_name().unwrap_or(name).to_string_lossy().into_owned();
    let request = Request {
        profiles: order.profiles.clone(),
        assignments: order.assignments.clone(),
        program,
        environment: caller.clone(),
    };
    let settings = resolve::resolve(&request, &Places::of_environment())?;
    let library = find_library()?;
    let path = std::env::var_os("PATH");
    let file = find::command(name, path.as_deref())?;
    let verdict = verdict::judge(&file, path.as_deref());
    let environment = environment(caller, &settings, &library)?;
    let user = order.user.as_deref().map(user::find).transpose()?;
    Ok(Plan { file, arguments: order.command.clone(), library, settings, verdict, environment, user })
}

/// Warns or refuses when accel can't get into the program.
pub(crate) fn admit(plan: &Plan, order: &Order) -> Result<(), Refusal> {
    match plan.verdict.warning() {
        Some(warning) if order.is_strict => Err(Refusal::with(
            REFUSED,
            format!("--strict: {}", warning.replace("so it runs", "so it would run")),
        )),
        Some(warning) => {
            say(&format!("accel: {warning}"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Has the interfaces that the options name driven, or says why they are not.
pub(crate) fn open_interfaces(plan: &Plan, order: &Order) -> Result<(), Refusal> {
    let refused = keeper::start::ensure_all(&plan.settings, plan.user.as_ref());
    match refused.first() {
        Some(why) if order.is_strict => Err(Refusal::with(REFUSED, format!("--strict: {why}."))),
        _ => {
            for why in refused {
                say(&format!("accel: {why}; its sockets stay on the kernel."));
            }
            Ok(())
        }
    }
}

/// Writes a line to standard error. That it can't be written is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Becomes the program. Returns only on failure.
pub(crate) fn run(order: &Order) -> Result<ExitCode, Refusal> {
    let plan = plan(order)?;
    if order.is_verbose {
        say(report(&plan, "accel: ").trim_end());
    }
    admit(&plan, order)?;
    open_interfaces(&plan, order)?;
    plan.user.as_ref().map_or(Ok(()), User::become_it)?;
    Err(become_program(&plan))
}

/// Says what [`run`] would do.
pub(crate) fn dry_run(order: &Order) -> Result<ExitCode, Refusal> {
    let plan = plan(order)?;
    print!("{}", report(&plan, ""));
    for (name, value) in &plan.environment {
        let name = name.to_string_lossy();
        if name == "LD_PRELOAD" || name == "ACCEL" || name.starts_with("ACCEL_") {
            println!("{name}={}", value.to_string_lossy());
        }
    }
    if order.is_strict {
        admit(&plan, order)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn become_program(plan: &Plan) -> Refusal {
    let environment: Vec<CString> = plan
        .environment
        .iter()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    let arguments: Vec<&OsStr> = plan.arguments.iter().map(OsString::as_os_str).collect();
    let mut error = sys::exec(&plan.file, &arguments, &environment);
    if error.raw_os_error() == Some(libc::ENOEXEC) && plan.verdict.kind == Kind::PlainText {
        // As execvp(3): a text file that the kernel does not recognise is a shell script.
        let mut through_shell = vec![OsStr::new("/bin/sh"), plan.file.as_os_str()];
        through_shell.extend(&arguments[1..]);
        error = sys::exec(Path::new("/bin/sh"), &through_shell, &environment);
    }
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) => format!("its interpreter or loader is missing ({error})"),
        _ => error.to_string(),
    };
    Refusal::with(NOT_EXECUTABLE, format!("{} could not be executed: {reason}.", plan.file.display()))
}

/// What was decided, a line each.
pub(crate) fn report(plan: &Plan, prefix: &str) -> String {
    let mut text = String::new();
    let mut line = |label: &str, what: &str| {
        let _ = writeln!(text, "{prefix}{label:<8} {what}");
    };
    line("program", &format!("{}.", plan.verdict.description()));
    line(
        "verdict",
        match plan.verdict.kind {
            Kind::Dynamic => "accelerated wherever a socket allows it.",
            Kind::Unreadable | Kind::PlainText => "cannot be told beforehand.",
            _ => "not accelerated: it runs on the kernel stack.",
        },
    );
    line("library", &plan.library.display().to_string());
    let profiles = plan.settings.profiles();
    line("profiles", if profiles.is_empty() { "none" } else { &profiles });
    for (row, setting) in plan.settings.iter() {
        line("option", &format!("{} = {} from {}", row.key(), setting.text, setting.origin));
    }
    text
}

/// Finds the library beside this command, or where packages put it.
pub(crate) fn find_library() -> Result<PathBuf, Refusal> {
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let directory = own.parent().unwrap_or(Path::new("/"));
    let places = [
        directory.join(LIBRARY),
        directory.parent().unwrap_or(Path::new("/")).join("lib/accel").join(LIBRARY),
        Path::new("/usr/lib/accel").join(LIBRARY),
    ];
    let found = places.iter().find(|path| path.is_file()).ok_or_else(|| {
        let places = places.each_ref().map(|path| path.display().to_string()).join(", ");
        Refusal::with(
            REFUSED,
            format!("{LIBRARY} is not installed: none of {places} exists; put it beside {}.", own.display()),
        )
    })?;
    // The loader splits LD_PRELOAD at these and knows no way to quote them.
    if found.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        return Err(Refusal::with(
            REFUSED,
            format!(
                "{} has a space or a colon in its path, which LD_PRELOAD cannot hold; move it.",
                found.display()
            ),
        ));
    }
    Ok(found.clone())
}

fn environment(
    mut caller: Vec<(OsString, OsString)>,
    settings: &Settings,
    library: &Path,
) -> Result<Vec<(OsString, OsString)>, Refusal> {
    let mut put = |name: &str, value: OsString| {
        caller.retain(|(known, _)| known != name);
        caller.push((name.into(), value));
    };
    for (name, value) in settings.environment() {
        if value.contains('\0') {
            return Err(Refusal::usage(format!("the value of {name} has a NUL byte; remove it.")));
        }
        put(name, value.into());
    }
    put("LD_PRELOAD", preload(std::env::var_os("LD_PRELOAD").as_deref(), library));
    Ok(caller)
}

/// LD_PRELOAD with the library at its end, unless some libaccel.so is in it already.
fn preload(old: Option<&OsStr>, library: &Path) -> OsString {
    let old = old.map_or(b"".as_slice(), OsStr::as_bytes);
    let is_there = old
        .split(|byte| matches!(byte, b' ' | b':'))
        .any(|entry| Path::new(OsStr::from_bytes(entry)).file_name() == Some(OsStr::new(LIBRARY)));
    if is_there {
        return OsStr::from_bytes(old).to_owned();
    }
    let mut value = old.to_vec();
    if !value.is_empty() {
        value.push(b':');
    }
    value.extend(library.as_os_str().as_bytes());
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_appended_once_and_the_order_is_kept() {
        let library = Path::new("/usr/lib/accel/libaccel.so");
        for (old, expected) in [
            (None, "/usr/lib/accel/libaccel.so"),
            (Some(""), "/usr/lib/accel/libaccel.so"),
            (Some("a.so b.so"), "a.so b.so:/usr/lib/accel/libaccel.so"),
            (Some("/x/libaccel.so:b.so"), "/x/libaccel.so:b.so"),
            (Some("b.so:/usr/lib/accel/libaccel.so"), "b.so:/usr/lib/accel/libaccel.so"),
            (Some("/x/libaccel.so.d/z.so"), "/x/libaccel.so.d/z.so:/usr/lib/accel/libaccel.so"),
        ] {
            assert_eq!(preload(old.map(OsStr::new), library), OsStr::new(expected), "{old:?}");
        }
    }
}
