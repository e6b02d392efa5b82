//! The protocol under weak memory: loom runs each model through every interleaving (up to a number of
//! preemptions) and every value that C11 lets a load return, which the search in `search.rs` does not.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p accel-driver --release --lib switch`
//!
//! The stream is a row of units. Ring slots are loom `UnsafeCell`s: an access that is not ordered behind the
//! one before it, by the orderings in `switch.rs` and nothing else, fails the model; so every model also
//! proves that a payload is visible before its position is, and that no slot is written before `head` passed
//! it. The kernel is a first-in first-out queue that orders a send before the receive of the same unit, wakes
//! whoever sleeps on it, and may show a reader an older state (loom lets its load be stale): its delay.
//!
//! What loom itself gets wrong is made good in `word.rs`, and [`litmus`] checks that it was.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::Ordering::{self, AcqRel};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

use super::*;

const LONGEST: usize = 8;

/// What a model leaves out, to prove that it would be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    CompareKernelCount,
    PublishBySwap,
    SenderLock,
    SenderLooksAgain,
    OpenerLooksAgain,
    CloseBeforeSleep,
    TailOfClose,
    HeadReleases,
    HeadAcquired,
    PublishReleases,
    WordAcquired,
    LooksAreSeqCst,
    UnreadFirst,
    TakeBySwap,
}

/// The kernel's part of one direction.
struct Kernel {
    /// Units sent. A send takes its place by adding to it.
    sent: AtomicU64,
    /// What was sent; not a loom type, so that it orders nothing.
    units: std::sync::Mutex<[u8; LONGEST]>,
    arrival: Notify,
}

impl Kernel {
    fn send(&self, unit: u8) {
        let place = self.sent.fetch_add(1, AcqRel);
        self.units.lock().unwrap()[place as usize] = unit;
        self.arrival.notify();
    }

    /// The unit at `place` of the stream, if it has arrived.
    fn receive(&self, place: u64) -> Option<u8> {
        (self.sent.load(Acquire) > place).then(|| self.units.lock().unwrap()[place as usize])
    }

    fn sleep_until(&self, place: u64) {
        while self.sent.load(Acquire) <= place {
            self.arrival.wait();
        }
    }
}

/// What the threads of the receiving process share under their lock.
#[derive(Default)]
struct Received {
    kread: u64,
    units: Vec<u8>,
}

/// One direction with everything around it.
struct Pipe {
    direction: Direction,
    slots: Vec<UnsafeCell<u8>>,
    kernel: Kernel,
    sending: Mutex<()>,
    receiving: Mutex<Received>,
    without: Option<Rule>,
}

impl Pipe {
    /// A closed direction. One thread may sleep on it.
    fn new(capacity: usize, without: Option<Rule>) -> Arc<Self> {
        Arc::new(Self {
            direction: Direction::new(),
            slots: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
            kernel: Kernel {
                sent: AtomicU64::new(0),
                units: std::sync::Mutex::default(),
                arrival: Notify::new(),
            },
            sending: Mutex::new(()),
            receiving: Mutex::default(),
            without,
        })
    }

    /// A direction that has been opened.
    fn open(capacity: usize, without: Option<Rule>) -> Arc<Self> {
        let pipe = Self::new(capacity, without);
        assert!(pipe.direction.reopen(0));
        pipe
    }

    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn slot(&self, position: u64) -> &UnsafeCell<u8> {
        &self.slots[position as usize % self.slots.len()]
    }

    // ---- the sender ----

    /// One message of one unit, as the shim sends it: the ring under a lock, the kernel outside of it.
    fn send(&self, unit: u8) {
        if !self.send_by_ring(unit) {
            self.send_by_kernel(unit);
        }
    }

