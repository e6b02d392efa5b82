//! The tables from which accel's code, help, documentation and tests are made.
//!
//! | table | one row per | made from it |
//! |---|---|---|
//! | [`interposed!`] | libc function | exported symbols, next definitions, README coverage, the `nm -D` test |
//! | [`options::OPTIONS`] | `ACCEL_*` variable | the library's parser, `accel --help`, profile keys, README |
//! | [`reasons::Reason`] | why a socket is on the kernel | `accel explain`, counters |
//!
//! Nothing here does anything: it is data that the shim, the launcher and the tests share.

#![forbid(unsafe_code)]

pub mod calls;
pub mod options;
pub mod reasons;
