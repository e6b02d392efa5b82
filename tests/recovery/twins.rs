//! A region has no addresses in it and a stack nothing beside it: copied byte for byte to another place, the same operation leaves the
//! same bytes behind and gives the device the same packets, step by step through whole transfers.

use harness::sim::tcp::text;
use stack::time::Duration;

use super::world::{Machine, World};

/// Does the same to both; afterwards they are the same, rings and frames with them.
fn both<R: PartialEq + std::fmt::Debug>(
    world: &mut World,
    twin: &mut Machine,
    act: impl Fn(&mut Machine, stack::time::Instant) -> R,
) {
    twin.copy_from(&mut world.ours);
    let (here, there) = (act(&mut world.ours, world.now), act(twin, world.now));
    assert_eq!(here, there);
    assert!(world.ours.image() == twin.image(), "the copy went another way");
}

#[test]
fn a_copy_elsewhere_goes_on_alike() {
    let mut world = World::new();
    let mut twin = Machine::new(1, 2);
    assert_ne!(world.ours.address(), twin.address());
    world.loses = Some(|_, number| number % 11 == 0);
    let (socket, words) = (world.socket, text(5, 3000));
    for round in 0..150 {
        world.advance(true);
        both(&mut world, &mut twin, |machine, now| machine.with(now, |stack| stack.poll()));
        if round % 8 == 0 {
            both(&mut world, &mut twin, |machine, now| {
                machine.with(now, |stack| stack.send(socket, &[&words], round % 16 == 0))
            });
            both(&mut world, &mut twin, |machine, now| {
                let mut buffer = [0; 2000];
                let got = machine.with(now, |stack| stack.receive(socket, &mut [&mut buffer]));
                (got, buffer)
            });
        }
        both(&mut world, &mut twin, |machine, now| machine.with(now, |stack| stack.recover()));
    }
    let victim = world.victim;
    both(&mut world, &mut twin, |machine, now| machine.with(now, |stack| stack.end_process(victim, 9)));
    world.loses = None;
    world.finish();
    world.run_for(Duration::from_secs(1));
}
