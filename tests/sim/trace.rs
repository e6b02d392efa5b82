//! The last packets of a run, kept cheaply and printed when a test fails.

use stack::device::Link;

use super::line::line;
use super::path::Lost;

/// Packets that are kept.
const ENTRIES: usize = 256;

/// Bytes of a packet that are kept: every header, and text that isn't printed.
const KEPT: usize = 160;

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A host sent it.
    Sent,
    /// A host got it.
    Got,
    /// It was lost.
    Dropped(Lost),
    /// It is on its way twice.
    Duplicated,
    /// A bit of it was flipped.
    Corrupted,
}

struct Entry {
    at: u64,
    node: usize,
    what: What,
    link: Link,
    len: usize,
    head: [u8; KEPT],
}

/// The last packets.
#[derive(Default)]
pub(crate) struct Trace {
    entries: Vec<Entry>,
    /// The oldest, once there are as many as are kept.
    first: usize,
    /// Everything from the beginning, if somebody wants it.
    journal: Option<Vec<Record>>,
}

/// What happened to one packet, whole: when in ns, to which host, what, and the packet's bytes.
pub type Record = (u64, usize, What, Vec<u8>);

impl Trace {
    pub(crate) fn note(&mut self, at: u64, node: usize, what: What, link: Link, bytes: &[u8]) {
        if let Some(journal) = &mut self.journal {
            journal.push((at, node, what, bytes.to_vec()));
        }
        let kept = bytes.len().min(KEPT);
        if self.entries.len() < ENTRIES {
            let head = [0; KEPT];
            self.entries.push(Entry { at, node, what, link, len: bytes.len(), head });
            let entry = self.entries.len() - 1;
            self.entries[entry].head[..kept].copy_from_slice(&bytes[..kept]);
        } else {
            let entry = &mut self.entries[self.first];
            (entry.at, entry.node, entry.what, entry.link, entry.len) = (at, node, what, link, bytes.len());
            entry.head[..kept].copy_from_slice(&bytes[..kept]);
            self.first = (self.first + 1) % ENTRIES;
        }
    }

    /// Keeps everything from now on.
    pub(super) fn keep_all(&mut self) {
        self.journal = Some(Vec::new());
    }

    /// What was kept.
    pub(super) fn journal(&mut self) -> Vec<Record> {
        self.journal.take().unwrap_or_default()
    }

    /// A line for each: time in seconds, host, what happened, the packet.
    pub(crate) fn lines(&self) -> Vec<String> {
        let (later, earlier) = self.entries.split_at(self.first);
        let mut lines = Vec::new();
        for entry in earlier.iter().chain(later) {
            // The text isn't kept, but its length is in the line.
            let mut bytes = entry.head[..entry.len.min(KEPT)].to_vec();
            bytes.resize(entry.len, 0);
            let what = match entry.what {
                What::Sent => "sends",
                What::Got => "gets",
                What::Dropped(Lost::Chance | Lost::Burst) => "lost",
                What::Dropped(Lost::Queue) => "queue full",
                What::Dropped(Lost::Size) => "too large",
                What::Dropped(Lost::Ring) => "ring full",
                What::Duplicated => "twice",
                What::Corrupted => "corrupted",
            };
            let (seconds, nanos) = (entry.at / 1_000_000_000, entry.at % 1_000_000_000);
            let text = line(&bytes, entry.link);
            lines.push(format!("{seconds}.{nanos:09} host {} {what:10} {text}", entry.node));
        }
        lines
    }
}
