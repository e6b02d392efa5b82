//! What happens to packets on one way of a wire.

use stack::time::Duration;

use super::random::Random;

/// Losses in bursts: the Gilbert–Elliott model, a good and a bad state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Probability, for each packet, to go from good to bad.
    pub enter: f64,
    /// Probability, for each packet, to go from bad to good: bursts are `1 / leave` packets long.
    pub leave: f64,
    /// Probability to be lost in the bad state.
    pub loss: f64,
}

/// One way of a wire. All probabilities are per packet and independent of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// How long each packet takes, beyond what the rate costs.
    pub delay: Duration,
    /// How much longer at most, evenly distributed. Packets may pass each other by it.
    pub jitter: Duration,
    /// Bits per second; 0 is without limit.
    pub rate: u64,
    /// Bytes that wait or are being sent when there is a rate; what comes then is lost. 0 is without limit.
    pub queue: u64,
    /// Bytes that the link adds to each packet: 24 for Ethernet's preamble, check sequence and gap.
    pub overhead: u64,
    /// Probability to be lost.
    pub loss: f64,
    /// Losses in bursts besides.
    pub burst: Option<Burst>,
    /// A seed of the losses alone: which packets are lost, by their number, is the same whatever else happens on the way, and
    /// whoever sends. Without it they come from everybody's chance.
    pub pattern: Option<u64>,
    /// Probability to arrive twice.
    pub duplicate: f64,
    /// Probability to have one bit flipped.
    pub corrupt: f64,
    /// Probability to be late by `reorder_by`.
    pub reorder: f64,
    /// How late.
    pub reorder_by: Duration,
    /// Bytes of the largest packet, the link's header with it; a larger one is lost, and nobody says so. 0 is without limit.
    pub bytes_max: usize,
    /// Whether what the sender's device should have cut into segments goes over in one piece, as over a veth.
    pub is_whole: bool,
}

impl Path {
    /// At once, and nothing happens to anything.
    pub const IDEAL: Self = Self {
        delay: Duration(0),
        jitter: Duration(0),
        rate: 0,
        queue: 0,
        overhead: 0,
        loss: 0.0,
        burst: None,
        pattern: None,
        duplicate: 0.0,
        corrupt: 0.0,
        reorder: 0.0,
        reorder_by: Duration(0),
        bytes_max: 0,
        is_whole: false,
    };

    /// Only a delay.
    #[must_use]
    pub const fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::IDEAL }
    }

    /// A rate in bits per second, a delay, and a queue that holds what the rate carries in `queue`.
    #[must_use]
    pub const fn limited(rate: u64, delay: Duration, queue: Duration) -> Self {
        let bytes = (rate as u128 * queue.0 as u128 / 8_000_000_000) as u64;
        Self { delay, rate, queue: bytes, ..Self::IDEAL }
    }

    /// The same for one of several wires: each has a pattern of losses of its own.
    #[must_use]
    pub fn of_wire(self, index: usize) -> Self {
        let apart = |seed: u64| seed.wrapping_add(index as u64 * 0x1_0000);
        Self { pattern: self.pattern.map(apart), ..self }
    }
}

/// Why a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// By chance.
    Chance,
    /// In a burst.
    Burst,
    /// The queue was full.
    Queue,
    /// It was larger than the path takes.
    Size,
    /// The receiver's ring had no room or no frames.
    Ring,
}

/// What happened to packets on one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in bursts.
    pub lost_in_bursts: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
    /// Lost because they were too large.
    pub too_large: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// With a flipped bit.
    pub corrupted: u64,
    /// Made late.
    pub reordered: u64,
    /// Most bytes that waited or were being sent.
    pub queue_max: u64,
}

impl Counts {
    /// What happened on two ways.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            lost: self.lost + other.lost,
            lost_in_bursts: self.lost_in_bursts + other.lost_in_bursts,
            overflowed: self.overflowed + other.overflowed,
            too_large: self.too_large + other.too_large,
            duplicated: self.duplicated + other.duplicated,
            corrupted: self.corrupted + other.corrupted,
            reordered: self.reordered + other.reordered,
            queue_max: self.queue_max.max(other.queue_max),
        }
    }
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// Why it doesn't arrive.
    pub(crate) lost: Option<Lost>,
    /// When it arrives, in ns.
    pub(crate) at: u64,
    /// When it arrives once more.
    pub(crate) again: Option<u64>,
    /// A bit that is flipped, modulo its length.
    pub(crate) flipped: Option<u64>,
}

/// A path and what is on it.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) path: Path,
    pub(crate) counts: Counts,
    /// Chance of the losses alone, if they have a pattern.
    losses: Option<Random>,
    /// When the last packet will have been sent, in ns.
    busy_until: u64,
    is_bad: bool,
}

impl Way {
    pub(crate) const fn new(path: Path) -> Self {
        let counts = Counts {
            packets: 0,
            bytes: 0,
            lost: 0,
            lost_in_bursts: 0,
            overflowed: 0,
            too_large: 0,
            duplicated: 0,
            corrupted: 0,
            reordered: 0,
            queue_max: 0,
        };
        let losses = match path.pattern {
            Some(seed) => Some(Random::new(seed)),
            None => None,
        };
        Self { path, counts, losses, busy_until: 0, is_bad: false }
    }

    /// What becomes of a packet that comes now.
    pub(crate) fn fate(&mut self, now: u64, len: usize, random: &mut Random) -> Fate {
        let Self { path, counts, .. } = self;
        counts.packets += 1;
        counts.bytes += len as u64;
        let mut fate = Fate { at: now, ..Fate::default() };
        let losses = self.losses.as_mut().unwrap_or(&mut *random);
        if let Some(burst) = path.burst {
            self.is_bad = losses.happens(if self.is_bad { 1.0 - burst.leave } else { burst.enter });
            if self.is_bad && losses.happens(burst.loss) {
                counts.lost_in_bursts += 1;
                return Fate { lost: Some(Lost::Burst), ..fate };
            }
        }
        let is_lost = losses.happens(path.loss);
        if path.bytes_max > 0 && len > path.bytes_max {
            counts.too_large += 1;
            return Fate { lost: Some(Lost::Size), ..fate };
        }
        if is_lost {
            counts.lost += 1;
            return Fate { lost: Some(Lost::Chance), ..fate };
        }
        if path.rate > 0 {
            let bytes = len as u64 + path.overhead;
            let waiting = self.busy_until.saturating_sub(now);
            let queued = (u128::from(waiting) * u128::from(path.rate) / 8_000_000_000) as u64 + bytes;
            if path.queue > 0 && queued > path.queue {
                counts.overflowed += 1;
                return Fate { lost: Some(Lost::Queue), ..fate };
            }
            counts.queue_max = counts.queue_max.max(queued);
            let takes = (u128::from(bytes) * 8_000_000_000).div_ceil(path.rate.into()) as u64;
            self.busy_until = self.busy_until.max(now) + takes;
            fate.at = self.busy_until;
        }
        fate.at += path.delay.0;
        if path.jitter.0 > 0 {
            fate.at += random.below(path.jitter.0 + 1);
        }
        if random.happens(path.reorder) {
            counts.reordered += 1;
            fate.at += path.reorder_by.0;
        }
        if random.happens(path.corrupt) {
            counts.corrupted += 1;
            fate.flipped = Some(random.next());
        }
        if random.happens(path.duplicate) {
            counts.duplicated += 1;
            fate.again = Some(fate.at);
        }
        fate
    }
}
