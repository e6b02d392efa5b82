//! Faults: deaths, cheating peers, limits, sockets given away, directions that switch all the time, and many of
//! everything (`../faults/*.c`). The rest of the family of a process is in `family.rs`.
//!
//! ```text
//! cargo test -p accel-tests --test faults -- --nocapture --test-threads 2
//! ACCEL_LIB=path      the library (target/release/libaccel.so)
//! FAULTS_ROUNDS=10    ten times as many rounds (1: under three minutes)
//! FAULTS_STEPS=all    `stepping`: deaths at every instruction (N: at each Nth), instead of ten for each call
//! FAULTS_STOP=120     `stopped_long`: one end stopped for so many seconds (with FAULTS_ROUNDS=4, for the patience)
//! FAULTS_LIB=         the kernel alone, for reference: only the checks of upgrades are left out
//! ```

#[path = "../faults/harness.rs"]
mod harness;
#[path = "../faults/hostile.rs"]
mod hostile;
#[path = "../faults/strangers.rs"]
mod strangers;

use harness::{ADAPT, HARD, Mode, NEVER, run};

macro_rules! cases {
    ($($name:ident: $program:literal [$($mode:expr),*];)*) => {
        $(#[test]
        fn $name() {
            for mode in [$($mode),*] {
                run($program, &[stringify!($name)], mode);
            }
        })*
    };
}

cases! {
    kill_random: "kill" [ADAPT, HARD, NEVER];
    kill_meeting: "kill" [ADAPT, HARD];
    kill_asleep: "kill" [ADAPT, HARD];
    last_words_read: "kill" [ADAPT, HARD];
    unread_at_death: "kill" [ADAPT, HARD];
    stopped: "kill" [ADAPT];
    stopped_long: "deaths" [ADAPT, HARD];
    ways_to_die: "deaths" [ADAPT, HARD];
    exiting: "kill" [ADAPT, HARD];
    close_after_send: "kill" [ADAPT, HARD];
    destructors: "life" [ADAPT, HARD, NEVER];
    other_rights: "life" [ADAPT, HARD];
    other_root: "life" [ADAPT, HARD];
    limit_cgroup: "life" [ADAPT];
    time_namespace: "world" [ADAPT, HARD];
    firewall: "world" [HARD];
    secrets: "world" [HARD];
    given_away: "many" [ADAPT, HARD];
    given_away_full: "many" [ADAPT, HARD];
    ktls: "many" [HARD];
    seccomp: "many" [HARD];
    io_uring: "many" [HARD];
    limit_fds: "many" [HARD];
    limit_fds_life: "many" [ADAPT];
    failing: "many" [ADAPT];
    limit_memory: "many" [ADAPT];
    no_proc: "many" [ADAPT];
    cycles: "many" [ADAPT, HARD];
    reuse: "many" [HARD];
    close_all: "many" [HARD];
    preclose: "many" [ADAPT, HARD];
    pool: "many" [ADAPT, HARD];
    two_sets: "many" [ADAPT, HARD];
    two_pollers: "many" [ADAPT, HARD];
    lowat: "many" [ADAPT, HARD];
    long_answer: "many" [ADAPT, HARD, NEVER];
    cancel: "many" [HARD];
    jumping: "many" [HARD];
    jumping_from_send: "many" [HARD];
    faulting: "many" [HARD];
}

#[test]
fn io_uring_refused() {
    const REFUSE: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_SPIN", "hard"), ("ACCEL_IO_URING", "refuse")];
    run("many", &["io_uring_refused"], REFUSE);
}

#[test]
fn stepping() {
    for mode in [ADAPT, HARD] {
        run("step", &["stepping"], mode);
    }
}

#[test]
fn switching() {
    for mode in [ADAPT, HARD, NEVER] {
        run("many", &["switching"], mode);
    }
}

#[test]
fn switching_with_other_congestion_control() {
    for name in ["bbr", "cubic", "reno"] {
        run("many", &["switching", "1", name], ADAPT);
    }
}

#[test]
fn the_allowance_of_memory_holds_and_is_given_back() {
    const NONE: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_LOCAL_MEMORY", "0")];
    const TOO_LITTLE: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_LOCAL_MEMORY", "1M")];
    const LITTLE: Mode = &[("ACCEL_LOCAL_AFTER", "0"), ("ACCEL_LOCAL_MEMORY", "3M")];
    run("many", &["allowance", "0", "0"], NONE);
    run("many", &["allowance", "0", "0"], TOO_LITTLE);
    run("many", &["allowance", "2", "95"], LITTLE);
}
