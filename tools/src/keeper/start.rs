//! Before a program starts: each interface that its options name has a keeper, which counts the program from then on.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use driver::keeper::{Keeper, Refusal};
use driver::netlink::{Netlink, links};
use rows::options::{Id, Value};

use super::rights;
use crate::config::settings::Settings;
use crate::sys;
use crate::user::User;

/// How long an ending keeper, or one that another launcher starts, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The names in a list, as options have them.
pub(crate) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Why an interface isn't driven for the program, each in a sentence. The program is this user's, or the caller's.
pub(crate) fn ensure_all(settings: &Settings, user: Option<&User>) -> Vec<String> {
    let list = settings.text(Id::Interfaces);
    names(&list).filter_map(|name| ensure(name, settings, user).err()).collect()
}

fn ensure(name: &str, settings: &Settings, user: Option<&User>) -> Result<(), String> {
    let link = Netlink::open(0)
        .and_then(|mut netlink| links::named(&mut netlink, name))
        .map_err(|_| format!("interfaces: there is no interface {name} here"))?;
    let until = Instant::now() + PATIENCE;
    loop {
        // It is the program's user whom the keeper must know.
        match User::as_it(user, || Keeper::connect(link.index, 3)).and_then(|mut keeper| keeper.hold()) {
            Ok(()) => return Ok(()),
            Err(Refusal::Absent { .. } | Refusal::Gone) => {}
            Err(refusal) => return Err(format!("interface {name}: {refusal}")),
        }
        match start(name, settings, user)?.as_str() {
            "ready" => {}
            // Another one is starting, or has not quite ended.
            "taken" => thread::sleep(PAUSE),
            why => return Err(format!("interface {name}: {why}")),
        }
        if Instant::now() >= until {
            return Err(format!("interface {name}: its keeper neither answers nor ends; end it by hand"));
        }
    }
}

/// Starts a keeper, and waits for its first words.
fn start(name: &str, settings: &Settings, user: Option<&User>) -> Result<String, String> {
    let bypass = settings.text(Id::BypassFirewall);
    let mut command = Command::new(rights::command());
    command.arg("keeper").args(["--interface", name]).arg("--background");
    command.args(["--user", &user.map_or_else(sys::effective_user, |user| user.number).to_string()]);
    for (option, id) in [("--frames", Id::Frames), ("--ports", Id::ClientPorts), ("--watchdog", Id::Watchdog)]
    {
        if let Some(Value::Number(number)) = id.row().parse(&settings.text(id)) {
            command.args([option, &number.to_string()]);
        }
    }
    if names(&bypass).any(|listed| listed == name) {
        command.arg("--bypass-firewall");
    }
    // It is no program of the user's: it is not to run under accel, nor by what else is in the environment.
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed =
        |error: std::io::Error| format!("interface {name}: its keeper could not be started: {error}");
    let mut child = command.spawn().map_err(failed)?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said).map_err(failed)?;
    }
    // What is waited for is the process that started it: the program must not find a child that it didn't make.
    child.wait().map_err(failed)?;
    match said.lines().next() {
        Some(line) => Ok(line.to_owned()),
        None => Err(format!("interface {name}: its keeper ended without a word")),
    }
}
