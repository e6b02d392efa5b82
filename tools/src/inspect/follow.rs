//! `accel explain -- command`: runs a command with accel, watches its sockets, explains them at its end.

use super::explain;
use super::view::{self, Row, Tables};
use super::{process, sockets};
use crate::launch::{self, Order, Plan};
use crate::refusal::{NOT_EXECUTABLE, Refusal};
use crate::sys;
use driver::cards::Reader;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode};

/// Time between two readings.
const INTERVAL_MS: u32 = 100;
/// Sockets that one process shows at the end; the rest are counted.
const ROWS_MAX: usize = 200;

/// Runs the command; its exit status is kept.
pub(crate) fn run(order: &Order) -> Result<ExitCode, Refusal> {
    let plan = launch::plan(order)?;
    if order.is_verbose {
        launch::say(launch::report(&plan, "accel: ").trim_end());
    }
    launch::admit(&plan, order)?;
    launch::open_interfaces(&plan, order)?;
    let mut child = start(&plan)?;
    // Not before the start: the child would inherit it.
    sys::hold_signals();
    let mut watch = Watch::default();
    let status = loop {
        pass_signals(&child);
        watch.read(i32::try_from(child.id()).unwrap_or(i32::MAX));
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => break status,
            Err(error) => return Err(Refusal::with(1, format!("waiting for the command failed: {error}."))),
        }
    };
    // The program's standard output is the program's.
    let _ = std::io::stderr().write_all(watch.finish().as_bytes());
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn start(plan: &Plan) -> Result<Child, Refusal> {
    let environment = plan.environment.iter().map(|(name, value)| (name, value));
    Command::new(std::path::absolute(&plan.file).unwrap_or_else(|_| plan.file.clone()))
        .arg0(&plan.arguments[0])
        .args(&plan.arguments[1..])
        .env_clear()
        .envs(environment)
        .spawn()
        .map_err(|error| {
            Refusal::with(NOT_EXECUTABLE, format!("{} could not be executed: {error}.", plan.file.display()))
        })
}

/// Sleeps until the next reading. What the terminal sends reaches the command by itself; what a process sends
/// to accel is meant for the command.
fn pass_signals(child: &Child) {
    if let Some((signal, is_sent_by_process)) = sys::wait_signal(INTERVAL_MS)
        && signal != libc::SIGCHLD
        && is_sent_by_process
    {
        sys::kill(i32::try_from(child.id()).unwrap_or(i32::MAX), signal);
    }
}

/// One process of the command's tree.
struct Watched {
    name: String,
    reader: Option<Reader>,
    /// The last view of each socket, by descriptor and inode.
    rows: BTreeMap<(i32, u64), Row>,
    /// The inode that was last seen behind each descriptor: numbers are used again.
    current: HashMap<i32, u64>,
}

/// What was seen so far.
#[derive(Default)]
struct Watch {
    processes: BTreeMap<i32, Watched>,
    tables: Tables,
    known: HashSet<u64>,
}

impl Watch {
    fn read(&mut self, root: i32) {
        for pid in process::tree(root) {
            self.read_process(pid);
        }
    }

    fn read_process(&mut self, pid: i32) {
        let Ok(descriptors) = sockets::descriptors(pid) else { return };
        let watched = self.processes.entry(pid).or_insert_with(|| Watched {
            name: String::new(),
            reader: None,
            rows: BTreeMap::new(),
            current: HashMap::new(),
        });
        watched.name = process::name(pid);
        if watched.reader.is_none() {
            watched.reader = view::open(pid).ok().flatten();
        }
        // The kernel's tables are long; they are read again only when there is a new socket to look up.
        let is_new = |inode: &u64| !self.known.contains(inode);
        if descriptors.iter().any(|(_, inode)| is_new(inode)) {
            self.tables.refresh(pid);
            self.known.extend(descriptors.iter().map(|(_, inode)| *inode));
        }
        let cards = watched.reader.as_ref().map(Reader::sockets).unwrap_or_default();
        for mut row in view::join(pid, &cards, &descriptors, self.tables.of(pid)) {
            if row.inode != 0 {
                watched.current.insert(row.fd, row.inode);
            } else if let Some(&inode) = watched.current.get(&row.fd) {
                // Its descriptor is closed, and its card is still there.
                row.inode = inode;
                row.socket = watched.rows.get(&(row.fd, inode)).and_then(|old| old.socket.clone());
            }
            watched.rows.insert((row.fd, row.inode), row);
        }
    }

    /// The tables outlive the processes: one last look at the counters, then the text.
    fn finish(self) -> String {
        let mut text = String::new();
        let mut families = HashSet::new();
        for (pid, mut watched) in self.processes {
            let header = watched.reader.as_ref().map(Reader::header);
            let last: HashMap<i32, _> = watched
                .reader
                .as_ref()
                .map(Reader::sockets)
                .unwrap_or_default()
                .into_iter()
                .filter(|card| card.owner == pid)
                .map(|card| (card.fd, card))
                .collect();
            for ((fd, inode), row) in &mut watched.rows {
                let is_current = watched.current.get(fd) == Some(inode);
                if let (true, Some(old), Some(new)) = (is_current, row.card.as_mut(), last.get(fd)) {
                    *old = *new;
                }
            }
            if watched.rows.is_empty() && header.is_none() && !text.is_empty() {
                continue;
            }
            text += &format!("\naccel: {} ({pid}) ", watched.name);
            text += if header.is_some() { "ran under accel.\n" } else { "published no sockets to accel.\n" };
            if watched.rows.is_empty() {
                text += "No socket was open at any reading.\n";
            }
            for row in watched.rows.values().take(ROWS_MAX) {
                text += &explain::paragraph(row, header.is_some());
            }
            if watched.rows.len() > ROWS_MAX {
                text += &format!("  … and {} more sockets.\n", watched.rows.len() - ROWS_MAX);
            }
            if let Some(header) = header.filter(|header| families.insert(header.pid)) {
                text += &explain::totals(&header);
            }
        }
        text
    }
}
