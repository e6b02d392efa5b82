//! The system calls of the wire, each with one call and no logic: the only unsafe code of it.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use stack::time::Duration;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The calling thread gets a network namespace of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The calling thread moves to a network namespace.
///
/// # Errors
/// EPERM; EINVAL if the descriptor is no namespace.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// The calling thread runs on this core alone.
///
/// # Panics
/// When there is no such core.
pub fn pin(core: usize) {
    // SAFETY: a set of zero bytes is an empty one, and CPU_SET checks the bounds of its own.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: the set is as long as said.
    let done = check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) });
    assert!(done.is_ok(), "core {core}: {done:?}");
}

/// An interface's name in a request.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq of zero bytes is one: integers, addresses and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = byte as libc::c_char;
    }
    request
}

/// Makes an interface of the calling thread's namespace whose packets are read and written by the descriptor: IP's for a
/// TUN, Ethernet's for a TAP. It ends with the descriptor. With offloads each packet has a header of virtio's before it, and may
/// be one to be cut.
///
/// # Errors
/// ENOENT without /dev/net/tun; EPERM without CAP_NET_ADMIN.
pub fn open_tun(name: &str, is_tap: bool, offloads: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = request(name);
    let kind = if is_tap { libc::IFF_TAP } else { libc::IFF_TUN };
    let header = if offloads { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes the ifreq that it is given.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    if offloads {
        let all = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(all)) })?;
    }
    Ok(file)
}

/// One of the requests that set up an interface, on a socket of the calling thread's namespace.
fn configure<T>(family: c_int, what: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let socket = check(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the callers below pass the structure that the request reads and writes.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_mut(argument)) }).map(drop)
}

/// Switches an interface on.
///
/// # Errors
/// ENODEV, EPERM.
pub fn set_up(name: &str) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    configure(libc::AF_INET, libc::SIOCSIFFLAGS, &mut request)
}

/// An interface's MTU.
///
/// # Errors
/// EINVAL where the device has another limit.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu as c_int;
    configure(libc::AF_INET, libc::SIOCSIFMTU, &mut request)
}

/// How many packets an interface holds for its reader.
///
/// # Errors
/// ENOMEM.
pub fn set_queue(name: &str, packets: u32) -> io::Result<()> {
    let mut request = request(name);
    // ifr_qlen is an int in the same place.
    request.ifr_ifru.ifru_mtu = packets as c_int;
    configure(libc::AF_INET, libc::SIOCSIFTXQLEN, &mut request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let octets = address.octets();
    let mut data = [0; 14];
    for (to, octet) in data[2..6].iter_mut().zip(octets) {
        *to = octet as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// An interface's address and the mask of its subnet.
///
/// # Errors
/// ENODEV, EPERM.
pub fn set_address(name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = request(name);
        request.ifr_ifru.ifru_addr = socket_address(value);
        configure(libc::AF_INET, what, &mut request)?;
    }
    Ok(())
}

/// The number of an interface of the calling thread's namespace.
///
/// # Errors
/// ENODEV.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let mut request = request(name);
    configure(libc::AF_INET, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: SIOCGIFINDEX has set this field.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// Adds an address of IPv6.
///
/// # Errors
/// ENODEV, EPERM; EINVAL where the MTU is too small for IPv6.
pub fn add_address6(name: &str, address: Ipv6Addr, prefix_len: u32) -> io::Result<()> {
    let mut request = request(name);
    configure(libc::AF_INET, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: SIOCGIFINDEX has set this field.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    let mut request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
        ifr6_prefixlen: prefix_len,
        ifr6_ifindex: index,
    };
    configure(libc::AF_INET6, libc::SIOCSIFADDR, &mut request)
}

/// Waits until one of the descriptors can be read, or so long.
///
/// # Errors
/// EINTR.
pub fn wait(descriptors: &[BorrowedFd<'_>], length: Duration) -> io::Result<()> {
    let entry = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = descriptors.iter().map(entry).collect();
    let time = libc::timespec {
        tv_sec: (length.0 / 1_000_000_000) as libc::time_t,
        tv_nsec: (length.0 % 1_000_000_000) as libc::c_long,
    };
    let count = entries.len() as libc::nfds_t;
    // SAFETY: the entries and the time live as long as the call, and there are as many entries as it is told.
    check(unsafe { libc::ppoll(entries.as_mut_ptr(), count, &raw const time, std::ptr::null()) }).map(drop)
}

/// A set of epoll(7) that is told of edges of room in one socket. If there is room now, that is the first.
///
/// # Errors
/// As epoll_create1(2) and epoll_ctl(2).
pub fn edges_of_room(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let set = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call gave a fresh descriptor to nobody else.
    let set = unsafe { OwnedFd::from_raw_fd(set) };
    let mut wanted = libc::epoll_event { events: (libc::EPOLLOUT | libc::EPOLLET) as u32, u64: 0 };
    let (at, of, what) = (set.as_raw_fd(), socket.as_raw_fd(), libc::EPOLL_CTL_ADD);
    // SAFETY: the event lives as long as the call.
    check(unsafe { libc::epoll_ctl(at, what, of, &raw mut wanted) })?;
    Ok(set)
}

/// Whether there was an edge since it was asked last.
///
/// # Errors
/// As epoll_wait(2).
pub fn take_edge(set: BorrowedFd<'_>) -> io::Result<bool> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the call writes at most one event, which is alive.
    check(unsafe { libc::epoll_wait(set.as_raw_fd(), &raw mut event, 1, 0) }).map(|count| count > 0)
}

/// The calling thread's waits end on time, and not up to 50 µs late.
///
/// # Errors
/// None is known.
pub fn wake_on_time() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) }).map(drop)
}

