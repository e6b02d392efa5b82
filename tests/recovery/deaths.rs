//! A process is killed after so many instructions of an operation; another one attaches, recovers and goes on.
//!
//! What a death leaves is the shared memory as it is at that moment. So each operation is done once, instruction by instruction, and the
//! memory is copied at moments on its way; each copy is then what somebody finds who comes after a death there. And one process of each
//! case is killed indeed (SIGKILL).
//!
//! ```text
//! DEATHS=all cargo test --profile tests -p accel-tests --test recovery -- --nocapture deaths     at every instruction that
//!                                                                                              changes the memory: half an hour
//! DEATHS=100 …                                                                                 at a hundred and more of each
//! ```

use harness::sim::raw::ip;
use harness::sim::tcp::text;
use stack::error::Error;
use stack::recover::Operation;
use stack::region::slab::Handle;
use stack::tcp::calls::How;
use stack::tcp::tcb::Tcb;
use stack::time::Duration;

use super::card::FRAGMENTS;
use super::trace::{Fate, step, walk};
use super::world::{PORT, World};

/// Deaths of each operation at the least, if nobody says how many; there are up to twice as many.
const SAMPLE: usize = 12;

/// The real death is at half of so many instructions, or of all.
const EARLY: u64 = 5_000;

/// What a process dies in: how the world comes there, and what it does.
pub(super) struct Case {
    pub(super) prepare: fn(&mut World),
    pub(super) act: fn(&mut World),
}

/// A world before the operation, and its connections.
struct Before {
    world: World,
    connections: Vec<(Handle, Tcb)>,
}

impl Before {
    fn new(case: &Case) -> Self {
        let mut world = World::new();
        (case.prepare)(&mut world);
        world.ours.check();
        let now = world.now;
        let connections = world.ours.with(now, |stack| {
            let all = stack.parts.tcbs.iter().enumerate().filter(|(_, tcb)| tcb.has_peer());
            all.map(|(index, tcb)| (tcb.tag.handle(index as u32), *tcb)).collect()
        });
        Self { world, connections }
    }

    /// The connection that the intent names.
    fn named(&mut self) -> Option<u32> {
        let now = self.world.now;
        self.world.ours.with(now, |stack| {
            let is_named = stack.parts.intent.operation() != Operation::None;
            stack.parts.intent.socket.checked_sub(1).filter(|_| is_named)
        })
    }

    /// Its process died, and somebody comes after it.
    fn recovers(mut self, when: &str) {
        let (named, now) = (self.named(), self.world.now);
        self.world.ours.with(now, |stack| stack.recover()).expect("every invariant holds");
        finish(self.world, self.connections, named, when);
    }

    /// Its process was done.
    fn goes_on(mut self, when: &str) {
        assert_eq!(self.named(), None, "the intent is taken back");
        finish(self.world, self.connections, None, when);
    }
}

/// Moments of one way through an operation, and the memory at each.
struct Moments {
    /// Fewest of them; `None` is all that there are, which are not kept.
    least: Option<usize>,
    kept: Vec<(u64, Vec<u8>)>,
    /// Instructions between two of them, about, and the next one that is looked at.
    stride: u64,
    next: u64,
}

impl Moments {
    fn new(least: Option<usize>) -> Self {
        Self { least, kept: Vec::new(), stride: 1, next: 0 }
    }

