//! The keeper of an interface: what programs get of it and when it goes, on a cable between two hosts.
//!
//! The binary is ACCEL_BIN or `target/release/accel` of the workspace. Other programs are this one again, started with the name of a
//! role in its environment.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use driver::keeper::message::Reason;
use driver::keeper::{Attached, Keeper, Refusal};
use driver::netlink::Netlink;
use driver::netlink::links::{self, Link};
use driver::steering::{Protocol, Requests};
use driver::sys::Fd;
use driver::xdp::device::AfXdp;
use harness::wire::namespace::Namespace;
use harness::wire::veth::{Cable, NAME};
use stack::device::{Device, FrameIndex, Memory, Received};
use stack::export::{Snapshot, Window};
use stack::seq::Seq;
use stack::wire::ip::Ip;

const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
const PORT: u16 = 7000;
const NEAR: Ip = Ip::v4([10, 0, 0, 1]);
/// A user without rights.
const NOBODY: u32 = 65_534;

fn accel() -> PathBuf {
    let path = std::env::var_os("ACCEL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/accel"), PathBuf::from);
    path.canonicalize().expect("build it first: cargo build --release -p accel-tools, or set ACCEL_BIN")
}

/// Waits for what another process does.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        thread::yield_now();
        driver::sys::nanosleep(100_000);
    }
    panic!("it never happened: {what}");
}

/// A keeper that runs in a host.
struct Kept {
    child: Child,
    said: String,
}

impl Kept {
    fn start(host: &Namespace, arguments: &[&str]) -> Self {
        let mut command = Command::new(accel());
        // Without its other half: here it is the test that takes packets.
        command.args(["keeper", "--interface", NAME, "--user", "0", "--alone"]).args(arguments);
        command.stdout(Stdio::piped());
        let mut child = host.inside(move || command.spawn()).expect("a keeper");
        let mut said = String::new();
        let output = child.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut said).expect("a line");
        Self { child, said: said.trim().to_owned() }
    }

    fn ready(host: &Namespace, arguments: &[&str]) -> Self {
        let kept = Self::start(host, arguments);
        assert_eq!(kept.said, "ready");
        kept
    }

    fn signal(&self, signal: i32) {
        // SAFETY: takes numbers; the child was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    fn end(mut self) {
        self.signal(libc::SIGTERM);
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn link(host: &Namespace) -> Link {
    host.inside(|| links::named(&mut Netlink::open(0).expect("netlink"), NAME)).expect("the cable")
}

fn setting(host: &Namespace) -> String {
    host.inside(|| std::fs::read_to_string(format!("/proc/sys/{RESERVED}")))
        .expect("a setting")
        .trim()
        .to_owned()
}

fn connect(host: &Namespace) -> Result<Keeper, Refusal> {
    let interface = link(host).index;
    host.inside(move || Keeper::connect(interface, 200))
}

/// What this process drives of an interface.
struct Driven {
    keeper: Keeper,
    attached: Attached,
    device: AfXdp,
    requests: Requests,
}

impl Driven {
    fn new(host: &Namespace) -> Self {
        let mut keeper = connect(host).expect("a keeper");
        let mut attached = keeper.attach().expect("the interface");
        let mut device = attached.device().expect("its device");
        let requests = attached.requests().expect("its requests");
        let frames: Vec<FrameIndex> = (0..64).map(FrameIndex).collect();
        assert_eq!(device.fill(&frames), 64);
        Self { keeper, attached, device, requests }
    }

    fn claim(&mut self, listener: &TcpListener, ip: Ip, port: u16) -> Result<(), Refusal> {
        let claimed = self.keeper.claim(Protocol::Tcp, ip, port, listener.as_raw_fd())?;
        claimed.places(Protocol::Tcp, port).for_each(|place| self.requests.want(place, true));
        Ok(())
    }

    /// Waits for a SYN to this port.
    fn sees_syn(&mut self, port: u16) {
        until("a SYN to the stack", || {
            let mut came = [Received::EMPTY; 32];
            let count = self.device.receive(&mut came);
            came[..count].iter().any(|one| {
                let at = usize::from(one.fragment.offset);
                let bytes = self.device.bytes(one.fragment.frame).expect("a frame");
                // The destination port of TCP over IPv4 without options.
                bytes[at + 12..at + 14] == [0x08, 0] && bytes[at + 36..at + 38] == port.to_be_bytes()
            })
        });
    }
}

/// A listener of the kernel's in a host, at every address or one.
fn listener(host: &Namespace, ip: Ipv4Addr, port: u16) -> TcpListener {
    host.inside(move || TcpListener::bind((ip, port))).expect("a listener")
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port)
}

