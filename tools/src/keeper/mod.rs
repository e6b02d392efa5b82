//! `accel keeper`: the process that has the rights to an interface, one for each interface. The launcher starts it.
//!
//! It opens the interface (driver::xdp), leases ports, hands programs what they need to drive it by themselves, and is then only asked
//! for ports and neighbours. It ends with the last program, and whatever way it ends nothing stays attached.
//!
//! | module | what |
//! |---|---|
//! | [`rights`] | the capabilities that it needs |
//! | [`firewall`] | rules that packets would go around |
//! | [`lease`] | the ports of client connections |
//! | [`probe`] | whether packets come through |
//! | [`proof`] | whether who claims a port has it |
//! | [`claims`] | who has which port |
//! | [`handover`] | connections that the kernel gets |
//! | [`server`] | requests, one after the other |
//! | [`watch`] | packets that nobody takes |
//! | [`relay`] | errors and fragments, which come to the kernel and are the programs' |
//! | [`half`] | its other process, without rights: it runs the stack for connections whose programs have ended |
//! | [`start`] | the launcher's side |

mod claims;
pub(crate) mod firewall;
pub(crate) mod half;
mod handover;
mod lease;
mod probe;
mod proof;
mod relay;
pub(crate) mod rights;
mod server;
pub(crate) mod start;
mod watch;

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::Duration;

use driver::keeper::message::Terms;
use driver::netlink::Netlink;
use driver::netlink::links;
use driver::sys::{self, Errno, Fd};
use driver::xdp::device::FRAGMENTS;
use driver::xdp::open::{Opened, Request, open};
use stack::device::{Capabilities, Device};
use stack::region::Limits;

use crate::config::profile::Places;
use crate::config::resolve;
use crate::sys as calls;
use lease::{Lease, Undertaker};
use rows::options::Id;
use server::{End, Given, Server, take_name};
use watch::Watch;

/// Whose all packets are: all programs of a user share one stack on an interface.
const OWNER: u32 = 1;
/// Words of packets that `accel dump` may read late: 4 MiB.
const TAP: u32 = 1 << 19;
/// Sockets of all those programs.
const SOCKETS: u32 = 65_536;

/// What a keeper is to do.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The interface's name.
    pub interface: String,
    /// Whose programs may use it.
    pub user: u32,
    /// Frames of all queues.
    pub frames: u32,
    /// Ports for client connections.
    pub ports: u16,
    /// How long to stay after the last program.
    pub linger: Duration,
    /// How long packets may wait while nobody works.
    pub watchdog: Duration,
    /// Without its other half: what programs leave is lost.
    pub alone: bool,
    /// Rules of a firewall are no objection.
    pub bypass: bool,
    /// Leave the caller alone once started.
    pub background: bool,
}

/// Keeps an interface until its last program has ended. The first line of its output is `ready`, `taken` if somebody keeps it already,
/// or why not.
pub(crate) fn run(order: &Order) -> ExitCode {
    if order.background {
        match calls::fork() {
            Ok(0) => calls::leave_caller(),
            Ok(_) => return ExitCode::SUCCESS,
            Err(error) => return report(&format!("starting a process of its own: {error}")),
        }
    }
    match keep(order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Errand::Taken) => report("taken"),
        Err(Errand::Refused(why)) => report(&why),
    }
}

/// Why there is nothing to keep.
enum Errand {
    /// Somebody else does.
    Taken,
    /// In a sentence.
    Refused(String),
}

impl From<String> for Errand {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

fn report(line: &str) -> ExitCode {
    println!("{line}");
    ExitCode::FAILURE
}

/// To the system's log, from a process that has no terminal.
fn log(text: &str) {
    let line = format!("<28>accel-keeper[{}]: {text}", std::process::id());
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to(line.as_bytes(), "/dev/log");
    }
    let _ = writeln!(std::io::stderr(), "accel keeper: {text}");
}

