//! Fuzzers: their corpus, and mutations of it ([`fuzz`]).

#![forbid(unsafe_code)]

#[path = "../fuzz/mod.rs"]
mod fuzz;

use fuzz::{parsers, whole};

#[test]
fn every_parser_survives_its_corpus_and_mutations_of_it() {
    for target in &parsers::TARGETS {
        fuzz::fuzz(target, 1);
    }
}

#[test]
fn a_whole_stack_survives_any_packets() {
    fuzz::fuzz(&whole::TARGETS[0], 40);
}

#[test]
fn a_whole_stack_survives_peers_that_say_anything() {
    fuzz::fuzz(&whole::TARGETS[1], 40);
}