    fn send_by_ring(&self, unit: u8) -> bool {
        let lock = self.has(Rule::SenderLock).then(|| self.sending.lock().unwrap());
        let word = if self.has(Rule::CompareKernelCount) {
            self.direction.sendable()
        } else {
            Some(Word(self.direction.tail.0.load(SeqCst))).filter(|word| word.is_open())
        };
        let Some(word) = word else { return false };
        let capacity = self.slots.len() as u64;
        let room = if self.has(Rule::HeadAcquired) {
            self.direction.room(word, capacity).unwrap()
        } else {
            capacity - available(word.position(), self.direction.head.0.load(Relaxed), capacity).unwrap()
        };
        if room == 0 {
            self.direction.close();
            return false;
        }
        // SAFETY: loom checks that nobody else is at this slot.
        self.slot(word.position()).with_mut(|slot| unsafe { *slot = unit });
        let next = word.position() + 1;
        let published = match self.without {
            Some(Rule::PublishBySwap) => {
                self.direction.tail.0.store(next, SeqCst);
                true
            }
            Some(Rule::PublishReleases) => {
                self.direction.tail.0.compare_exchange(word.0, next, Relaxed, Relaxed).is_ok()
            }
            _ => self.direction.publish(word, 1),
        };
        drop(lock);
        published
    }

    /// Rule 6, under the sender's lock.
    fn unread_to_kernel(&self) {
        if self.direction.is_consumed() || !self.has(Rule::UnreadFirst) {
            return;
        }
        self.direction.close();
        let Some((from, count)) = self.direction.take_back(self.slots.len() as u64) else { return };
        self.direction.kernel_send_begins(count);
        for position in from..from + count {
            // SAFETY: loom checks that nobody writes this slot.
            self.kernel.send(self.slot(position).with(|slot| unsafe { *slot }));
        }
        self.direction.kernel_send_ends(count, count);
    }

    /// The sender ends the stream.
    fn shut(&self) {
        let _lock = self.sending.lock().unwrap();
        self.direction.revoke();
        self.unread_to_kernel();
    }

    fn send_by_kernel(&self, unit: u8) {
        let tail = &self.direction.tail.0;
        let lock = self.sending.lock().unwrap();
        self.unread_to_kernel();
        match self.without {
            Some(Rule::SenderLooksAgain) => {
                self.direction.ksent.0.fetch_add(1, SeqCst);
                self.kernel.send(unit);
            }
            Some(Rule::LooksAreSeqCst) => {
                self.direction.ksent.0.fetch_add(1, AcqRel);
                if Word(tail.load(Acquire)).is_open() {
                    self.direction.close();
                }
                self.kernel.send(unit);
            }
            _ => {
                self.direction.kernel_send_begins(1);
                drop(lock);
                self.kernel.send(unit);
                self.direction.kernel_send_ends(1, 1);
            }
        }
    }

    // ---- the receiver ----

    /// The next unit, if the ring has one.
    fn take_from_ring(&self, received: &mut Received, word: impl FnOnce() -> Word) -> bool {
        let head = self.direction.head();
        let word = word();
        if available(word.position(), head, self.slots.len() as u64).unwrap() == 0 {
            return false;
        }
        // SAFETY: loom checks that nobody writes this slot.
        let unit = self.slot(head).with(|slot| unsafe { *slot });
        let taken = match self.without {
            Some(Rule::HeadReleases) => {
                self.direction.head.0.compare_exchange(head, head + 1, Relaxed, Relaxed).is_ok()
            }
            Some(Rule::TakeBySwap) => {
                self.direction.head.0.store(head + 1, Release);
                true
            }
            _ => self.direction.take(head, 1),
        };
        if taken {
            received.units.push(unit);
        }
        taken
    }

    fn read(&self) -> Word {
        if self.has(Rule::WordAcquired) {
            self.direction.word()
        } else {
            Word(self.direction.tail.0.load(Relaxed))
        }
    }

