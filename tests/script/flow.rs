//! A connection that a script is about: what its numbers are on the wire.
//!
//! A script counts from 0. What we send begins at a number of the stack's choice, so everything about our sequence numbers is
//! moved by the difference; the peer's numbers are the script's. Likewise our timestamps: the first that a script expects is the
//! first that is sent, and later ones are compared by their distance.

use std::collections::HashMap;

use super::options::Choice;
use super::syntax::Segment;
use stack::wire::tcp::Flags;

/// What a connection is doing, as far as packets are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A new socket.
    New,
    /// It listens: the next packet that arrives is of a new connection.
    Listening,
    /// It talks to somebody.
    Talking,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What it is doing.
    pub role: Role,
    /// Its descriptor, once it has one.
    pub fd: Option<i32>,
    /// Our port; 0 until it is known.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
    /// The peer's first sequence number, if its SYN was injected: in the script all others are relative to it.
    irs: Option<u32>,
    /// ISS on the wire, and in the script.
    iss: Option<(u32, u32)>,
    /// The first timestamp on the wire, and in the script.
    first: Option<(u32, u32)>,
    /// Timestamps of the script that were sent, and what they are on the wire.
    sent: HashMap<u32, u32>,
}

impl Flow {
    /// A socket.
    #[must_use]
    pub fn new(role: Role, fd: Option<i32>, local_port: u16, remote_port: u16) -> Self {
        Self { role, fd, local_port, remote_port, irs: None, iss: None, first: None, sent: HashMap::new() }
    }

    /// What is added to our sequence numbers in the script.
    fn offset(&self) -> u32 {
        self.iss.map_or(0, |(live, script)| live.wrapping_sub(script))
    }

    /// An injected segment as it is on the wire.
    #[must_use]
    pub fn to_wire(&mut self, segment: &Segment) -> Segment {
        let mut live = segment.clone();
        match self.irs {
            None if live.flags.has(Flags::SYN) => self.irs = Some(live.seq),
            irs => live.seq = live.seq.wrapping_add(irs.unwrap_or(0)),
        }
        let offset = self.offset();
        if live.flags.has(Flags::ACK) {
            live.ack = live.ack.wrapping_add(offset);
        }
        let echoes = live.flags.has(Flags::ACK);
        for option in live.options.iter_mut().flatten() {
            match option {
                Choice::Sack(blocks) => {
                    for (left, right) in blocks {
                        (*left, *right) = (left.wrapping_add(offset), right.wrapping_add(offset));
                    }
                }
                Choice::Timestamps(_, tsecr) if echoes => *tsecr = self.echo(*tsecr),
                _ => {}
            }
        }
        live
    }

    /// A timestamp of ours in the script, on the wire: just what was sent as it, or as far from the first.
    fn echo(&self, script: u32) -> u32 {
        let (live, from) = self.first.unwrap_or_default();
        self.sent.get(&script).copied().unwrap_or_else(|| script.wrapping_sub(from).wrapping_add(live))
    }

    /// A quoted sequence number of ours on the wire.
    #[must_use]
    pub fn seq_to_wire(&self, seq: u32) -> u32 {
        seq.wrapping_add(self.offset())
    }

    /// Learns from a segment of ours what it is in the script, if that is the one that is expected.
    pub fn learn(&mut self, live: &Segment, expected: &Segment) {
        if live.flags.has(Flags::SYN) && expected.flags.has(Flags::SYN) {
            self.iss = Some((live.seq, expected.seq));
        }
        if let (Some(live), Some(script)) = (tsval(live), tsval(expected)) {
            self.sent.insert(script, live);
            self.first.get_or_insert((live, script));
        }
    }

    /// A segment of ours as the script would have it.
    #[must_use]
    pub fn to_script(&self, live: &Segment) -> Segment {
        let mut script = live.clone();
        script.seq = script.seq.wrapping_sub(self.offset());
        let irs = self.irs.unwrap_or(0);
        if script.flags.has(Flags::ACK) {
            script.ack = script.ack.wrapping_sub(irs);
        }
        for option in script.options.iter_mut().flatten() {
            if let Choice::Sack(blocks) = option {
                for (left, right) in blocks {
                    (*left, *right) = (left.wrapping_sub(irs), right.wrapping_sub(irs));
                }
            }
        }
        if let (Some((first, from)), Some(options)) = (self.first, &mut script.options) {
            for option in options {
                if let Choice::Timestamps(tsval, _) = option {
                    *tsval = tsval.wrapping_sub(first).wrapping_add(from);
                }
            }
        }
        script
    }
}

/// TSval.
#[must_use]
pub fn tsval(segment: &Segment) -> Option<u32> {
    segment.options.iter().flatten().find_map(|option| match option {
        Choice::Timestamps(tsval, _) => Some(*tsval),
        _ => None,
    })
}
