//! What tools read of a region that others use: copies of single records, taken without the lock. Nothing of it is believed: a copy may
//! be half of one moment and half of the next.

use zerocopy::FromBytes;

use super::layout::{Header, Layout, MAGIC, Span, VERSION};
use super::limits::Refused;
use super::slab::Handle;
use crate::ip;
use crate::tcp::tcb::Tcb;
use crate::udp::UdpSocket;

/// Bytes of the header, with which a region begins.
pub const HEADER: usize = size_of::<Header>();

/// Where everything is in a region that begins with these bytes.
///
/// # Errors
/// What it isn't.
pub fn layout(header: &[u8]) -> Result<Layout, Refused> {
    let wrong = Refused::Size { found: header.len() as u64, needed: HEADER as u64 };
    let (header, _) = Header::read_from_prefix(header).map_err(|_| wrong)?;
    match (header.magic == MAGIC, header.version, header.state) {
        (false, ..) => Err(Refused::Magic),
        (_, found, _) if found != VERSION => Err(Refused::Version { found }),
        (.., found) if found != Header::READY => Err(Refused::State { found }),
        _ => Layout::new(&header.limits),
    }
}

/// Where the record of a socket of TCP is; none for an index that there isn't.
#[must_use]
pub fn place_of_tcb(layout: &Layout, socket: Handle) -> Option<Span> {
    place(layout.tcbs, socket)
}

/// The same of a socket of UDP.
#[must_use]
pub fn place_of_udp(layout: &Layout, socket: Handle) -> Option<Span> {
    place(layout.udp_sockets, socket)
}

fn place(all: Span, socket: Handle) -> Option<Span> {
    let Span { offset, count, record } = all;
    let at = socket.index as usize;
    (at < count).then(|| Span { offset: offset + at * record, count: 1, record })
}

/// Where the interface is.
#[must_use]
pub const fn place_of_ip(layout: &Layout) -> Span {
    layout.ip
}

/// The socket in a copy of its record, if it is still the one of this name.
#[must_use]
pub fn tcb(bytes: &[u8], socket: Handle) -> Option<Tcb> {
    let tcb = Tcb::read_from_bytes(bytes).ok()?;
    (tcb.tag.is_used() && tcb.tag.handle(socket.index) == socket).then_some(tcb)
}

/// The same of a socket of UDP.
#[must_use]
pub fn udp(bytes: &[u8], socket: Handle) -> Option<UdpSocket> {
    let udp = UdpSocket::read_from_bytes(bytes).ok()?;
    (udp.tag.is_used() && udp.tag.handle(socket.index) == socket).then_some(udp)
}

/// The interface's number in a copy of its record.
#[must_use]
pub fn interface(bytes: &[u8]) -> Option<u32> {
    ip::State::read_from_bytes(bytes).ok().map(|state| state.interface.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::memory::{Memory, TINY};

    #[test]
    fn a_socket_is_read_by_its_name_as_long_as_it_has_it() {
        let mut memory = Memory::new(&TINY);
        let socket = memory.parts().tcp_socket(false, 0).expect("room");
        memory.parts().ip.interface.number = 7;
        let bytes = memory.bytes();
        let layout = layout(&bytes[..HEADER]).expect("a region");
        let read = |span: Span| &bytes[span.offset..span.offset + span.record];
        let place = place_of_tcb(&layout, socket).expect("a place");
        assert_eq!(tcb(read(place), socket).map(|tcb| tcb.local_port), Some(0));
        let older = Handle { generation: socket.generation.wrapping_sub(2), ..socket };
        assert!(tcb(read(place), older).is_none());
        assert!(place_of_tcb(&layout, Handle { index: u32::MAX, ..socket }).is_none());
        let datagrams = memory.parts().udp_socket(false, 0).expect("room");
        let bytes = memory.bytes();
        let read = |span: Span| &bytes[span.offset..span.offset + span.record];
        let place = place_of_udp(&layout, datagrams).expect("a place");
        assert_eq!(udp(read(place), datagrams).map(|udp| udp.drops), Some(0));
        assert!(udp(read(place), Handle { generation: 77, ..datagrams }).is_none());
        assert_eq!(interface(read(place_of_ip(&layout))), Some(7));
        assert!(super::layout(&[0; HEADER]).is_err() && super::layout(&bytes[..8]).is_err());
    }
}
