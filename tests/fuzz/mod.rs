//! Fuzzing without a fuzzer's compiler: each target is a function of bytes; what it is given is the corpus as it stands, and then as many
//! mutations of it as one likes, from one seed.
//!
//! ```text
//! cargo test --release -p accel-tests --test fuzz                                     the corpus, and 4,000 mutations for each target (fewer for whole stacks)
//! FUZZ=50000000 FUZZ_SEED=$RANDOM cargo test --release -p accel-tests --test fuzz     for a night
//! ```
//!
//! A failure prints its target, seed and input as a line of hexadecimal digits: it belongs into `corpus/<target>.txt`, one input
//! to a line, with a comment (`#`) that says what it was.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use harness::sim::random::Random;

#[allow(dead_code, reason = "the hostile peers' tests use the rest")]
pub(crate) mod lone;
pub(crate) mod parsers;
pub(crate) mod whole;

/// What is fuzzed: a name, what it does with an input, and how its mutations are made well-formed before it gets them.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    pub(crate) mend: fn(&mut [u8], &mut Random),
}

/// Mutations of each target, if nobody says how many.
const MUTATIONS: u64 = 4_000;
/// Longest input.
const LEN_MAX: usize = 1600;

/// The inputs of a target that are kept.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{name}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| parse(line).expect("hexadecimal digits")).collect()
}

fn parse(line: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = line.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect()
}

fn print(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values at which something changes sign, wraps, or has one bit.
const TELLING: [u8; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 0x0f, 0x10, 0x7f, 0x80, 0xfe, 0xff];

/// Changes an input somehow; `other` is one that a piece may come from.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let len = bytes.len() as u64;
        let at = random.below(len.max(1)) as usize;
        match random.below(10) {
            _ if bytes.is_empty() => bytes.extend_from_slice(other),
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 => bytes[at] = TELLING[random.below(TELLING.len() as u64) as usize],
            4 => bytes[at] = bytes[at].wrapping_add(random.below(9) as u8).wrapping_sub(4),
            5 => bytes.truncate(at),
            6 => {
                let piece: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, piece);
            }
            7 => {
                let end = (at + random.below(16) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            8 => {
                let end = (at + random.below(40) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len() as u64 + 1) as usize;
                let keep = bytes.len().min(at);
                bytes.truncate(keep);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(LEN_MAX);
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Replays a target's corpus, and then runs mutations of it. `cost` is how much longer an input takes than a parser's.
///
/// # Panics
/// At the first input that the target doesn't survive.
pub(crate) fn fuzz(target: &Target, cost: u64) {
    let corpus = corpus(target.name);
    assert!(!corpus.is_empty(), "{} has no corpus", target.name);
    let run = |input: &[u8], what: &str| {
        let done = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        assert!(done.is_ok(), "{} {what} does not survive\n{}", target.name, print(input));
    };
    for (at, input) in corpus.iter().enumerate() {
        run(input, &format!("corpus input {at}"));
    }
    let (seed, count) = (number("FUZZ_SEED", 1), number("FUZZ", MUTATIONS) / cost);
    let mut random = Random::new(seed);
    let pick = |random: &mut Random| corpus[random.below(corpus.len() as u64) as usize].clone();
    for round in 0..count {
        let (mut input, other) = (pick(&mut random), pick(&mut random));
        mutate(&mut input, &other, &mut random);
        if random.below(4) != 0 {
            (target.mend)(&mut input, &mut random);
        }
        run(&input, &format!("seed {seed} round {round}"));
    }
}

/// No mending.
pub(crate) fn as_it_is(_: &mut [u8], _: &mut Random) {}
