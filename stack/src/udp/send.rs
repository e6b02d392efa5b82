//! sendmsg(2) on a socket of UDP (net/ipv4/udp.c: udp_sendmsg, udp_send_skb; net/ipv6/udp.c; net/ipv4/ip_output.c).
//!
//! A datagram is copied once, into the frame that it leaves in, and its checksum is made by the way. One that is larger than the path
//! takes goes in fragments, unless the socket says otherwise (IP_MTU_DISCOVER). The socket is charged for frames until the device has
//! sent them (SO_SNDBUF).

use super::draft::{Draft, Text};
use super::errors::{Origin, Report};
use super::{Mark, Shut, UdpSocket};
use crate::demux::End;
use crate::device::{Device, Fragment, FrameIndex, Link};
use crate::error::Error;
use crate::ip::hop::{Hop, Via};
use crate::ip::path_mtu::{Known, V4_MIN};
use crate::ip::route::{Kind, Route};
use crate::ip::tables::Way;
use crate::region::slab::Handle;
use crate::settings::{self, Switch, Values};
use crate::stack::Stack;
use crate::stack::parcel::Parcel;
use crate::stats::Counter;
use crate::wire::ip::Ip;
use crate::wire::udp::HEADER_LEN;
use crate::wire::{ipv4, ipv6, protocol};

#[cfg(test)]
mod tests;

/// Most datagrams that one call makes (UDP_MAX_SEGMENTS).
const SEGMENTS_MAX: usize = 128;
/// The neighbour of a socket whose packets begin with IP's header: none is needed.
const DIRECT: u16 = u16::MAX;

/// What goes with a message, besides its text: `msg_name` and the control messages. What isn't given is the socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Where to.
    pub to: Option<(Ip, u16)>,
    /// The address of ours that it comes from (IP_PKTINFO's `ipi_spec_dst`, IPV6_PKTINFO).
    pub source: Option<Ip>,
    /// Bytes of each datagram that the text is cut into (UDP_SEGMENT).
    pub segment: Option<u16>,
    /// IP_TTL, IPV6_HOPLIMIT.
    pub ttl: Option<u8>,
    /// IP_TOS, IPV6_TCLASS.
    pub tos: Option<u8>,
    /// The datagram goes on with the next call (MSG_MORE).
    pub more: bool,
}

/// How far datagrams may be larger than the path takes (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discover {
    /// IP_PMTUDISC_DONT: they go in fragments, and routers make more.
    Dont,
    /// IP_PMTUDISC_WANT: what the path takes goes in one piece that nobody cuts, and what is larger in fragments.
    Want,
    /// IP_PMTUDISC_DO: what is larger isn't sent.
    Do,
    /// IP_PMTUDISC_PROBE: as that, but the link's own size counts, and not what routers have said.
    Probe,
    /// IP_PMTUDISC_INTERFACE: as that, and routers may cut.
    Interface,
    /// IP_PMTUDISC_OMIT: as that, and larger ones go in fragments.
    Omit,
}

impl Discover {
    pub(crate) fn of(values: &Values, is_v4: bool) -> Self {
        match if is_v4 { values.mtu_discover } else { values.mtu_discover_v6 } {
            1 => Self::Dont,
            3 => Self::Do,
            4 => Self::Probe,
            5 => Self::Interface,
            6 => Self::Omit,
            _ => Self::Want,
        }
    }

    /// Whether what routers have said of the path counts (ip_sk_use_pmtu).
    const fn uses_path(self) -> bool {
        matches!(self, Self::Dont | Self::Want | Self::Do)
    }

    /// Whether what is too large goes in fragments (ip_sk_ignore_df).
    const fn cuts(self) -> bool {
        matches!(self, Self::Dont | Self::Want | Self::Omit)
    }

    /// Whether routers may cut what fits (ip_dont_fragment).
    const fn may_be_cut(self, path_may: bool) -> bool {
        match self {
            Self::Dont | Self::Interface | Self::Omit => true,
            Self::Want => path_may,
            Self::Do | Self::Probe => false,
        }
    }
}

