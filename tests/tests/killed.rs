//! Workers of one server on the network path are killed in the midst of everything: the connections of the others go on, but for the one
//! that the dead was about to change, the next one serves, and nothing stays behind.
//!
//! The binaries are ACCEL_BIN and the library beside it, or those of `target/release`.

#[path = "../network/program.rs"]
mod program;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use harness::wire::namespace::Namespace;
use harness::wire::veth::Cable;
use program::{By, Program};

const PORT: u16 = 7300;
const WORKERS: &str = "4";
/// Guests at one time.
const GUESTS: usize = 12;
/// Bytes that each of them has on its way.
const PIECE: usize = 20_000;

/// A connection that says whose it is, and echoes.
struct Guest {
    stream: TcpStream,
    worker: u32,
}

impl Guest {
    /// One of a worker that lives: who was killed may have taken it before.
    fn new(host: &Namespace) -> Self {
        loop {
            let mut stream = host.inside(|| TcpStream::connect(("10.0.0.1", PORT))).expect("a connection");
            let mut said = [0; 10];
            if stream.read_exact(&mut said).is_ok() {
                let said = std::str::from_utf8(&said).expect("a number");
                return Self { stream, worker: said.trim().parse().expect("a number") };
            }
        }
    }

    /// One piece there and back.
    fn turn(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut back = vec![0; bytes.len()];
        self.stream.write_all(bytes)?;
        self.stream.read_exact(&mut back)?;
        assert!(back == bytes, "what came back is something else");
        Ok(())
    }
}

/// Kills so many workers, one after the other, while all guests talk.
fn kills(count: u32) {
    let Some([one, other]) = Cable::default().lay() else { return };
    let mut server = Program::start(&one, By::Stack, "killed.py", &[&PORT.to_string(), WORKERS]);
    assert_eq!(server.line().as_deref(), Some("ready"));
    let (killed, is_over, turns) = (Mutex::new(Vec::new()), AtomicBool::new(false), AtomicU32::new(0));
    let is_killed = |worker: u32| killed.lock().expect("nobody panicked").contains(&worker);
    let bytes: Vec<u8> = (0..PIECE).map(|at| (at * 7 + at / 251) as u8).collect();
    let (latest, strays) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                let mut guest = Guest::new(&other);
                latest.store(guest.worker, SeqCst);
                while !is_over.load(SeqCst) {
                    let Err(error) = guest.turn(&bytes) else {
                        turns.fetch_add(1, SeqCst);
                        continue;
                    };
                    if !is_killed(guest.worker) {
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "its worker lives");
                        strays.fetch_add(1, SeqCst);
                    }
                    guest = Guest::new(&other);
                    latest.store(guest.worker, SeqCst);
                }
            });
        }
        for _ in 0..count {
            let seen = turns.load(SeqCst);
            while is_killed(latest.load(SeqCst)) || turns.load(SeqCst) < seen + 20 {
                thread::yield_now();
            }
            let victim = latest.load(SeqCst);
            killed.lock().expect("nobody panicked").push(victim);
            server.tell(&victim.to_string());
            assert_eq!(server.line().as_deref(), Some("gone"));
        }
        is_over.store(true, SeqCst);
    });
    // What a process was changing when it died is lost (`recovery_lost`): it may have been another one's, whose packet it had taken.
    let strays = strays.into_inner();
    println!("{count} were killed, and {strays} connections of others reset");
    assert!(strays <= count, "more than one each");
    // The interface is the next program's at once.
    server.tell("end");
    server.child.wait().expect("its end");
    let mut next = Program::start(&one, By::Stack, "killed.py", &[&PORT.to_string(), WORKERS]);
    assert_eq!(next.line().as_deref(), Some("ready"));
    Guest::new(&other).turn(&bytes).expect("an echo");
    next.tell("end");
    next.child.wait().expect("its end");
}

#[test]
fn who_is_killed_takes_nobody_along() {
    kills(30);
}

/// Some minutes: cargo test --release -p accel-tests --test killed -- --ignored
#[test]
#[ignore = "it takes minutes"]
fn who_is_killed_a_thousand_times_takes_nobody_along() {
    kills(1000);
}