/// The kernels talk to each other at this port.
fn kernels_talk(far: &Namespace, listener: &TcpListener) -> [TcpStream; 2] {
    let port = listener.local_addr().expect("an address").port();
    let mut stream = far.inside(move || TcpStream::connect(at(port))).expect("a connection");
    let (mut served, _) = listener.accept().expect("a connection");
    echo(&mut stream, &mut served);
    [stream, served]
}

fn echo(one: &mut TcpStream, other: &mut TcpStream) {
    let mut buffer = [0; 5];
    one.write_all(b"hello").expect("sent");
    other.read_exact(&mut buffer).expect("received");
    assert_eq!(&buffer, b"hello");
}

/// Somebody connects to this port, who gets no answer.
fn knock(far: &Namespace, port: u16) -> thread::JoinHandle<()> {
    far.spawn(move || drop(TcpStream::connect_timeout(&at(port), std::time::Duration::from_millis(100))))
}

#[test]
fn what_is_claimed_and_wanted_comes_to_the_stack_and_goes_back_when_released() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let terms = &driven.attached.terms;
    assert_eq!((terms.name.as_str(), terms.kind.as_str(), terms.mac), (NAME, "veth", [2, 0, 0, 0, 0, 1]));
    assert_eq!((terms.limits.frames, terms.limits.frame_size), (16_384, 2048));
    assert_eq!(driven.attached.bells.len(), 64);
    assert!(driven.attached.bells.iter().all(|bell| bell.raw() >= 200), "out of the program's way");
    let any = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    let one = listener(&near, Ipv4Addr::new(10, 0, 0, 1), PORT + 1);
    kernels_talk(&far, &any);
    kernels_talk(&far, &one);
    driven.claim(&any, Ip::UNSPECIFIED_V4, PORT).expect("any address");
    driven.claim(&one, NEAR, PORT + 1).expect("one address");
    for port in [PORT, PORT + 1] {
        let knocking = knock(&far, port);
        driven.sees_syn(port);
        knocking.join().expect("a knock");
    }
    driven.keeper.release(Protocol::Tcp, Ip::UNSPECIFIED_V4, PORT).expect("claimed");
    driven.keeper.release(Protocol::Tcp, NEAR, PORT + 1).expect("claimed");
    kernels_talk(&far, &any);
    kernels_talk(&far, &one);
    let again = driven.keeper.release(Protocol::Tcp, NEAR, PORT + 1).expect_err("it is released");
    assert_eq!(again, Refusal::Told { reason: Reason::Unclaimed, detail: 0 });
    kept.end();
    assert!(!link(&near).has_xdp);
    kernels_talk(&far, &any);
}

/// The keeper has the socket too: nobody else can take the port while packets to it come to the stack.
#[test]
fn a_claimed_port_stays_taken_after_its_socket_is_closed() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let mine = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    driven.claim(&mine, Ip::UNSPECIFIED_V4, PORT).expect("mine");
    drop(mine);
    let other = || near.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    assert!(other().is_err());
    driven.keeper.release(Protocol::Tcp, Ip::UNSPECIFIED_V4, PORT).expect("claimed");
    assert!(other().is_ok());
}

