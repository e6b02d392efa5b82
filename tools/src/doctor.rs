//! `accel doctor`: what this machine allows, what is missing, and the command that fixes it.

use crate::keeper::{firewall as rules, rights};
use crate::launch;
use crate::sys;
use driver::diag::{self, Endpoint};
use driver::netlink::{Netlink, links};
use driver::xdp::open;
use rows::options::{Id, Value};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// memfd_create (3.17) and pidfd_open (5.3) are needed, close_range (5.9) is expected.
const KERNEL_MIN: (u32, u32) = (5, 9);
/// Fewer open files than this are soon used up by a server.
const FILES_MIN: u64 = 4096;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// As it should be.
    Ok,
    /// accel works, with a loss.
    Warn,
    /// accel does not work.
    Fail,
}

/// One check.
#[derive(Debug)]
pub(crate) struct Row {
    mark: Mark,
    what: &'static str,
    found: String,
    /// What to do; empty if nothing.
    fix: String,
}

fn row(mark: Mark, what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Row {
    Row { mark, what, found: found.into(), fix: fix.into() }
}

/// Prints all checks; fails if accel can't work here.
pub(crate) fn run() -> ExitCode {
    let rows = [
        kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        preload(),
        memory(),
        unix_sockets(),
        peer_lookup(),
        seccomp(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        open_files(),
        processors(),
        shared_memory(),
        tracing(),
        environment(),
        firewall(),
        rights(&rights::missing()),
        af_xdp(),
        locked_memory(&rights::missing()),
        interfaces(),
    ];
    print!("{}", text(&rows));
    ExitCode::from(u8::from(rows.iter().any(|row| row.mark == Mark::Fail)))
}

fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mark = match row.mark {
            Mark::Ok => "ok  ",
            Mark::Warn => "warn",
            Mark::Fail => "FAIL",
        };
        text += &format!("{mark}  {:<18} {}\n", row.what, row.found);
        if !row.fix.is_empty() {
            text += &format!("{:25}fix: {}\n", "", row.fix);
        }
    }
    text += if rows.iter().any(|row| row.mark == Mark::Fail) {
        "\naccel does not work here before what failed is fixed.\n"
    } else {
        "\naccel works here: accel COMMAND\n"
    };
    text
}

fn kernel(release: &str) -> Row {
    let release = release.trim();
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        row(Mark::Ok, "kernel", format!("Linux {release}"), "")
    } else {
        row(
            Mark::Fail,
            "kernel",
            format!("Linux {release} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1),
            "install a newer kernel with the package manager of the distribution, and boot it",
        )
    }
}

fn preload() -> Row {
    const WHAT: &str = "library";
    let library = match launch::find_library() {
        Ok(library) => library,
        Err(refusal) => {
            return row(
                Mark::Fail,
                WHAT,
                refusal.message,
                "cargo build --release && cp target/release/libaccel.so <where accel is>",
            );
        }
    };
    let program = ["/bin/true", "/usr/bin/true"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/true");
    let output = Command::new(program)
        .env("LD_PRELOAD", &library)
        .env("ACCEL_LOG", "off")
        .env_remove("ACCEL_LOG_FILE")
        .stdin(Stdio::null())
        .output();
    let shown = library.display();
    match output {
        Ok(output) if output.status.success() && output.stderr.is_empty() => {
            row(Mark::Ok, WHAT, format!("{shown} loads into {program}"), "")
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("nothing was said").to_owned();
            row(
                Mark::Fail,
                WHAT,
                format!("{shown} does not load into {program} ({}): {said}", output.status),
                "install the accel that was built for this machine and its glibc",
            )
        }
        Err(error) => {
            row(Mark::Fail, WHAT, format!("{program} could not be started: {error}"), "install coreutils")
        }
    }
}

fn memory() -> Row {
    match sys::sealed_memory() {
        Ok(()) => row(Mark::Ok, "memfd", "memfd_create with seals works", ""),
        Err(error) => row(
            Mark::Fail,
            "memfd",
            format!("memfd_create with seals: {error}"),
            "allow memfd_create(2) and fcntl(F_ADD_SEALS) in the seccomp profile of the container",
        ),
    }
}

fn unix_sockets() -> Row {
    let name = format!("accel-doctor-{}", std::process::id());
    let attempt = || -> std::io::Result<()> {
        let address = UnixAddress::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address)?;
        let _client = UnixStream::connect_addr(&address)?;
        listener.accept().map(drop)
    };
    match attempt() {
        Ok(()) => row(Mark::Ok, "abstract sockets", "abstract Unix sockets work", ""),
        Err(error) => row(
            Mark::Fail,
            "abstract sockets",
            format!("abstract Unix sockets: {error}"),
            "allow AF_UNIX sockets: RestrictAddressFamilies=AF_UNIX in the systemd unit, \
             `unix` in the AppArmor profile",
        ),
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let mut bytes = [0; 16];
    match address {
        SocketAddr::V4(address) => bytes[..4].copy_from_slice(&address.ip().octets()),
        SocketAddr::V6(address) => bytes = address.ip().octets(),
    }
    Endpoint { address: bytes, port: address.port() }
}

fn peer_lookup() -> Row {
    const WHAT: &str = "inet_diag";
    let connection = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((endpoint(client.local_addr()?), endpoint(client.peer_addr()?), client, listener))
    });
    let (local, remote, _client, _listener) = match connection {
        Ok(connection) => connection,
        Err(error) => {
            return row(
                Mark::Fail,
                WHAT,
                format!("no TCP connection over 127.0.0.1: {error}"),
                "ip link set lo up",
            );
        }
    };
    match diag::owner_of(libc::AF_INET as u8, &remote, &local) {
        Ok(owner) if owner.uid == sys::effective_user() => {
            row(Mark::Ok, WHAT, "the kernel tells who is at the other end of a connection", "")
        }
        Ok(owner) => row(
            Mark::Fail,
            WHAT,
            format!("the kernel names user {} for a socket of user {}", owner.uid, sys::effective_user()),
            "run without a translating sandbox such as gVisor",
        ),
        Err(error) => row(
            Mark::Fail,
            WHAT,
            format!("asking for one TCP socket: {}", std::io::Error::from_raw_os_error(error.0)),
            "modprobe tcp_diag; in a sandbox, allow AF_NETLINK sockets",
        ),
    }
}

