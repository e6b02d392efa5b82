//! Every contact with kernel devices and shared mappings.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | [`sys`] | direct system calls: inside the preloaded library libc's functions are our own exports | yes |
//! | [`switch`] | the one-word protocol that moves a direction between ring and kernel | no |
//! | [`channel`] | the memory of one connection: layout, mapping, checked access | yes |
//! | [`copy`] | copies between user buffers and memory that a peer may write | yes |
//! | [`fault`] | a copy that may meet an address that is not mapped | yes |
//! | [`meeting`] | how the two ends of a TCP connection find each other and share that memory; its `mailbox` | yes |
//! | [`diag`] | inet_diag: what the kernel knows of the socket at the other end | yes |
//! | [`cards`] | the public record of each socket, read by `accel explain` and `accel stat` | yes |
//! | [`netlink`] | rtnetlink: interfaces, addresses, routes and neighbours as the kernel has them, and what changes | yes |
//! | [`xdp`] | AF_XDP: frames, rings, sockets, and the stack's device over them | yes |
//! | [`packet`] | packet sockets with virtio's header: segments that the kernel cuts | yes |
//! | [`passed`] | errors of ICMP and fragments, which steering leaves to the kernel | yes |
//! | [`bpf`] | BPF programs and maps, without a compiler | yes |
//! | [`steering`] | which packets of an interface are whose: our XDP program and its maps | no |
//! | [`keeper`] | what programs and the process that has the rights say to each other | no |
//! | [`repair`] | a connection goes into a socket of the kernel's | yes |
//! | [`clock`] | ticks for spinning: the CPU's counter, calibrated against CLOCK_MONOTONIC | yes |

#[cfg(not(loom))]
pub mod bpf;
#[cfg(not(loom))]
pub mod cards;
#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
pub mod copy;
#[cfg(not(loom))]
pub mod diag;
#[cfg(not(loom))]
pub mod fault;
#[cfg(not(loom))]
pub mod keeper;
#[cfg(not(loom))]
pub mod meeting;
#[cfg(not(loom))]
pub mod netlink;
#[cfg(not(loom))]
pub mod packet;
#[cfg(not(loom))]
pub mod passed;
#[cfg(not(loom))]
pub mod repair;
#[cfg(not(loom))]
pub mod steering;
pub mod switch;
#[cfg(not(loom))]
pub mod sys;
#[cfg(not(loom))]
pub mod xdp;