/// What counts for one message, of its socket's options and of its own.
struct Wish {
    is_v4: bool,
    /// Bits of [`Switch`].
    options: u32,
    discover: Discover,
    ttl: u8,
    tos: u8,
    /// Bytes of each datagram that the text is cut into, or 0.
    segment: usize,
    /// Bytes of the largest datagram, whatever the path takes (IPV6_MTU).
    mtu_max: u16,
}

impl Wish {
    fn of(values: &Values, remote: &Ip, how: &Sending) -> Self {
        let is_v4 = remote.is_v4();
        let ttl = match (remote.is_multicast(), is_v4) {
            (true, _) => values.multicast_ttl(is_v4),
            (false, true) if values.ttl == 0 => crate::stack::parcel::TTL,
            (false, true) => values.ttl,
            (false, false) => values.hop_limit(),
        };
        let tos = if is_v4 { values.tos } else { values.traffic_class };
        Self {
            is_v4,
            options: values.options,
            discover: Discover::of(values, is_v4),
            ttl: how.ttl.unwrap_or(ttl),
            tos: how.tos.unwrap_or(tos),
            segment: how.segment.unwrap_or(values.gso_size).into(),
            mtu_max: if is_v4 || values.mtu_max == 0 { u16::MAX } else { values.mtu_max },
        }
    }

    /// Whether what is too large goes in fragments: in IPv6 it doesn't where the socket says so (`__ip6_append_data`).
    const fn cuts(&self) -> bool {
        let is_kept_whole = !self.is_v4 && self.options & Switch::DONT_FRAGMENT_V6 != 0;
        self.discover.cuts() && !is_kept_whole
    }

    /// Whether the switch of its version of IP is on.
    const fn has(&self, v4: u32, v6: u32) -> bool {
        self.options & if self.is_v4 { v4 } else { v6 } != 0
    }
}

/// How a message leaves.
struct Leaves {
    hop: Hop,
    source: Ip,
    /// Bytes of the largest datagram, by what the socket wants to know of it.
    mtu: u16,
    /// Routers may cut.
    path_may: bool,
    /// To a group or a broadcast.
    is_many: bool,
    /// It was looked up: something is to be done for the next hop afterwards, perhaps.
    is_new: bool,
    /// There is room for all of the message.
    has_room: bool,
}

impl<D: Device> Stack<'_, '_, D> {
    /// sendmsg(2): how many bytes were sent, which are all.
    ///
    /// # Errors
    /// `DestinationRequired` without any; `Invalid` for port 0, or an address that isn't ours; `AddressFamily`; `MessageSize` for what
    /// is larger than UDP carries, or than the path does where it may not be cut; `Forbidden` for a broadcast without
    /// SO_BROADCAST; that there is no way; a pending error; `BrokenPipe` after shutdown(2); `WouldBlock` without room;
    /// `NoBuffers` if the device had none and IP_RECVERR is set.
    pub fn udp_send(&mut self, socket: Handle, text: &[&[u8]], how: &Sending) -> Result<usize, Error> {
        let udp = self.parts.udp(socket)?;
        if how.more || udp.is(Mark::CORK) || !udp.kept.is_empty() {
            let goes_on = how.more || udp.is(Mark::CORK);
            return self.udp_send_part(socket, text, how, goes_on);
        }
        self.udp_send_text(socket, Text::Users(text), how)
    }

    /// Where a message goes, what counts for it, and how it leaves: once it is known that its socket may send it.
    fn udp_prepare(
        &mut self,
        socket: Handle,
        len: usize,
        how: &Sending,
    ) -> Result<(UdpSocket, (Ip, u16), Wish, Leaves), Error> {
        let mut udp = *self.parts.udp(socket)?;
        if len > usize::from(u16::MAX) {
            return Err(Error::MessageSize);
        }
        let remote = destination(&udp, how)?;
        if udp.local_port == 0 {
            self.parts.udp_auto_bind(socket)?;
            udp = *self.parts.udp(socket)?;
        }
        let wish = Wish::of(settings::of(self.parts.settings, udp.settings), &remote.0, how);
        let leaves = self.udp_leaves(socket, &udp, &wish, &remote.0, how)?;
        if udp.error != 0
            && let Some(error) = self.udp_take_error(socket)?
        {
            return Err(error);
        }
        if udp.shut & Shut::WRITE != 0 {
            return Err(Error::BrokenPipe);
        }
        Ok((udp, remote, wish, leaves))
    }

