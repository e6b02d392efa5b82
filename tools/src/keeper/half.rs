//! `accel keeper-half`: the half of the keeper that has the programs' user and no rights. It uses the stack as a program does, so that
//! connections whose programs have ended go on to their end: what is unsent is sent, a FIN is answered, a killed program's
//! connections are closed. It notices who dies, and follows the kernel's tables where no program does.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use driver::keeper::{Attached, Keeper};
use driver::netlink::Netlink;
use driver::netlink::{connections, links};
use driver::steering::Protocol;
use driver::sys::{self, Errno};
use engine::control::follow::Follower;
use engine::engine::{Engine, Materials};
use engine::service::{Duty, serve_while};
use stack::hash::Secret;
use stack::ip::Interface;
use stack::tcp::state::State;
use stack::tcp::tcb::Tcb;
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use crate::sys as calls;

/// Lowest number of its descriptors.
const FLOOR: i32 = 3;
/// How long it stays without programs and connections: others may come.
const LINGER: Duration = Duration::from_secs(2);
/// Between questions to the kernel for the connections that it got.
const LOOK: Duration = Duration::from_secs(1);
/// How long connections may take to end: longer than a retransmission that isn't answered any more (RFC 9293 §3.8.3).
const DRAIN: Duration = Duration::from_secs(120);

/// The half.
struct Half {
    engine: &'static Engine,
    follower: Follower,
    thread: i32,
    inner: Mutex<Inner>,
}

struct Inner {
    keeper: Keeper,
    /// Ports that stay claimed as long as connections have them, whatever becomes of their programs.
    ports: Vec<(Ip, u16)>,
    /// When there was a program last, and when a connection.
    program_at: Instant,
    used_at: Instant,
    /// When the kernel was asked last for the connections that it got.
    looked_at: Instant,
}

