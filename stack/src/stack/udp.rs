//! Datagrams of UDP that arrive, and errors about those that were sent: whose they are, and what becomes of the others (RFC 768,
//! RFC 1122 §4.1; net/ipv4/udp.c: __udp4_lib_rcv, __udp4_lib_mcast_deliver, __udp4_lib_err).

use core::ops::Range;

use super::Stack;
use super::fragments::Pieces;
use super::icmp::{About, Told};
use super::other::{Kind, Seen};
use super::parcel::Parcel;
use super::predicted::Usual;
use crate::demux::End;
use crate::device::{Checksum, ChecksumIn, Device, Fragment as Piece, FrameIndex, Received};
use crate::events;
use crate::frames::Frames;
use crate::frames::pool::Charge;
use crate::ip::icmp::{Datagrams, Meaning, to_udp};
use crate::ip::reassembly::Whole;
use crate::settings::{self, Switch};
use crate::stats::Counter;
use crate::time::Instant;
use crate::udp::draft::Draft;
use crate::udp::errors::{Origin, Report};
use crate::udp::queue::{self, Head, Said};
use crate::udp::send::Discover;
use crate::udp::{Mark, UdpSocket};
use crate::wire::checksum::pseudo;
use crate::wire::ip::Ip;
use crate::wire::udp::{self, HEADER_LEN};
use crate::wire::{Malformed, protocol};

/// Sockets that are looked at together for a datagram to many.
const BATCH: usize = 32;

/// A datagram in one frame whose headers are the usual ones.
pub(super) struct Plain {
    local: (Ip, u16),
    remote: (Ip, u16),
    at: Option<Instant>,
    /// Where IP's header begins in the frame.
    begin: u16,
    /// Its data.
    piece: Piece,
}

/// The datagram in a packet with the usual headers, if nothing is wrong with it. Otherwise the long way says what is.
#[inline]
pub(super) fn plain(usual: &Usual<'_>, packet: &Received) -> Option<Plain> {
    let ends = (&usual.source, &usual.destination);
    let right = verified(usual.payload, ends, packet.checksum, ChecksumIn::Verify).ok()?;
    let Right { source, destination, len, is_bare } = right;
    (!is_bare).then_some(Plain {
        local: (usual.destination, destination),
        remote: (usual.source, source),
        at: packet.arrived,
        begin: usual.begin,
        piece: Piece { frame: packet.fragment.frame, offset: usual.at + HEADER_LEN as u16, len },
    })
}

/// A datagram that is right, and its ports.
struct Arrival<'p> {
    local: End<'p>,
    remote: End<'p>,
    at: Instant,
    /// Where IP's header begins in the frame of the first piece.
    begin: u16,
    /// Its data.
    pieces: &'p [Piece],
    len: u32,
    /// Bytes of each of the datagrams but the last that the device has joined in it; 0 if it is one.
    segment: u16,
    /// One of IPv6 without a checksum.
    is_bare: bool,
    /// Its frames are those of fragments, which are charged; else it has one that is moving.
    is_charged: bool,
}

/// What is told by a header that is right.
struct Right {
    source: u16,
    destination: u16,
    /// Bytes of data.
    len: u16,
    /// It is one of IPv6, and without a checksum.
    is_bare: bool,
}

/// Bytes of each of the datagrams that are joined in so much data, as the device says; 0 if it is one.
const fn joined(seen: &Seen, len: u16) -> u16 {
    if len > seen.joined { seen.joined } else { 0 }
}

