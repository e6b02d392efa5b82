//! The same for operations on sockets of UDP: what was queued may be lost with who died, and nothing of anybody else's.

use harness::sim::raw::ip;
use harness::sim::tcp::text;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::tcp::calls::How;
use stack::time::Duration;
use stack::udp::group::Filter;
use stack::udp::send::Sending;
use stack::wire::ip::Ip;

use super::deaths::{Case, deaths};
use super::world::World;

const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
/// The victim's port and the other host's, and the survivor's.
const PORTS: [u16; 2] = [53, 54];

/// Sockets of UDP.
#[derive(Clone, Copy)]
pub(super) struct Mail {
    victims: Handle,
    survivors: Handle,
    theirs: Handle,
}

/// The victim, the survivor and the other host have a socket each, and the survivor has something to read.
pub(super) fn open(world: &mut World) {
    let (now, victim, survivor, stranger) = (world.now, world.victim, world.survivor, world.stranger);
    let [victims, survivors] = world.ours.with(now, |stack| {
        let holders = [(victim, PORTS[0]), (survivor, PORTS[1])];
        holders.map(|(holder, port)| {
            let socket = stack.udp_open(false, holder.index).expect("room");
            stack.parts.udp_bind(socket, (&ip(1), port)).expect("free");
            socket
        })
    });
    let theirs = world.theirs.with(now, |stack| {
        let socket = stack.udp_open(false, stranger.index).expect("room");
        stack.parts.udp_bind(socket, (&ip(2), PORTS[0])).expect("free");
        socket
    });
    world.mail = Some(Mail { victims, survivors, theirs });
    send_us(world, PORTS[1], b"kept");
    world.run_for(Duration::from_millis(5));
}

/// The other host sends us a datagram.
fn send_us(world: &mut World, port: u16, data: &[u8]) {
    let (now, Some(mail)) = (world.now, world.mail) else { return };
    world.theirs.with(now, |stack| {
        let how = Sending { to: Some((ip(1), port)), ..Sending::default() };
        stack.udp_send(mail.theirs, &[data], &how).expect("room");
    });
}

/// A few for the victim, joined and in fragments, and one for the survivor.
pub(super) fn send_some(world: &mut World) {
    let (now, Some(mail)) = (world.now, world.mail) else { return };
    world.ours.with(now, |stack| {
        let values = Values { options: Switch::GRO, ..Values::default() };
        stack.parts.set_udp_options(mail.victims, &values).expect("room");
    });
    for data in [&[1; 100][..], &[2; 100], &text(3, 4000)] {
        send_us(world, PORTS[0], data);
    }
    send_us(world, PORTS[1], b"more");
}

fn send(world: &mut World, to: (Ip, u16), data: &[u8]) {
    let (now, Some(mail)) = (world.now, world.mail) else { return };
    world.ours.with(now, |stack| {
        let _ = stack.udp_send(mail.victims, &[data], &Sending { to: Some(to), ..Sending::default() });
    });
}

impl World {
    /// The survivor's socket of UDP still gets what is sent to it; then it is closed, and the other host's.
    pub(super) fn check_mail(&mut self, when: &str) {
        let Some(mail) = self.mail.take() else { return };
        self.mail = Some(mail);
        send_us(self, PORTS[1], b"later");
        self.run_for(Duration::from_millis(5));
        let (now, survivor, stranger) = (self.now, self.survivor, self.stranger);
        self.ours.with(now, |stack| {
            let (mut all, mut buffer) = (Vec::new(), [0; 100]);
            while let Ok(Some(got)) = stack.udp_receive(mail.survivors, &mut [&mut buffer]) {
                assert_eq!(got.source, (ip(2), PORTS[0]), "{when}");
                all.push(buffer[..got.len].to_vec());
            }
            assert_eq!(all.first().map(Vec::as_slice), Some(&b"kept"[..]), "{when}");
            assert_eq!(all.last().map(Vec::as_slice), Some(&b"later"[..]), "{when}");
            assert_eq!(stack.udp_close_by(mail.survivors, survivor), Ok(true), "{when}");
            let slabs = &stack.parts.slabs;
            assert_eq!([slabs.udp_sockets.used(), slabs.memberships.used()], [0; 2], "{when}");
            assert!(!stack.parts.listens_to(&GROUP), "{when}");
        });
        self.theirs.with(now, |stack| stack.udp_close_by(mail.theirs, stranger)).expect("its own");
    }
}

macro_rules! cases {
    ($($name:ident: $prepare:expr, $act:expr;)+) => { $(
        #[test]
        fn $name() {
            deaths(&Case { prepare: |world| { open(world); $prepare(world); }, act: $act });
        }
    )+ };
}

fn nothing(_: &mut World) {}

cases! {
    datagram_life: nothing, |world| {
        let (now, victim) = (world.now, world.victim);
        world.ours.with(now, |stack| {
            if let Ok(socket) = stack.udp_open(false, victim.index) {
                let _ = stack.udp_connect(socket, (&ip(2), 99));
                let _ = stack.udp_send(socket, &[b"hello"], &Sending::default());
                let _ = stack.udp_shutdown(socket, How::Both);
                let _ = stack.parts.udp_disconnect(socket);
                let _ = stack.udp_close_by(socket, victim);
            }
        });
    };
    datagrams_out: nothing, |world| {
        send(world, (ip(2), PORTS[0]), &[7; 100]);
        send(world, (ip(2), PORTS[0]), &[7; 4000]);
    };
    datagrams_in: |world: &mut World| {
        send_some(world);
        world.run_until_arrived(4);
    }, |world| {
        let now = world.now;
        world.ours.with(now, |stack| {
            stack.poll();
        });
    };
    datagrams_read: |world: &mut World| {
        send_some(world);
        world.run_for(Duration::from_millis(5));
    }, |world| {
        let (now, Some(mail)) = (world.now, world.mail) else { return };
        world.ours.with(now, |stack| {
            let mut buffer = [0; 5000];
            let _ = stack.udp_peek(mail.victims, 0, &mut [&mut buffer]);
            while let Ok(Some(_)) = stack.udp_receive(mail.victims, &mut [&mut buffer]) {}
        });
    };
    datagrams_dropped: |world: &mut World| {
        send_some(world);
        world.run_for(Duration::from_millis(5));
        send(world, (ip(2), PORTS[0]), &[7; 100]);
    }, |world| {
        let (now, victim, Some(mail)) = (world.now, world.victim, world.mail) else { return };
        world.ours.with(now, |stack| {
            let _ = stack.udp_close_by(mail.victims, victim);
        });
    };
    groups: nothing, |world| {
        let (now, victim, Some(mail)) = (world.now, world.victim, world.mail) else { return };
        world.ours.with(now, |stack| {
            let _ = stack.parts.udp_join_group(mail.victims, &GROUP, now);
            let _ = stack.parts.udp_filter(mail.victims, &GROUP, &ip(9), (Filter::Exclude, true), now);
            let to = Some((GROUP, PORTS[0]));
            stack.parts.udp(mail.victims).expect("a socket").multicast_from = ip(1);
            let _ = stack.udp_send(mail.victims, &[b"to all"], &Sending { to, ..Sending::default() });
            let _ = stack.udp_close_by(mail.victims, victim);
        });
    };
}
