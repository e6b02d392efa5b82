//! Two of the kernel's namespaces and the wire between them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use stack::device::Link;
use stack::time::Duration;

use super::line::Lines;
use super::namespace::{Namespace, joined};
use super::tun::{Interface, Tun};
use super::{clock, sys};
use crate::sim::path::Counts;

/// Waits that are shorter are not slept: a thread that sleeps is woken too late for them.
const SPIN: Duration = Duration::from_micros(50);
/// Packets of one end that are read before the other end's turn.
const BURST: usize = 64;

/// The bridge, which works until it is dropped.
#[derive(Debug)]
pub struct Bridge {
    /// The two ends.
    pub namespaces: [Namespace; 2],
    stops: Arc<AtomicBool>,
    works: Option<JoinHandle<[Counts; 2]>>,
}

impl Bridge {
    /// Two new namespaces, 10.0.0.1 and 10.0.0.2, with lines from the first to the second and back.
    ///
    /// # Errors
    /// EPERM without the rights of root.
    pub fn new(mtu: u32, lines: [Lines; 2]) -> std::io::Result<Self> {
        let namespaces = [Namespace::new()?, Namespace::new()?];
        let tun =
            |at: usize| Tun::new(&namespaces[at], Interface { number: at as u8 + 1, link: Link::Ip, mtu });
        let (tuns, stops) = ([tun(0), tun(1)], Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stops);
        let works = Some(thread::spawn(move || carry(tuns, lines, &told)));
        Ok(Self { namespaces, stops, works })
    }

    /// Ends it; what happened to packets of each way.
    pub fn end(mut self) -> [Counts; 2] {
        self.stops.store(true, Ordering::Relaxed);
        self.works.take().map(joined).unwrap_or_default()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(works) = self.works.take() {
            let _ = works.join();
        }
    }
}

fn carry(mut tuns: [Tun; 2], mut lines: [Lines; 2], stops: &AtomicBool) -> [Counts; 2] {
    let _ = sys::wake_on_time();
    while !stops.load(Ordering::Relaxed) {
        let mut moved = false;
        for way in 0..2 {
            for _ in 0..BURST {
                let Some(packet) = tuns[way].read() else { break };
                lines[way].put(clock(), packet);
                moved = true;
            }
            let now = clock();
            for _ in 0..BURST {
                let Some(packet) = lines[way].take(now) else { break };
                tuns[1 - way].write(packet);
                moved = true;
            }
        }
        if moved {
            continue;
        }
        let longest = Duration::from_millis(10);
        let next = lines.iter().filter_map(Lines::next).min();
        let left = next.map_or(longest, |next| next - clock()).min(longest);
        if left > SPIN {
            let _ = sys::wait(&[tuns[0].as_fd(), tuns[1].as_fd()], Duration(left.0 - SPIN.0));
        }
    }
    lines.map(|lines| lines.counts())
}