#[test]
fn who_has_not_bound_a_port_does_not_get_it() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let reason = |refused: Result<(), Refusal>| match refused {
        Err(Refusal::Told { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let mine = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    assert_eq!(reason(driven.claim(&mine, Ip::UNSPECIFIED_V4, PORT + 1)), Reason::NotBound);
    assert_eq!(reason(driven.claim(&mine, NEAR, PORT)), Reason::NotBound);
    // In another network namespace everything is free.
    let elsewhere = listener(&far, Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(reason(driven.claim(&elsewhere, Ip::UNSPECIFIED_V4, 80)), Reason::OtherNetwork);
    // Loopback is no address of the interface.
    let local = listener(&near, Ipv4Addr::LOCALHOST, PORT + 1);
    assert_eq!(reason(driven.claim(&local, Ip::v4([127, 0, 0, 1]), PORT + 1)), Reason::Address);
}

/// What a program says is a connection becomes one only at a port that is the owner's, and once, in a fresh socket of this network.
#[test]
fn the_kernel_gets_only_connections_of_the_owner() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let it = Snapshot {
        local: (NEAR, PORT),
        remote: (Ip::v4([10, 0, 0, 2]), 5000),
        rcv_nxt: Seq(1000),
        unread: 3,
        has_ended: false,
        snd_una: Seq(7),
        in_flight: 0,
        unsent: 0,
        is_finished: false,
        is_fin_sent: false,
        peer_mss: 1460,
        shifts: None,
        sack: true,
        timestamps: None,
        tsval: 0,
        ecn: false,
        window: Window {
            snd_wl1: Seq(990),
            snd_wnd: 5000,
            max_window: 6000,
            rcv_wnd: 4000,
            rcv_wup: Seq(900),
        },
    };
    let fresh = |host: &Namespace| {
        host.inside(|| driver::sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)).expect("a socket")
    };
    let memory = |bytes: &[u8]| {
        let file = driver::sys::memfd_create(c"bytes", 0).expect("memory");
        // SAFETY: the bytes are readable for their length.
        let written = unsafe { driver::sys::write(file.raw(), bytes.as_ptr().cast(), bytes.len()) };
        assert_eq!(written, Ok(bytes.len()));
        file
    };
    let leased = driven.attached.terms.ports[0].0;
    let mut told =
        |it: &Snapshot, socket: &Fd, bytes: &Fd| match driven.keeper.hand_over(it, socket.raw(), bytes) {
            Ok(()) => None,
            Err(Refusal::Told { reason, detail }) => Some((reason, detail as i32)),
            Err(other) => panic!("{other}"),
        };
    let (socket, bytes) = (fresh(&near), memory(b"abc"));
    assert_eq!(told(&it, &socket, &bytes), Some((Reason::NotOurs, 0)), "nobody's port");
    let it = Snapshot { local: (NEAR, leased), ..it };
    let loopback = Snapshot { local: (Ip::v4([127, 0, 0, 1]), leased), ..it };
    assert_eq!(told(&loopback, &socket, &bytes), Some((Reason::NotOurs, 0)), "not the interface's");
    assert_eq!(told(&it, &fresh(&far), &bytes), Some((Reason::OtherNetwork, 0)));
    let listens = Fd::own(listener(&near, Ipv4Addr::UNSPECIFIED, PORT).into_raw_fd());
    assert_eq!(told(&it, &listens, &bytes), Some((Reason::NoSocket, 0)));
    let file = Fd::own(std::fs::File::open("/dev/zero").expect("a file").into_raw_fd());
    assert_eq!(told(&it, &socket, &file), Some((Reason::Kernel, libc::EINVAL)), "no memory");
    assert_eq!(told(&it, &socket, &memory(b"a")), Some((Reason::Kernel, libc::EIO)), "less than it says");
    let ended = Snapshot { has_ended: true, ..it };
    assert_eq!(told(&ended, &socket, &bytes), Some((Reason::Kernel, libc::EOPNOTSUPP)));
    // None of that has used the socket up.
    assert_eq!(told(&it, &socket, &bytes), None);
    let mut room = [0; 9];
    // SAFETY: the room is writable for its length.
    let read = unsafe { driver::sys::read(socket.raw(), room.as_mut_ptr().cast(), room.len()) };
    assert_eq!((read, &room[..3]), (Ok(3), &b"abc"[..]));
    assert_eq!(
        told(&it, &fresh(&near), &bytes),
        Some((Reason::Kernel, libc::EADDRINUSE)),
        "the kernel has it"
    );
}

/// Connections that the kernel has at a port when it is claimed stay the kernel's.
#[test]
fn at_a_claimed_port_the_kernel_keeps_its_connections() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let listener = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    let [mut stream, mut served] = kernels_talk(&far, &listener);
    driven.claim(&listener, Ip::UNSPECIFIED_V4, PORT).expect("mine");
    echo(&mut stream, &mut served);
    echo(&mut served, &mut stream);
    let knocking = knock(&far, PORT);
    driven.sees_syn(PORT);
    knocking.join().expect("a knock");
    echo(&mut stream, &mut served);
}

