//! What an administrator does to a host's interfaces, addresses, routes, rules and neighbours, by netlink, in the calling thread's
//! namespace.

use driver::netlink::links::{self, ifinfomsg};
use driver::netlink::{Message, Netlink};
use driver::sys::Result;
use stack::wire::ip::Ip;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h, linux/neighbour.h.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Without duplicate address detection.
const IFA_F_NODAD: u32 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const RTPROT_BOOT: u8 = 3;
/// RT_TABLE_MAIN.
pub const MAIN: u32 = 254;

/// Whether something comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes.
    Add,
    /// It comes beside another one, if there is one.
    Append,
    /// It comes in the place of another one.
    Replace,
    /// It goes.
    Remove,
}

impl Change {
    const fn flags(self) -> u16 {
        (match self {
            Self::Add => libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            Self::Append => libc::NLM_F_CREATE | libc::NLM_F_APPEND,
            Self::Replace => libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            Self::Remove => 0,
        }) as u16
    }

    const fn kind(self, new: u16, gone: u16) -> u16 {
        if matches!(self, Self::Remove) { gone } else { new }
    }
}

fn family(ip: &Ip) -> u8 {
    (if ip.is_v4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn with_address(message: Message, kind: u16, ip: &Ip) -> Message {
    match ip.as_v4() {
        Some(v4) => message.with(kind, &v4),
        None => message.with(kind, &ip.0),
    }
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What it is for, and how many bits of that.
    pub to: (Ip, u8),
    /// By this interface; 0 is none.
    pub interface: u32,
    /// By this host.
    pub gateway: Option<Ip>,
    /// From this address.
    pub source: Option<Ip>,
    /// Of several the least; 0 is the kernel's choice.
    pub priority: u32,
    /// In this table.
    pub table: u32,
    /// RTN_*.
    pub kind: u8,
    /// Type of service.
    pub tos: u8,
    /// The path's MTU, or 0.
    pub mtu: u32,
}

impl Route {
    /// To these destinations by this interface, in the main table.
    #[must_use]
    pub const fn new(to: (Ip, u8), interface: u32) -> Self {
        Self { to, interface, gateway: None, source: None, priority: 0, table: MAIN, kind: 1, tos: 0, mtu: 0 }
    }
}

/// The hand of the administrator.
#[derive(Debug)]
pub struct Admin(Netlink);

impl Admin {
    /// One in the calling thread's namespace.
    ///
    /// # Panics
    /// When there is no netlink.
    #[must_use]
    pub fn new() -> Self {
        Self(Netlink::open(0).expect("netlink"))
    }

    /// The number of an interface.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn number(&mut self, name: &str) -> u32 {
        links::named(&mut self.0, name).expect("an interface").index
    }

    /// Makes an interface that leads nowhere but to this host again, switched on; its number.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn another(&mut self, name: &str) -> u32 {
        let back = format!("{name}-back");
        let named = |message: Message, name: &str| message.with(IFLA_IFNAME, format!("{name}\0").as_bytes());
        let message = named(Message::new(RTM_NEWLINK, Change::Add.flags(), &ifinfomsg(0)), name);
        let message = message.with_nested(IFLA_LINKINFO, |link| {
            link.with(IFLA_INFO_KIND, b"veth").with_nested(IFLA_INFO_DATA, |data| {
                data.with_nested(VETH_INFO_PEER, |other| named(other.raw(&ifinfomsg(0)), &back))
            })
        });
        self.0.ask(message).expect("a veth pair");
        for name in [name, &back] {
            let number = self.number(name);
            self.switch(number, true).expect("on");
        }
        self.number(name)
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn switch(&mut self, interface: u32, on: bool) -> Result<()> {
        let mut body = ifinfomsg(interface);
        let up = libc::IFF_UP as u32;
        body[8..12].copy_from_slice(&(if on { up } else { 0 }).to_ne_bytes());
        body[12..].copy_from_slice(&up.to_ne_bytes());
        self.0.ask(Message::new(RTM_NEWLINK, 0, &body))
    }

    /// Gives an interface another address on its link.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_link(&mut self, interface: u32, link: [u8; 6]) -> Result<()> {
        self.0.ask(Message::new(RTM_NEWLINK, 0, &ifinfomsg(interface)).with(IFLA_ADDRESS, &link))
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&mut self, interface: u32) -> Result<()> {
        self.0.ask(Message::new(RTM_DELLINK, 0, &ifinfomsg(interface)))
    }

    /// An address of an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&mut self, change: Change, interface: u32, (ip, prefix_len): (Ip, u8)) -> Result<()> {
        let mut body = [family(&ip), prefix_len, 0, 0, 0, 0, 0, 0];
        body[4..].copy_from_slice(&interface.to_ne_bytes());
        let message = Message::new(change.kind(RTM_NEWADDR, RTM_DELADDR), change.flags(), &body);
        let message = with_address(with_address(message, IFA_LOCAL, &ip), IFA_ADDRESS, &ip);
        self.0.ask(message.with(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes()))
    }

    /// A route.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn route(&mut self, change: Change, route: &Route) -> Result<()> {
        let (destination, prefix_len) = route.to;
        // RT_SCOPE_LINK without a gateway, RT_SCOPE_HOST of this host's own; nowhere is everywhere.
        let scope = match (route.kind, route.gateway) {
            (2, _) => 254,
            (1, None) if destination.is_v4() => 253,
            _ => 0,
        };
        let mut body = [0; 12];
        body[..8].copy_from_slice(&[
            family(&destination),
            prefix_len,
            0,
            route.tos,
            u8::try_from(route.table).unwrap_or_default(),
            RTPROT_BOOT,
            scope,
            route.kind,
        ]);
        let message = Message::new(change.kind(RTM_NEWROUTE, RTM_DELROUTE), change.flags(), &body);
        let mut message = with_address(message, RTA_DST, &destination);
        for (kind, ip) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
            message = ip.iter().fold(message, |message, ip| with_address(message, kind, ip));
        }
        for (kind, number) in
            [(RTA_OIF, route.interface), (RTA_PRIORITY, route.priority), (RTA_TABLE, route.table)]
        {
            if number != 0 {
                message = message.with(kind, &number.to_ne_bytes());
            }
        }
        if route.mtu != 0 {
            message =
                message.with_nested(RTA_METRICS, |metrics| metrics.with(RTAX_MTU, &route.mtu.to_ne_bytes()));
        }
        self.0.ask(message)
    }

    /// A rule: packets from these addresses look at this table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rule(
        &mut self,
        change: Change,
        (from, prefix_len): (Ip, u8),
        priority: u32,
        table: u32,
    ) -> Result<()> {
        const FR_ACT_TO_TBL: u8 = 1;
        let mut body = [0; 12];
        (body[0], body[2], body[7]) = (family(&from), prefix_len, FR_ACT_TO_TBL);
        let mut message = Message::new(change.kind(RTM_NEWRULE, RTM_DELRULE), change.flags(), &body)
            .with(FRA_PRIORITY, &priority.to_ne_bytes())
            .with(FRA_TABLE, &table.to_ne_bytes());
        if prefix_len != 0 {
            message = with_address(message, FRA_SRC, &from);
        }
        self.0.ask(message)
    }

    /// A neighbour, in this state (NUD_*).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbour(
        &mut self,
        change: Change,
        interface: u32,
        (ip, link): (Ip, [u8; 6]),
        state: u16,
    ) -> Result<()> {
        let mut body = [0; 12];
        body[0] = family(&ip);
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[8..10].copy_from_slice(&state.to_ne_bytes());
        let message = Message::new(change.kind(RTM_NEWNEIGH, RTM_DELNEIGH), change.flags(), &body);
        self.0.ask(with_address(message, NDA_DST, &ip).with(NDA_LLADDR, &link))
    }

    /// The socket.
    pub const fn netlink(&mut self) -> &mut Netlink {
        &mut self.0
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}
