//! Exhaustive search of the one-word protocol: every interleaving of every single access, sequentially
//! consistent. The loom models beside this file repeat the small cases under weak memory.
//!
//! The stream is a row of *units* (think of bytes). A sender gives one or two at a time to the ring or to the
//! kernel; the kernel delays them (`wire`), may take fewer than it was offered, and reports the end of the
//! stream after the last of them. The receiver reads the ring and the kernel, sleeps, and opens again.
//!
//! What counts as wrong: a unit out of its thread's order (which includes lost, doubled and overwritten
//! ones), an end of stream before the last unit, also for a reader that got the connection from another and knows
//! nothing of rings, somebody who waits for ever, a reader that sleeps on units in
//! the ring, and one that spins on an open ring while units wait in the kernel and nobody need send again.
//!
//! Each rule can be left out ([`Rule`]), and then the search must find something wrong: a rule that could go
//! without harm would not be one.

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// 1: the ring only while `ksent == k`. Without it a unit in the ring overtakes one in the kernel.
    CompareKernelCount,
    /// 1: publish by compare-and-swap. Without it a publication undoes a close that fell between.
    PublishBySwap,
    /// 1: one thread at a time copies into the ring. Without it two threads write the same slots.
    SenderLock,
    /// 2: add to `ksent` before the kernel is called. Without it, and with two sending threads, the count of
    /// one stands for the unread unit of the other, and the receiver opens over that unit.
    AnnounceFirst,
    /// 2: read the word again after announcing. Without it the last unit lies behind an open ring.
    SenderLooksAgain,
    /// 2: give back what the kernel did not take. Without it the ring is never opened again.
    CorrectCount,
    /// 3: ring units before kernel units, and kernel units only once it is closed.
    RingFirst,
    /// 4: read `ksent` again after opening. Without it a unit announced meanwhile lies behind an open ring.
    OpenerLooksAgain,
    /// 5: close before sleeping. Without it the wake-up never comes.
    CloseBeforeSleep,
    /// 5: the tail that closing returned is looked at. Without it units sleep in the ring.
    TailOfClose,
    /// The tail is read again after a look at the kernel's queue, over an open ring, found the end of the stream.
    TailAfterEnd,
    /// `head` moves only after the units were copied out.
    HeadAfterCopy,
    /// 6: unread units go to the kernel before others do, and before the end. Without it whoever gets the
    /// connection next, and reads only the kernel, misses them.
    UnreadFirst,
    /// 6: only what nothing followed goes to the kernel. Without it, it comes late where there was no room before.
    NothingFollows,
    /// 6: the receiver takes by compare-and-swap. Without it a unit comes by the ring and by the kernel.
    TakeBySwap,
    /// 6: the receiver takes nothing while the sender gives it to the kernel. Without it, likewise.
    TakenBit,
    /// 6: the receiver finds in the ring what a sender that died in the middle did not get to.
    Recover,
}

/// Checks of `reopen` and the sender that save work but that order doesn't hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    /// The sender closes where the ring is full or `ksent != k` (it does so again after announcing).
    EarlyClose,
    /// `reopen` asks whether the ring is empty.
    RingEmpty,
    /// `reopen` asks whether `ksent == kread` before it opens (it asks again after).
    FirstCount,
}

/// When a sender reads the word for rule 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// After it announced its units and before the kernel is called.
    Before,
    /// After the kernel took them.
    After,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Units of each sending thread.
    units: [u8; 2],
    capacity: u8,
    /// Most units in one step: 1 or 2.
    batch: u8,
    /// Units that the kernel holds before a sender blocks in it; 0 for any number.
    kernel_room: u8,
    looks: Looks,
    /// Somebody (another thread, process, either side) closes this many times, at any moment.
    closes: u8,
    /// Somebody revokes once, at any moment.
    revokes: bool,
    sender_dies: bool,
    receiver_dies: bool,
    /// The receiver gives its end away once, at any moment, to somebody who reads only the kernel.
    gives_away: bool,
    /// The kernel may have no room for what is unread, and room later.
    refuses: bool,
    without: Option<Rule>,
    skipped: Option<Spare>,
}

