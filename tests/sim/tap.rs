//! A pcapng of every packet that hosts send and get: an interface for each host, ns timestamps, and the direction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use stack::device::Link;

/// The direction in `epb_flags`: to the interface (draft-ietf-opsawg-pcapng §4.3.1).
const INBOUND: u32 = 1;
/// From the interface.
const OUTBOUND: u32 = 2;

/// A capture.
pub struct Tap {
    writer: PcapNgWriter<Box<dyn Write>>,
    /// The interface of each host.
    interfaces: BTreeMap<usize, u32>,
}

impl Tap {
    /// A capture that is written to `to`.
    ///
    /// # Panics
    /// When it can't be written to, as everything here: it is a test's.
    #[must_use]
    pub fn new(to: Box<dyn Write>) -> Self {
        Self { writer: PcapNgWriter::new(to).expect("the head of a capture"), interfaces: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, at: u64, node: usize, link: Link, is_sent: bool, bytes: &[u8]) {
        let known = self.interfaces.len() as u32;
        let interface_id = *self.interfaces.entry(node).or_insert_with(|| {
            let linktype = match link {
                Link::Ethernet => DataLink::ETHERNET,
                Link::Ip => DataLink::RAW,
            };
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(format!("host{node}"))),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ];
            let interface = InterfaceDescriptionBlock { linktype, snaplen: 0, options };
            self.writer.write_block(&interface.into_block()).expect("an interface of a capture");
            known
        });
        let packet = EnhancedPacketBlock {
            interface_id,
            timestamp: std::time::Duration::from_nanos(at),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Flags(if is_sent { OUTBOUND } else { INBOUND })],
        };
        self.writer.write_block(&packet.into_block()).expect("a packet of a capture");
    }
}