fn keep(order: &Order) -> Result<(), Errand> {
    let name = &order.interface;
    let missing = rights::missing();
    if !missing.is_empty() {
        return Err(format!(
            "{} missing to drive {name}; start accel as root, or let root run `{}`",
            missing.join(", ") + if missing.len() == 1 { " is" } else { " are" },
            rights::fix(),
        )
        .into());
    }
    let bypass = may(order)?;
    let signals = calls::end_signals().map_err(|error| format!("signalfd: {error}"))?;
    let link = Netlink::open(0)
        .and_then(|mut netlink| links::named(&mut netlink, name))
        .map_err(|Errno(errno)| format!("interface {name}: errno {errno}: there is none with this name"))?;
    let listener = match take_name(link.index) {
        Ok(listener) => listener,
        Err(Errno(libc::EADDRINUSE)) => return Err(Errand::Taken),
        Err(Errno(errno)) => return Err(format!("listening for programs: errno {errno}").into()),
    };
    if !bypass {
        firewall::objection(name, link.index)?;
    }
    calls::raise_open_files();
    calls::forget_children();
    let undertaker = Undertaker::start().map_err(|error| format!("starting a second process: {error}"))?;
    let (lease, mut server) = open_all(order, (listener, signals), &undertaker)?;
    println!("ready");
    calls::close_output();
    let end = server.serve();
    match end {
        End::Last | End::Signal => {}
        End::Interface => log(&format!("{name} is gone; programs on it have lost it")),
        End::Stuck => log(&format!(
            "{name} is given back to the kernel: packets waited for {} s and no program took them",
            order.watchdog.as_secs()
        )),
    }
    // First packets are the kernel's again, then ports are free, and then the next keeper may come.
    let listener = server.close();
    lease.end(&undertaker);
    drop(listener);
    Ok(())
}

/// Whether the firewall is no objection. Who isn't root has the rights by the command's file, for himself alone, and what the
/// administrator decides he reads from the system's own file.
fn may(order: &Order) -> Result<bool, String> {
    if calls::real_user() == 0 {
        return Ok(order.bypass);
    }
    if order.user != calls::real_user() {
        return Err(format!("only root may open an interface for user {}", order.user));
    }
    let places = Places { system: Places::of_environment().system, user: None };
    let settings =
        resolve::resolve(&resolve::Request::default(), &places).map_err(|refusal| refusal.message)?;
    let listed = settings.text(Id::BypassFirewall);
    Ok(start::names(&listed).any(|name| name == order.interface))
}

fn open_all(order: &Order, ends: (Fd, Fd), undertaker: &Undertaker) -> Result<(Lease, Server), String> {
    let request = Request { name: &order.interface, owner: OWNER, frames: order.frames, way: None };
    let mut opened = open(&request).map_err(|refused| refused.to_string())?;
    probe::prove(&mut opened, OWNER)?;
    let (_, hard) = calls::open_files_limit().map_err(|error| error.to_string())?;
    // Each port takes two descriptors, and as many again stay for claims.
    let most = u16::try_from(hard / 4).unwrap_or(u16::MAX);
    let lease = Lease::take(order.ports.min(most), undertaker)?;
    let given = given(order, &opened, &lease)?;
    let watch = Watch::new(order.watchdog);
    let server = Server::new(order, opened, given, ends, watch);
    server.map(|server| (lease, server)).map_err(|Errno(errno)| format!("starting to serve: errno {errno}"))
}

fn given(order: &Order, opened: &Opened, lease: &Lease) -> Result<Given, String> {
    // A packet socket sends by every interface: only root's programs get it.
    let all = opened.device.capabilities();
    let capabilities = if order.user == 0 { all } else { without_cutting(all) };
    let limits = limits(order.frames, capabilities.frame_size);
    let region = engine::region::memory(&limits).map_err(|refused| refused.to_string())?;
    let bells = (0..limits.processes)
        .map(|_| sys::eventfd(libc::EFD_NONBLOCK))
        .collect::<sys::Result<Vec<_>>>()
        .map_err(|Errno(errno)| format!("making event descriptors: errno {errno}: raise `ulimit -n`"))?;
    let terms = Terms {
        interface: opened.link.index,
        name: opened.link.name.clone(),
        kind: opened.link.kind.clone(),
        mac: opened.link.address.unwrap_or_default(),
        owner: OWNER,
        queues: opened.device.queues().len() as u32,
        entries: opened.entries,
        bells: limits.processes,
        capabilities,
        limits,
        ports: lease.parts.clone(),
    };
    Ok(Given { terms, region, bells })
}

/// What the device can do without its second way out.
fn without_cutting(all: Capabilities) -> Capabilities {
    Capabilities { tso_bytes_max: 0, fragments_max: all.fragments_max.min(FRAGMENTS), ..all }
}

/// The limits of the region: its memory is touched only as far as it is used.
fn limits(frames: u32, frame_size: u16) -> Limits {
    Limits {
        tcp_sockets: SOCKETS,
        traffics: frames.min(SOCKETS),
        listeners: 1024,
        syns: 16_384,
        udp_sockets: 8192,
        bounds: SOCKETS,
        settings: 1024,
        addresses: 64,
        routes: 1024,
        neighbours: 4096,
        destinations: 4096,
        frames,
        frame_size: frame_size.into(),
        blocks: frames,
        tap: TAP,
        ..Limits::SMALL
    }
}