/// Verifies UDP's header and data.
#[inline]
fn verified(
    bytes: &[u8],
    (source, destination): (&Ip, &Ip),
    said: Checksum,
    device: ChecksumIn,
) -> Result<Right, Malformed> {
    // RFC 1122 §4.1.3.4: "If a UDP datagram is received with a checksum that is non-zero and invalid, UDP MUST silently discard
    // the datagram."
    let (header, data) = udp::parse(bytes, true)?;
    if said == Checksum::Unchecked
        && let Err(rule) = udp::verify(header, data, source, destination)
    {
        let partial = pseudo(source, destination, protocol::UDP, header.length.get().into()).fold();
        if device == ChecksumIn::Verify || header.checksum.get() != partial {
            return Err(rule);
        }
    }
    Ok(Right {
        source: header.source.get(),
        destination: header.destination.get(),
        len: data.len() as u16,
        is_bare: header.checksum.get() == 0 && !source.is_v4(),
    })
}

impl<D: Device> Stack<'_, '_, D> {
    /// A socket gets a datagram for one of our addresses and from somebody who may send it; false: nothing was done.
    pub(super) fn udp_plain(&mut self, plain: &Plain) -> bool {
        let (local, remote) = ((&plain.local.0, plain.local.1), (&plain.remote.0, plain.remote.1));
        let is_welcome = self.parts.is_ours(local.0)
            && !self.parts.is_subnet_broadcast(local.0)
            && !self.is_martian(remote.0);
        let Some(index) = Some(()).filter(|()| is_welcome).and_then(|()| self.udp_find(local, remote)) else {
            return false;
        };
        let arrival = Arrival {
            local,
            remote,
            at: plain.at.unwrap_or(self.now),
            begin: plain.begin,
            pieces: &[plain.piece],
            len: plain.piece.len.into(),
            segment: 0,
            is_bare: false,
            is_charged: false,
        };
        if !self.udp_take(index, &arrival) {
            self.discard(plain.piece.frame);
        }
        true
    }

    /// A datagram in a frame that is moving; true if a socket has the frame now.
    pub(super) fn udp_arrived(&mut self, seen: &Seen) -> bool {
        let bytes = seen.bytes(&*self.device, seen.payload);
        let checksum_in = self.device.capabilities().checksum_in;
        match verified(bytes, (&seen.source, &seen.destination), seen.checksum, checksum_in) {
            Err(rule) => {
                self.shared.counters().malformed(rule);
                false
            }
            Ok(Right { source, destination, len, is_bare }) => {
                let piece = Piece { len, ..seen.piece(HEADER_LEN as u16) };
                let arrival = Arrival {
                    local: (&seen.destination, destination),
                    remote: (&seen.source, source),
                    at: seen.arrived,
                    begin: seen.begin,
                    pieces: &[piece],
                    len: len.into(),
                    segment: joined(seen, len),
                    is_bare,
                    is_charged: false,
                };
                self.udp_deliver(&arrival, seen)
            }
        }
    }

    /// A datagram that came in fragments, or in several frames at once, stays in these; true if it is one of UDP, whatever became of it.
    /// `last` is what of it arrived last.
    pub(super) fn udp_in_pieces(&mut self, whole: &Whole, last: &Seen, pieces: &Pieces) -> bool {
        let first = pieces.as_slice().first().and_then(|first| self.frames().text(first.frame));
        let Some(Ok(Kind::Datagram(seen))) = first.map(|text| self.kind(text, last.beyond.into())) else {
            return false;
        };
        let head = seen.bytes(&*self.device, seen.payload).first_chunk::<HEADER_LEN>();
        // What comes in so small pieces that UDP's header is in two of them is put together first.
        let (Some(head), protocol::UDP) = (head.copied(), whole.protocol) else { return false };
        let [a, b, c, d, e, f, checksum @ ..] = head;
        let len = u16::from_be_bytes([e, f]);
        let rule = if len < HEADER_LEN as u16 || len > whole.len {
            Some(Malformed::UdpLength)
        } else {
            let data = pieces.cut(0, len);
            let start = pseudo(&whole.source, &whole.destination, protocol::UDP, len.into());
            let is_partial = self.device.capabilities().checksum_in == ChecksumIn::Partial
                && u16::from_be_bytes(checksum) == start.fold();
            // What the device says of a fragment is about no datagram.
            let is_known =
                checksum == [0; 2] || last.fragment.is_none() && last.checksum != Checksum::Unchecked;
            let holds = is_known || is_partial || self.sum_of(start, data.as_slice()).holds();
            if holds { None } else { Some(Malformed::Checksum) }
        };
        if let Some(rule) = rule {
            self.shared.counters().malformed(rule);
            return true;
        }
        let data = pieces.cut(HEADER_LEN as u16, len);
        let arrival = Arrival {
            local: (&whole.destination, u16::from_be_bytes([c, d])),
            remote: (&whole.source, u16::from_be_bytes([a, b])),
            at: self.now,
            begin: seen.begin,
            pieces: data.as_slice(),
            len: u32::from(len) - HEADER_LEN as u32,
            segment: joined(last, len - HEADER_LEN as u16),
            is_bare: checksum == [0; 2] && !whole.source.is_v4(),
            is_charged: true,
        };
        self.udp_deliver(&arrival, &seen);
        true
    }

