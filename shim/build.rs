//! The library stays where it is once it is loaded: libc keeps the addresses of its handlers (exit, fork, signals).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
