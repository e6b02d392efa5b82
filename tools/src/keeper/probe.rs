//! Whether packets come through, before anybody relies on it.
//!
//! The kernel runs the attached program on a packet as if a queue of the interface had received it, to an address that nobody has
//! (RFC 5737), and sends it where the program says. It must then be in the receive ring of that queue's socket, byte for byte. That
//! proves the program, its maps, the sockets and their frames; what only the device's own driver does is not proved, nor is
//! anything but the program in zero-copy mode, where the driver would keep the frames that the proof needs.

use driver::netlink::links::Link;
use driver::steering::{Claim, LOCALS, Place, Protocol};
use driver::sys::Errno;
use driver::xdp::device::QUEUES;
use driver::xdp::open::Opened;
use driver::xdp::socket::Mode;
use stack::device::{Device, FrameIndex, Memory, Received};
use stack::wire::ip::Ip;

/// TEST-NET-1, and the port of the discard service.
const NOBODY: Ip = Ip::v4([192, 0, 2, 1]);
const DISCARD: u16 = 9;
const PLACE: Place = Place { slot: LOCALS - 1, protocol: Protocol::Udp, port: DISCARD };
// What an XDP program returns.
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A datagram to nobody, with so many bytes as no other has.
fn packet(link: &Link) -> Vec<u8> {
    let mut packet = link.address.unwrap_or_default().to_vec();
    packet.extend([2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    packet.extend([0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2]);
    packet.extend(&NOBODY.0[12..]);
    packet.extend([DISCARD.to_be_bytes(), DISCARD.to_be_bytes(), 28u16.to_be_bytes(), [0; 2]].concat());
    packet.extend(b"accel proves itself.");
    packet
}

/// Has a packet come through every queue.
pub(super) fn prove(opened: &mut Opened, owner: u32) -> Result<(), String> {
    let step = |step: &'static str| move |Errno(errno)| format!("start-up probe: {step}: errno {errno}");
    opened.steering.set_local(&NOBODY, PLACE.slot).map_err(step("entering an address"))?;
    let claim = Claim { owner, mixed: false };
    opened.steering.claim(PLACE, Some(claim)).ok_or("start-up probe: there is no such owner")?;
    opened.requests.want(PLACE, true);
    let packet = packet(&opened.link);
    let run = |opened: &Opened| opened.steering.program().test(&packet, 1).map(|(verdict, _)| verdict);
    let mut proved = match run(opened).map_err(step("running the program"))? {
        XDP_REDIRECT => deliver(opened, &packet),
        verdict => {
            Err(format!("start-up probe: the program says {verdict} to a packet of ours, not {XDP_REDIRECT}"))
        }
    };
    opened.requests.want(PLACE, false);
    let verdict = run(opened).map_err(step("running the program"))?;
    if verdict != XDP_PASS && proved.is_ok() {
        proved = Err(format!("start-up probe: the program says {verdict} to a packet of the kernel's"));
    }
    let _ = opened.steering.claim(PLACE, None);
    let _ = opened.steering.remove_local(&NOBODY);
    proved
}

fn deliver(opened: &mut Opened, packet: &[u8]) -> Result<(), String> {
    let interface = opened.link.index;
    if opened.way.mode == Mode::ZeroCopy {
        return Ok(());
    }
    // Without a frame it is dropped: this only asks whether the kernel can do it, as it can from 5.18 on.
    if opened.steering.program().receive(packet, interface, 0) == Err(Errno(libc::EINVAL)) {
        return Ok(());
    }
    let queues = opened.device.queues().len() as u32;
    // One frame for each queue; each comes back with its packet, so that none is missing afterwards.
    let frames: Vec<FrameIndex> = (0..queues).map(FrameIndex).collect();
    if opened.device.fill(&frames) != frames.len() {
        return Err("start-up probe: the fill rings take no frames".to_owned());
    }
    for queue in 0..queues {
        let received = opened.steering.program().receive(packet, interface, queue);
        received
            .map_err(|Errno(errno)| format!("start-up probe: a packet to queue {queue}: errno {errno}"))?;
        let mut came = [Received::EMPTY; QUEUES];
        let count = opened.device.receive(&mut came);
        let bytes = came[..count].first().and_then(|one| {
            let begin = usize::from(one.fragment.offset);
            opened.device.bytes(one.fragment.frame)?.get(begin..begin + usize::from(one.fragment.len))
        });
        if count != 1 || bytes != Some(packet) {
            return Err(format!(
                "start-up probe: a packet to queue {queue} did not come through ({count} came); \
                 the interface stays on the kernel"
            ));
        }
    }
    Ok(())
}
