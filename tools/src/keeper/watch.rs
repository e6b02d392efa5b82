//! The watchdog: packets that nobody takes.
//!
//! If packets wait in a receive ring and its owner has not moved for a while, neither there nor in the fill ring, then no process of
//! the stack works, though they are alive. The interface is given back to the kernel then: what is sent to it would be lost. As long as a
//! process is stopped the stack is left alone: that is somebody's will, and the others may have to wait for what it was about to do.
//!
//! What it can't see: packets that are lost before they reach a ring, and a stack that takes packets and does nothing with them.

use std::time::{Duration, Instant};

use driver::xdp::socket::{Progress, Socket};

/// What was seen of each queue, and when it last moved.
#[derive(Debug)]
pub(super) struct Watch {
    /// 0: nothing is watched.
    patience: Duration,
    seen: Vec<(Progress, Instant)>,
}

impl Watch {
    /// Waits so long.
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, seen: Vec::new() }
    }

    /// Whether packets have waited too long in one of these queues, although none of these processes is stopped.
    pub(super) fn is_stuck(&mut self, queues: &[Socket], pids: impl Iterator<Item = i32>) -> bool {
        let progress = queues.iter().map(Socket::progress);
        self.has_waited(progress, Instant::now()) && !pids.into_iter().any(is_stopped)
    }

    fn has_waited(&mut self, queues: impl Iterator<Item = Progress>, now: Instant) -> bool {
        let mut has_waited = false;
        for (at, progress) in queues.enumerate() {
            if self.seen.len() <= at {
                self.seen.push((progress, now));
            }
            let (seen, since) = &mut self.seen[at];
            let is_still = (seen.received, seen.filled) == (progress.received, progress.filled);
            if progress.waiting == 0 || seen.waiting == 0 || !is_still {
                *since = now;
            }
            *seen = progress;
            has_waited |= now.duration_since(*since) >= self.patience;
        }
        has_waited && !self.patience.is_zero()
    }
}

/// Whether a process is stopped, or a debugger holds it: `T` or `t` behind its name in `/proc/PID/stat`.
fn is_stopped(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("T" | "t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_does_not_move_while_packets_wait_is_stuck() {
        let patience = Duration::from_secs(10);
        let start = Instant::now();
        // Each second: how many wait, and how far the owner has come.
        let ends = |turns: &dyn Fn(u32) -> (u32, u32)| {
            let mut watch = Watch::new(patience);
            (0..30).find(|second| {
                let (waiting, received) = turns(*second);
                let progress = Progress { waiting, received, filled: 0 };
                watch.has_waited([progress].into_iter(), start + Duration::from_secs((*second).into()))
            })
        };
        assert_eq!(ends(&|_| (0, 5)), None, "nothing waits");
        assert_eq!(ends(&|second| (7, second)), None, "it works");
        assert_eq!(ends(&|second| (7, second / 9)), None, "slowly");
        assert_eq!(ends(&|_| (7, 5)), Some(10));
        assert_eq!(ends(&|second| (u32::from(second >= 4), 5)), Some(14), "since the first packet waits");
        let mut off = Watch::new(Duration::ZERO);
        assert!(!off.has_waited([Progress { waiting: 1, ..Progress::default() }].into_iter(), start));
    }

    #[test]
    fn this_process_is_not_stopped() {
        assert!(!is_stopped(std::process::id() as i32));
    }

    #[test]
    fn a_process_that_is_stopped_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        let begins_so = is_stopped(pid);
        crate::sys::kill(pid, libc::SIGSTOP);
        let turns = (0..1_000_000).find(|_| is_stopped(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!begins_so && turns.is_some());
    }
}