    /// Whether a socket may send so many bytes, of which some will come with later calls (ip_append_data).
    pub(super) fn udp_may_send(&mut self, socket: Handle, len: usize, how: &Sending) -> Result<(), Error> {
        let (_, remote, wish, leaves) = self.udp_prepare(socket, len, how)?;
        let header = if remote.0.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let all = header + HEADER_LEN + len;
        let fits =
            all <= if wish.cuts() || wish.segment != 0 { usize::from(u16::MAX) } else { leaves.mtu.into() };
        if fits { Ok(()) } else { Err(Error::MessageSize) }
    }

    /// Sends a whole message.
    pub(super) fn udp_send_text(
        &mut self,
        socket: Handle,
        text: Text<'_>,
        how: &Sending,
    ) -> Result<usize, Error> {
        let len = text.len();
        let (udp, remote, wish, mut leaves) = self.udp_prepare(socket, len, how)?;
        let is_unchecked = wish.has(Switch::NO_CHECKSUM, Switch::NO_CHECKSUM_V6);
        let source = (leaves.source, udp.local_port);
        let draft = Draft { source, remote, text, at: 0, len, is_unchecked };
        let mut parcel = Parcel {
            ttl: wish.ttl,
            tos: wish.tos,
            payer: Some(socket),
            ..Parcel::new(leaves.source, remote.0, protocol::UDP)
        };
        let done = if wish.segment == 0 || len <= wish.segment {
            self.udp_send_one(&wish, &mut parcel, &mut leaves, &draft)
        } else {
            self.udp_send_cut(&wish, &mut parcel, &mut leaves, &draft)
        };
        if leaves.is_new {
            self.after(&mut leaves.hop, None);
        }
        done?;
        if leaves.is_many {
            self.udp_loop_back(wish.options, &parcel, &draft, wish.segment);
        }
        Ok(len)
    }