fn status_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

fn seccomp(status: &str) -> Row {
    match status_field(status, "Seccomp") {
        Some("0") => row(Mark::Ok, "seccomp", "no filter on this shell", ""),
        Some("2") => row(Mark::Ok, "seccomp", "a filter is installed; the rows above went through it", ""),
        Some(other) => {
            row(Mark::Warn, "seccomp", format!("mode {other}"), "start from a shell outside of the sandbox")
        }
        None => row(Mark::Ok, "seccomp", "not in this kernel", ""),
    }
}

fn open_files() -> Row {
    match sys::open_files_limit() {
        Ok((soft, hard)) if soft < FILES_MIN => row(
            Mark::Warn,
            "open files",
            format!("{soft} (hard limit {hard}); a server with many connections needs more"),
            format!("ulimit -n {}", hard.min(65_536)),
        ),
        Ok((soft, hard)) => row(Mark::Ok, "open files", format!("{soft} (hard limit {hard})"), ""),
        Err(error) => row(Mark::Warn, "open files", error.to_string(), ""),
    }
}

fn processors() -> Row {
    const WHAT: &str = "processors";
    match std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
        1 => row(
            Mark::Warn,
            WHAT,
            "1 is usable; spinning pays only with at least 2 cores",
            "accel -p safe COMMAND, or taskset -c 0,1 accel COMMAND",
        ),
        count => {
            row(Mark::Ok, WHAT, format!("{count} are usable; spinning pays only with at least 2 cores"), "")
        }
    }
}

fn shared_memory() -> Row {
    const WHAT: &str = "memory";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = status_field(&text, "MemAvailable")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    match available {
        Some(kibibytes) if kibibytes < 256 << 10 => row(
            Mark::Warn,
            WHAT,
            format!(
                "{} MiB are available; a connection takes two rings of ACCEL_LOCAL_RING bytes",
                kibibytes >> 10
            ),
            "accel -o local_ring=64K -o local_memory=64M COMMAND",
        ),
        Some(kibibytes) => row(Mark::Ok, WHAT, format!("{} MiB are available", kibibytes >> 10), ""),
        None => row(Mark::Ok, WHAT, "/proc/meminfo does not tell", ""),
    }
}

fn tracing() -> Row {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope = scope.map_or_else(
        |_| "Yama is not in this kernel".to_owned(),
        |scope| format!("ptrace_scope is {}", scope.trim()),
    );
    row(
        Mark::Ok,
        "ptrace",
        format!("{scope}; running needs no ptrace, `accel explain` needs the same user or root"),
        "",
    )
}

fn environment() -> Row {
    row(
        Mark::Ok,
        "environment",
        "sudo, su, env -i and systemd clean it: write `sudo accel COMMAND`, ExecStart=accel COMMAND",
        "",
    )
}

fn firewall() -> Row {
    row(
        Mark::Ok,
        "firewall",
        "connections are made by the kernel, so its rules hold for each; \
         bytes inside rings pass no rule or capture, nor do packets of the interfaces that `interfaces` names",
        "",
    )
}

