//! Two hosts on a cable: namespaces joined by a veth pair. In either the kernel has the addresses 10.0.0.N and fd00::N and the link
//! address 02:00:00:00:00:N, and a stack of ours may drive the interface. Either may lead on to a third one, 10.9.0.2 and fd09::2.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use driver::netlink::links::ifinfomsg;
use driver::netlink::{Message, Netlink};

use stack::wire::ip::Ip;

use super::admin::{Admin, Change, Route};
use super::namespace::Namespace;
use super::sys;
use super::tun::is_tentative;

/// The interface's name at both ends.
pub const NAME: &str = "cable";
/// And where a router leads on by it.
pub const BEYOND: &str = "beyond";
/// The second part of the addresses on either cable.
const FIRST_NET: u8 = 0;
const SECOND_NET: u8 = 9;

// linux/rtnetlink.h, linux/if_link.h, linux/veth.h.
const RTM_NEWLINK: u16 = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// What a cable is like.
#[derive(Clone, Copy, Debug)]
pub struct Cable {
    /// Largest IP packet.
    pub mtu: u32,
    /// Queues of either end.
    pub queues: u32,
}

impl Default for Cable {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1 }
    }
}

impl Cable {
    /// The two hosts, with the numbers 1 and 2; `None`, and a line that is counted, without the rights of root.
    ///
    /// # Panics
    /// When the kernel refuses something to root.
    #[must_use]
    pub fn lay(self) -> Option<[Namespace; 2]> {
        let hosts = match (Namespace::new(), Namespace::new()) {
            (Ok(one), Ok(other)) => [one, other],
            (Err(error), _) | (_, Err(error)) => {
                println!("SKIP the cable between two hosts: a network namespace: {error}");
                return None;
            }
        };
        self.join([&hosts[0], &hosts[1]], [NAME, NAME], FIRST_NET);
        Some(hosts)
    }

    /// A host behind another one, which is its router.
    ///
    /// # Panics
    /// When the kernel refuses something to root.
    #[must_use]
    pub fn lead_on(self, router: &Namespace) -> Namespace {
        let host = Namespace::new().expect("a network namespace");
        self.join([router, &host], [BEYOND, NAME], SECOND_NET);
        for version in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            router.set(version, "1");
        }
        host.inside(|| {
            let mut admin = Admin::new();
            let interface = admin.number(NAME);
            for (to, gateway) in [
                (Ip::UNSPECIFIED_V4, Ip::v4([10, SECOND_NET, 0, 1])),
                (Ip::UNSPECIFIED, Ip(address6(SECOND_NET, 1).octets())),
            ] {
                let route = Route { gateway: Some(gateway), ..Route::new((to, 0), interface) };
                admin.route(Change::Add, &route).expect("a route");
            }
        });
        host
    }

    /// Lays it between two hosts, by these interfaces.
    fn join(self, hosts: [&Namespace; 2], names: [&'static str; 2], net: u8) {
        let peer = hosts[1].as_fd().as_raw_fd();
        hosts[0].inside(move || self.make(peer, names)).expect("a veth pair");
        for ((host, name), number) in hosts.into_iter().zip(names).zip(1..) {
            host.inside(move || set_up(name, net, number)).expect("its addresses");
        }
    }

    /// Makes the pair in this thread's namespace, with the other end in another.
    fn make(self, peer: i32, names: [&str; 2]) -> Result<(), driver::sys::Errno> {
        let end = |message: Message, number: u8| {
            message
                .with(IFLA_IFNAME, format!("{}\0", names[usize::from(number) - 1]).as_bytes())
                .with(IFLA_ADDRESS, &[2, 0, 0, 0, 0, number])
                .with(IFLA_MTU, &self.mtu.to_ne_bytes())
                .with(IFLA_NUM_TX_QUEUES, &self.queues.to_ne_bytes())
                .with(IFLA_NUM_RX_QUEUES, &self.queues.to_ne_bytes())
        };
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let message = end(Message::new(RTM_NEWLINK, flags, &ifinfomsg(0)), 1);
        let message = message.with_nested(IFLA_LINKINFO, |link| {
            link.with(IFLA_INFO_KIND, b"veth").with_nested(IFLA_INFO_DATA, |data| {
                data.with_nested(VETH_INFO_PEER, |other| {
                    end(other.raw(&ifinfomsg(0)), 2).with(IFLA_NET_NS_FD, &peer.to_ne_bytes())
                })
            })
        });
        Netlink::open(0)?.ask(message)
    }
}

fn address6(net: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00 | u16::from(net), 0, 0, 0, 0, 0, 0, number.into())
}

fn set_up(name: &str, net: u8, number: u8) -> std::io::Result<()> {
    sys::set_address(name, Ipv4Addr::new(10, net, 0, number), Ipv4Addr::new(255, 255, 255, 0))?;
    sys::set_up(name)?;
    sys::add_address6(name, address6(net, number), 64)?;
    while is_tentative(&format!("fd{net:02x}{number:028x}"))? {
        std::thread::yield_now();
    }
    Ok(())
}
