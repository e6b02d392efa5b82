//! BPF without a compiler and without libbpf: an assembler, and bpf(2).

pub mod insn;
pub mod object;
