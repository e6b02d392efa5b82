//! The queue of errors (IP_RECVERR, IPV6_RECVERR): what ICMP said about a datagram, with the beginning of its data
//! (`struct sock_extended_err`, net/ipv4/ip_sockglue.c: ip_icmp_error, ip_local_error).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::UdpSocket;
use super::queue::{self, Head};
use crate::device::{Device, Fragment};
use crate::error::Error;
use crate::region::slab::Handle;
use crate::stack::Stack;
use crate::wire::ip::Ip;

/// Who reports (SO_EE_ORIGIN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// This host.
    Local = 1,
    /// ICMP.
    Icmp = 2,
    /// ICMPv6.
    IcmpV6 = 3,
}

/// What one error says: it stands at the start of its frame, and what was quoted of the data behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Report {
    /// `ee_errno`, as [`Error::code`].
    pub error: u8,
    /// `ee_origin`: an [`Origin`].
    pub origin: u8,
    /// `ee_type`.
    pub kind: u8,
    /// `ee_code`.
    pub code: u8,
    /// `ee_info`: what the path takes, or what the message points at.
    pub info: u32,
    /// Who sent the message; unspecified where nobody did.
    pub offender: Ip,
    /// Where the datagram was to go.
    pub destination: Ip,
    /// Its port there.
    pub port: u16,
    /// No meaning; zero.
    pub reserved: u16,
}

impl Report {
    /// What the error is.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::from_code(self.error).unwrap_or(Error::Corrupt)
    }

    /// Whether ICMP said it, and so SO_ERROR does (is_icmp_err_skb).
    const fn is_icmp(&self) -> bool {
        self.origin == Origin::Icmp as u8 || self.origin == Origin::IcmpV6 as u8
    }
}

/// An error that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// What it says.
    pub report: Report,
    /// Bytes of the datagram's data that were copied.
    pub copied: usize,
    /// Bytes of it that were quoted.
    pub len: usize,
}

impl<D: Device> Stack<'_, '_, D> {
    /// Queues an error, with what lies in this piece of a frame; it is lost if the socket may have no frame for it, as in Linux.
    pub(crate) fn udp_report(&mut self, index: u32, report: &Report, quoted: Option<Fragment>) {
        const HEAD: u16 = size_of::<Report>() as u16;
        let size = self.device.capabilities().frame_size;
        let (mut frames, udp) = match self.udp_frames(index) {
            Some(both) => both,
            None => return,
        };
        let mut charge = udp.receive_charge;
        let Ok(frame) = frames.take_data(&mut charge, index) else { return };
        let len = quoted.map_or(0, |quoted| quoted.len.min(size - HEAD));
        let data = Fragment { frame, offset: HEAD, len };
        let head = Head { arrived: self.now, begin: 0, len: len.into(), segment: 0, drops: 0 };
        let is_written =
            self.device.bytes_mut(frame).is_some_and(|bytes| report.write_to_prefix(bytes).is_ok());
        let is_copied = is_written
            && quoted.is_none_or(|quoted| {
                self.device.pair(quoted.frame, frame).is_some_and(|(from, to)| {
                    let (begin, len) = (usize::from(quoted.offset), usize::from(len));
                    let pieces =
                        from.get(begin..begin + len).zip(to.get_mut(HEAD.into()..usize::from(HEAD) + len));
                    pieces.map(|(from, to)| to.copy_from_slice(from)).is_some()
                })
            });
        let Some((mut frames, udp)) = self.udp_frames(index) else { return };
        udp.receive_charge = charge;
        if is_copied {
            queue::push(&mut frames, &mut udp.errors, &head, &[data]);
        } else {
            frames.release(frame, &mut udp.receive_charge);
        }
        self.udp_tell(index, true);
    }

    /// The report in the first frame of a queue of errors.
    fn first_report(&self, udp: &UdpSocket) -> Option<Report> {
        let bytes = self.device.bytes(udp.errors.first()?)?;
        Report::read_from_prefix(bytes).ok().map(|(report, _)| report)
    }

    /// recvmsg(2) with MSG_ERRQUEUE: the oldest error, and the beginning of its datagram's data into the slices. It is taken from the
    /// queue, and SO_ERROR is the next one's (sock_dequeue_err_skb).
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `BadHandle`.
    pub fn udp_receive_error(&mut self, socket: Handle, to: &mut [&mut [u8]]) -> Result<Read, Error> {
        let udp = *self.parts.udp(socket)?;
        let report = self.first_report(&udp).ok_or(Error::WouldBlock)?;
        let device = &*self.device;
        let frames = crate::frames::Frames {
            pool: self.parts.pool,
            records: self.parts.frames,
            states: self.shared.frames,
        };
        let (_, head) = queue::first(&frames, &udp.errors).ok_or(Error::Corrupt)?;
        let copied = queue::copy(&frames, &udp.errors, device, 0, to);
        let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::Corrupt)?;
        queue::pop(&mut frames, &mut udp.errors, &mut udp.receive_charge);
        let left = *udp;
        let next = self.first_report(&left).filter(Report::is_icmp);
        let udp = self.parts.udp(socket)?;
        match next {
            Some(next) => udp.error = next.error,
            None if report.is_icmp() => udp.error = 0,
            None => {}
        }
        self.udp_tell(socket.index, next.is_some());
        Ok(Read { report, copied, len: head.len as usize })
    }
}
