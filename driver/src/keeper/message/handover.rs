//! A connection in a request: what [`Snapshot`] says, but for the bytes of its queues.

use stack::export::{Snapshot, Window};
use stack::seq::Seq;
use stack::wire::ip::Ip;

use super::{REQUEST, Reader, Writer, Wrong};

/// What is so, each a bit.
const HAS_ENDED: u8 = 1;
const IS_FINISHED: u8 = 1 << 1;
const IS_FIN_SENT: u8 = 1 << 2;
const SACK: u8 = 1 << 3;
const ECN: u8 = 1 << 4;
const SCALED: u8 = 1 << 5;
const STAMPED: u8 = 1 << 6;
const ALL: u8 = (1 << 7) - 1;

/// Behind the request's kind.
pub(super) fn write(to: &mut Writer<REQUEST>, it: &Snapshot) {
    let bits = [
        (it.has_ended, HAS_ENDED),
        (it.is_finished, IS_FINISHED),
        (it.is_fin_sent, IS_FIN_SENT),
        (it.sack, SACK),
        (it.ecn, ECN),
        (it.shifts.is_some(), SCALED),
        (it.timestamps.is_some(), STAMPED),
    ];
    let (snd, rcv) = it.shifts.unwrap_or_default();
    to.byte(bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit));
    to.half(it.local.1).put(&it.local.0.0).half(it.remote.1).byte(snd).byte(rcv).put(&it.remote.0.0);
    let Window { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup } = it.window;
    let words = [it.rcv_nxt.0, it.unread, it.snd_una.0, it.in_flight, it.unsent, it.peer_mss.into()];
    let stamps = [it.timestamps.unwrap_or_default(), it.tsval];
    for word in words.into_iter().chain(stamps).chain([snd_wl1.0, snd_wnd, max_window, rcv_wnd, rcv_wup.0]) {
        to.word(word);
    }
}

/// The same way round; one that contradicts itself is none.
pub(super) fn read(from: &mut Reader<'_>) -> Result<Snapshot, Wrong> {
    let (at, bits) = (from.at, from.byte()?);
    let has = |bit| bits & bit != 0;
    let (local_port, local, remote_port) = (from.half()?, Ip(from.take()?), from.half()?);
    let (shifts, remote) = ((from.byte()?, from.byte()?), Ip(from.take()?));
    let mut words = [0; 6];
    for word in &mut words {
        *word = from.word()?;
    }
    let [rcv_nxt, unread, snd_una, in_flight, unsent, mss] = words;
    let (recent, tsval) = (from.word()?, from.word()?);
    let it = Snapshot {
        local: (local, local_port),
        remote: (remote, remote_port),
        rcv_nxt: Seq(rcv_nxt),
        unread,
        has_ended: has(HAS_ENDED),
        snd_una: Seq(snd_una),
        in_flight,
        unsent,
        is_finished: has(IS_FINISHED),
        is_fin_sent: has(IS_FIN_SENT),
        peer_mss: u16::try_from(mss).map_err(|_| Wrong::Field(at))?,
        shifts: has(SCALED).then_some(shifts),
        sack: has(SACK),
        timestamps: has(STAMPED).then_some(recent),
        tsval,
        ecn: has(ECN),
        window: Window {
            snd_wl1: Seq(from.word()?),
            snd_wnd: from.word()?,
            max_window: from.word()?,
            rcv_wnd: from.word()?,
            rcv_wup: Seq(from.word()?),
        },
    };
    let is_said_once = (has(SCALED) || shifts == (0, 0)) && (has(STAMPED) || recent == 0);
    let is_it = bits & !ALL == 0 && is_said_once && it.is_whole();
    if is_it { Ok(it) } else { Err(Wrong::Field(at)) }
}
