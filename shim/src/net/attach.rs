//! The interfaces that accel drives for this process: each has a keeper, and a stack that this process runs together with others.

use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use driver::keeper::{Attached, Keeper, Refusal};
use driver::netlink::Netlink;
use driver::netlink::links;
use driver::steering::{LOCALS, Place, Protocol, Requests};
use driver::sys::{self, Fd};
use engine::engine::{Engine, Materials};
use libc::c_int;
use stack::export::Snapshot;
use stack::hash::Secret;
use stack::ip::Interface as OnLink;
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use super::control::Control;
use crate::config::config;
use crate::fdtable::{self, Entry};
use crate::lock::Lock;
use crate::log;
use crate::{errno, family, guard};

/// Interfaces of one process.
pub(super) const INTERFACES: usize = 8;

/// One that accel drives.
pub(crate) struct Interface {
    /// Its place among those of this process.
    pub(crate) number: u32,
    /// Its number in the kernel.
    pub(crate) index: u32,
    /// The stack.
    pub(crate) engine: &'static Engine,
    /// None where a child could not reach it.
    keeper: Lock<Option<Keeper>>,
    /// Which packets are wanted.
    requests: Requests,
    /// This process has a service thread.
    is_served: AtomicBool,
    /// Ports that are given back as soon as no connection has them any more.
    leaving: Lock<Vec<(Ip, u16)>>,
    pub(super) control: Control,
}

impl core::fmt::Debug for Interface {
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        to.debug_struct("Interface").field("index", &self.index).finish_non_exhaustive()
    }
}

static ALL: [AtomicPtr<Interface>; INTERFACES] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; INTERFACES];
static COUNT: AtomicU32 = AtomicU32::new(0);
static STATE: AtomicU8 = AtomicU8::new(NO);
const NO: u8 = 0;
const STARTING: u8 = 1;
const DONE: u8 = 2;

/// The interface with this number.
#[inline]
pub(crate) fn interface(number: u32) -> Option<&'static Interface> {
    // SAFETY: what is entered stays for good.
    unsafe { ALL.get(number as usize)?.load(Acquire).as_ref() }
}

/// Those that this process has.
pub(crate) fn interfaces() -> impl Iterator<Item = &'static Interface> {
    (0..COUNT.load(Acquire)).filter_map(interface)
}

/// This process has no part in it any more: the sockets that were carried are the kernel's again, which has no connections for them.
pub(super) fn leave(interface: &Interface) {
    if let Some(place) = ALL.get(interface.number as usize) {
        place.store(core::ptr::null_mut(), Release);
    }
}

/// Whether there are any.
#[inline]
pub(crate) fn is_on() -> bool {
    COUNT.load(Relaxed) != 0
}

/// At the first socket: attaches to the interfaces that the options name. What fails is said once, and the sockets stay on the kernel.
#[inline]
pub(crate) fn start() {
    if STATE.load(Relaxed) == NO && config().interfaces.is_some() {
        errno::kept(attach_all);
    }
}

#[cold]
fn attach_all() {
    if STATE.compare_exchange(NO, STARTING, SeqCst, Relaxed).is_err() {
        return;
    }
    let names = config().interfaces.unwrap_or_default();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()).take(INTERFACES) {
        match attach(name) {
            Ok(interface) => {
                let number = interface.number as usize;
                interface.await_tables();
                ALL[number].store(Box::into_raw(Box::new(interface)), Release);
                COUNT.store(number as u32 + 1, Release);
            }
            Err(why) => log::warn(format_args!("interface {name}: {why}; its sockets stay on the kernel")),
        }
    }
    STATE.store(DONE, Release);
}

fn attach(name: &str) -> Result<Interface, String> {
    let there = Netlink::open(0).and_then(|mut netlink| links::named(&mut netlink, name));
    let link = there.map_err(|errno| format!("errno {}: there is none with this name here", errno.0))?;
    let refused = |refusal: Refusal| refusal.to_string();
    let mut keeper = Keeper::connect(link.index, family::number_floor()).map_err(refused)?;
    let mut attached = keeper.attach().map_err(refused)?;
    let (device, requests) = (attached.device().map_err(refused)?, attached.requests().map_err(refused)?);
    let Attached { terms, region, bells, passed, .. } = attached;
    let interface = OnLink { link: ethernet::Address(terms.mac), ..OnLink::default() };
    let (limits, ports) = (terms.limits, terms.ports.clone());
    let materials = Materials { region, limits, device, bells, interface, ports };
    let engine = Engine::attach(materials, secret).map_err(|why| why.to_string())?;
    for fd in engine.descriptors().chain([passed.raw()]) {
        hide(fd);
    }
    // The ports that connections come from are this owner's already; they are wanted from now on.
    for (first, count) in &terms.ports {
        for port in (*first..).take(usize::from(*count)) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for slot in 0..LOCALS {
                    requests.want(Place { slot, protocol, port }, true);
                }
            }
        }
    }
    Ok(Interface {
        number: COUNT.load(Acquire),
        index: link.index,
        engine,
        keeper: Lock::new(Some(keeper)),
        requests,
        is_served: AtomicBool::new(false),
        leaving: Lock::new(Vec::new()),
        control: Control::new(link.index, limits, passed),
    })
}

