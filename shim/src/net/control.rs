//! What the stack learns from the kernel: addresses, routes, neighbours.

use driver::clock::monotonic_ns;
use driver::netlink::Netlink;
use driver::netlink::{addresses, neighbours};
use engine::engine::Engine;
use engine::service::Duty;
use stack::ip::neighbour::State;
use stack::time::Instant;
use stack::wire::ethernet::Address;
use stack::wire::ip::Ip;

use super::attach::Interface;
use crate::guard;

impl Duty for Interface {
    fn engine(&self) -> &Engine {
        self.engine
    }

    fn fd(&self) -> i32 {
        -1
    }

    fn attend(&self) {
        let wanted: Vec<Ip> = self.engine.with(guard::tid(), |stack| stack.parts.wanted().collect());
        for ip in wanted {
            self.resolve(ip);
        }
        let Ok(mut netlink) = Netlink::open(0) else { return };
        let known = addresses::all(&mut netlink).unwrap_or_default();
        let near = neighbours::all(&mut netlink).unwrap_or_default();
        self.engine.with(guard::tid(), |stack| {
            stack.now = Instant(monotonic_ns());
            for address in known.iter().filter(|address| address.interface == self.index) {
                if !stack.parts.is_ours(&address.ip) {
                    let wide = if address.ip.is_v4() { 96 } else { 0 };
                    let _ = stack.parts.join_subnet(&address.ip, address.prefix_len + wide);
                }
            }
            for neighbour in near.iter().filter(|neighbour| neighbour.interface == self.index) {
                let Some(link) = neighbour.link else { continue };
                stack.set_neighbour(&neighbour.ip, Some(Address(link)), State::Reachable);
            }
        });
    }
}