    /// So many instructions are done, and this is the memory; what to do with it at once, if it isn't kept.
    fn see(&mut self, steps: u64, memory: &[u8]) -> bool {
        let Some(least) = self.least else {
            let is_new = self.kept.first().is_none_or(|last| last.1 != memory);
            if is_new {
                self.kept = vec![(steps, memory.to_vec())];
            }
            return is_new;
        };
        self.kept.push((steps, memory.to_vec()));
        if self.kept.len() > 2 * least {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride *= 2;
        }
        self.next = steps + 1 + (steps.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % (2 * self.stride - 1);
        false
    }
}

/// Deaths at moments of the operation.
pub(super) fn deaths(case: &Case) {
    let least = match std::env::var("DEATHS") {
        Ok(all) if all == "all" => None,
        Ok(count) => Some(count.parse::<usize>().expect("a number, or `all`").max(1)),
        Err(_) => Some(SAMPLE),
    };
    let mut before = Before::new(case);
    let (view, start) = (before.world.ours.view(), before.world.ours.image().to_vec());
    // Who comes after a death at that moment; the way to it is the same each time.
    let die = |steps: u64, memory: &[u8]| {
        let mut after = Before::new(case);
        assert!(after.world.ours.image() == start, "a world is not what it was");
        after.world.ours.image().copy_from_slice(memory);
        after.recovers(&format!("after {steps}"));
    };
    let (mut moments, mut died) = (Moments::new(least), 0);
    let world = &mut before.world;
    let fate = walk(
        || (case.act)(world),
        |steps| {
            if steps >= moments.next && view.with(|memory| moments.see(steps, memory)) {
                died += 1;
                view.with(|memory| die(steps, memory));
            }
            true
        },
    );
    let Fate::Done(steps) = fate else { panic!("nobody has killed it") };
    before.goes_on(&format!("after all {steps}"));
    if least.is_some() {
        for (steps, memory) in &moments.kept {
            died += 1;
            die(*steps, memory);
        }
    }
    println!("{died} deaths within {steps} instructions");
    assert!(died >= least.unwrap_or(2).min(steps as usize), "{died} of {least:?}");
    // A real one.
    let mut before = Before::new(case);
    let world = &mut before.world;
    let early = steps.min(EARLY) / 2;
    assert_eq!(step(early, || (case.act)(world)), Fate::Killed);
    before.recovers(&format!("after {early}, when it was killed"));
}

/// The dead process's sockets are closed, everybody else's go on.
fn finish(mut world: World, before: Vec<(Handle, Tcb)>, named: Option<u32>, when: &str) {
    world.ours.check();
    let (now, victim, survivor) = (world.now, world.victim, world.survivor);
    // Of the survivor's connections none but the named one is gone, whatever the moment.
    world.ours.with(now, |stack| {
        for (socket, was) in &before {
            let is_ours =
                stack.parts.holders(*socket).is_ok_and(|holders| holders & 1 << survivor.index != 0);
            if is_ours && named != Some(socket.index) {
                let tcb = stack.parts.tcb(*socket).expect("it is held");
                assert!(tcb.has_peer() || tcb.error == 0 && was.has_peer(), "{when}: {socket:?} is lost");
            }
        }
    });
    // The child of a fork that was not reached will never come; an end that was begun is brought to its end.
    for process in world.left_over().into_iter().chain([victim]) {
        world.ours.with(now, |stack| {
            while stack.parts.process(process).is_ok() && stack.end_process(process, 4).expect("there") {}
        });
    }
    world.ours.check();
    world.loses = None;
    // Who comes now is served.
    world.call(text(9, 5000));
    world.finish();
    for talk in &world.our_talks {
        let is_whole = talk.error.is_none() && talk.sent == talk.text.len();
        assert!(is_whole || named.is_some(), "{when}: {:?} after {}", talk.error, talk.got.len());
    }
    let failed = |talks: &[super::world::Talk]| talks.iter().filter(|talk| talk.error.is_some()).count();
    assert!(failed(&world.our_talks) <= 1, "{when}: more than one is lost");
    assert!(failed(&world.their_talks) <= 2, "{when}: the victim's and one more");
    // Byte for byte: what was read is what was sent, or the beginning of it where a connection was lost.
    let texts = [text(1, 150_000), text(2, 150_000), text(9, 5000), text(100, 40_000), text(200, 40_000)];
    for talk in world.our_talks.iter().chain(&world.their_talks) {
        let is_it = |text: &Vec<u8>| match talk.error {
            None => *text == talk.got || VICTIMS.iter().any(|victims| victims.starts_with(&talk.got)),
            Some(_) => text.starts_with(&talk.got),
        };
        let is_any = texts.iter().any(is_it) || VICTIMS.iter().any(|text| text.starts_with(&talk.got));
        assert!(is_any, "{when}: {} bytes are not what was sent", talk.got.len());
    }
    let last = world.their_talks.iter().find(|talk| talk.text == text(9, 5000)).expect("the last");
    assert!(last.error.is_none() && last.got == text(100, 40_000), "{when}: {:?}", last.error);
    world.check_mail(when);
    let left = world.left();
    world.ours.check();
    world.theirs.check();
    assert_eq!(left[..3], [1, 0, 0], "{when}: but for the listener nothing is left");
    let most = if world.ours.card(|card| card.has_offloads()) { FRAMES_LOST.1 } else { FRAMES_LOST.0 };
    assert!(left[3] <= most, "{when}: {} frames are lost", left[3]);
}

/// Frames that may be lost until the device is closed: those that the process had taken from a ring at once, and those of a packet
/// that it was giving to another. With offloads both are more.
const FRAMES_LOST: (u32, u32) = (8 + 1, 64 + FRAGMENTS as u32);

/// What the victim sends.
static VICTIMS: [[u8; 9000]; 1] = [[0x5a; 9000]];

fn nothing(_: &mut World) {}

/// Devices that cut and join, from now on.
fn offloads(world: &mut World) {
    world.ours.card(|card| card.offload());
    world.theirs.card(|card| card.offload());
}

fn poll(world: &mut World) {
    let now = world.now;
    world.ours.with(now, |stack| {
        stack.poll();
    });
}

fn send(world: &mut World) {
    let (now, socket) = (world.now, world.socket);
    world.ours.with(now, |stack| {
        let _ = stack.send(socket, &[&VICTIMS[0][..4000], &VICTIMS[0][4000..]], false);
    });
}

macro_rules! cases {
    ($($name:ident: $prepare:expr, $act:expr;)+) => { $(
        #[test]
        fn $name() {
            deaths(&Case { prepare: $prepare, act: $act });
        }
    )+ };
}

cases! {
    connect: nothing, |world| {
        let (now, victim) = (world.now, world.victim);
        world.ours.with(now, |stack| {
            if let Ok(socket) = stack.parts.tcp_socket(false, victim.index) {
                let _ = stack.connect(socket, &ip(1), (&ip(2), PORT));
            }
        });
    };
    accept: |world| {
        for _ in 0..2 {
            world.call(text(2, 150_000));
        }
        for _ in 0..8 {
            world.advance(false);
        }
    }, |world| {
        let (now, listener, victim) = (world.now, world.listener, world.victim);
        world.ours.with(now, |stack| {
            let _ = stack.accept(listener, victim.index);
        });
    };
    send_text: nothing, send;
    receive: |world| world.run_for(Duration::from_millis(20)), |world| {
        let (now, socket) = (world.now, world.socket);
        world.ours.with(now, |stack| {
            let mut buffer = [0; 8192];
            let _ = stack.receive(socket, &mut [&mut buffer]);
        });
    };
    segments_in: |world| world.run_until_arrived(3), poll;
    acknowledgments_in: |world| {
        send(world);
        world.run_until_arrived(2);
    }, poll;
    timer: |world| {
        world.loses = Some(|_, _| true);
        for _ in 0..200 {
            let before = world.now;
            if world.advance(true) == 0 && world.now.0 > before.0 + 150_000_000 {
                break;
            }
        }
    }, poll;
    close: |world| world.run_for(Duration::from_millis(20)), |world| {
        let (now, socket, victim) = (world.now, world.socket, world.victim);
        world.ours.with(now, |stack| {
            let _ = stack.close_by(socket, victim);
        });
    };
    shutdown: send, |world| {
        let (now, socket) = (world.now, world.socket);
        world.ours.with(now, |stack| {
            let _ = stack.shutdown(socket, How::Write);
        });
    };
    poll_with_loss: |world| {
        world.loses = Some(|to_us, number| number % if to_us { 5 } else { 7 } == 0);
        send(world);
        world.run_for(Duration::from_millis(6));
        world.run_until_arrived(2);
    }, poll;

    // With devices that cut and join: a run is given, packets of several frames come, and what was lost goes again.
    send_run: offloads, send;
    joined_in: |world| {
        offloads(world);
        world.run_until_arrived(4);
        assert!(world.ours.card(|card| card.arrived().has_joined()), "packets of several frames");
    }, poll;
    runs_with_loss: |world| {
        offloads(world);
        world.loses = Some(|to_us, number| number % if to_us { 5 } else { 7 } == 0);
        send(world);
        world.run_for(Duration::from_millis(6));
        world.run_until_arrived(2);
    }, poll;

    // Beyond the ten: a listener's life, a SYN, a child, sharing, a death's own closing, and a recovery.
    listen: nothing, |world| {
        let (now, victim) = (world.now, world.victim);
        world.ours.with(now, |stack| {
            if let Ok(socket) = stack.parts.tcp_socket(false, victim.index) {
                let _ = stack.parts.tcp_bind(socket, (&ip(1), 81));
                let _ = stack.listen(socket, 5);
                let _ = stack.close_by(socket, victim);
            }
        });
    };
    syn_in: |world| {
        world.run_for(Duration::from_millis(200));
        world.call(text(2, 150_000));
        world.run_until_arrived(1);
    }, poll;
    child: |world| {
        world.run_for(Duration::from_millis(200));
        world.call(text(2, 150_000));
        world.run_until_arrived(1);
        world.run_until_arrived(1);
    }, poll;
    fork: nothing, |world| {
        let (now, victim) = (world.now, world.victim);
        world.ours.with(now, |stack| {
            if let Ok(child) = stack.parts.fork_process(victim) {
                let _ = stack.end_process(child, 10);
            }
        });
    };
    ending: send, |world| {
        let (now, victim) = (world.now, world.victim);
        world.ours.with(now, |stack| {
            let _ = stack.end_process(victim, 10);
        });
    };
    recovery: |world| {
        send(world);
        world.run_until_arrived(2);
        assert_eq!(step(900, || poll(world)), Fate::Killed);
    }, |world| {
        let now = world.now;
        world.ours.with(now, |stack| stack.parts.recover(stack.shared, |_| {}));
    };
}

/// The rest of the errors is for those that know more.
#[test]
fn a_lost_connection_is_a_reset_for_both_ends() {
    let mut world = World::new();
    world.run_until_arrived(3);
    let (now, socket) = (world.now, world.socket);
    // As a death in the midst of a segment for the victim's connection would leave it.
    world.ours.with(now, |stack| {
        stack.parts.intent.operation = Operation::Tcp as u32;
        stack.parts.intent.socket = socket.index + 1;
        assert_eq!(stack.recover(), Ok(1));
        assert_eq!(stack.take_error(socket), Ok(Some(Error::ConnectionReset)));
    });
    world.run_for(Duration::from_millis(10));
    let reset = world.their_talks.iter().filter(|talk| talk.error == Some(Error::ConnectionReset));
    assert_eq!(reset.count(), 1);
}