/// Client ports are the stack's in the kernel, too, and what others have reserved stays; however the keeper ends.
#[test]
fn leased_ports_are_taken_while_there_is_a_keeper() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    near.set(RESERVED, "8080,9000-9010");
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let mut kept = Kept::ready(&near, &["--ports", "64"]);
        let driven = Driven::new(&near);
        let parts = driven.attached.terms.ports.clone();
        assert_eq!(parts.iter().map(|(_, count)| *count).sum::<u16>(), 64, "{parts:?}");
        let (first, count) = parts[0];
        let expected = format!("8080,9000-9010,{first}-{}", first + count - 1);
        assert_eq!(setting(&near), expected);
        let bind = move |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        assert!(!near.inside(move || bind(first)));
        assert!(link(&near).has_xdp);
        kept.signal(signal);
        kept.child.wait().expect("its end");
        until("the setting is mended", || setting(&near) == "8080,9000-9010");
        // The program has the sockets of the queues still; the interface is the kernel's all the same.
        assert!(!link(&near).has_xdp);
        assert!(near.inside(move || bind(first)));
        drop(driven);
    }
}

#[test]
fn there_is_one_keeper_and_one_user() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let kept = Kept::ready(&near, &[]);
    assert_eq!(Kept::start(&near, &[]).said, "taken");
    let said = role(&near, "attach", NOBODY, "");
    assert!(said.contains("programs of user 0"), "{said}");
    kept.end();
    let absent = connect(&near).expect_err("no keeper");
    assert!(matches!(absent, Refusal::Absent { .. }), "{absent}");
}

/// What a process held is free when it has ended, but for what another one holds; and the last one's end is the keeper's.
#[test]
fn a_port_is_free_when_its_programs_have_ended() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let mut kept = Kept::ready(&near, &["--linger", "0"]);
    // It claims, and ends; this process only drives the interface.
    let mut driven = Driven::new(&near);
    let said = role(&near, "claim", 0, "");
    assert_eq!(said, "claimed", "{said}");
    until("the port is free", || near.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).is_ok());
    let mine = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    kernels_talk(&far, &mine);
    driven.claim(&mine, Ip::UNSPECIFIED_V4, PORT).expect("free");
    let knocking = knock(&far, PORT);
    driven.sees_syn(PORT);
    knocking.join().expect("a knock");
    assert!(kept.child.try_wait().expect("a child").is_none(), "this process is there");
}

/// A server that listens, forks and ends, as daemons do: its child has the port.
#[test]
fn a_child_has_what_its_parent_had() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let child: i32 = role(&near, "daemon", 0, "").parse().expect("a number");
    // SAFETY: takes numbers only.
    let is_there = || unsafe { libc::kill(child, 0) } == 0;
    assert!(is_there());
    // Its parent has ended, and the port is taken all the same.
    assert!(near.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).is_err());
    let knocking = knock(&far, PORT);
    driven.sees_syn(PORT);
    knocking.join().expect("a knock");
    // SAFETY: takes numbers only; it is the child that was just seen.
    unsafe { libc::kill(child, libc::SIGKILL) };
    until("the port is free", || near.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).is_ok());
}

/// Addresses that come later are those of claims for any address, and those that go are the kernel's.
#[test]
fn addresses_are_followed() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let _kept = Kept::ready(&near, &[]);
    let mut driven = Driven::new(&near);
    let mine = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    driven.claim(&mine, Ip::UNSPECIFIED_V4, PORT).expect("mine");
    let to = Ipv4Addr::new(10, 0, 0, 77);
    near.inside(move || harness::wire::sys::set_address(NAME, to, Ipv4Addr::new(255, 255, 255, 0)))
        .expect("another address");
    until("the new address is the stack's", || {
        let far = far.spawn(move || {
            TcpStream::connect_timeout(
                &SocketAddr::new(to.into(), PORT),
                std::time::Duration::from_millis(50),
            )
            .is_ok()
        });
        !far.join().expect("a knock")
    });
    driven.sees_syn(PORT);
}

