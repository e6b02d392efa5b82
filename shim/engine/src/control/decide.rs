//! Whether a connection leaves by our interface: what a program's connect(2) asks first.

use stack::device::Device;
use stack::error::Error;
use stack::ip::Policy;
use stack::ip::route::Kind;
use stack::ip::tables::Way;
use stack::stack::Stack;
use stack::wire::ip::Ip;

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Out by our interface.
    Ours(Way),
    /// By the kernel, which has another way or knows the error that there is.
    Kernel(Why),
    /// The kernel is to be asked ([`super::ask`]).
    Ask(Policy),
}

/// Why the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody has told the stack its routes yet.
    Unknown,
    /// It is this host itself.
    ThisHost,
    /// It is a group, or everybody.
    Group,
    /// It is on another link: a link-local destination is that of the interface named with it (sin6_scope_id).
    OtherLink,
    /// It goes another way, or nowhere.
    Elsewhere(Error),
}

/// Where a connection to a destination goes. `interface` is our interface's number, `scope` the one that the program named with a
/// link-local destination.
pub fn decide<D: Device>(
    stack: &mut Stack<'_, '_, D>,
    interface: u32,
    destination: &Ip,
    scope: u32,
) -> Decision {
    let is_link_local = destination.is_link_local() && !destination.is_v4();
    if destination.is_unspecified() || destination.is_loopback() || stack.parts.is_ours(destination) {
        return Decision::Kernel(Why::ThisHost);
    }
    if destination.is_multicast() || destination.is_broadcast() {
        return Decision::Kernel(Why::Group);
    }
    if is_link_local && scope != interface {
        return Decision::Kernel(Why::OtherLink);
    }
    match stack.parts.ip.policy(destination) {
        Policy::Unknown => return Decision::Kernel(Why::Unknown),
        Policy::Mirrored => {}
        policy => return Decision::Ask(policy),
    }
    match stack.way(destination) {
        Ok(way) if way.route.kind() == Kind::Broadcast => Decision::Kernel(Why::Group),
        Ok(way) => Decision::Ours(way),
        Err(error) => Decision::Kernel(Why::Elsewhere(error)),
    }
}