/// A TCP socket of the calling thread's namespace.
///
/// # Errors
/// Those of socket(2).
pub fn stream_socket(is_v6: bool) -> io::Result<OwnedFd> {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no memory is involved.
    let socket = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// A netlink socket of the calling thread's namespace.
///
/// # Errors
/// Those of socket(2).
pub fn netlink_socket(protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let made = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    let socket = check(made)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// An address, as calls take it.
fn name_of(at: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: a sockaddr_storage of zero bytes is one: it has bytes alone.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let len = match at {
        SocketAddr::V4(at) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: at.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(at.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than a sockaddr_in and aligned for it.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(at) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: at.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: at.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: the storage is larger than a sockaddr_in6 and aligned for it.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

/// Connects a socket.
///
/// # Errors
/// Those of connect(2).
pub fn connect(socket: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    let (name, len) = name_of(to);
    // SAFETY: the pointer and the length are those of the name.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), len) }).map(drop)
}

/// Gives a socket an address and a port.
///
/// # Errors
/// Those of bind(2).
pub fn bind(socket: BorrowedFd<'_>, at: SocketAddr) -> io::Result<()> {
    let (name, len) = name_of(at);
    // SAFETY: the pointer and the length are those of the name.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) }).map(drop)
}

/// Makes a socket listen.
///
/// # Errors
/// Those of listen(2).
pub fn listen(socket: BorrowedFd<'_>, backlog: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// A connection that waits at a socket.
///
/// # Errors
/// Those of accept(2).
pub fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (name, len) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: nothing is asked for but the descriptor.
    let accepted = check(unsafe { libc::accept4(socket.as_raw_fd(), name, len, libc::SOCK_CLOEXEC) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

/// Sets a socket's option that is an integer.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_option_bytes(socket, level, name, &value.to_ne_bytes())
}

/// Sets a socket's option.
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_option_bytes(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let (pointer, len) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
    // SAFETY: the pointer and the length are those of the slice.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) }).map(drop)
}

/// A socket's TCP_INFO.
///
/// # Errors
/// Those of getsockopt(2).
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: a tcp_info of zero bytes is one: it has integers alone.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let to = (&raw mut info).cast();
    // SAFETY: the pointer and the length are those of the structure.
    let got =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len) };
    check(got).map(|_| info)
}

/// Sends one urgent byte.
///
/// # Errors
/// Those of send(2).
pub fn send_urgent(socket: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    // SAFETY: the pointer is to one byte, which lives as long as the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_OOB) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads a socket's option; how many bytes it has.
///
/// # Errors
/// Those of getsockopt(2).
pub fn option_bytes(socket: BorrowedFd<'_>, level: c_int, name: c_int, to: &mut [u8]) -> io::Result<usize> {
    let (pointer, mut len) = (to.as_mut_ptr().cast(), to.len() as libc::socklen_t);
    // SAFETY: the pointer and the length are those of the slice.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, pointer, &raw mut len) })?;
    Ok(len as usize)
}

/// Sends with these flags.
///
/// # Errors
/// Those of send(2).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of the slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives with these flags.
///
/// # Errors
/// Those of recv(2).
pub fn receive(socket: BorrowedFd<'_>, to: &mut [u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of the slice.
    let got = unsafe { libc::recv(socket.as_raw_fd(), to.as_mut_ptr().cast(), to.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// What is in one of a socket's queues: SIOCINQ, SIOCOUTQ, SIOCOUTQNSD.
///
/// # Errors
/// Those of ioctl(2).
pub fn queued(socket: BorrowedFd<'_>, what: libc::Ioctl) -> io::Result<u32> {
    let mut count: c_int = 0;
    // SAFETY: these requests write an int.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut count) })?;
    Ok(count as u32)
}