/// Serves until there are neither programs nor connections any more.
pub(crate) fn run(name: &str) -> ExitCode {
    calls::end_with_parent();
    match attach(name) {
        Ok(half) => {
            let half: &'static Half = Box::leak(Box::new(half));
            serve_while(half, || !half.is_done());
            half.engine.end_process(half.thread, half.engine.process());
            ExitCode::SUCCESS
        }
        Err(why) => {
            super::log(&format!("nobody serves what programs leave on {name}: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn attach(name: &str) -> Result<Half, String> {
    let link = Netlink::open(0).and_then(|mut netlink| links::named(&mut netlink, name));
    let link = link.map_err(|Errno(errno)| format!("interface {name}: errno {errno}"))?;
    let mut keeper = Keeper::connect(link.index, FLOOR).map_err(|refusal| refusal.to_string())?;
    let mut attached = keeper.attach().map_err(|refusal| refusal.to_string())?;
    let device = attached.device().map_err(|refusal| refusal.to_string())?;
    let Attached { terms, region, bells, passed, .. } = attached;
    let interface = Interface { link: ethernet::Address(terms.mac), ..Interface::default() };
    let materials = Materials { region, limits: terms.limits, device, bells, interface, ports: terms.ports };
    let engine = Engine::attach(materials, secret).map_err(|refused| refused.to_string())?;
    let now = Instant::now();
    let inner = Inner { keeper, ports: Vec::new(), program_at: now, used_at: now, looked_at: now };
    let follower = Follower::new(link.index, terms.limits, passed);
    Ok(Half { engine, follower, thread: sys::gettid(), inner: Mutex::new(inner) })
}

/// Bytes that nobody else knows.
fn secret() -> Secret {
    let bytes = std::fs::File::open("/dev/urandom").and_then(|mut file| {
        let mut bytes = [0; 16];
        std::io::Read::read_exact(&mut file, &mut bytes).map(|()| bytes)
    });
    let number = bytes.map_or(0, u128::from_ne_bytes);
    Secret([number as u64, (number >> 64) as u64])
}

impl Half {
    fn resolve(&self, ip: Ip) {
        if let Ok(mut inner) = self.inner.lock() {
            let _ = inner.keeper.resolve(ip);
        }
    }

    /// Ports of TCP that somebody has bound, but for the leased ones; and connections that are not at their end.
    fn in_use(&self) -> (Vec<(Ip, u16)>, usize) {
        let found = RefCell::new(Vec::new());
        let live = self.engine.with(self.thread, |stack| {
            let parts = &*stack.parts;
            let leases = &parts.leases[..parts.slabs.leases.fresh() as usize];
            let is_leased = |port: u16| {
                leases.iter().any(|lease| (lease.first..=lease.first + (lease.count - 1)).contains(&port))
            };
            let bounds = parts.bounds.iter().take(parts.slabs.bounds.fresh() as usize);
            let is_bound = |protocol: u8| protocol == stack::ports::Protocol::Tcp as u8;
            for bound in bounds.filter(|bound| bound.tag.is_used() && is_bound(bound.protocol)) {
                if bound.sockets() != 0 && !is_leased(bound.port) {
                    found.borrow_mut().push((bound.local, bound.port));
                }
            }
            let tcbs = parts.tcbs.iter().take(parts.slabs.tcbs.fresh() as usize);
            let is_live = |state| !matches!(state, State::Closed | State::TimeWait | State::Listen);
            tcbs.filter(|tcb| tcb.tag.is_used() && is_live(tcb.state())).count()
        });
        (found.into_inner(), live)
    }

    fn is_time_to_look(&self) -> bool {
        let Ok(mut inner) = self.inner.lock() else { return false };
        let is_time = inner.looked_at.elapsed() >= LOOK;
        if is_time {
            inner.looked_at = Instant::now();
        }
        is_time
    }

    /// Ends of connections that the kernel has had from here are free again once it has them no more.
    fn forget_handed_over(&self) {
        const AT_ONCE: usize = 256;
        let ends = |tcb: &Tcb| ((tcb.local, tcb.local_port), (tcb.remote, tcb.remote_port));
        let mut asked = Vec::new();
        self.engine.with(self.thread, |stack| {
            stack.forget_handed_over(AT_ONCE, |tcb| {
                asked.push(ends(tcb));
                true
            })
        });
        let ports: BTreeSet<u16> = asked.iter().map(|(local, _)| local.1).collect();
        let mut found = Vec::new();
        for port in ports {
            let here = Netlink::to(libc::NETLINK_SOCK_DIAG, 0)
                .and_then(|mut netlink| connections::at_port(&mut netlink, port));
            // Who can't be asked has them still.
            let Ok(here) = here else { return };
            found.extend(here.iter().map(|connection| (connection.local, connection.remote)));
        }
        asked.retain(|ends| !found.contains(ends));
        if !asked.is_empty() {
            self.engine.with(self.thread, |stack| {
                stack.forget_handed_over(usize::MAX, |tcb| !asked.contains(&ends(tcb)))
            });
        }
    }

    /// Whether there is nobody left to serve.
    fn is_done(&self) -> bool {
        let Ok(inner) = self.inner.lock() else { return true };
        let alone = inner.program_at.elapsed();
        alone >= DRAIN || alone >= LINGER && inner.used_at.elapsed() >= LINGER
    }
}

impl Duty for Half {
    fn engine(&self) -> &Engine {
        self.engine
    }

    fn fds(&self) -> [i32; 2] {
        self.follower.fds()
    }

    fn attend(&self) {
        self.follower.follow(self.engine, self.thread, |ip| self.resolve(ip));
    }

    fn tick(&self) {
        self.follower.take_over(self.engine, self.thread, |ip| self.resolve(ip));
        if self.is_time_to_look() {
            self.forget_handed_over();
        }
        let others = self.engine.processes(self.thread).len() > 1;
        let (ports, live) = self.in_use();
        let Ok(mut inner) = self.inner.lock() else { return };
        let Inner { keeper, ports: joined, program_at, used_at, .. } = &mut *inner;
        joined.retain(|(local, port)| {
            let stays = ports.contains(&(*local, *port));
            if !stays {
                let _ = keeper.release(Protocol::Tcp, *local, *port);
            }
            stays
        });
        for (local, port) in ports {
            // One that was claimed in the same moment is there the next time.
            if !joined.contains(&(local, port)) && keeper.join(Protocol::Tcp, local, port).is_ok() {
                joined.push((local, port));
            }
        }
        if others {
            *program_at = Instant::now();
        }
        if live != 0 {
            *used_at = Instant::now();
        }
    }
}