    /// The next unit, if there is one now; closes an open direction that is empty, as before sleeping.
    fn take(&self, received: &mut Received) -> bool {
        let mut word = Word(0);
        let read = || {
            word = self.read();
            word
        };
        if self.take_from_ring(received, read) {
            return true;
        }
        if !word.is_closed() && self.has(Rule::CloseBeforeSleep) {
            if !self.has(Rule::TailOfClose) {
                self.direction.close();
            } else if self.take_from_ring(received, || self.direction.close()) {
                return true;
            }
        }
        let Some(unit) = self.kernel.receive(received.kread) else { return false };
        received.kread += 1;
        self.direction.kernel_was_read(received.kread, self.slots.len() as u64);
        received.units.push(unit);
        true
    }

    fn reopen(&self, kread: u64) -> bool {
        let Direction { tail, k, ksent, .. } = &self.direction;
        match self.without {
            Some(Rule::OpenerLooksAgain) => {
                let word = self.direction.word();
                if !word.is_closed()
                    || word.position() != self.direction.head()
                    || ksent.0.load(SeqCst) != kread
                {
                    return false;
                }
                k.0.store(kread, SeqCst);
                tail.0.compare_exchange(word.0, word.position(), SeqCst, Relaxed).is_ok()
            }
            Some(Rule::LooksAreSeqCst) => {
                let word = self.direction.word();
                if !word.is_closed()
                    || word.position() != self.direction.head()
                    || ksent.0.load(Acquire) != kread
                {
                    return false;
                }
                k.0.store(kread, Release);
                if tail.0.compare_exchange(word.0, word.position(), AcqRel, Relaxed).is_err() {
                    return false;
                }
                if ksent.0.load(Acquire) != kread {
                    self.direction.close();
                    return false;
                }
                true
            }
            _ => self.direction.reopen(kread),
        }
    }

    /// Receives until `count` units are there: ring, close, kernel, open again, sleep.
    fn receive(&self, count: usize) {
        let kread = self.receiving.lock().unwrap().kread;
        self.reopen(kread);
        loop {
            let mut received = self.receiving.lock().unwrap();
            while self.take(&mut received) {
                self.reopen(received.kread);
            }
            if received.units.len() == count {
                return;
            }
            let kread = received.kread;
            drop(received);
            self.kernel.sleep_until(kread);
        }
    }

    /// Every unit of each thread came once and in its order.
    fn check(&self, sent: &[u8]) {
        let units = &self.receiving.lock().unwrap().units;
        for (who, &count) in sent.iter().enumerate() {
            let mine: Vec<u8> = units.iter().copied().filter(|&unit| usize::from(unit >> 4) == who).collect();
            let expected: Vec<u8> = (0..count).map(|i| unit(who, i)).collect();
            assert_eq!(mine, expected, "of thread {who}");
        }
    }

    /// Rule 2 and 4: with nobody in the middle of anything, an open word has no kernel units behind it.
    fn check_rest(&self) {
        let received = self.receiving.lock().unwrap();
        let unread = self.kernel.receive(received.kread).is_some();
        assert!(!(self.direction.word().is_open() && unread), "units wait in the kernel behind an open ring");
    }
}

fn unit(who: usize, number: u8) -> u8 {
    (who as u8) << 4 | number
}

/// Explores `model` with at most this many preemptions, and says how many executions that were.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (counter, start) = (executions.clone(), std::time::Instant::now());
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    println!("{name}: {executions:?} executions in {:.1?}", start.elapsed());
}

/// Sends `count` units in a thread of their own.
fn sender(pipe: &Arc<Pipe>, who: usize, count: u8) -> thread::JoinHandle<()> {
    let pipe = Arc::clone(pipe);
    thread::spawn(move || (0..count).for_each(|i| pipe.send(unit(who, i))))
}

// ---- what the checker itself can see ----

