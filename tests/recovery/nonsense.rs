//! A region in which anything may stand: whatever a stack does in it ends with some result, after bounded work, and without a look
//! outside. (A look outside would be a panic: there is no unsafe code in it.)
//!
//! ```text
//! NONSENSE=100000 cargo test --release -p accel-tests --test recovery nonsense      that many regions
//! ```

use harness::sim::random::Random;
use harness::sim::raw::ip;
use stack::region::slab::Handle;
use stack::stack::Stack;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};
use stack::udp::group::Filter;
use stack::udp::send::Sending;
use stack::wire::ip::Ip;

use super::card::Card;
use super::datagrams::{open, send_some};
use super::world::{Machine, PORT, World};

/// Looks at frames that one operation may take: a packet is looked at a few times, and each frame of each queue.
const LOOKS: u64 = 100_000;

/// Moments of a region's life, each with packets in the device's ring.
fn moments() -> Vec<(Instant, Vec<u8>)> {
    let mut world = World::new();
    open(&mut world);
    world.loses = Some(|to_us, number| number % if to_us { 5 } else { 7 } == 0);
    (0..6)
        .map(|_| {
            send_some(&mut world);
            world.run_for(Duration::from_millis(7));
            send_some(&mut world);
            world.run_until_arrived(1);
            (world.now, world.ours.image().to_vec())
        })
        .collect()
}

/// Writes nonsense over a region: few bits, few bytes, small numbers, a range, or nearly everything.
fn spoil(bytes: &mut [u8], random: &mut Random) {
    let len = bytes.len() as u64;
    match random.below(5) {
        0 => (0..=random.below(20)).for_each(|_| bytes[random.below(len) as usize] ^= 1 << random.below(8)),
        1 => (0..=random.below(300)).for_each(|_| bytes[random.below(len) as usize] = random.next() as u8),
        2 => {
            (0..=random.below(3000)).for_each(|_| bytes[random.below(len) as usize] = random.below(40) as u8)
        }
        3 => {
            let begin = random.below(len);
            let end = (begin + random.below(20_000)).min(len);
            bytes[begin as usize..end as usize].iter_mut().for_each(|byte| *byte = random.next() as u8);
        }
        _ => {
            let density = 1 + random.below(50);
            bytes.iter_mut().for_each(|byte| {
                let draw = random.next();
                if draw.is_multiple_of(density) {
                    *byte = (draw >> 32) as u8 % if density.is_multiple_of(2) { 64 } else { 255 };
                }
            });
        }
    }
}

/// The name of some record, in use or not.
fn handle(stack: &Stack<'_, '_, Card<'_>>, random: &mut Random) -> Handle {
    let index = random.below(stack.parts.tcbs.len() as u64) as usize;
    stack.parts.tcbs[index].tag.handle(index as u32)
}

fn act(stack: &mut Stack<'_, '_, Card<'_>>, random: &mut Random) {
    let socket = handle(stack, random);
    let slot = random.below(8) as u32;
    let process = stack.parts.processes[slot as usize].tag.handle(slot);
    let (text, mut buffer) = ([0x33; 3000], [0; 3000]);
    match random.below(27) {
        0..4 => drop(stack.poll()),
        4 => drop(stack.send(socket, &[&text], random.below(2) == 0)),
        5 => drop(stack.receive(socket, &mut [&mut buffer])),
        6 => drop(stack.accept(socket, slot)),
        7 => drop(stack.close(socket)),
        8 => drop(stack.shutdown(socket, [How::Read, How::Write, How::Both][slot as usize % 3])),
        9 => drop(stack.connect(socket, &ip(1), (&ip(2), PORT))),
        10 => drop(stack.parts.tcp_socket(false, slot)),
        11 => drop(stack.parts.tcp_bind(socket, (&ip(1), 80 + slot as u16))),
        12 => drop(stack.listen(socket, slot)),
        13 => drop(stack.end_process(process, 8)),
        14 => drop(stack.parts.fork_process(process)),
        15 => drop(stack.take_error(socket)),
        16 => drop(stack.set_delay(socket, slot & 1 == 0, slot & 2 == 0)),
        17..26 => act_on_datagrams(stack, random, &mut buffer),
        _ => drop(stack.parts.check()),
    }
}

fn act_on_datagrams(stack: &mut Stack<'_, '_, Card<'_>>, random: &mut Random, buffer: &mut [u8]) {
    let index = random.below(stack.parts.udp_sockets.len() as u64) as usize;
    let socket = stack.parts.udp_sockets[index].tag.handle(index as u32);
    let slot = random.below(8) as u32;
    let (group, source) = (Ip::v4([239, 1, 2, 3]), ip(9));
    let how = Sending {
        to: Some((ip(2), 53)),
        segment: [None, Some(900)][slot as usize % 2],
        ..Sending::default()
    };
    match random.below(9) {
        0 => drop(stack.udp_open(false, slot)),
        1 => drop(stack.udp_send(socket, &[&buffer[..random.below(3000) as usize]], &how)),
        2 => drop(stack.udp_send(socket, &[buffer], &Sending { to: Some((group, 53)), ..how })),
        3 => drop(stack.udp_receive(socket, &mut [buffer])),
        4 => drop(stack.udp_receive_error(socket, &mut [buffer])),
        5 => drop(stack.udp_connect(socket, (&ip(2), 53))),
        6 => drop(stack.parts.udp_join_group(socket, &group, stack.now)),
        7 => {
            let filter = if slot & 1 == 0 { Filter::Include } else { Filter::Exclude };
            let _ = stack.parts.udp_filter(socket, &group, &source, (filter, slot & 2 == 0), stack.now);
        }
        _ => drop(stack.udp_close(socket)),
    }
}

fn one(machine: &mut Machine, moment: &(Instant, Vec<u8>), seed: u64) {
    let random = &mut Random::new(seed);
    machine.image().copy_from_slice(&moment.1);
    machine.spoil(|bytes| spoil(bytes, random));
    let mut now = moment.0;
    for round in 0..30 {
        let looks = machine.with(now, |stack| {
            if round == 29 || random.below(20) == 0 {
                let _ = stack.recover();
            } else {
                act(stack, random);
            }
            stack.device.looks()
        });
        assert!(looks < LOOKS, "seed {seed}: {looks} looks at frames in one operation");
        now = now + Duration(random.next() >> (24 + random.below(30)));
    }
}

#[test]
fn whatever_stands_in_a_region_every_operation_ends() {
    let moments = moments();
    let mut machine = Machine::new(1, 2);
    let seeds = std::env::var("NONSENSE").map_or(400, |seeds| seeds.parse().expect("a number"));
    for seed in 0..seeds {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one(&mut machine, &moments[seed as usize % moments.len()], seed);
        }));
        assert!(done.is_ok(), "seed {seed}");
    }
}