#[test]
fn a_firewall_is_an_objection_unless_it_is_bypassed() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let rule = |text: &'static str| {
        near.inside(move || {
            Command::new("nft").args(text.split(' ')).status().is_ok_and(|done| done.success())
        })
    };
    if !rule("add table inet guard") {
        println!("SKIP a_firewall_is_an_objection_unless_it_is_bypassed: nft");
        return;
    }
    assert!(rule("add chain inet guard in { type filter hook input priority 0 ; policy accept ; }"));
    Kept::ready(&near, &["--linger", "0"]).end();
    assert!(rule("add rule inet guard in tcp dport 22 accept"));
    let said = Kept::start(&near, &[]).said.clone();
    assert!(said.contains("nftables inet guard in might match") && said.contains(NAME), "{said}");
    assert!(!link(&near).has_xdp);
    Kept::ready(&near, &["--bypass-firewall"]).end();
}

/// A program that is there and takes nothing: what is sent to it would be lost for ever.
#[test]
fn packets_that_nobody_takes_are_the_kernels_after_a_while() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let mut kept = Kept::ready(&near, &["--watchdog", "1"]);
    let mut driven = Driven::new(&near);
    let mine = listener(&near, Ipv4Addr::UNSPECIFIED, PORT);
    driven.claim(&mine, Ip::UNSPECIFIED_V4, PORT).expect("mine");
    knock(&far, PORT).join().expect("a knock");
    assert!(driven.device.waiting() > 0);
    until("the keeper gives up", || kept.child.try_wait().expect("a child").is_some());
    assert!(!link(&near).has_xdp && setting(&near).is_empty());
    assert_eq!(driven.keeper.hold(), Err(Refusal::Gone));
    kernels_talk(&far, &mine);
}

/// Another interface's name, and one that is driven by somebody else.
#[test]
fn what_can_not_be_opened_is_said_in_a_line() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let mut command = Command::new(accel());
    command.args(["keeper", "--interface", "none-such", "--user", "0"]);
    let said = near.inside(move || command.output()).expect("a keeper").stdout;
    let said = String::from_utf8(said).expect("text");
    assert!(said.contains("none-such") && said.lines().count() == 1, "{said}");
    let held = near.inside(|| {
        driver::xdp::open::open(&driver::xdp::open::Request { name: NAME, owner: 1, frames: 64, way: None })
    });
    assert!(held.is_ok());
    let said = Kept::start(&near, &[]).said.clone();
    assert!(said.contains("another XDP program"), "{said}");
}