/// Bytes that nobody else knows.
fn secret() -> Secret {
    let mut words = [0u64; 2];
    // SAFETY: the words are writable; getrandom(2) for so few bytes gives all of them.
    unsafe { sys::syscall(libc::SYS_getrandom, [words.as_mut_ptr() as usize, 16, 0, 0, 0, 0]) };
    Secret(words)
}

impl Interface {
    /// Packets to this port come to the stack from now on. `placeholder` is bound to it in the kernel.
    ///
    /// # Errors
    /// What the keeper says.
    pub(crate) fn claim(
        &self,
        protocol: Protocol,
        local: Ip,
        port: u16,
        placeholder: c_int,
    ) -> Result<(), Refusal> {
        let mut keeper = self.keeper.lock();
        let claimed = keeper.as_mut().ok_or(Refusal::Gone)?.claim(protocol, local, port, placeholder)?;
        drop(keeper);
        for place in claimed.places(protocol, port) {
            self.requests.want(place, true);
        }
        Ok(())
    }

    /// This process has a child, which holds the same ports.
    pub(super) fn forked(&self, child: u32) {
        if let Some(keeper) = self.keeper.lock().as_mut() {
            let _ = keeper.forked(child.cast_signed());
        }
    }

    /// In a fork's child: it is another process to the keeper, and has no thread that serves the stack yet.
    pub(super) fn after_fork(&self) {
        let keeper = Keeper::connect(self.index, family::number_floor());
        let keeper = keeper.ok().and_then(|mut keeper| keeper.hold().ok().map(|()| keeper));
        // SAFETY: this is the only thread of the child.
        unsafe {
            self.keeper.renew(keeper);
            self.leaving.renew(Vec::new());
        }
        self.control.after_fork();
        self.is_served.store(false, Relaxed);
    }

    /// Starts the service thread of this process, if there is none.
    #[inline]
    pub(crate) fn serve(&'static self) {
        if !self.is_served.load(Relaxed) {
            self.start_service();
        }
    }

    #[cold]
    fn start_service(&'static self) {
        if !self.is_served.swap(true, SeqCst)
            && let Err(error) = errno::kept(|| engine::service::start(self))
        {
            log::warn(format_args!("no thread for the stack of interface {}: errno {error}", self.index));
        }
    }

    /// The keeper gives up what processes had that have ended.
    pub(crate) fn bury(&'static self) {
        if let Some(keeper) = self.keeper.lock().as_mut() {
            // Who says that he is there is answered when the dead are gone.
            let _ = keeper.hold();
        }
    }

    /// The kernel has a connection from now on, in this socket.
    ///
    /// # Errors
    /// What the keeper says.
    pub(super) fn hand_over(&self, it: &Snapshot, socket: c_int, bytes: &Fd) -> Result<(), Refusal> {
        self.keeper.lock().as_mut().ok_or(Refusal::Gone)?.hand_over(it, socket, bytes)
    }

    /// Has the kernel ask for a neighbour.
    pub(super) fn resolve(&self, ip: Ip) {
        if let Some(keeper) = self.keeper.lock().as_mut() {
            let _ = keeper.resolve(ip);
        }
    }

    /// A socket at this port is closed here. Packets of the connections that it leaves are the stack's until the last has ended.
    pub(super) fn leave(&self, local: Ip, port: u16) {
        self.leaving.lock().push((local, port));
        self.give_back();
    }

    /// Gives back the ports that no connection has any more.
    pub(super) fn give_back(&self) {
        let is_used = |port: u16| {
            self.engine
                .with(guard::tid(), |stack| stack.parts.ports().is_used(stack::ports::Protocol::Tcp, port))
        };
        let mut leaving = self.leaving.lock();
        let mut free = Vec::new();
        leaving.retain(|(local, port)| {
            let stays = is_used(*port);
            if !stays {
                free.push((*local, *port));
            }
            stays
        });
        drop(leaving);
        for (local, port) in free {
            self.release(Protocol::Tcp, local, port);
        }
    }

    /// Packets to this port are the kernel's at once, whoever has claimed it.
    pub(super) fn pass(&self, protocol: Protocol, local: Ip, port: u16, placeholder: c_int) {
        let mut keeper = self.keeper.lock();
        let Some(keeper) = keeper.as_mut() else { return };
        // What it is claimed as, the keeper tells who claims it.
        if let Ok(claimed) = keeper.claim(protocol, local, port, placeholder) {
            claimed.places(protocol, port).for_each(|place| self.requests.want(place, false));
            let _ = keeper.release(protocol, local, port);
        }
    }

    /// They don't any more, as far as this process is concerned.
    pub(crate) fn release(&self, protocol: Protocol, local: Ip, port: u16) {
        if let Some(keeper) = self.keeper.lock().as_mut() {
            let _ = keeper.release(protocol, local, port);
        }
    }
}

/// Descriptors of ours are kept from the program.
pub(crate) fn hide(fd: c_int) {
    fdtable::set(fd, Entry::Internal);
}