    /// The socket of a datagram to `local`: one with this peer before one without.
    fn udp_find(&mut self, local: End<'_>, remote: End<'_>) -> Option<u32> {
        let hash = self.parts.header.secret.tuple(local, remote);
        let connected = self.parts.udp_pairs().find_hashed(hash, local, remote);
        connected.or_else(|| self.parts.udp_endpoints().find(local, hash))
    }

    fn udp_deliver(&mut self, arrival: &Arrival<'_>, seen: &Seen) -> bool {
        let Arrival { local, remote, .. } = *arrival;
        if local.0.is_multicast() || self.is_broadcast(local.0) {
            return self.udp_deliver_to_all(arrival);
        }
        match self.udp_find(local, remote) {
            Some(index) if self.udp_accepts(index, arrival) => self.udp_give(index, arrival, true),
            // RFC 8200 §8.1: "IPv6 receivers must discard UDP packets containing a zero checksum and should log the error."
            _ if arrival.is_bare => {
                self.shared.counters().malformed(Malformed::ChecksumMissing);
                false
            }
            _ => {
                // RFC 1122 §4.1.3.1: "If a datagram arrives addressed to a UDP port for which there is no pending LISTEN call, UDP
                // SHOULD send an ICMP Port Unreachable message."
                self.count(Counter::NoSocket);
                self.tell_closed_port(seen);
                false
            }
        }
    }

    /// Each socket that listens gets it, the last one the frames themselves.
    fn udp_deliver_to_all(&mut self, arrival: &Arrival<'_>) -> bool {
        let Arrival { local, remote, .. } = *arrival;
        let (mut skipped, mut pending) = (0, None);
        loop {
            let (mut batch, mut count, mut at) = ([0; BATCH], 0, 0);
            self.parts.udp_endpoints().for_all(local, |index| {
                if let Some(place) = batch.get_mut(count).filter(|_| at >= skipped) {
                    (*place, count) = (index, count + 1);
                }
                at += 1;
            });
            for index in &batch[..count] {
                if self.udp_accepts(*index, arrival)
                    && self.parts.udp_hears(*index, local.0, remote.0)
                    && let Some(before) = pending.replace(*index)
                {
                    self.udp_give(before, arrival, false);
                }
            }
            skipped += count;
            if count < BATCH {
                break;
            }
        }
        if let Some(index) = self.parts.udp_pairs().find(local, remote)
            && self.udp_accepts(index, arrival)
            && self.parts.udp_hears(index, local.0, remote.0)
            && let Some(before) = pending.replace(index)
        {
            self.udp_give(before, arrival, false);
        }
        match pending {
            Some(last) => self.udp_give(last, arrival, true),
            None => {
                self.count(Counter::NoSocket);
                false
            }
        }
    }