/// Every outcome of a model.
fn outcomes(model: fn() -> [u64; 2]) -> std::collections::BTreeSet<[u64; 2]> {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let outcomes = seen.clone();
    explore("litmus", 3, move || {
        let outcome = model();
        outcomes.lock().unwrap().insert(outcome);
    });
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// Two threads write one word each and read the other's.
fn store_buffers(write: Ordering, read: Ordering) -> [u64; 2] {
    let words = Arc::new([Line::new(0), Line::new(0)]);
    let mine = Arc::clone(&words);
    let other = thread::spawn(move || {
        mine[0].0.fetch_add(1, write);
        mine[1].0.load(read)
    });
    words[1].0.fetch_add(1, write);
    let seen = words[0].0.load(read);
    [seen, other.join().unwrap()]
}

#[test]
fn litmus() {
    // Only SeqCst forbids that both read the old value: rules 2 and 4 live on it.
    assert!(!outcomes(|| store_buffers(SeqCst, SeqCst)).contains(&[0, 0]));
    assert!(outcomes(|| store_buffers(AcqRel, Acquire)).contains(&[0, 0]));
    // A load is tried before and after another thread's load and swap.
    let both = outcomes(|| {
        let line = Arc::new(Line::new(0));
        let mine = Arc::clone(&line);
        let other = thread::spawn(move || {
            let old = mine.0.load(SeqCst);
            mine.0.compare_exchange(old, 1, SeqCst, Relaxed).unwrap();
        });
        let seen = line.0.load(Acquire);
        other.join().unwrap();
        [seen, 0]
    });
    assert_eq!(both.len(), 2);
}

// ---- (1) one sender, one receiver ----

/// Rule 5 against the sender's publication; rule 4 against its kernel send; rule 1 against both.
fn one_sender(start_open: bool, capacity: usize, count: u8, without: Option<Rule>) {
    let pipe = if start_open { Pipe::open(capacity, without) } else { Pipe::new(capacity, without) };
    let sending = sender(&pipe, 0, count);
    pipe.receive(count.into());
    sending.join().unwrap();
    pipe.check(&[count]);
    pipe.check_rest();
}

#[test]
fn one_sender_from_closed() {
    explore("one sender, 3 units, from closed", 2, || one_sender(false, 2, 3, None));
}

#[test]
fn one_sender_from_open() {
    explore("one sender, 3 units, from open", 2, || one_sender(true, 2, 3, None));
}

/// (5) The second unit meets a full ring: close, kernel, and the third may not overtake it (rule 1).
#[test]
fn one_sender_with_a_full_ring() {
    explore("one sender, 3 units, ring of 1", 2, || one_sender(true, 1, 3, None));
}

/// Rule 2 against rule 4, with a reader that would spin for ever afterwards: the receiver opens once while
/// the sender is anywhere in its kernel send, and never looks at the kernel again.
fn open_during_a_kernel_send(without: Option<Rule>) {
    let pipe = Pipe::new(1, without);
    let sending = sender(&pipe, 0, 1);
    pipe.reopen(0);
    sending.join().unwrap();
    pipe.check_rest();
}

#[test]
fn nobody_leaves_kernel_units_behind_an_open_ring() {
    explore("open during a kernel send", 4, || open_during_a_kernel_send(None));
}

/// Rule 5: who found nothing and closed may sleep, for whatever comes now comes by the kernel.
fn asleep(without: Option<Rule>) {
    let pipe = Pipe::open(2, without);
    let sending = sender(&pipe, 0, 1);
    let taken = pipe.take(&mut Received::default());
    sending.join().unwrap();
    assert!(taken || pipe.kernel.receive(0).is_some(), "it sleeps, and units wait in the ring");
}

#[test]
fn nobody_sleeps_on_units_in_the_ring() {
    explore("asleep", 4, || asleep(None));
}

// ---- (2) two sending threads ----

fn two_senders(capacity: usize, counts: [u8; 2], without: Option<Rule>) {
    let pipe = Pipe::open(capacity, without);
    let sending = [sender(&pipe, 0, counts[0]), sender(&pipe, 1, counts[1])];
    pipe.receive(usize::from(counts[0] + counts[1]));
    for thread in sending {
        thread.join().unwrap();
    }
    pipe.check(&counts);
    pipe.check_rest();
}

/// One thread's kernel send, outside of the lock, against the other's copy and publication: `ksent` of the
/// first may be between `begins` and the call, and the receiver may open and close between.
#[test]
fn two_sending_threads() {
    explore("two senders, 2 + 1 units", 2, || two_senders(2, [2, 1], None));
}

#[test]
fn two_sending_threads_with_a_full_ring() {
    explore("two senders, 2 + 1 units, ring of 1", 2, || two_senders(1, [2, 1], None));
}

// ---- (3) somebody else closes or revokes, and drains ----

/// Another member of the receiver's family closes or revokes at any moment, and takes what it finds under the
/// family's lock. What the sender published before is in the ring, what its swap missed goes by the kernel.
fn meddler(capacity: usize, count: u8, revoke: bool) {
    let pipe = Pipe::open(capacity, None);
    let sending = sender(&pipe, 0, count);
    let other = Arc::clone(&pipe);
    let meddling = thread::spawn(move || {
        if revoke {
            other.direction.revoke();
        } else {
            other.direction.close();
        }
        let mut received = other.receiving.lock().unwrap();
        let word = other.direction.word();
        assert!(!revoke || word.is_revoked());
        while other.take_from_ring(&mut received, || other.direction.word()) {}
    });
    pipe.receive(count.into());
    meddling.join().unwrap();
    sending.join().unwrap();
    pipe.check(&[count]);
    pipe.check_rest();
    if revoke {
        assert!(pipe.direction.word().is_closed() && !pipe.reopen(pipe.receiving.lock().unwrap().kread));
    }
}

#[test]
fn closed_by_another_member() {
    explore("closed by another member, 2 units", 2, || meddler(2, 2, false));
}

#[test]
fn revoked_by_another_member() {
    explore("revoked by another member, 2 units", 2, || meddler(2, 2, true));
}

/// The sender's own process revokes while one of its threads is between copy and publication.
#[test]
fn revoked_by_the_sender() {
    explore("revoked by the sender, 2 units", 3, || {
        let pipe = Pipe::open(2, None);
        let sending = sender(&pipe, 0, 2);
        pipe.direction.revoke();
        pipe.receive(2);
        sending.join().unwrap();
        pipe.check(&[2]);
    });
}

// ---- (4) the position that close() returns ----

/// A close races with publications: its position covers exactly those that succeeded, before and after.
#[test]
fn close_returns_exactly_what_was_published() {
    explore("close against 3 publications", 4, || {
        let pipe = Pipe::open(4, None);
        let publisher = Arc::clone(&pipe);
        let publishing =
            thread::spawn(move || (0..3).filter(|&i| publisher.send_by_ring(unit(0, i))).count() as u64);
        let word = pipe.direction.close();
        assert!(word.is_open());
        let mut received = Received::default();
        while pipe.take_from_ring(&mut received, || word) {}
        let published = publishing.join().unwrap();
        assert_eq!(word.position(), published);
        assert_eq!(pipe.direction.word(), Word(published | CLOSED));
        assert_eq!(received.units, (0..published as u8).collect::<Vec<_>>());
    });
}

/// Two close at once: one sees it open, and both see the same position.
#[test]
fn two_close_at_once() {
    explore("two closes against 1 publication", 4, || {
        let pipe = Pipe::open(2, None);
        let publishing = sender(&pipe, 0, 1);
        let other = Arc::clone(&pipe);
        let closing = thread::spawn(move || other.direction.close());
        let words = [pipe.direction.close(), closing.join().unwrap()];
        assert_eq!(words.iter().filter(|word| word.is_open()).count(), 1);
        assert_eq!(words[0].position(), words[1].position());
        publishing.join().unwrap();
    });
}

// ---- (5) giving away ----

/// Rule 6: the sender ends the stream while the receiver takes from the ring and then gives its end away. Who
/// gets it reads the kernel, and finds there exactly what the receiver did not take. The sender's taking back
/// falls before, between and after the receiver's reading of the word, its copy, and its swap.
fn given_away(without: Option<Rule>) {
    let pipe = Pipe::open(2, without);
    let ending = Arc::clone(&pipe);
    let sending = thread::spawn(move || {
        (0..2).for_each(|i| ending.send(unit(0, i)));
        ending.shut();
    });
    let mut received = Received::default();
    pipe.take_from_ring(&mut received, || pipe.read());
    pipe.take_from_ring(&mut received, || pipe.direction.revoke());
    sending.join().unwrap();
    while let Some(unit) = pipe.kernel.receive(received.kread) {
        received.kread += 1;
        received.units.push(unit);
    }
    assert_eq!(received.units, [0, 1]);
}

#[test]
fn who_gets_the_connection_finds_the_rest_in_the_kernel() {
    explore("given away at the end", 3, || given_away(None));
}

// ---- (6) payload and room ----

/// Units through a ring of one slot, with nothing but `tail` and `head` between the threads: each slot is
/// written behind the read that freed it, and read behind the write that filled it.
fn payload(without: Option<Rule>) {
    let pipe = Pipe::open(1, without);
    let writer = Arc::clone(&pipe);
    let writing = thread::spawn(move || {
        let mut sent = 0;
        for _ in 0..3 {
            let Some(word) = writer.direction.sendable() else { return sent };
            let full = if writer.has(Rule::HeadAcquired) {
                writer.direction.room(word, 1).unwrap() == 0
            } else {
                word.position() != writer.direction.head.0.load(Relaxed)
            };
            if !full && writer.send_by_ring(unit(0, sent)) {
                sent += 1;
            }
        }
        sent
    });
    let mut received = Received::default();
    for _ in 0..3 {
        pipe.take_from_ring(&mut received, || pipe.read());
    }
    let sent = writing.join().unwrap();
    pipe.take_from_ring(&mut received, || pipe.direction.close());
    assert_eq!(received.units, (0..sent).collect::<Vec<_>>());
}

#[test]
fn payload_is_visible_and_never_overwritten() {
    explore("payload through one slot", 4, || payload(None));
}

// ---- each rule, left out ----

macro_rules! broken {
    ($($name:ident: $model:expr;)*) => {$(
        #[test]
        #[should_panic]
        fn $name() {
            explore(stringify!($name), 3, || $model);
        }
    )*};
}

broken! {
    broken_without_comparing_the_kernel_count: one_sender(false, 1, 2, Some(Rule::CompareKernelCount));
    broken_without_swap: asleep(Some(Rule::PublishBySwap));
    broken_without_the_senders_lock: two_senders(2, [1, 1], Some(Rule::SenderLock));
    broken_without_the_senders_look: open_during_a_kernel_send(Some(Rule::SenderLooksAgain));
    broken_without_the_openers_look: open_during_a_kernel_send(Some(Rule::OpenerLooksAgain));
    broken_with_looks_that_are_not_sequentially_consistent: open_during_a_kernel_send(Some(Rule::LooksAreSeqCst));
    broken_without_closing_before_sleep: asleep(Some(Rule::CloseBeforeSleep));
    broken_without_the_tail_of_close: asleep(Some(Rule::TailOfClose));
    broken_without_release_of_head: payload(Some(Rule::HeadReleases));
    broken_without_acquire_of_head: payload(Some(Rule::HeadAcquired));
    broken_without_release_of_tail: payload(Some(Rule::PublishReleases));
    broken_without_unread_first: given_away(Some(Rule::UnreadFirst));
    broken_without_taking_by_swap: given_away(Some(Rule::TakeBySwap));
    broken_without_acquire_of_tail: payload(Some(Rule::WordAcquired));
}
