//! A host that several threads use: calls that wait are tried by whoever lets time pass, so that each ends at its own time.
//!
//! The clock is virtual and threads are not: a thread whose call has ended reads the clock when it runs again. Until it has done so
//! time stands still, for as long as [`PATIENCE`] of real time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration as RealDuration;

use stack::time::{Duration, Instant};

use crate::calls::{Answer, Call, Pending};
use crate::errno::Errno;
use crate::host::{Host, Setup};
use crate::link::Sent;

/// How long, in real time, a thread is waited for that has its answer and hasn't looked at the clock.
const PATIENCE: RealDuration = RealDuration::from_millis(100);
/// How far the clock may go in search of a packet: beyond the two hours of keep-alive.
const SEARCH: Duration = Duration::from_secs(3 * 3600);

/// What is behind the lock.
struct State {
    host: Host,
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// Threads whose calls have ended and that haven't looked at the clock since.
    unread: BTreeSet<u64>,
    threads: Vec<ThreadId>,
}

struct Waiting {
    pending: Pending,
    done: Option<Result<Answer, Errno>>,
}

/// The host and its threads.
pub struct World {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    /// Tries what waits; whether anything ended.
    fn attempt(&mut self) -> bool {
        let mut ended = false;
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.done.is_none()) {
            waiting.done = waiting.pending.attempt(&mut self.host);
            ended |= waiting.done.is_some();
        }
        ended
    }

    /// Lets time pass to what happens next, not beyond this moment; whether something did before it.
    fn step(&mut self, until: Instant) -> bool {
        let host = &mut self.host;
        let open = self.waiting.values().filter(|waiting| waiting.done.is_none());
        let call = open.filter_map(|waiting| waiting.pending.deadline(host)).min().filter(|at| *at < until);
        let is_timer = self.host.step(call.unwrap_or(until));
        is_timer || call.is_some()
    }

    /// A small number for a thread.
    fn thread(&mut self) -> u64 {
        let this = thread::current().id();
        let known = self.threads.iter().position(|id| *id == this);
        known.unwrap_or_else(|| {
            self.threads.push(this);
            self.threads.len() - 1
        }) as u64
    }
}

impl World {
    /// A new host.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let host = Host::new(setup);
        let (waiting, unread, threads) = Default::default();
        let state = State { host, waiting, next: 0, unread, threads };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something at once.
    pub fn with<R>(&self, act: impl FnOnce(&mut Host) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state.host);
        state.host.settle();
        if state.attempt() {
            self.changed.notify_all();
        }
        result
    }

    /// Makes a call, and waits for its end while other threads use the host.
    ///
    /// # Errors
    /// Those of the call.
    pub fn call(&self, call: Call) -> Result<Answer, Errno> {
        let mut state = self.lock();
        let mut pending = Pending::new(call, state.host.now());
        if let Some(done) = pending.attempt(&mut state.host) {
            if state.attempt() {
                self.changed.notify_all();
            }
            return done;
        }
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, Waiting { pending, done: None });
        let this = state.thread();
        loop {
            if let Some(done) = state.waiting.get_mut(&id).and_then(|waiting| waiting.done.take()) {
                state.waiting.remove(&id);
                // This thread looks at the clock next.
                state.unread.insert(this);
                return done;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.values().filter(|waiting| waiting.done.is_none()).count()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        let mut state = self.lock();
        let this = state.thread();
        if state.unread.remove(&this) {
            self.changed.notify_all();
        }
        state.host.now()
    }

    /// Waits, in real time, for the threads that have to look at the clock.
    fn still<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let is_unread = |state: &mut State| {
            !state.unread.is_empty() || state.waiting.values().any(|waiting| waiting.done.is_some())
        };
        let waited = self.changed.wait_timeout_while(state, PATIENCE, is_unread);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.unread.clear();
        state
    }

    /// Lets so much time pass, or less if a call ends before: whoever waits for a time looks at the clock again.
    pub fn pass(&self, length: Duration) {
        let mut state = self.still(self.lock());
        let until = state.host.now() + length;
        loop {
            let goes_on = state.step(until);
            if state.attempt() {
                self.changed.notify_all();
                return;
            }
            if !goes_on {
                return;
            }
        }
    }

    /// The next packet that leaves, for which time passes; `None` if none will.
    pub fn next_packet(&self) -> Option<Sent> {
        let mut state = self.still(self.lock());
        let limit = state.host.now() + SEARCH;
        loop {
            if let Some(sent) = state.host.packet_out() {
                return Some(sent);
            }
            let goes_on = state.host.deadline().is_some_and(|at| at <= limit) && state.step(limit);
            if state.attempt() {
                self.changed.notify_all();
            } else if !goes_on {
                return None;
            }
        }
    }
}