    /// A socket gets a datagram, or each of those that are joined in it if it didn't ask to have them together (UDP_GRO;
    /// udp_queue_rcv_skb, udp_rcv_segment); true if it has the frames, which only the last one may.
    fn udp_give(&mut self, index: u32, arrival: &Arrival<'_>, is_last: bool) -> bool {
        if arrival.segment != 0 && !self.udp_has(index, Switch::GRO) {
            let mut at = 0;
            while at < arrival.len {
                let end = arrival.len.min(at + u32::from(arrival.segment));
                self.udp_copy(index, &Arrival { segment: 0, ..*arrival }, at..end);
                at = end;
            }
            return false;
        }
        if is_last {
            return self.udp_take(index, arrival);
        }
        self.udp_copy(index, arrival, 0..arrival.len);
        false
    }

    /// Whether a socket has this switch on.
    fn udp_has(&self, index: u32, switch: u32) -> bool {
        let udp = self.parts.udp_sockets.get(index as usize);
        let options = udp.map(|udp| settings::of(self.parts.settings, udp.settings).options);
        options.is_some_and(|options| options & switch != 0)
    }

    /// Whether a socket takes a datagram with the checksum that it has. RFC 6936 §4: "The default IPv6 receiving node behavior MUST be to
    /// discard all IPv6 packets carrying datagrams with a zero UDP checksum."
    fn udp_accepts(&self, index: u32, arrival: &Arrival<'_>) -> bool {
        !arrival.is_bare || self.udp_has(index, Switch::NO_CHECKSUM_V6_IN)
    }

    /// A socket gets a datagram with its frames; false if it may have no more.
    fn udp_take(&mut self, index: u32, arrival: &Arrival<'_>) -> bool {
        let parts = &mut *self.parts;
        let Some(udp) = parts.udp_sockets.get_mut(index as usize) else { return false };
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        if frames.may_keep(udp.receive_charge).is_err() {
            return self.udp_drop(index);
        }
        for piece in arrival.pieces {
            let charge = &mut udp.receive_charge;
            let is_its = match arrival.is_charged {
                true => frames.hand_over(piece.frame, (&mut parts.ip.fragments, charge), index),
                false => frames.own(piece.frame, charge, index),
            };
            if !is_its {
                self.count(Counter::Corrupt);
                return false;
            }
        }
        let gro = settings::of(parts.settings, udp.settings).options & Switch::GRO != 0;
        let is_one = arrival.segment == 0 && arrival.pieces.len() == 1;
        let joins = gro && is_one && is_alike(&frames, udp, &*self.device, arrival);
        if !(joins && queue::join(&mut frames, &mut udp.receive, arrival.pieces[0])) {
            let head = Head {
                arrived: arrival.at,
                begin: arrival.begin,
                len: arrival.len,
                segment: arrival.segment,
                drops: udp.drops,
            };
            queue::push(&mut frames, &mut udp.receive, &head, arrival.pieces);
        }
        if let Some(word) = self.shared.udp_events.get(index as usize)
            && events::add(word, true, || false)
        {
            self.shared.note_udp(index);
        }
        self.count(Counter::DatagramsIn);
        true
    }

    #[cold]
    fn udp_drop(&mut self, index: u32) -> bool {
        if let Some(udp) = self.parts.udp_sockets.get_mut(index as usize) {
            udp.drops = udp.drops.wrapping_add(1);
        }
        self.count(Counter::ReceiveFull);
        false
    }

    /// A socket gets a copy of a datagram, or of these bytes of it with the headers of the whole.
    fn udp_copy(&mut self, index: u32, arrival: &Arrival<'_>, range: Range<u32>) {
        let mut copies = Pieces::new();
        let copied = self.udp_copy_range(index, arrival, &range, &mut copies);
        let Some((mut frames, udp)) = self.udp_frames(index) else { return };
        if copied.is_some() {
            let Arrival { at: arrived, segment, .. } = *arrival;
            let head = Head { arrived, begin: 0, len: range.end - range.start, segment, drops: udp.drops };
            queue::push(&mut frames, &mut udp.receive, &head, copies.as_slice());
            self.udp_tell(index, true);
            self.count(Counter::DatagramsIn);
        } else {
            for copy in copies.as_slice() {
                frames.release(copy.frame, &mut udp.receive_charge);
            }
            self.udp_drop(index);
        }
    }

