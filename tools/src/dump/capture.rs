//! A pcapng file: an interface for each stack, times in nanoseconds, and the direction of each packet.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriteError, PcapNgWriter};

/// `epb_flags` (draft-ietf-opsawg-pcapng §4.3.1): to the interface, and from it.
const DIRECTIONS: [u32; 2] = [1, 2];

/// A file that is written.
pub(super) struct Capture(PcapNgWriter<Box<dyn Write>>);

impl Capture {
    /// Of interfaces with these names, whose packets are cut after so many bytes.
    pub(super) fn new<'n>(
        to: Box<dyn Write>,
        names: impl Iterator<Item = &'n str>,
        snaplen: u32,
    ) -> Result<Self, PcapNgWriteError> {
        let mut writer = PcapNgWriter::new(to)?;
        for name in names {
            let name = InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned()));
            let options = vec![name, InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO)];
            let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
            writer.write_block(&block.into_block())?;
        }
        Ok(Self(writer))
    }

    /// A packet of `original_len` bytes; `when` since 1970.
    pub(super) fn write(
        &mut self,
        interface_id: u32,
        timestamp: Duration,
        original_len: u32,
        bytes: &[u8],
        is_sent: bool,
    ) -> Result<(), PcapNgWriteError> {
        let options = vec![EnhancedPacketOption::Flags(DIRECTIONS[usize::from(is_sent)])];
        let data = Cow::Borrowed(bytes);
        let block = EnhancedPacketBlock { interface_id, timestamp, original_len, data, options };
        self.0.write_block(&block.into_block()).map(drop)
    }

    /// What was written can be read.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.0.get_mut().flush()
    }
}
