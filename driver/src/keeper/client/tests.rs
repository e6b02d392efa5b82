use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use stack::device::{Capabilities, ChecksumIn, Link};
use stack::region::Limits;

use super::super::message::{REQUEST, VERSION};
use super::*;

/// An interface that there isn't: its number is of this process and test alone.
fn interface() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (1 << 31) + (std::process::id() << 8) + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A keeper that answers what `answer` gives: to each request so many messages, with descriptors.
fn keeper<A>(mut answer: A) -> (Keeper, JoinHandle<()>)
where
    A: FnMut(Request, u32) -> Vec<(Vec<u8>, Vec<c_int>)> + Send + 'static,
{
    let interface = interface();
    let listener = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0).expect("a socket");
    sys::bind(&listener, &super::super::address(interface)).expect("the name is free");
    sys::listen(&listener, 4).expect("a listener");
    let keeper = Keeper::connect(interface, 200).expect("a connection");
    let serving = thread::spawn(move || {
        let visitor = sys::accept(&listener).expect("a visitor");
        loop {
            let mut ready = [libc::pollfd { fd: visitor.raw(), events: libc::POLLIN, revents: 0 }];
            sys::poll_all(&mut ready, -1).expect("a request");
            let (mut bytes, mut passed) = ([0; REQUEST], Vec::new());
            match sys::receive_with(&visitor, &mut bytes, &mut passed, 0) {
                Ok(came) if came.len != 0 => {}
                _ => return,
            }
            let (request, number) = Request::parse(&bytes).expect("a request");
            for (bytes, passed) in answer(request, number) {
                sys::send_with(&visitor, &bytes, &passed, 0).expect("an answer");
            }
        }
    });
    (keeper, serving)
}

fn plain(answer: &Answer, number: u32) -> (Vec<u8>, Vec<c_int>) {
    (answer.bytes(number).to_vec(), Vec::new())
}

fn terms(queues: u32, bells: u32) -> Terms {
    Terms {
        interface: 1,
        name: "va".to_owned(),
        kind: "veth".to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        owner: 1,
        queues,
        entries: 64,
        bells,
        capabilities: Capabilities {
            link: Link::Ethernet,
            mtu: 1500,
            frame_size: 2048,
            headroom_out: 0,
            fragments_max: 1,
            checksum_in: ChecksumIn::Verify,
            checksum_out: false,
            tso_bytes_max: 0,
            gro: false,
            timestamps: false,
        },
        limits: Limits::SMALL,
        ports: vec![(40_000, 1000)],
    }
}

#[test]
fn nobody_keeps_an_interface_that_there_is_not() {
    let interface = interface();
    assert_eq!(Keeper::connect(interface, 200).map(drop), Err(Refusal::Absent { interface }));
}

#[test]
fn descriptors_come_in_their_order_with_high_numbers() {
    let files: Vec<Fd> = (0..4 + 2 + 64).map(|_| sys::eventfd(0).expect("a descriptor")).collect();
    let numbers: Vec<c_int> = files.iter().map(Fd::raw).collect();
    // Each is known by what was written to it.
    for (file, count) in files.iter().zip(1u64..) {
        let bytes = count.to_ne_bytes();
        // SAFETY: the bytes are readable.
        unsafe { sys::write(file.raw(), bytes.as_ptr().cast(), 8) }.expect("an event");
    }
    let (mut keeper, _serving) = keeper(move |_, number| {
        vec![(Answer::Attached(Box::new(terms(2, 64))).bytes(number).to_vec(), numbers.clone())]
    });
    let attached = keeper.attach().expect("an interface");
    let count = |fd: &Fd| {
        let mut bytes = [0; 8];
        assert!(fd.raw() >= 200, "{fd:?}");
        // SAFETY: the bytes are writable.
        unsafe { sys::read(fd.raw(), bytes.as_mut_ptr().cast(), 8) }.expect("its count");
        u64::from_ne_bytes(bytes)
    };
    assert_eq!(attached.terms, terms(2, 64));
    assert_eq!((count(&attached.region), count(&attached.frames)), (1, 2));
    assert_eq!((attached.requests.as_ref().map(count), count(&attached.passed)), (Some(3), 4));
    assert_eq!(attached.queues.iter().map(count).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(attached.bells.iter().map(count).collect::<Vec<_>>(), (7..71).collect::<Vec<_>>());
}

#[test]
fn a_socket_goes_along_with_a_claim() {
    let (mut keeper, _serving) = keeper(|request, number| match request {
        Request::Claim(port) if port.number == 80 => {
            vec![plain(&Answer::Claimed(Claimed { slots: 5 }), number)]
        }
        _ => vec![plain(&Answer::Refused(Reason::NotBound, 0), number)],
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut claim = |number| keeper.claim(Protocol::Tcp, Ip::UNSPECIFIED, number, listener.as_raw_fd());
    assert_eq!(claim(80), Ok(Claimed { slots: 5 }));
    let refused = claim(81).expect_err("not bound");
    assert!(refused.to_string().contains("not bound"), "{refused}");
}

/// Who has given up waiting doesn't take the late answer for that to its next question.
#[test]
fn a_keeper_that_is_stopped_hangs_nobody() {
    let mut first = None;
    let (mut keeper, _serving) = keeper(move |request, number| match (request, first) {
        (Request::Hold, None) => {
            first = Some(number);
            Vec::new()
        }
        (_, Some(first)) => {
            vec![plain(&Answer::Refused(Reason::Unclaimed, 0), first), plain(&Answer::Done, number)]
        }
        _ => Vec::new(),
    });
    keeper.patience = Duration::from_millis(1);
    assert_eq!(keeper.hold(), Err(Refusal::Silent));
    keeper.patience = PATIENCE;
    assert_eq!(keeper.resolve(Ip::v4([10, 0, 0, 2])), Ok(()));
}

#[test]
fn what_makes_no_sense_is_one_sentence() {
    let (mut keeper, _serving) = keeper(|request, number| {
        let mut done = plain(&Answer::Done, number);
        match request {
            Request::Hold => done.0[0] ^= 0xff,
            Request::Attach => {
                done = (Answer::Attached(Box::new(terms(1, 1))).bytes(number).to_vec(), vec![0; 4])
            }
            _ => drop(done.0.pop()),
        }
        vec![done]
    });
    let other = VERSION ^ u32::from_ne_bytes([0xff, 0, 0, 0]);
    assert_eq!(keeper.hold(), Err(Refusal::Version { found: other }));
    assert_eq!(keeper.attach().map(drop), Err(Refusal::Malformed { wrong: Wrong::Size(4) }));
    let short = keeper.resolve(Ip::UNSPECIFIED).expect_err("a byte is missing");
    assert_eq!(short, Refusal::Malformed { wrong: Wrong::Size(ANSWER - 1) });
    assert!(short.to_string().contains("another version of accel"), "{short}");
}

#[test]
fn a_keeper_that_ends_is_gone() {
    let (mut keeper, serving) = keeper(|_, _| panic!("the keeper dies"));
    assert_eq!(keeper.hold(), Err(Refusal::Gone));
    assert!(serving.join().is_err());
}
