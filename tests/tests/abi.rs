//! The symbols that libaccel.so exports are the rows of the table, no more and no fewer.

use rows::calls::{CALLS, VARIADIC};
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_library_exports_exactly_the_table() {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/libaccel.so");
    let library = env::var_os("ACCEL_LIB").map_or_else(built, PathBuf::from);
    let listed =
        Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm, of binutils");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let table: BTreeSet<&str> = CALLS.iter().chain(VARIADIC).map(|call| call.name).collect();
    let missing: Vec<_> = table.difference(&exported).collect();
    let unexpected: Vec<_> = exported.difference(&table).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "missing {missing:?}, not in the table {unexpected:?}"
    );
}

#[test]
fn no_function_has_two_rows() {
    let mut seen = BTreeSet::new();
    for call in CALLS.iter().chain(VARIADIC) {
        assert!(seen.insert(call.name), "{}", call.name);
    }
}
