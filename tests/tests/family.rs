//! Processes that share sockets: fork in every form, exec, spawn (`../faults/family.c`), clone (`../faults/clones.c`).
//!
//! `ACCEL_LIB` names the library; `FAULTS_ROUNDS=10` does ten times as many rounds; `FAULTS_LIB=` (empty) runs on the
//! kernel alone, for reference. Every program prints its counts (`--nocapture`) and checks cards itself.

#[path = "../faults/harness.rs"]
mod harness;

use harness::{ADAPT, HARD, NEVER, run};

macro_rules! cases {
    ($($name:ident: [$($mode:expr),*];)*) => {
        $(#[test]
        fn $name() {
            for mode in [$($mode),*] {
                run("family", &[stringify!($name)], mode);
            }
        })*
    };
}

cases! {
    forks: [HARD];
    meeting_forks: [ADAPT, HARD];
    forking: [ADAPT, HARD];
    bgsave: [HARD];
    daemonize: [ADAPT, HARD, NEVER];
    turns: [HARD];
    turns_apart: [ADAPT, HARD];
    started: [HARD];
    zombies: [ADAPT];
    epoll_shared: [ADAPT, HARD, NEVER];
}

#[test]
fn shared_descriptors() {
    for mode in [ADAPT, HARD, NEVER] {
        run("clones", &["shared_descriptors"], mode);
    }
}
