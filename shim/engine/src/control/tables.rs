//! The kernel's tables as they were read: plain data, and the reading of them.

use std::collections::BTreeSet;

use driver::netlink::addresses::{self, Address};
use driver::netlink::links::{self, Link};
use driver::netlink::routes::{self, Route, Rule};
use driver::netlink::{Netlink, Table};
use driver::sys::{self, Errno};
use stack::ip::Policy;

/// RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT.
pub(crate) const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
/// The tables that are looked at, in their order, by the rules that a namespace begins with (fib_default_rules_init; IPv6 has no
/// third).
pub(crate) const ORDER: [u32; 3] = [LOCAL, MAIN, DEFAULT];
/// Most addresses that are read: of this host, not of our interface.
const ADDRESSES: usize = 65_536;
/// Most rules: more than the usual ones is one too many.
const RULES: usize = 8;

/// What has changed, so that it is to be read again. The kernel tells of few consequences: of routes that go with an address, or
/// with a link that is switched off, it tells nothing (fib_table_flush). So what may have changed is read as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) link: bool,
    pub(crate) addresses: bool,
    pub(crate) routes: bool,
    pub(crate) rules: bool,
    pub(crate) neighbours: bool,
}

impl Changed {
    pub(crate) const ALL: Self =
        Self { link: true, addresses: true, routes: true, rules: true, neighbours: true };

    pub(crate) fn add(&mut self, other: Self) {
        self.link |= other.link;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.rules |= other.rules;
        self.neighbours |= other.neighbours;
    }

    pub(crate) fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// What a message of this kind makes old.
    pub(crate) fn of(kind: u16) -> Self {
        let none = Self::default();
        match kind {
            libc::RTM_NEWLINK..=libc::RTM_SETLINK => {
                Self { link: true, addresses: true, routes: true, ..none }
            }
            libc::RTM_NEWADDR..=libc::RTM_GETADDR => Self { addresses: true, routes: true, ..none },
            libc::RTM_NEWROUTE..=libc::RTM_GETROUTE => Self { routes: true, ..none },
            libc::RTM_NEWRULE..=libc::RTM_GETRULE => Self { rules: true, routes: true, ..none },
            _ => none,
        }
    }
}

/// The routes of one version of IP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// Those of [`ORDER`]'s tables, in the kernel's order; none where that isn't what decides.
    pub(crate) routes: Vec<Route>,
    pub(crate) has_usual_rules: bool,
    /// There are more than are read.
    pub(crate) is_beyond: bool,
}

/// All that is known of this network namespace, as far as our interface is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Our interface's number.
    pub(crate) interface: u32,
    /// It, unless it is gone.
    pub(crate) link: Option<Link>,
    /// Its addresses, in the kernel's order, which is theirs when one is chosen.
    pub(crate) addresses: Vec<Address>,
    /// Some other interface has an address of IPv6 that packets of ours might come from.
    pub(crate) has_other_v6: bool,
    /// An administrator has changed the labels by which source addresses are chosen.
    pub(crate) has_own_labels: bool,
    /// IPv4 and IPv6.
    pub(crate) families: [Family; 2],
}

/// Whether these rules are the usual ones.
fn is_usual(rules: &Table<Rule>) -> bool {
    let tables: Vec<u32> = rules.rows.iter().map(|rule| rule.table).collect();
    rules.count <= ORDER.len()
        && rules.rows.iter().all(|rule| rule.is_plain)
        && tables.len() >= 2
        && tables.iter().eq(ORDER.iter().take(tables.len()))
}

impl Tables {
    pub(crate) fn new(interface: u32) -> Self {
        Self { interface, ..Self::default() }
    }

    /// Reads what has changed; at most `most` routes of either version.
    ///
    /// # Errors
    /// What the kernel says; EINTR when a table changed each time that it was read.
    pub(crate) fn read(&mut self, netlink: &mut Netlink, changed: Changed, most: usize) -> sys::Result<()> {
        if changed.link {
            self.link = match links::numbered(netlink, self.interface) {
                Err(Errno(libc::ENODEV)) => None,
                link => Some(link?),
            };
        }
        if changed.addresses {
            self.read_addresses(netlink)?;
        }
        for (family, number) in self.families.iter_mut().zip([libc::AF_INET, libc::AF_INET6]) {
            let number = number as u8;
            if changed.rules {
                family.has_usual_rules = is_usual(&routes::rule_table(netlink, number, RULES)?);
            }
            if changed.routes && family.has_usual_rules {
                let table = routes::table(netlink, number, most, |route| ORDER.contains(&route.table))?;
                family.is_beyond = table.count > table.rows.len();
                family.routes = table.rows;
            }
            if !family.has_usual_rules || family.is_beyond {
                family.routes = Vec::new();
            }
        }
        Ok(())
    }

    fn read_addresses(&mut self, netlink: &mut Netlink) -> sys::Result<()> {
        let (ours, mut others): (Vec<Address>, Vec<Address>) = addresses::table(netlink, ADDRESSES)?
            .rows
            .into_iter()
            .partition(|address| address.interface == self.interface);
        others.retain(|other| !other.ip.is_v4() && other.scope == 0 && !other.is_tentative);
        self.has_other_v6 = !others.is_empty();
        // Where IPv6 is off there are none.
        self.has_own_labels = addresses::labels(netlink).is_ok_and(|labels| labels != addresses::LABELS);
        let mut seen = BTreeSet::new();
        self.addresses = ours;
        // The same address with two prefixes is one.
        self.addresses.retain(|address| seen.insert(address.ip.0));
        Ok(())
    }

    /// What the routes of a version are worth.
    pub(crate) fn policy(&self, is_v6: bool) -> Policy {
        let family = &self.families[usize::from(is_v6)];
        let is_chosen = |address: &&Address| !address.ip.is_v4() && address.scope == 0;
        if !family.has_usual_rules {
            Policy::Rules
        } else if family.is_beyond {
            Policy::Routes
        } else if is_v6 && self.has_own_labels && self.addresses.iter().filter(is_chosen).count() > 1 {
            Policy::Labels
        } else {
            Policy::Mirrored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_rules_are_known_and_all_others_are_not() {
        let rule = |priority, table| Rule { priority, table, is_plain: true };
        let table = |rows: &[Rule]| Table { rows: rows.to_vec(), count: rows.len() };
        let usual = [rule(0, LOCAL), rule(32_766, MAIN), rule(32_767, DEFAULT)];
        assert!(is_usual(&table(&usual)) && is_usual(&table(&usual[..2])));
        assert!(!is_usual(&table(&usual[..1])) && !is_usual(&table(&usual[1..])));
        let mut strange = usual;
        strange[1].is_plain = false;
        assert!(!is_usual(&table(&strange)));
        let more = [usual[0], rule(100, 100), usual[1], usual[2]];
        assert!(!is_usual(&table(&more)) && !is_usual(&table(&more[..3])));
    }

    #[test]
    fn a_change_makes_old_what_depends_on_it() {
        let link = Changed::of(libc::RTM_DELLINK);
        assert!(link.link && link.addresses && link.routes && !link.rules);
        assert_eq!(Changed::of(libc::RTM_NEWROUTE), Changed { routes: true, ..Changed::default() });
        assert!(!Changed::of(libc::RTM_NEWNEIGH).is_any(), "neighbours are told one by one");
        assert!(!Changed::of(0xffff).is_any());
    }
}