/// Both files of accel in a directory that everybody may read, which goes with this.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("accel-keeper-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        for file in [accel(), accel().with_file_name("libaccel.so")] {
            assert!(Command::new("cp").args([&file, &directory]).status().is_ok_and(|done| done.success()));
        }
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&directory).status().is_ok());
        Self(directory)
    }

    fn accel(&self, user: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("accel"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").uid(user).gid(user);
        command
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a command says in a host: its status, standard output, and standard error.
fn output(host: &Namespace, mut command: Command) -> (Option<i32>, String, String) {
    let done = host.inside(move || command.output()).expect("a command");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn the_launcher_has_the_interface_kept_while_its_program_lives() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let installed = Installed::new("launcher");
    let mut command = installed.accel(0, &["-o", "interfaces=cable", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = near.inside(move || command.spawn()).expect("a program");
    let mut echoed = [0; 4];
    program.stdin.as_mut().expect("its input").write_all(b"here").expect("written");
    program.stdout.as_mut().expect("its output").read_exact(&mut echoed).expect("it runs");
    assert!(link(&near).has_xdp && !setting(&near).is_empty());
    // The keeper is nobody's child whom the program could find.
    let pid = program.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    assert_eq!(children.trim(), "");
    // A second one has the same keeper.
    let (status, _, said) = output(&near, installed.accel(0, &["-o", "interfaces=cable", "true"]));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    drop(program.stdin.take());
    assert!(program.wait().expect("its end").success());
    until("the interface is given back", || !link(&near).has_xdp && setting(&near).is_empty());
}

#[test]
fn without_rights_the_sockets_stay_on_the_kernel() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let installed = Installed::new("rights");
    let program = |option: &'static str| installed.accel(NOBODY, &["-o", option, "echo", "runs"]);
    let (status, printed, said) = output(&near, program("interfaces=cable"));
    assert_eq!((status, printed.as_str()), (Some(0), "runs\n"));
    for word in ["CAP_NET_ADMIN", "cable", "setcap", "stay on the kernel"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    let (_, _, said) = output(&near, program("interfaces=none-such"));
    assert!(said.contains("there is no interface none-such"), "{said}");
    let strict = installed.accel(NOBODY, &["--strict", "-o", "interfaces=cable", "echo", "runs"]);
    let (status, printed, said) = output(&near, strict);
    assert_eq!((status, printed.as_str()), (Some(125), ""));
    assert!(said.contains("--strict") && said.contains("CAP_NET_ADMIN"), "{said}");
}

/// Rights that the command's file has are the keeper's, and not the program's; or only the keeper's file has them.
#[test]
fn file_capabilities_end_at_the_program() {
    capable(false);
    capable(true);
}

fn capable(beside: bool) {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let installed = Installed::new("capabilities");
    let rights = "cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep";
    let [own, keeper] = ["accel", "accel-keeper"].map(|name| installed.0.join(name));
    if beside {
        assert!(Command::new("cp").args([&own, &keeper]).status().is_ok_and(|done| done.success()));
    }
    let set = Command::new("setcap").arg(rights).arg(if beside { &keeper } else { &own }).status();
    if !set.is_ok_and(|done| done.success()) {
        println!("SKIP file_capabilities_end_at_the_program: setcap");
        return;
    }
    let show = "cat /proc/self/status; echo TMPDIR is $TMPDIR";
    let mut command = installed.accel(NOBODY, &["-o", "interfaces=cable", "sh", "-c", show]);
    command.env("TMPDIR", "/var/tmp");
    let (status, printed, said) = output(&near, command);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert!(link(&near).has_xdp, "it lingers");
    // Where accel itself has none the program's environment is whole.
    assert_eq!(printed.contains("TMPDIR is /var/tmp"), beside, "{printed}");
    let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(line(set).trim_end_matches('0'), format!("{set}:\t"), "{printed}");
    }
    assert!(line("Uid").split_whitespace().skip(1).all(|uid| uid == NOBODY.to_string()), "{printed}");
    // For himself alone, and not past the firewall.
    let mut other = Command::new(if beside { &keeper } else { &own });
    other.args(["keeper", "--interface", NAME, "--user", "0"]).env_clear().uid(NOBODY).gid(NOBODY);
    assert!(output(&near, other).1.contains("only root"));
    until("the interface is given back", || !link(&near).has_xdp);
}

/// Another program, which is this one in a role: what it says.
fn role(host: &Namespace, role: &str, user: u32, argument: &str) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "another_program", "--nocapture"]).env("KEEPER_ROLE", role);
    command.env("KEEPER_ARGUMENT", argument).uid(user);
    let output = host.inside(move || command.output()).expect("another program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("says: "));
    line.map_or_else(|| panic!("{text}"), |(_, said)| said.to_owned())
}

/// No test of its own: what [`role`] starts.
#[test]
fn another_program() {
    let Ok(role) = std::env::var("KEEPER_ROLE") else { return };
    let act = || -> Result<String, Refusal> {
        let link = links::named(&mut Netlink::open(0).expect("netlink"), NAME).expect("the cable");
        let mut keeper = Keeper::connect(link.index, 200)?;
        keeper.attach()?;
        if role == "claim" {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a listener");
            keeper.claim(Protocol::Tcp, Ip::UNSPECIFIED_V4, PORT, listener.as_raw_fd())?;
            return Ok("claimed".to_owned());
        }
        if role == "daemon" {
            let mut attached = keeper.attach()?;
            let wants = attached.requests()?;
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a listener");
            let claimed = keeper.claim(Protocol::Tcp, Ip::UNSPECIFIED_V4, PORT, listener.as_raw_fd())?;
            claimed.places(Protocol::Tcp, PORT).for_each(|place| wants.want(place, true));
            // It outlives this process.
            #[allow(clippy::zombie_processes)]
            let child = Command::new("sleep")
                .arg("1000")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a child");
            keeper.forked(child.id() as i32)?;
            let stranger = keeper.forked(1).expect_err("no child of ours");
            assert_eq!(stranger, Refusal::Told { reason: Reason::Kernel, detail: libc::ECHILD as u32 });
            return Ok(child.id().to_string());
        }
        Ok("attached".to_owned())
    };
    println!("\nsays: {}", act().unwrap_or_else(|refused| refused.to_string()));
}
