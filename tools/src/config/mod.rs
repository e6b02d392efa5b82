//! Options: where they are written, how they are checked, and which of two values counts.
//!
//! From low to high: defaults, `/etc/accel/accel.toml`, the user's `accel.toml`, their `[app."…"]` sections,
//! `-p` profiles from left to right, the caller's own `ACCEL_*` variables, `-o key=value`. Inside one file
//! the `profiles` that it names come before its own keys. The library reads nothing but the environment that
//! results.

pub(crate) mod file;
pub(crate) mod profile;
pub(crate) mod resolve;
pub(crate) mod settings;