    /// UDP_SEGMENT: the text in datagrams of this size, and a last one of what is left.
    fn udp_send_cut(
        &mut self,
        wish: &Wish,
        parcel: &mut Parcel,
        leaves: &mut Leaves,
        draft: &Draft<'_>,
    ) -> Result<(), Error> {
        let segment = wish.segment;
        let headers = if parcel.remote.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN } + HEADER_LEN;
        if headers + segment > usize::from(leaves.mtu) {
            return Err(Error::MessageSize);
        }
        if draft.len > segment * SEGMENTS_MAX || draft.is_unchecked {
            return Err(Error::Invalid);
        }
        // All of it goes now, or none: who waits for room sends it again, whole (ip_make_skb: one skb, charged at once).
        let index = parcel.payer.map_or(u32::MAX, |socket| socket.index);
        if self.udp_is_full(index) || self.udp_lacks_room(draft.len.div_ceil(segment)) {
            return self.udp_no_room(index, wish);
        }
        leaves.has_room = true;
        let mut at = 0;
        while at < draft.len {
            let len = segment.min(draft.len - at);
            self.udp_send_one(wish, parcel, leaves, &Draft { at, len, ..*draft })?;
            at += len;
        }
        Ok(())
    }

    fn udp_send_one(
        &mut self,
        wish: &Wish,
        parcel: &mut Parcel,
        leaves: &mut Leaves,
        draft: &Draft<'_>,
    ) -> Result<(), Error> {
        let len = HEADER_LEN + draft.len;
        let all = parcel.header_len(false) + len;
        let (fits, most) = (all <= leaves.mtu.into(), self.piece_max(&leaves.hop, leaves.mtu));
        let index = parcel.payer.map_or(u32::MAX, |socket| socket.index);
        if !fits && !wish.cuts() {
            self.udp_report_size(index, wish, draft, leaves.mtu);
            return Err(Error::MessageSize);
        }
        parcel.may_fragment = !fits || wish.discover.may_be_cut(leaves.path_may);
        // Of a datagram that goes in pieces, each is copied by itself, and the sum of all is in the first.
        let is_whole = all <= most;
        let whole = match is_whole {
            true => None,
            false => Some(draft.whole_header(self.device).ok_or(Error::MessageSize)?),
        };
        let pieces = if is_whole { 1 } else { parcel.pieces(most, len) };
        if !leaves.has_room && self.udp_is_full(index) || self.udp_lacks_room(pieces) {
            return self.udp_no_room(index, wish);
        }
        let hop = &mut leaves.hop;
        let mut put = |device: &mut D, frame: FrameIndex, place: usize, from, len| {
            let to = Fragment { frame, offset: place as u16, len: len as u16 };
            draft.put(device, whole.as_ref(), from, to)
        };
        let sent = match whole {
            None => self.send_piece(parcel, hop, (None, 0), 0..len, &mut put),
            Some(_) => self.send_parcel(parcel, (hop, leaves.mtu), len, put),
        };
        match sent {
            Ok(()) => self.count(Counter::DatagramsOut),
            Err(Error::NoBuffers) => return self.udp_no_room(index, wish),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether a socket has as much on its way as it may (SO_SNDBUF).
    fn udp_is_full(&self, index: u32) -> bool {
        let udp = self.parts.udp_sockets.get(index as usize);
        udp.is_none_or(|udp| udp.send_charge.frames >= udp.send_charge.limit)
    }

    /// Whether the device, or the pool, has no room for so many frames now.
    fn udp_lacks_room(&mut self, pieces: usize) -> bool {
        self.device.transmit_room() < pieces || (self.frames().spare() as usize) < pieces
    }

    /// There is no room. Who has something on its way waits until that is sent; for others the datagram is lost, as in a queue of
    /// Linux that is full, which only IP_RECVERR makes an error.
    #[cold]
    fn udp_no_room(&mut self, index: u32, wish: &Wish) -> Result<(), Error> {
        self.count(Counter::FramesShort);
        let udp = self.parts.udp_sockets.get_mut(index as usize).ok_or(Error::Corrupt)?;
        if udp.send_charge.frames > 0 {
            udp.marks |= Mark::WANTS_ROOM;
            self.udp_tell(index, false);
            return Err(Error::WouldBlock);
        }
        if wish.has(Switch::ERRORS, Switch::ERRORS_V6) { Err(Error::NoBuffers) } else { Ok(()) }
    }

    /// ip_local_error, ipv6_local_error: who reads the queue of errors learns what the path takes.
    #[cold]
    fn udp_report_size(&mut self, index: u32, wish: &Wish, draft: &Draft<'_>, mtu: u16) {
        if wish.has(Switch::ERRORS, Switch::ERRORS_V6) {
            let report = Report {
                error: Error::MessageSize.code(),
                origin: Origin::Local as u8,
                info: mtu.into(),
                destination: draft.remote.0,
                port: draft.remote.1,
                ..Report::default()
            };
            self.udp_report(index, &report, None);
        }
    }

    /// The device has sent a frame of a datagram.
    pub(crate) fn datagram_sent(&mut self, frame: FrameIndex) {
        let Some(socket) = self.frames().datagram_of(frame) else { return };
        let Some((mut frames, udp)) = self.udp_frames(socket.index) else { return };
        if udp.tag.generation != socket.generation {
            let parts = &mut *self.parts;
            let sent = &mut parts.ip.sent;
            let mut frames =
                crate::frames::Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
            frames.end_datagram(frame, sent);
            return;
        }
        let could = udp.may_write();
        frames.end_datagram(frame, &mut udp.send_charge);
        let can = udp.may_write();
        let wanted = udp.is(Mark::WANTS_ROOM);
        if can && (wanted || !could) {
            udp.marks &= !Mark::WANTS_ROOM;
            self.udp_tell(socket.index, false);
        }
    }

    /// How a message leaves: as the one before it, if it goes to the same and nothing has changed.
    #[inline]
    fn udp_leaves(
        &mut self,
        socket: Handle,
        udp: &UdpSocket,
        wish: &Wish,
        remote: &Ip,
        how: &Sending,
    ) -> Result<Leaves, Error> {
        let is_plain = how.source.is_none() && wish.discover.uses_path() && wish.mtu_max == u16::MAX;
        let known = match how.to {
            _ if !is_plain => None,
            None => self.udp_known_hop(udp),
            Some(_) => self.udp_last_hop(udp, remote),
        };
        if let Some((hop, source, mtu)) = known {
            return Ok(Leaves {
                hop,
                source,
                mtu,
                path_may: false,
                is_many: false,
                is_new: false,
                has_room: false,
            });
        }
        self.udp_find_leaves(socket, udp, wish, remote, how)
    }

    fn udp_find_leaves(
        &mut self,
        socket: Handle,
        udp: &UdpSocket,
        wish: &Wish,
        remote: &Ip,
        how: &Sending,
    ) -> Result<Leaves, Error> {
        let way = self.udp_way(udp, wish.options, remote)?;
        let hop = self.hop_of(&way);
        if how.to.is_none() && how.source.is_none() && wish.discover.uses_path() {
            self.udp_keep_hop(socket, &hop, &way)?;
        }
        let is_many = remote.is_multicast() || self.is_broadcast(remote);
        let neighbour = if is_many { 0 } else { self.link_of(&hop) };
        let last = &mut self.parts.ip.last_way;
        if last.destination == *remote {
            last.neighbour = neighbour;
        }
        let source = match how.source {
            Some(source) if !source.is_unspecified() => {
                if !self.parts.is_ours(&source) || source.is_v4() != remote.is_v4() {
                    return Err(Error::Invalid);
                }
                source
            }
            _ => way.source,
        };
        let mtu = if wish.discover.uses_path() { way.path.mtu } else { way.link_mtu };
        let mtu = mtu.min(wish.mtu_max);
        let path_may = way.path.may_fragment;
        Ok(Leaves { hop, source, mtu, path_may, is_many, is_new: true, has_room: false })
    }

    /// The hop to the socket's peer, if it is known and nothing more is to be done for it, with our address and the path's MTU.
    fn udp_known_hop(&self, udp: &UdpSocket) -> Option<(Hop, Ip, u16)> {
        if udp.route_version != self.parts.ip.version() {
            return None;
        }
        Some((self.udp_open_hop(udp.route.into())?, udp.local, udp.path_mtu))
    }

    /// The same of whoever was the last that a datagram was sent to.
    fn udp_last_hop(&self, udp: &UdpSocket, remote: &Ip) -> Option<(Hop, Ip, u16)> {
        let ip = &self.parts.ip;
        let last = &ip.last_way;
        // With a path that takes less than its link, it is looked whether it is this one.
        let is_same = last.destination == *remote
            && last.version == ip.version()
            && last.device_mtu == self.device.capabilities().mtu
            && last.route.mtu_is_locked == 0
            && ip.paths_until == 0;
        if !is_same || !(udp.local == last.source || udp.local.is_unspecified()) {
            return None;
        }
        Some((
            self.udp_open_hop(last.neighbour)?,
            last.source,
            u16::try_from(last.link_mtu).unwrap_or(u16::MAX),
        ))
    }

    /// The hop by a neighbour, plus one, who is known to be there.
    fn udp_open_hop(&self, neighbour: u32) -> Option<Hop> {
        let interface = &self.parts.ip.interface;
        if neighbour == 0 || interface.vlan != 0 {
            return None;
        }
        let destination = match self.parts.neighbours.get((neighbour as usize).wrapping_sub(1)) {
            Some(known) if neighbour != u32::from(DIRECT) => known.fresh_link(self.now)?,
            _ if neighbour == u32::from(DIRECT) => crate::wire::ethernet::Address::default(),
            _ => return None,
        };
        Some(Hop { source: interface.link, destination, ..Hop::default() })
    }

    /// What is kept of a hop for [`Self::udp_open_hop`].
    fn link_of(&self, hop: &Hop) -> u32 {
        match hop.via {
            Via::Old(neighbour) => neighbour.saturating_add(1),
            Via::Link if self.device.capabilities().link == Link::Ip => DIRECT.into(),
            _ => 0,
        }
    }

    fn udp_keep_hop(&mut self, socket: Handle, hop: &Hop, way: &Way) -> Result<(), Error> {
        let version = self.parts.ip.version();
        let route = self.link_of(hop);
        let udp = self.parts.udp(socket)?;
        let is_plain = udp.local == way.source && way.path.mtu > V4_MIN && !way.path.may_fragment;
        if is_plain && let Ok(route @ 1..) = u16::try_from(route) {
            (udp.route, udp.route_version, udp.path_mtu) = (route, version, way.path.mtu);
        }
        Ok(())
    }

    /// The way to a destination: a group's and a broadcast's is the link itself, and for these SO_BROADCAST and IP_MULTICAST_IF count.
    ///
    /// # Errors
    /// That there is none; `Forbidden` for a broadcast without SO_BROADCAST.
    pub(crate) fn udp_way(&mut self, udp: &UdpSocket, options: u32, remote: &Ip) -> Result<Way, Error> {
        let is_broadcast = self.is_broadcast(remote);
        let is_many = is_broadcast || remote.is_multicast();
        let local = Some(udp.local)
            .filter(|local| !local.is_unspecified() && !local.is_multicast() && !self.is_broadcast(local));
        if local.is_some_and(|local| local.is_v4() != remote.is_v4()) {
            return Err(Error::NetworkUnreachable);
        }
        if !is_many {
            let way = self.way(remote)?;
            return Ok(Way { source: local.unwrap_or(way.source), ..way });
        }
        let chosen = Some(udp.multicast_from)
            .filter(|from| remote.is_multicast() && !from.is_unspecified() && from.is_v4() == remote.is_v4());
        let way = match self.way(remote) {
            Ok(way) => way,
            // IPv6 has a route for groups on each interface; IPv4's interface may be chosen without a route.
            Err(Error::NetworkUnreachable) if !remote.is_v4() || chosen.is_some() => {
                let mtu = self.link_mtu(remote) as u16;
                let ours = crate::ip::route::source::choose(self.parts.our_addresses(), remote, remote, true);
                Way {
                    next_hop: *remote,
                    source: chosen.or(ours).ok_or(Error::AddressNotAvailable)?,
                    link_mtu: mtu,
                    path: Known { mtu, may_fragment: false },
                    route: Route::default(),
                }
            }
            Err(error) => return Err(error),
        };
        if is_broadcast && options & Switch::BROADCAST == 0 {
            return Err(Error::Forbidden);
        }
        let kind = if is_broadcast { Kind::Broadcast } else { Kind::Unicast };
        let route = Route { kind: kind as u8, ..way.route };
        let source = local.or(chosen).unwrap_or(way.source);
        Ok(Way { next_hop: *remote, source, route, ..way })
    }
}

/// Where a message goes.
pub(super) fn destination(udp: &UdpSocket, how: &Sending) -> Result<(Ip, u16), Error> {
    let Some((ip, port)) = how.to else {
        let is_connected = udp.is(Mark::CONNECTED);
        return if is_connected {
            Ok((udp.remote, udp.remote_port))
        } else {
            Err(Error::DestinationRequired)
        };
    };
    if !udp.is(Mark::V6) && !ip.is_v4() {
        return Err(Error::AddressFamily);
    }
    if udp.sharing & crate::demux::Sharing::V6_ONLY != 0 && ip.is_v4() {
        return Err(Error::NetworkUnreachable);
    }
    if port == 0 { Err(Error::Invalid) } else { Ok((ip, port)) }
}

/// Where a message may go, for whoever has an end.
impl From<End<'_>> for Sending {
    fn from((ip, port): End<'_>) -> Self {
        Self { to: Some((*ip, port)), ..Self::default() }
    }
}