    /// Copies a range of a datagram's data into frames of a socket, the headers of the whole into the first of them; `None` if it may
    /// have no more, or there are none.
    fn udp_copy_range(
        &mut self,
        index: u32,
        arrival: &Arrival<'_>,
        range: &Range<u32>,
        copies: &mut Pieces,
    ) -> Option<()> {
        let size = self.device.capabilities().frame_size;
        let (frames, udp) = self.udp_frames(index)?;
        frames.may_keep(udp.receive_charge).ok()?;
        let first = arrival.pieces.first()?;
        let mut head = first.offset.saturating_sub(arrival.begin);
        let frame = self.udp_frame(index)?;
        copies.push(Piece { frame, offset: head, len: 0 });
        super::icmp::copy(self.device, (first.frame, arrival.begin.into()), (frame, 0), head.into())
            .then_some(())?;
        let (mut skip, mut left) = (range.start, range.end - range.start);
        for piece in arrival.pieces {
            let skipped = skip.min(piece.len.into()) as u16;
            skip -= u32::from(skipped);
            let mut from = Piece { offset: piece.offset + skipped, len: piece.len - skipped, ..*piece };
            while from.len > 0 && left > 0 {
                let last = *copies.as_slice().last()?;
                let (to, room) = match size.saturating_sub(head + last.len) {
                    0 => {
                        head = 0;
                        let frame = self.udp_frame(index)?;
                        copies.push(Piece { frame, offset: 0, len: 0 });
                        (Piece { frame, offset: 0, len: 0 }, size)
                    }
                    room => (last, room),
                };
                let len = u32::from(from.len.min(room)).min(left) as u16;
                let place = (to.frame, usize::from(to.offset + to.len));
                super::icmp::copy(self.device, (from.frame, from.offset.into()), place, len.into())
                    .then_some(())?;
                copies.lengthen(len);
                (from.offset, from.len, left) = (from.offset + len, from.len - len, left - u32::from(len));
            }
        }
        (left == 0).then_some(())
    }

    /// A frame of a socket's, beyond its limit: that is asked for before the first of a datagram.
    fn udp_frame(&mut self, index: u32) -> Option<FrameIndex> {
        let (mut frames, udp) = self.udp_frames(index)?;
        let mut unlimited = Charge { limit: u32::MAX, ..udp.receive_charge };
        let frame = frames.take_data(&mut unlimited, index).ok();
        udp.receive_charge.frames = unlimited.frames;
        frame
    }

    /// What was sent to a group or a broadcast is heard on this host, too (ip_mc_output): by those who listen, and the sender with them.
    pub(crate) fn udp_loop_back(&mut self, options: u32, parcel: &Parcel, draft: &Draft<'_>, segment: usize) {
        let group = &parcel.remote;
        let off = if group.is_v4() { Switch::NO_MULTICAST_LOOP } else { Switch::NO_MULTICAST_LOOP_V6 };
        if group.is_multicast() && (options & off != 0 || !self.parts.listens_to(group)) {
            return;
        }
        let (mut at, each) = (0, if segment == 0 { draft.len } else { segment });
        loop {
            let len = each.min(draft.len - at);
            self.udp_loop_one(parcel, &Draft { at, len, ..*draft });
            at += len;
            if at >= draft.len {
                return;
            }
        }
    }

