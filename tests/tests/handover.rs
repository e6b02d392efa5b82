//! Connections of the network path that go where accel can't follow: to another program, to another process. The kernel gets them in the
//! midst of a talk, and neither end notices.
//!
//! The binaries are ACCEL_BIN and the library beside it, or those of `target/release`.

#[path = "../network/program.rs"]
mod program;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use harness::wire::namespace::Namespace;
use harness::wire::veth::{Cable, NAME};
use program::{By, Program, accel};

const PORT: u16 = 7300;
const GREETING: &[u8] = b"hello";
/// What the server has not read when it gives the connection away, and what it has just sent.
const UNREAD: usize = 50_000;

/// A guest that is greeted, and then talks to whoever has the other end: what came back behind the greeting.
fn talk(host: &Namespace, all: &[u8]) -> Vec<u8> {
    let mut stream = host.inside(|| TcpStream::connect(("10.0.0.1", PORT))).expect("a connection");
    let mut reading = stream.try_clone().expect("a stream");
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        reading.read_to_end(&mut got).map(|_| got)
    });
    stream.write_all(GREETING).expect("it reads");
    stream.write_all(all).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("that was all");
    reader.join().expect("the reader").expect("no reset")
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_connection_goes_to_another_program() {
    let Some([one, other]) = Cable::default().lay() else { return };
    for by in [By::Kernel, By::Stack] {
        let mut server = Program::start(&one, by, "handover.py", &[&PORT.to_string()]);
        assert_eq!(server.line().as_deref(), Some("ready"));
        for (way, end) in [("exec", ""), ("child", "1"), ("message", ""), ("failure", ""), ("filter", "")] {
            server.tell(way);
            let all = text(400_000);
            let got = talk(&other, &all);
            let expected = [GREETING, &vec![b'x'; UNREAD], &all, end.as_bytes()].concat();
            assert!(got == expected, "{way} by {by:?}: {} bytes came of {}", got.len(), expected.len());
            let kernels = u32::from(by == By::Kernel);
            assert_eq!(
                server.line(),
                Some(format!("{way} {kernels}")),
                "connections of the kernel's, before"
            );
        }
    }
}

/// A directory for a server's files, which goes with this.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("accel-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn pid(&self, name: &str) -> Option<i32> {
        std::fs::read_to_string(self.0.join(name)).ok()?.trim().parse().ok()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for name in ["nginx.pid", "nginx.pid.oldbin"] {
            if let Some(pid) = self.pid(name) {
                signal(pid, libc::SIGKILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: takes numbers; the process is one of this test's.
    unsafe { libc::kill(pid, signal) };
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if is_so() {
            return;
        }
        thread::yield_now();
        driver::sys::nanosleep(100_000);
    }
    panic!("it never happened: {what}");
}

fn children(pid: i32) -> usize {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path).map_or(0, |text| text.split_whitespace().count())
}

/// One request on a connection of its own.
fn request(host: &Namespace) -> std::io::Result<()> {
    let mut stream = host.inside(|| TcpStream::connect(("10.0.0.1", PORT)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut got = String::new();
    stream.read_to_string(&mut got)?;
    if got.ends_with("hello") { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// nginx's own way: the old one starts the new one with its listeners, and leaves when that serves. Guests notice nothing.
#[test]
fn a_server_is_replaced_under_load() {
    // By its path: it starts itself again by the name that it was started with.
    let places = std::env::var("PATH").unwrap_or_default();
    let nginx = places.split(':').map(|place| Path::new(place).join("nginx")).find(|path| path.exists());
    let Some(nginx) = nginx else {
        println!("SKIP there is no nginx");
        return;
    };
    let Some([one, other]) = Cable::default().lay() else { return };
    let files = Files::new();
    let dir = files.0.display();
    let conf = format!(
        "user root; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/errors;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b;\n\
         fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n\
         server {{ listen 10.0.0.1:{PORT}; location / {{ return 200 hello; }} }} }}\n"
    );
    std::fs::write(files.0.join("nginx.conf"), conf).expect("a file");
    let mut command = Command::new(accel());
    command.args(["-o", &format!("interfaces={NAME}"), "--strict"]);
    command.arg(nginx).arg("-c").arg(files.0.join("nginx.conf")).stdin(Stdio::null());
    // It leaves its caller: a master whose parent is still there would not replace itself.
    assert!(one.inside(move || command.status()).expect("nginx").success());
    until("it serves", || request(&other).is_ok());
    let (is_over, count) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    request(&other).expect("an answer");
                    count.fetch_add(1, SeqCst);
                }
            });
        }
        let more = |what: &str| {
            let seen = count.load(SeqCst);
            until(what, || count.load(SeqCst) >= seen + 50);
        };
        more("the old one serves");
        let master = files.pid("nginx.pid").expect("the old one");
        signal(master, libc::SIGUSR2);
        let next = || files.pid("nginx.pid").filter(|pid| *pid != master);
        until("the new one is there", || next().is_some_and(|pid| children(pid) == 2));
        more("both serve");
        signal(master, libc::SIGWINCH);
        until("the old one's workers have gone", || children(master) == 1);
        more("the new one serves");
        signal(master, libc::SIGQUIT);
        until("the old one has gone", || files.pid("nginx.pid.oldbin").is_none());
        more("the new one serves alone");
        is_over.store(true, SeqCst);
    });
    let carried = one.inside(|| std::fs::read_to_string("/proc/self/net/tcp")).expect("a table");
    let at = format!("0100000A:{PORT:04X}");
    let kernels = carried.lines().skip(1).filter(|row| row.contains(&at) && !row.contains(" 0A "));
    assert_eq!(kernels.count(), 0, "the stack served");
    signal(files.pid("nginx.pid").expect("the new one"), libc::SIGQUIT);
    until("it has gone", || files.pid("nginx.pid").is_none());
}
