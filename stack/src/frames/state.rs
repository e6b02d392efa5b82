//! Where a frame is: one word for each, in the shared part of the region.
//!
//! The word is the truth and everything else follows from it: the free list is made again from the words after a
//! process died, and a descriptor of the device counts only if the word of its frame allows it. Only the holder of the lock
//! changes a word, so a change is a load and a store; others read it, and know from its generation whether the
//! frame that they looked at was used for something else meanwhile.

use crate::coded::coded;
use core::sync::atomic::{AtomicU64, Ordering};

coded! {
    /// Where a frame is.
    pub enum State: u8 else Bad {
        /// Nobody's: on the free list, or never used.
        Free = 0,
        /// In the hands of the operation that holds the lock, between two of the other places.
        Moving = 1,
        /// The device receives into it.
        Fill = 2,
        /// A queue of a socket has it.
        Socket = 3,
        /// The device sends it, and nobody else needs it: its completion frees it.
        Tx = 4,
        /// The device sends it, and a queue has it too: it is free after both the completion and the acknowledgement.
        TxSocket = 5,
        /// It was in doubtful hands when a process died. Nobody has it until the device was closed.
        Quarantined = 6,
        /// No state: what bytes that nobody wrote may say.
        Bad = 7,
        /// The device sends a datagram whose socket is charged for it until the completion.
        TxDatagram = 8,
    }
}

impl State {
    /// Whether the one change is legal.
    ///
    /// ```text
    ///             fill                 receive
    ///   Moving ---------> Fill ---------------------> Moving
    ///   Moving <--------- Free <-- release, complete  (taken for a use)
    ///   Moving --link---> Socket --send--> TxSocket --complete--> Socket --release--> Free
    ///                                      TxSocket --release---> Tx -----complete--> Free
    ///   Moving --send---> Tx ------complete------------------------------------------> Free
    ///   Moving --send---> TxDatagram ------complete--------------------------------> Free
    ///   Moving --drop---> Free
    /// ```
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Free | Self::Fill => matches!(next, Self::Moving),
            Self::Moving => {
                matches!(next, Self::Free | Self::Fill | Self::Socket | Self::Tx | Self::TxDatagram)
            }
            Self::Socket => matches!(next, Self::Free | Self::TxSocket),
            Self::TxSocket => matches!(next, Self::Socket | Self::Tx),
            Self::Tx | Self::TxDatagram | Self::Quarantined => matches!(next, Self::Free),
            Self::Bad => false,
        }
    }

    /// Whether the device may be reading or writing its bytes.
    #[must_use]
    pub const fn is_devices(self) -> bool {
        matches!(self, Self::Fill | Self::Tx | Self::TxSocket | Self::TxDatagram)
    }
}

/// State and generation of a frame, as loaded. A generation is counted up each time the frame leaves
/// [`State::Free`].
#[must_use]
pub fn load(word: &AtomicU64) -> (State, u32) {
    let word = word.load(Ordering::Acquire);
    (State::decode(word as u8), (word >> 32) as u32)
}

/// Changes a frame's state, if it is `from` now and the change is legal.
pub(super) fn change(word: &AtomicU64, from: State, to: State) -> bool {
    let old = word.load(Ordering::Relaxed);
    if State::decode(old as u8) != from || !from.may_become(to) {
        return false;
    }
    let generation = (old >> 32) as u32;
    let generation = if matches!(from, State::Free) { generation.wrapping_add(1) } else { generation };
    // What was written to the frame's record is seen by whoever sees the new state.
    word.store(u64::from(generation) << 32 | to as u64, Ordering::Release);
    true
}

/// Puts a frame where recovery found that it belongs, whatever its state is.
pub(super) fn force(word: &AtomicU64, to: State) {
    let generation = word.load(Ordering::Relaxed) & !0xffff_ffff;
    word.store(generation | to as u64, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bytes_are_a_free_frame_and_strange_ones_are_nothing() {
        assert_eq!(load(&AtomicU64::new(0)), (State::Free, 0));
        for word in [7, 0x100 | 9, 0xff, 0x55] {
            assert_eq!(load(&AtomicU64::new(word)).0, State::Bad);
        }
    }

    #[test]
    fn only_legal_changes_are_made() {
        for from in State::ALL {
            for to in State::ALL {
                let word = AtomicU64::new(9 << 32 | from as u64);
                assert!(State::ALL.iter().all(|other| *other == from || !change(&word, *other, to)));
                assert_eq!(change(&word, from, to), from.may_become(to), "{from:?} {to:?}");
                let expected = if !from.may_become(to) {
                    (from, 9)
                } else if from == State::Free {
                    (to, 10)
                } else {
                    (to, 9)
                };
                assert_eq!(load(&word), expected);
            }
        }
    }

    #[test]
    fn what_a_device_has_never_becomes_free_but_through_its_completion() {
        // A frame that is sent and acknowledged late, or acknowledged first: the two ways to `Free`.
        assert!(!State::TxSocket.may_become(State::Free) && !State::Fill.may_become(State::Free));
        let into_free: Vec<State> =
            State::ALL.into_iter().filter(|state| state.may_become(State::Free)).collect();
        assert_eq!(
            into_free,
            [State::Moving, State::Socket, State::Tx, State::Quarantined, State::TxDatagram]
        );
    }
}
