//! Where packets come from: the stacks of processes that run under accel, found by their memory in /proc.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use driver::sys::Fd;
use engine::look::{Look, Watched};
use stack::device::tap::{Next, Seen};

use super::packet::Packet;
use crate::inspect::process;
use crate::inspect::view::{self, Tables};
use crate::refusal::Refusal;

/// A stack whose packets are read.
pub(super) struct Source {
    /// The name of its interface.
    pub(super) name: String,
    watched: Watched,
    /// Where its next packet will be.
    position: u64,
    /// Processes that use it.
    pids: Vec<i32>,
    /// One process's packets only.
    only: Option<Only>,
}

/// The ports of one process, as far as they are known.
struct Only {
    pid: i32,
    ports: HashSet<u16>,
    /// They were read in this look already.
    is_read: bool,
}

/// What [`Source::take`] finds.
pub(super) enum Taken {
    Nothing,
    Packet(Seen),
    /// Some were overwritten.
    Lost,
}

/// The name of an interface in a process's network namespace.
fn name(pid: i32, number: u32) -> String {
    let inet6 = fs::read_to_string(format!("/proc/{pid}/net/if_inet6")).unwrap_or_default();
    let groups = fs::read_to_string(format!("/proc/{pid}/net/dev_mcast")).unwrap_or_default();
    let by_address = inet6.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (u32::from_str_radix(words.get(1)?, 16).ok()? == number)
            .then(|| words.last().map(|name| (*name).to_owned()))?
    });
    let by_group = || {
        groups.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()?.parse::<u32>().ok()? == number).then(|| words.next().map(str::to_owned))?
        })
    };
    by_address.or_else(by_group).unwrap_or_else(|| format!("interface {number}"))
}

/// The stacks of a process, or of all; of one interface, or of all.
pub(super) fn find(pid: Option<i32>, interface: Option<&str>) -> Result<Vec<Source>, Refusal> {
    if let Some(pid) = pid {
        process::check(pid)?;
    }
    let pids = pid.map_or_else(process::all, |pid| vec![pid]);
    let mut sources: Vec<(u64, Source)> = Vec::new();
    for pid in pids {
        for path in process::regions(pid) {
            let Ok(inode) = fs::metadata(&path).map(|facts| facts.ino()) else { continue };
            match sources.iter_mut().find(|(known, _)| *known == inode) {
                Some((_, source)) => source.pids.push(pid),
                None => sources.extend(open(&path, pid).map(|source| (inode, source))),
            }
        }
    }
    let mut sources: Vec<Source> = sources.into_iter().map(|(_, source)| source).collect();
    sources.retain(|source| interface.is_none_or(|name| source.name == name));
    if sources.is_empty() {
        let who =
            pid.map_or_else(|| "no process that may be looked at".to_owned(), |pid| format!("process {pid}"));
        let verb = if pid.is_some() { "does not use" } else { "uses" };
        let on = interface.map_or_else(String::new, |name| format!(" on {name}"));
        return Err(Refusal::with(
            1,
            format!("{who} {verb} accel's stack{on}; `accel explain PID` shows the sockets of one."),
        ));
    }
    for source in &mut sources {
        source.only = pid.map(|pid| Only { pid, ports: HashSet::new(), is_read: false });
    }
    Ok(sources)
}

fn open(path: &PathBuf, pid: i32) -> Option<Source> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    let file = Fd::own(file.into_raw_fd());
    let number = Look::open(&file).ok()?.interface()?;
    let watched = Watched::open(&file).ok()?;
    let position = watched.tap()?.end();
    Some(Source { name: name(pid, number), watched, position, pids: vec![pid], only: None })
}

impl Source {
    /// Wants so many bytes of each packet until then, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) fn want(&self, until: u64, snap: u32) {
        if let Some(tap) = self.watched.tap() {
            tap.want(until, snap);
        }
    }

    /// The next packet; its bytes go to `to`.
    pub(super) fn take(&mut self, to: &mut [u8]) -> Taken {
        let Some(tap) = self.watched.tap() else { return Taken::Nothing };
        match tap.read(&mut self.position, to) {
            Next::Nothing => Taken::Nothing,
            Next::Lost => Taken::Lost,
            Next::Packet(seen) => Taken::Packet(seen),
        }
    }

    /// What is known of ports is old.
    pub(super) const fn begin_look(&mut self) {
        if let Some(only) = &mut self.only {
            only.is_read = false;
        }
    }

    /// Whether it is of the process whose packets are wanted: it has, or had, a socket at the packet's local port.
    pub(super) fn is_wanted(&mut self, packet: &Packet) -> bool {
        let Some(only) = &mut self.only else { return true };
        let Some((source, destination)) = packet.ports else { return false };
        let local = if packet.is_sent { source } else { destination };
        if !only.ports.contains(&local) && !only.is_read {
            only.read();
        }
        only.ports.contains(&local)
    }

    /// Whether one of those who used it lives.
    pub(super) fn is_alive(&self) -> bool {
        self.pids.iter().any(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    }
}

impl Only {
    fn read(&mut self) {
        self.is_read = true;
        let Ok(reading) = view::read(self.pid, &mut Tables::default()) else { return };
        for row in &reading.rows {
            let carried = row.carried.as_ref().and_then(|carried| carried.socket.as_ref());
            let locals =
                [carried, row.socket.as_ref()].into_iter().flatten().filter_map(|socket| socket.local);
            self.ports.extend(locals.map(|local| local.port()));
        }
    }
}