fn rights(missing: &[&str]) -> Row {
    const WHAT: &str = "network rights";
    if missing.is_empty() {
        return row(Mark::Ok, WHAT, "accel may drive network interfaces (option `interfaces`)", "");
    }
    let keeper = rights::command();
    if sys::has_capabilities(&keeper) {
        let found = format!("{} has capabilities, and drives network interfaces for accel", keeper.display());
        return row(Mark::Ok, WHAT, found, "");
    }
    row(
        Mark::Warn,
        WHAT,
        format!("{} missing: the option `interfaces` does nothing", missing.join(", ")),
        format!("{}   (or start accel as root)", rights::fix()),
    )
}

fn af_xdp() -> Row {
    const WHAT: &str = "AF_XDP";
    match driver::sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0) {
        // Only who has CAP_NET_RAW is told more than that the kernel knows the family.
        Ok(_) | Err(driver::sys::Errno(libc::EPERM)) => row(Mark::Ok, WHAT, "is in this kernel", ""),
        Err(driver::sys::Errno(errno)) => row(
            Mark::Warn,
            WHAT,
            format!("a socket of AF_XDP: {}", std::io::Error::from_raw_os_error(errno)),
            "a kernel with CONFIG_XDP_SOCKETS; in a sandbox, allow AF_XDP sockets",
        ),
    }
}

/// Frames are locked memory, which who has no CAP_IPC_LOCK may have little of.
fn locked_memory(missing: &[&str]) -> Row {
    const WHAT: &str = "locked memory";
    let needed = frames_bytes();
    match sys::locked_memory_limit() {
        Ok(limit) if !missing.is_empty() && limit < needed => row(
            Mark::Warn,
            WHAT,
            format!("{} KiB are allowed, and the frames of an interface take {}", limit >> 10, needed >> 10),
            format!("the capabilities above, with cap_ipc_lock; or ulimit -l {}", needed >> 10),
        ),
        Ok(_) => row(Mark::Ok, WHAT, "enough for the frames of an interface", ""),
        Err(error) => row(Mark::Warn, WHAT, error.to_string(), ""),
    }
}

/// Bytes of the frames that an interface has by default, of the smaller kind.
fn frames_bytes() -> u64 {
    match Id::Frames.row().parse(Id::Frames.row().default) {
        Some(Value::Number(frames)) => frames * 2048,
        _ => 0,
    }
}

/// Which interfaces accel could drive, and what stands in the way of the others.
fn interfaces() -> Row {
    const WHAT: &str = "interfaces";
    let links = match Netlink::open(0).and_then(|mut netlink| links::all(&mut netlink)) {
        Ok(links) => links,
        Err(driver::sys::Errno(errno)) => {
            let error = std::io::Error::from_raw_os_error(errno);
            return row(Mark::Warn, WHAT, format!("asking for them: {error}"), "allow AF_NETLINK sockets");
        }
    };
    let is_loopback = |link: &&links::Link| link.flags & libc::IFF_LOOPBACK as u32 != 0;
    let mut found = Vec::new();
    for link in links.iter().filter(|link| !is_loopback(link)) {
        let name = &link.name;
        found.push(match open::ways(link) {
            Err(refused) => refused.to_string().replacen("interface ", "", 1),
            Ok(_) => match rules::found(link.index) {
                Ok(rules) if rules.is_empty() => format!("{name}: can be driven"),
                Ok(rules) => format!("{name}: {} might match (bypass_firewall)", rules.join(", ")),
                Err(_) => format!("{name}: can be driven, if no firewall objects"),
            },
        });
    }
    let text = if found.is_empty() { "there are none but the loopback".to_owned() } else { found.join("; ") };
    row(Mark::Ok, WHAT, text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, mark) in [
            ("6.18.44-fc", Mark::Ok),
            ("5.9.0\n", Mark::Ok),
            ("5.10", Mark::Ok),
            ("5.8.12", Mark::Fail),
            ("4.19", Mark::Fail),
            ("", Mark::Fail),
        ] {
            assert_eq!(kernel(release).mark, mark, "{release}");
        }
    }

    #[test]
    fn what_failed_comes_with_its_fix() {
        let text = text(&[row(Mark::Ok, "a", "fine", ""), row(Mark::Fail, "b", "broken", "mend b")]);
        assert!(text.contains("ok    a                  fine\nFAIL  b                  broken\n"), "{text}");
        assert!(text.contains("fix: mend b"));
        assert!(text.ends_with("before what failed is fixed.\n"));
    }

    #[test]
    fn the_checks_work_where_the_tests_run() {
        for row in [memory(), unix_sockets(), peer_lookup(), open_files(), processors()] {
            assert_ne!(row.mark, Mark::Fail, "{row:?}");
        }
        assert_eq!(rights(&[]).mark, Mark::Ok);
        assert_eq!(rights(&["CAP_BPF"]).mark, Mark::Warn);
        assert_eq!((af_xdp().mark, interfaces().mark), (Mark::Ok, Mark::Ok));
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t2\n").mark, Mark::Ok);
        assert_eq!(seccomp("Seccomp:\t1\n").mark, Mark::Warn);
    }
}
