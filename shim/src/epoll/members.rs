//! The followed sockets of a set, by descriptor: found in two loads however many there are.

use libc::c_int;

use super::Member;

/// Members by descriptor. Memory is four bytes for each number up to the highest one ever registered, and the members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Where the member of a descriptor is, plus one; 0 is none. Descriptors are small: open(2) gives the lowest free.
    places: Vec<u32>,
    all: Vec<(c_int, Member)>,
}

impl Members {
    #[inline]
    fn place(&self, fd: c_int) -> Option<usize> {
        let place = *self.places.get(usize::try_from(fd).ok()?)?;
        (place as usize).checked_sub(1)
    }

    #[inline]
    pub(super) fn get(&self, fd: c_int) -> Option<&Member> {
        self.all.get(self.place(fd)?).map(|(_, member)| member)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, fd: c_int) -> Option<&mut Member> {
        let place = self.place(fd)?;
        self.all.get_mut(place).map(|(_, member)| member)
    }

    /// Adds a member, or takes the place of the one that the descriptor has.
    pub(super) fn insert(&mut self, fd: c_int, member: Member) {
        if let Some(known) = self.get_mut(fd) {
            *known = member;
            return;
        }
        let Ok(index) = usize::try_from(fd) else { return };
        if self.places.len() <= index {
            self.places.resize(index + 1, 0);
        }
        self.all.push((fd, member));
        self.places[index] = self.all.len() as u32;
    }

    pub(super) fn remove(&mut self, fd: c_int) {
        let Some(place) = self.place(fd) else { return };
        self.places[fd as usize] = 0;
        self.all.swap_remove(place);
        if let Some((moved, _)) = self.all.get(place) {
            self.places[*moved as usize] = place as u32 + 1;
        }
    }

    /// Removes all of a socket's members.
    pub(super) fn remove_all(&mut self, is_it: impl Fn(&Member) -> bool) {
        let gone: Vec<c_int> = self.iter().filter(|(_, member)| is_it(member)).map(|(fd, _)| fd).collect();
        for fd in gone {
            self.remove(fd);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (c_int, &Member)> {
        self.all.iter().map(|(fd, member)| (*fd, member))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut().map(|(_, member)| member)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fdtable::Name;

    fn member(data: u64) -> Member {
        let name = Name { index: 0, generation: 0 };
        Member { name, events: 0, data, armed: true, seen: 0, parked: false, ghost: false }
    }

    /// A thousand random acts on few descriptors, beside a map.
    #[test]
    fn members_are_a_map() {
        let (mut members, mut map, mut state) = (Members::default(), BTreeMap::new(), 1u64);
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (fd, act) = ((state >> 33) as c_int % 12, (state >> 60) % 3);
            if act == 0 {
                members.remove(fd);
                map.remove(&fd);
            } else {
                members.insert(fd, member(state));
                map.insert(fd, state);
            }
            let mut now: Vec<(c_int, u64)> = members.iter().map(|(fd, member)| (fd, member.data)).collect();
            now.sort_unstable();
            assert_eq!(now, map.clone().into_iter().collect::<Vec<_>>());
            assert!((-1..14).all(|fd| members.get(fd).map(|member| member.data) == map.get(&fd).copied()));
        }
        members.remove_all(|member| map.values().next() == Some(&member.data));
        assert_eq!(members.iter().count(), map.len() - 1);
    }
}