    fn udp_loop_one(&mut self, parcel: &Parcel, draft: &Draft<'_>) {
        let (mut pieces, mut at, whole) = (Pieces::new(), 0, HEADER_LEN + draft.len);
        let Some(header) = draft.whole_header(self.device) else { return };
        while at < whole {
            let parts = &mut *self.parts;
            let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
            let Ok(frame) = frames.take_data(&mut parts.ip.fragments, u32::MAX) else { break };
            let place = self.device.bytes_mut(frame).and_then(|bytes| {
                let ip = if at == 0 { parcel.emit(None, 0, whole, bytes)? } else { 0 };
                Some((ip, (whole - at).min(bytes.len().saturating_sub(ip))))
            });
            let is_put = |(ip, len): &(usize, usize)| {
                let to = Piece { frame, offset: *ip as u16, len: *len as u16 };
                draft.put(self.device, Some(&header), at, to)
            };
            let (ip, len) = place.filter(is_put).unwrap_or_default();
            let head = if at == 0 { HEADER_LEN } else { 0 };
            pieces.push(Piece { frame, offset: (ip + head) as u16, len: len.saturating_sub(head) as u16 });
            if len <= head && whole > HEADER_LEN {
                break;
            }
            at += len;
        }
        if at == whole {
            let arrival = Arrival {
                local: (&draft.remote.0, draft.remote.1),
                remote: (&draft.source.0, draft.source.1),
                at: self.now,
                begin: 0,
                pieces: pieces.as_slice(),
                len: draft.len as u32,
                segment: 0,
                is_bare: draft.is_unchecked && !draft.remote.0.is_v4(),
                is_charged: true,
            };
            self.udp_deliver_to_all(&arrival);
        }
        self.release_pieces(&pieces);
    }

    /// An error about a datagram that was sent, or seems to have been: its socket is told as Linux tells it. Whether there is one.
    pub(super) fn error_for_datagram(&mut self, about: &About, meaning: &Meaning, told: &Told) -> bool {
        let (local, remote) = ((&about.local.0, about.local.1), (&about.remote.0, about.remote.1));
        let Some(index) = self.udp_find(local, remote) else { return false };
        let Some(udp) = self.parts.udp_sockets.get(index as usize).copied() else { return false };
        let (values, is_v4) = (*settings::of(self.parts.settings, udp.settings), about.remote.0.is_v4());
        if let Some(too_big) = meaning.too_big {
            self.hear_path_mtu(&about.remote.0, too_big);
        }
        let switch = if is_v4 { Switch::ERRORS } else { Switch::ERRORS_V6 };
        let receives_errors = values.options & switch != 0;
        let socket = Datagrams {
            is_connected: udp.is(Mark::CONNECTED),
            receives_errors,
            discovers_mtu: Discover::of(&values, is_v4) != Discover::Dont,
        };
        let Some(error) = to_udp(meaning, &socket) else { return true };
        if receives_errors {
            let report = Report {
                error: error.code(),
                origin: if is_v4 { Origin::Icmp } else { Origin::IcmpV6 } as u8,
                kind: told.kind,
                code: told.code,
                info: told.info,
                offender: told.offender,
                destination: about.remote.0,
                port: about.remote.1,
                reserved: 0,
            };
            self.udp_report(index, &report, Some(told.quoted));
        }
        if let Some(udp) = self.parts.udp_sockets.get_mut(index as usize) {
            udp.error = error.code();
        }
        self.udp_tell(index, true);
        true
    }
}

/// Whether a datagram is from and for the same as the last one in the queue, and went the same way: GRO joins only those.
fn is_alike<D: Device>(frames: &Frames<'_>, udp: &UdpSocket, device: &D, arrival: &Arrival<'_>) -> bool {
    let said = |frame, begin, data| device.bytes(frame).and_then(|bytes| Said::read(bytes, begin, data));
    let last = queue::last(frames, &udp.receive).and_then(|(frame, head)| {
        // A datagram of several frames that isn't joined of segments stays one.
        let record =
            frames.record(frame).filter(|record| head.segment != 0 || head.len == record.len.into())?;
        said(frame, head.begin, record.offset)
    });
    let piece = arrival.pieces[0];
    last.is_some() && last == said(piece.frame, arrival.begin, piece.offset)
}