const PLAIN: Setting = Setting {
    units: [4, 0],
    capacity: 1,
    batch: 1,
    kernel_room: 0,
    looks: Looks::Before,
    closes: 0,
    revokes: false,
    sender_dies: false,
    receiver_dies: false,
    gives_away: false,
    refuses: false,
    without: None,
    skipped: None,
};

/// The end of the stream, as a unit.
const END: u8 = 0xff;
const LONGEST: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Queue {
    units: [u8; LONGEST],
    length: u8,
}

impl Queue {
    fn push(&mut self, unit: u8) {
        self.units[usize::from(self.length)] = unit;
        self.length += 1;
    }

    fn first(&self) -> Option<u8> {
        (self.length > 0).then_some(self.units[0])
    }

    fn pop(&mut self) -> u8 {
        let unit = self.units[0];
        self.units.copy_within(1.., 0);
        self.units[LONGEST - 1] = 0;
        self.length -= 1;
        unit
    }

    fn has_units(&self) -> bool {
        self.first().is_some_and(|unit| unit != END)
    }
}

/// Where a sender stands: each step is one access to shared memory or one call of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sends {
    Idle,
    ReadWord,
    ReadSent,
    ReadK,
    ReadHead,
    Copy,
    Publish,
    Close,
    Shut,
    Unread,
    CloseUnread,
    StoreBase,
    TakeBack,
    AnnounceGiven,
    LookGiven,
    Give,
    Announce,
    Look,
    CloseOpened,
    Kernel,
    Correct,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Sender {
    at: Sends,
    /// Units of this thread that went, by ring or kernel.
    sent: u8,
    /// Position of the open word that it read.
    word: u8,
    ksent: u8,
    /// Units of this step, and how many of them the kernel took.
    count: u8,
    taken: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Receives {
    Look,
    Peek,
    Copy,
    Release,
    Kernel,
    EndSeen,
    ReopenWord,
    ReopenSent,
    StoreK,
    Open,
    LookAgain,
    CloseOpened,
    CloseToSleep,
    Asleep,
    /// The connection is somebody else's, who reads only the kernel.
    Foreign,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Receiver {
    at: Receives,
    count: u8,
    from: u8,
    copied: [u8; 2],
    kread: u8,
    /// Units received from each thread.
    got: [u8; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    senders: [Sender; 2],
    /// The thread that may copy into the ring.
    holder: Option<u8>,
    tail: u8,
    closed: bool,
    revoked: bool,
    head: u8,
    taken: bool,
    k: u8,
    ksent: u8,
    base: u8,
    slots: [u8; 2],
    wire: Queue,
    queue: Queue,
    receiver: Receiver,
    closes: u8,
    revokes: bool,
    given_away: bool,
    end_sent: bool,
    sender_dead: bool,
    receiver_dead: bool,
}

impl Setting {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn first(&self) -> State {
        let sender = Sender { at: Sends::Idle, sent: 0, word: 0, ksent: 0, count: 0, taken: 0 };
        State {
            senders: [sender; 2],
            holder: None,
            tail: 0,
            closed: true,
            revoked: false,
            head: 0,
            taken: false,
            k: 0,
            ksent: 0,
            base: 0,
            slots: [0; 2],
            wire: Queue::default(),
            queue: Queue::default(),
            receiver: Receiver {
                at: Receives::Look,
                count: 0,
                from: 0,
                copied: [0; 2],
                kread: 0,
                got: [0; 2],
            },
            closes: self.closes,
            revokes: self.revokes,
            given_away: false,
            end_sent: false,
            sender_dead: false,
            receiver_dead: false,
        }
    }

    /// Every state that one step leads to.
    fn steps(&self, state: &State, next: &mut Vec<State>, wrong: &mut Vec<&'static str>) {
        if !state.sender_dead {
            for who in 0..2 {
                self.sender_steps(state, who, next);
            }
        }
        if !state.receiver_dead {
            self.receiver_steps(state, next, wrong);
        }
        let mut push = |change: &dyn Fn(&mut State)| {
            let mut after = *state;
            change(&mut after);
            next.push(after);
        };
        if state.wire.length > 0 {
            push(&|s| {
                let unit = s.wire.pop();
                s.queue.push(unit);
            });
        }
        let senders_over = state.sender_dead || state.senders.iter().all(|sender| sender.at == Sends::Done);
        if senders_over && !state.end_sent {
            push(&|s| {
                s.wire.push(END);
                s.end_sent = true;
            });
        }
        if state.closes > 0 {
            push(&|s| {
                s.closes -= 1;
                s.closed = true;
            });
        }
        if state.revokes {
            push(&|s| {
                s.revokes = false;
                s.closed = true;
                s.revoked = true;
            });
        }
        if self.sender_dies && !senders_over {
            push(&|s| s.sender_dead = true);
        }
        if self.receiver_dies && !state.receiver_dead && state.receiver.at != Receives::Done {
            push(&|s| s.receiver_dead = true);
        }
    }

    fn sender_steps(&self, state: &State, who: usize, next: &mut Vec<State>) {
        let sender = state.senders[who];
        let left = self.units[who] - sender.sent;
        let mut push = |at: Sends, change: &dyn Fn(&mut State, &mut Sender)| {
            let mut after = *state;
            let mut changed = sender;
            changed.at = at;
            change(&mut after, &mut changed);
            // Behind the announcement, lest it falls into another's taking back.
            let unlocks = matches!(at, Sends::Idle | Sends::Look | Sends::Kernel | Sends::Done);
            if unlocks && after.holder == Some(who as u8) {
                after.holder = None;
            }
            if matches!(at, Sends::Idle | Sends::Unread | Sends::Announce | Sends::Done) {
                // Nothing is remembered from one message to the next.
                changed.word = 0;
                changed.ksent = 0;
                changed.count = 0;
                changed.taken = 0;
            }
            after.senders[who] = changed;
            next.push(after);
        };
        let open = !state.closed && !state.revoked;
        let unread = if state.taken { 0 } else { state.tail - state.head };
        let goes_on = if left == 0 { Sends::Done } else { Sends::Announce };
        match sender.at {
            Sends::Idle if left == 0 && state.senders[1 - who].at != Sends::Done => {
                push(Sends::Done, &|_, _| ())
            }
            Sends::Idle if left == 0 => {
                if state.holder.is_none() {
                    push(Sends::Shut, &|s, _| s.holder = Some(who as u8));
                }
            }
            Sends::Shut => push(Sends::Unread, &|s, _| {
                s.closed = true;
                s.revoked = true;
            }),
            Sends::Unread => {
                let room = self.kernel_room == 0 || state.kernel_units() + unread <= self.kernel_room;
                let follows = state.ksent != state.k && self.has(Rule::NothingFollows);
                let gives = self.has(Rule::UnreadFirst) && unread > 0 && room && !follows;
                if gives && self.refuses {
                    push(goes_on, &|_, _| ());
                }
                push(if gives { Sends::CloseUnread } else { goes_on }, &|_, _| ());
            }
            Sends::CloseUnread => push(Sends::StoreBase, &|s, _| s.closed = true),
            Sends::StoreBase => push(Sends::TakeBack, &|s, _| s.base = s.ksent),
            Sends::TakeBack if unread == 0 => push(goes_on, &|_, _| ()),
            Sends::TakeBack => push(Sends::AnnounceGiven, &|s, me| {
                s.taken = self.has(Rule::TakenBit);
                (me.word, me.count) = (s.head, unread);
            }),
            Sends::AnnounceGiven => push(Sends::LookGiven, &|s, me| s.ksent += me.count),
            Sends::LookGiven => push(Sends::Give, &|s, _| s.closed |= open),
            Sends::Give => {
                if self.kernel_room == 0 || state.kernel_units() < self.kernel_room {
                    let at = if sender.taken + 1 == sender.count { goes_on } else { Sends::Give };
                    push(at, &|s, me| {
                        s.wire.push(s.slots[usize::from((me.word + me.taken) % self.capacity)]);
                        me.taken += 1;
                    });
                }
            }
            Sends::Idle if !self.has(Rule::SenderLock) => push(Sends::ReadWord, &|_, _| ()),
            Sends::Idle => {
                if state.holder.is_none() {
                    push(Sends::ReadWord, &|s, _| s.holder = Some(who as u8));
                }
            }
            Sends::ReadWord if open => push(Sends::ReadSent, &|s, me| me.word = s.tail),
            Sends::ReadWord => push(Sends::Unread, &|_, _| ()),
            Sends::ReadSent => push(Sends::ReadK, &|s, me| me.ksent = s.ksent),
            Sends::ReadK if sender.ksent != state.k && self.has(Rule::CompareKernelCount) => {
                let early = self.skipped != Some(Spare::EarlyClose);
                push(if early { Sends::Close } else { Sends::Unread }, &|_, me| me.ksent = 0);
            }
            Sends::ReadK => push(Sends::ReadHead, &|_, me| me.ksent = 0),
            Sends::ReadHead => {
                let room = self.capacity.saturating_sub(sender.word.wrapping_sub(state.head));
                if room == 0 {
                    let at =
                        if self.skipped != Some(Spare::EarlyClose) { Sends::Close } else { Sends::Unread };
                    push(at, &|_, _| ());
                }
                for count in 1..=room.min(self.batch).min(left) {
                    push(Sends::Copy, &|_, me| me.count = count);
                }
            }
            Sends::Copy => push(Sends::Publish, &|s, me| {
                for i in 0..me.count {
                    s.slots[usize::from((me.word + i) % self.capacity)] = unit(who, me.sent + i);
                }
            }),
            Sends::Publish => {
                if (open && state.tail == sender.word) || !self.has(Rule::PublishBySwap) {
                    push(Sends::Idle, &|s, me| {
                        s.tail = me.word + me.count;
                        s.closed = s.revoked;
                        me.sent += me.count;
                    });
                } else {
                    push(Sends::Unread, &|_, _| ());
                }
            }
            Sends::Close => push(Sends::Unread, &|s, _| s.closed = true),
            Sends::Announce => {
                for count in 1..=self.batch.min(left) {
                    let at = if self.looks == Looks::Before { Sends::Look } else { Sends::Kernel };
                    push(at, &|s, me| {
                        me.count = count;
                        if self.has(Rule::AnnounceFirst) {
                            s.ksent += count;
                        }
                    });
                }
            }
            Sends::Look | Sends::CloseOpened => {
                let at = match (sender.at, self.looks) {
                    (Sends::Look, _) if open && self.has(Rule::SenderLooksAgain) => Sends::CloseOpened,
                    (_, Looks::Before) => Sends::Kernel,
                    (_, Looks::After) => Sends::Idle,
                };
                push(at, &|s, _| s.closed |= sender.at == Sends::CloseOpened);
            }
            Sends::Kernel if self.kernel_room > 0 => {
                // It blocks inside the kernel until all are taken.
                if state.kernel_units() < self.kernel_room {
                    let at = if sender.taken + 1 == sender.count { Sends::Correct } else { Sends::Kernel };
                    push(at, &|s, me| {
                        s.wire.push(unit(who, me.sent));
                        me.sent += 1;
                        me.taken += 1;
                    });
                }
            }
            Sends::Kernel => {
                // It may take nothing only where it may take less than all: else one-unit settings would be
                // twice the size for nothing.
                let least = u8::from(self.batch == 1);
                for taken in least..=sender.count {
                    push(Sends::Correct, &|s, me| {
                        for i in 0..taken {
                            s.wire.push(unit(who, me.sent + i));
                        }
                        me.sent += taken;
                        me.taken = taken;
                    });
                }
                if state.receiver_dead {
                    push(Sends::Done, &|_, _| ());
                }
            }
            Sends::Correct => {
                let at =
                    if sender.taken > 0 && self.looks == Looks::After { Sends::Look } else { Sends::Idle };
                push(at, &|s, me| {
                    if !self.has(Rule::AnnounceFirst) {
                        s.ksent += me.taken;
                    } else if self.has(Rule::CorrectCount) {
                        s.ksent -= me.count - me.taken;
                    }
                });
            }
            Sends::Done => (),
        }
    }

    fn receiver_steps(&self, state: &State, next: &mut Vec<State>, wrong: &mut Vec<&'static str>) {
        let receiver = state.receiver;
        let mut push = |at: Receives, change: &dyn Fn(&mut State)| {
            let mut after = *state;
            after.receiver.at = at;
            change(&mut after);
            next.push(after);
        };
        let waiting = state.tail - state.head;
        if self.gives_away && !state.given_away && receiver.at == Receives::Look {
            push(Receives::Foreign, &|s| {
                s.given_away = true;
                s.closed = true;
                s.revoked = true;
            });
        }
        match receiver.at {
            Receives::Look if waiting > 0 && !state.taken => {
                for count in 1..=waiting.min(self.batch) {
                    push(Receives::Copy, &|s| {
                        s.receiver.count = count;
                        s.receiver.from = s.head;
                        if !self.has(Rule::HeadAfterCopy) {
                            s.head += count;
                        }
                    });
                }
            }
            Receives::Look if state.closed || !self.has(Rule::RingFirst) => push(Receives::Kernel, &|_| ()),
            // Open and empty: it spins (no step), goes to sleep, or looks at the kernel's queue.
            Receives::Look => {
                let at =
                    if self.has(Rule::CloseBeforeSleep) { Receives::CloseToSleep } else { Receives::Asleep };
                push(at, &|_| ());
                push(Receives::Peek, &|_| ());
            }
            Receives::Peek => match state.queue.first() {
                None => push(Receives::Look, &|_| ()),
                Some(END) => push(Receives::EndSeen, &|_| ()),
                Some(_) => push(Receives::CloseToSleep, &|_| ()),
            },
            Receives::Copy => push(Receives::Release, &|s| {
                for i in 0..receiver.count {
                    s.receiver.copied[usize::from(i)] =
                        s.slots[usize::from((receiver.from + i) % self.capacity)];
                }
            }),
            Receives::Release => {
                let mut after = *state;
                let mine = !state.taken && state.head == receiver.from;
                if mine || !self.has(Rule::TakeBySwap) || !self.has(Rule::HeadAfterCopy) {
                    for unit in &receiver.copied[..usize::from(receiver.count)] {
                        after.take(*unit, wrong);
                    }
                    after.head = receiver.from + receiver.count;
                }
                after.receiver.at = Receives::Look;
                (after.receiver.count, after.receiver.from, after.receiver.copied) = (0, 0, [0; 2]);
                next.push(after);
            }
            Receives::Kernel => match state.queue.first() {
                None => {
                    push(Receives::ReopenWord, &|_| ());
                    push(Receives::Asleep, &|_| ());
                }
                Some(END) => push(Receives::EndSeen, &|_| ()),
                Some(_) => {
                    let mut after = *state;
                    after.receiver.at = Receives::Look;
                    for _ in 0..self.batch {
                        if after.queue.has_units() {
                            let unit = after.queue.pop();
                            after.receiver.kread += 1;
                            after.take(unit, wrong);
                            after.kernel_was_read();
                            next.push(after);
                        }
                    }
                }
            },
            Receives::EndSeen if state.taken && !state.given_away && self.has(Rule::Recover) => {
                push(Receives::Look, &|s| {
                    s.head += s.receiver.kread - s.base;
                    s.taken = false;
                })
            }
            Receives::EndSeen if waiting > 0 && !state.taken && self.has(Rule::TailAfterEnd) => {
                push(Receives::Look, &|_| ());
            }
            Receives::EndSeen => {
                if (0..2).any(|who| receiver.got[who] != state.senders[who].sent) {
                    wrong.push("the stream ended before its last unit");
                } else if !state.sender_dead && !state.receiver_dead && state.ksent != receiver.kread {
                    wrong.push("the ring could never be opened again");
                }
                push(Receives::Done, &|_| ());
            }
            Receives::ReopenWord => {
                let empty = waiting == 0 || self.skipped == Some(Spare::RingEmpty);
                let at = if state.closed && !state.revoked && empty {
                    Receives::ReopenSent
                } else {
                    Receives::Look
                };
                push(at, &|_| ());
            }
            Receives::ReopenSent => {
                let drained = state.ksent == receiver.kread || self.skipped == Some(Spare::FirstCount);
                push(if drained { Receives::StoreK } else { Receives::Look }, &|_| ());
            }
            Receives::StoreK => push(Receives::Open, &|s| s.k = s.receiver.kread),
            Receives::Open if state.revoked => push(Receives::Look, &|_| ()),
            Receives::Open => push(Receives::LookAgain, &|s| s.closed = false),
            Receives::LookAgain if state.ksent != receiver.kread && self.has(Rule::OpenerLooksAgain) => {
                push(Receives::CloseOpened, &|_| ());
            }
            Receives::LookAgain => push(Receives::Look, &|_| ()),
            Receives::CloseOpened => push(Receives::Look, &|s| s.closed = true),
            Receives::CloseToSleep => {
                let found = waiting > 0 && self.has(Rule::TailOfClose);
                push(if found { Receives::Look } else { Receives::Asleep }, &|s| s.closed = true);
            }
            Receives::Asleep => {
                if state.queue.length > 0 {
                    push(Receives::Look, &|_| ());
                }
            }
            Receives::Foreign => match state.queue.first() {
                None => (),
                Some(END) => push(Receives::EndSeen, &|_| ()),
                Some(_) => {
                    let mut after = *state;
                    let unit = after.queue.pop();
                    after.receiver.kread += 1;
                    after.take(unit, wrong);
                    next.push(after);
                }
            },
            Receives::Done => (),
        }
    }

    /// What a program that now pauses for ever would leave the receiver with.
    fn stranded(&self, state: &State) -> Option<&'static str> {
        let full = self.kernel_room > 0 && state.kernel_units() >= self.kernel_room;
        let quiet = state.sender_dead
            || state.senders.iter().all(|sender| match sender.at {
                Sends::Idle | Sends::Done => true,
                Sends::Kernel => full,
                _ => false,
            });
        let in_kernel = state.wire.has_units() || state.queue.has_units();
        // Looking only after the call is also lost when the sender dies in it; that is known.
        if !quiet || state.receiver_dead || state.sender_dead && self.looks == Looks::After {
            return None;
        }
        match state.receiver.at {
            Receives::Look if !state.closed && state.tail == state.head && in_kernel => {
                Some("it spins on an open ring, and units wait in the kernel")
            }
            Receives::Asleep if state.tail > state.head && !state.taken && !in_kernel => {
                Some("it sleeps, and units wait in the ring")
            }
            _ => None,
        }
    }
}

impl State {
    /// Units in the kernel; the end of the stream counts too, but nobody sends after it.
    fn kernel_units(&self) -> u8 {
        self.wire.length + self.queue.length
    }

    fn take(&mut self, unit: u8, wrong: &mut Vec<&'static str>) {
        let who = usize::from(unit >> 4);
        if unit & 15 == self.receiver.got[who] {
            self.receiver.got[who] += 1;
        } else {
            wrong.push("a unit out of order");
        }
    }
}

fn unit(who: usize, number: u8) -> u8 {
    (who as u8) << 4 | number
}

#[cfg(test)]
mod graph;
#[path = "multiply.rs"]
mod multiply;
#[path = "search_tests.rs"]
mod tests;
