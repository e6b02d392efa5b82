//! Datagrams that came another way than by the device: what was left to the owner of the addresses and is the stack's all the same, as
//! errors and fragments are. They are looked at as anything that comes from a wire.

use super::Stack;
use crate::device::{Device, Fragment, FrameIndex, Link, Received};
use crate::frames::FrameRecord;
use crate::frames::pool::Purpose;
use crate::stats::Counter;
use crate::wire::ethernet::{Address, Frame, IPV4, IPV6};

impl<D: Device> Stack<'_, '_, D> {
    /// Takes a datagram, from IP's header on, as if it had just arrived. False if there is no frame for it, or it is longer than one.
    pub fn inject(&mut self, datagram: &[u8]) -> bool {
        let Some(frame) = self.frames().take(Purpose::Control) else {
            self.count(Counter::FramesShort);
            return false;
        };
        let Some(len) = self.write_injected(frame, datagram) else {
            self.discard(frame);
            return false;
        };
        let now = self.now.0;
        if let Some(record) = self.frames().record_mut(frame) {
            *record = FrameRecord { sent_at: now, len, ..FrameRecord::default() };
        }
        self.count(Counter::PacketsIn);
        let fragment = Fragment { frame, offset: 0, len };
        if let Some(socket) = self.packet(&[Received { fragment, ..Received::EMPTY }]) {
            self.output(socket);
        }
        true
    }

    /// Writes it behind the link's header, as from nobody to us.
    fn write_injected(&mut self, frame: FrameIndex, datagram: &[u8]) -> Option<u16> {
        let interface = &self.parts.ip.interface;
        let ethertype = if datagram.first()? >> 4 == 6 { IPV6 } else { IPV4 };
        let head = Frame {
            destination: interface.link,
            source: Address::default(),
            tags: [interface.tag(), None],
            ethertype,
        };
        let has_header = self.device.capabilities().link == Link::Ethernet;
        let bytes = self.device.bytes_mut(frame)?;
        let begin = if has_header { head.emit(bytes)? } else { 0 };
        let len = begin + datagram.len();
        bytes.get_mut(begin..len)?.copy_from_slice(datagram);
        u16::try_from(len).ok()
    }
}
