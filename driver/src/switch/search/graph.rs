//! The walk over all states, and what it insists on.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use super::multiply::Multiply;
use super::{Receives, Sends, Setting, State};

/// What a search found.
#[derive(Debug)]
struct Found {
    states: usize,
    /// Each kind of wrong with the first way to it.
    wrong: BTreeMap<&'static str, Vec<State>>,
}

impl Setting {
    fn search(&self) -> Found {
        let first = self.first();
        let mut states = vec![first];
        let mut parents = vec![0u32];
        let mut index: HashMap<State, u32, BuildHasherDefault<Multiply>> = HashMap::default();
        index.insert(first, 0);
        let mut edges = Vec::new();
        let mut wrong: BTreeMap<&'static str, u32> = BTreeMap::new();
        let mut next = Vec::new();
        let mut found = Vec::new();
        let mut at = 0;
        // Where a rule is missing, the first thing that goes wrong is enough.
        while at < states.len() && (self.without.is_none() || wrong.is_empty()) {
            let state = states[at];
            next.clear();
            found.clear();
            self.steps(&state, &mut next, &mut found);
            found.extend(self.stranded(&state));
            let over = state.receiver.at == Receives::Done || state.receiver_dead;
            if next.is_empty()
                && !(over && (state.sender_dead || state.senders.iter().all(|s| s.at == Sends::Done)))
            {
                found.push("everybody waits");
            }
            for &kind in &found {
                wrong.entry(kind).or_insert(at as u32);
            }
            // What follows something wrong proves nothing, and in a broken protocol has no bounds.
            if found.is_empty() {
                for &after in &next {
                    let to = *index.entry(after).or_insert_with(|| {
                        states.push(after);
                        parents.push(at as u32);
                        (states.len() - 1) as u32
                    });
                    edges.push((to, at as u32));
                }
            }
            at += 1;
        }
        if wrong.is_empty() {
            // Whatever happened, there must be a way to the end: no set of states may be a trap.
            edges.sort_unstable();
            let mut ends = vec![false; states.len()];
            let mut work: Vec<u32> = (0..states.len() as u32)
                .filter(|&i| {
                    states[i as usize].receiver.at == Receives::Done || states[i as usize].receiver_dead
                })
                .collect();
            for &i in &work {
                ends[i as usize] = true;
            }
            while let Some(to) = work.pop() {
                let start = edges.partition_point(|edge| edge.0 < to);
                for &(_, from) in edges[start..].iter().take_while(|edge| edge.0 == to) {
                    if !ends[from as usize] {
                        ends[from as usize] = true;
                        work.push(from);
                    }
                }
            }
            if let Some(trap) = ends.iter().position(|end| !end) {
                wrong.insert("no way leads to the end", trap as u32);
            }
        }
        let wrong = wrong
            .into_iter()
            .map(|(kind, mut i)| {
                let mut way = vec![states[i as usize]];
                while i != 0 {
                    i = parents[i as usize];
                    way.push(states[i as usize]);
                }
                way.reverse();
                (kind, way)
            })
            .collect();
        Found { states: states.len(), wrong }
    }

    /// Searches and insists that nothing is wrong; gives the number of states.
    pub(super) fn holds(&self) -> usize {
        let found = self.search();
        if let Some((kind, way)) = found.wrong.first_key_value() {
            for state in way {
                println!("{state:?}");
            }
            panic!("{kind}: {self:?}");
        }
        println!("{:>8} states: {self:?}", found.states);
        found.states
    }

    /// Searches and insists that something is wrong.
    pub(super) fn breaks(&self) {
        let found = self.search();
        assert!(!found.wrong.is_empty(), "nobody misses the rule: {self:?}");
        let ways: Vec<_> =
            found.wrong.iter().map(|(kind, way)| format!("{kind} (after {} steps)", way.len() - 1)).collect();
        println!("{:?} without {:?}: {}", self.looks, self.without, ways.join("; "));
    }
}

impl State {
    /// What was taken back has been read from the kernel, if enough was.
    pub(super) fn kernel_was_read(&mut self) {
        if self.taken && self.receiver.kread - self.base >= self.tail - self.head {
            self.head = self.tail;
            self.taken = false;
        }
    }
}
