//! Everything of the bench that needs unsafe code: memory by mmap, a thread's own network namespace with a TUN device.

use std::ffi::{c_int, c_short, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

/// Huge pages of x86-64 and aarch64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// Zero bytes that are there as soon as they are touched, in huge pages where the kernel gives them. They are never unmapped: a
/// row runs in a process of its own and ends with it.
///
/// # Errors
/// mmap's.
pub(crate) fn bytes(len: usize) -> io::Result<&'static mut [u8]> {
    let whole = len.next_multiple_of(HUGE);
    let (protection, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that is there.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), whole + HUGE, protection, kind, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = mapped.map_addr(|address| address.next_multiple_of(HUGE));
    // SAFETY: the range is within the mapping. A refusal costs huge pages only.
    unsafe { libc::madvise(start, whole, libc::MADV_HUGEPAGE) };
    // SAFETY: `whole` zero bytes from `start` on are mapped for good, and nobody else has the address.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), len) })
}

/// Zero words, as [`bytes`].
///
/// # Errors
/// mmap's.
pub(crate) fn words(count: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = bytes(count * size_of::<AtomicU64>())?;
    // SAFETY: the bytes begin at a page, are zero, and are given away as words only.
    Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<AtomicU64>(), count) })
}

/// A TUN device without offloads in a network namespace that only this thread is in from now on, up, with this address.
///
/// # Errors
/// Whatever the system refuses: without rights in a user namespace this is EPERM, without the module ENOENT.
pub(crate) fn tun(address: [u8; 4]) -> io::Result<File> {
    // SAFETY: no memory is passed.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if alone != 0 {
        // SAFETY: as before; with a user namespace of its own anybody may have one. It fails in a process with threads.
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    }
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = named();
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as c_short;
    control(&file, libc::TUNSETIFF, &mut request)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut request = named();
    request.ifr_ifru.ifru_addr = in_family(address);
    control(&socket, libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_addr = in_family([255, 0, 0, 0]);
    control(&socket, libc::SIOCSIFNETMASK, &mut request)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
    control(&socket, libc::SIOCSIFFLAGS, &mut request)?;
    Ok(file)
}

/// Sets O_NONBLOCK.
///
/// # Errors
/// fcntl's.
pub(crate) fn dont_wait(fd: c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) })
}

/// A request of callgrind's (`CALLGRIND_START_INSTRUMENTATION`): from here on it sees what happens. Nothing without valgrind, whose mark
/// these instructions are: they turn a register round to what it was.
pub(crate) fn start_instrumentation() {
    #[cfg(target_arch = "x86_64")]
    {
        let request: [u64; 6] = [0x4354_0004, 0, 0, 0, 0, 0];
        // SAFETY: outside of valgrind nothing changes; inside, it reads the request and writes the result.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
                in("rax") request.as_ptr(), inout("rdx") 0u64 => _, options(nostack),
            );
        }
    }
}

fn named() -> libc::ifreq {
    // SAFETY: all of its fields are numbers and pointers, of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"bench0") {
        *to = *from as _;
    }
    request
}

fn in_family(address: [u8; 4]) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address) {
        *to = from as _;
    }
    libc::sockaddr { sa_family: libc::AF_INET as _, sa_data: data }
}

fn control(of: &impl AsRawFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let request: *mut libc::ifreq = request;
    // SAFETY: these requests read and write one ifreq.
    check(unsafe { libc::ioctl(of.as_raw_fd(), what, request.cast::<c_void>()) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
