use core::ops::Range;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};

use stack::device::{Fragment, FrameIndex, Memory};

use super::*;
use crate::packet::{Header, queue};
use crate::sys::Fd;
use crate::xdp::umem::{self, Umem};

#[test]
fn one_thread_at_a_time_sends() {
    let word = AtomicU64::new(0);
    let role = Role::take(&word).expect("nobody has it");
    std::thread::scope(|scope| {
        // Asking for it doesn't take it from who has it.
        scope.spawn(|| assert!(Role::take(&word).is_none() && Role::take(&word).is_none()));
    });
    assert_ne!(word.load(Ordering::Relaxed), 0, "it is ours still");
    drop(role);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(Role::take(&word).is_some()));
    });
}

/// It died with the role: whoever comes next has it.
#[test]
fn a_sender_that_is_gone_is_followed() {
    let word = AtomicU64::new(0);
    let number = std::thread::spawn(|| sys::gettid() as u64).join().expect("a number");
    word.store(number, Ordering::Relaxed);
    while sys::process_exists(number as i32) {
        std::thread::yield_now();
    }
    assert!(Role::take(&word).is_some());
    assert_eq!(word.load(Ordering::Relaxed), 0, "it is given back");
}

const FRAMES: u32 = 4096;
const FRAME_SIZE: u16 = 2048;
/// What tells another process where the queue and the frames are: it sends what is queued until it is killed, or left alone.
const WHERE: &str = "SENDER_TEST_FILES";

fn files(paths: &str) -> (Queue, Umem) {
    let open = |path: &str| {
        let path = std::ffi::CString::new(path).expect("a path");
        sys::open(&path, libc::O_RDWR, 0).expect("a file")
    };
    let (packets, frames) = paths.split_once(' ').map(|(one, other)| (open(one), open(other))).expect("two");
    let umem = Umem::map(&frames, FRAMES, FRAME_SIZE).expect("frames");
    (Queue::map(&packets).expect("a queue"), umem)
}

/// Not a test by itself: what the next one's other processes run. The socket is its input.
#[test]
fn another_process() {
    let Ok(paths) = std::env::var(WHERE) else { return };
    let ((queue, umem), socket) = (files(&paths), Socket::adopt(Fd::own(0)));
    let memory = umem.mapping();
    let frames = Frames { memory: &memory, frame_size: FRAME_SIZE };
    let parent = parent_id();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while parent_id() == parent {
                    drain(&queue, &socket, frames, || {});
                }
            });
        }
    });
}

fn descriptor(socket: &UnixDatagram) -> OwnedFd {
    socket.try_clone().expect("its number").into()
}

struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(paths: &str, socket: &UnixDatagram) -> Other {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "packet::sender::tests::another_process"]).env(WHERE, paths);
    command.stdin(descriptor(socket)).stdout(Stdio::null());
    Other(command.spawn().expect("a process"))
}

/// Queues packets with these numbers, and sees to it that all are sent. Something happens before the one in their middle is.
fn queue_all(
    numbers: Range<u64>,
    queue: &Queue,
    umem: &mut Umem,
    send: &dyn Fn(),
    mut happens: impl FnMut(),
) {
    let (mut free, mut done): (Vec<_>, _) = ((0..FRAMES).map(FrameIndex).collect(), [FrameIndex(0); 64]);
    let middle = u64::midpoint(numbers.start, numbers.end);
    for number in numbers {
        while free.is_empty() || queue.room() < 2 {
            send();
            let count = queue.completions(&mut done);
            free.extend_from_slice(&done[..count]);
        }
        let frame = free.pop().expect("a frame");
        umem.bytes_mut(frame).expect("a frame")[..8].copy_from_slice(&number.to_ne_bytes());
        assert!(queue.push(&Header::whole(8), &[Fragment { frame, offset: 0, len: 8 }]));
        if number == middle {
            happens();
        }
        send();
    }
    while queue.is_busy() {
        send();
    }
    while queue.completions(&mut done) != 0 {}
}

/// Reads packets up to the one with the last number; how many came twice.
fn read_all(socket: &UnixDatagram, last: u64) -> u64 {
    let (mut expected, mut twice, mut packet) = (0, 0, [0; 64]);
    while expected <= last {
        let len = socket.recv(&mut packet).expect("a packet");
        let number = u64::from_ne_bytes(packet[len - 8..len].try_into().expect("eight bytes"));
        if number + 1 == expected {
            twice += 1;
        } else {
            assert_eq!(number, expected, "each in its turn");
            expected += 1;
        }
    }
    twice
}

/// Threads of several processes send what one of them queues, and some of those are killed on the way: each packet leaves in its turn,
/// and once, but for the one that a dying process has just sent.
#[test]
fn packets_of_several_processes_leave_in_turn() {
    const PART: u64 = 10_000;
    const DEATHS: u64 = 6;
    let (packets, memory) = (queue::memory(), umem::memory(FRAMES, FRAME_SIZE));
    let (packets, memory) = (packets.expect("memory"), memory.expect("memory"));
    let path = |file: &Fd| format!("/proc/{}/fd/{}", std::process::id(), file.raw());
    let paths = format!("{} {}", path(&packets), path(&memory));
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    let (queue, mut umem) = files(&paths);
    let own = Socket::adopt(Fd::own(descriptor(&ours).into_raw_fd()));
    let mapping = umem.mapping();
    let frames = Frames { memory: &mapping, frame_size: FRAME_SIZE };
    let mut others = [start(&paths, &ours), start(&paths, &ours)];
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&theirs, DEATHS * PART));
        let send = || {
            assert!(!reader.is_finished(), "packets that nobody queued");
            drain(&queue, &own, frames, || {});
        };
        for death in 0..DEATHS {
            let other = &mut others[(death % 2) as usize];
            let numbers = death * PART..(death + 1) * PART;
            queue_all(numbers, &queue, &mut umem, &send, || other.0.kill().expect("it runs"));
            *other = start(&paths, &ours);
        }
        // The last one: nobody looks after the reader any more.
        let last = umem.bytes_mut(FrameIndex(0)).expect("a frame");
        last[..8].copy_from_slice(&(DEATHS * PART).to_ne_bytes());
        assert!(queue.push(&Header::whole(8), &[Fragment { frame: FrameIndex(0), offset: 0, len: 8 }]));
        while queue.is_busy() {
            drain(&queue, &own, frames, || {});
        }
        let twice = reader.join().expect("all packets");
        assert!(twice <= DEATHS && queue.lost() == 0, "{twice} packets left twice");
    });
}
