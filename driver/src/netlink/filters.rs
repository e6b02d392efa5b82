//! Whether anything decides about packets that AF_XDP goes around: nf_tables (linux/netfilter/nf_tables.h) and traffic control
//! (linux/rtnetlink.h).
//!
//! What rules say isn't understood: that there is one is enough.

use super::{Netlink, attribute};
use crate::sys::{self, Errno};

/// Messages of nf_tables: NFNL_SUBSYS_NFTABLES, in the upper byte of a kind.
const TABLES: u16 = 10 << 8;
const NEWCHAIN: u16 = TABLES | 3;
const GETCHAIN: u16 = TABLES | 4;
const NEWRULE: u16 = TABLES | 6;
const GETRULE: u16 = TABLES | 7;
/// Bytes of `struct nfgenmsg`, which begins with the family.
const NFGENMSG: usize = 4;
// Attributes.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const HOOK_NUMBER: u16 = 1;
// Families: NFPROTO_INET, _IPV4, _ARP, _NETDEV, _BRIDGE, _IPV6 (linux/netfilter.h).
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const IPV6: u8 = 10;
/// NF_INET_FORWARD: what isn't for this host.
const FORWARD: u32 = 2;
/// NF_DROP: the policy of a chain whose packets are dropped if no rule says otherwise.
const DROP: u32 = 0;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`, and where it has the interface and the parent.
const TCMSG: usize = 20;
const TC_INTERFACE: usize = 4;
const TC_PARENT: usize = 12;
const TCA_KIND: u16 = 1;
/// What filters of the qdiscs `ingress` and `clsact` hang on: ffff:, and clsact's two minor numbers.
const PARENTS: [u32; 3] = [0xffff_0000, 0xffff_fff2, 0xffff_fff3];

fn text(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.and_then(|bytes| bytes.split(|byte| *byte == 0).next()).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number of nf_tables, which are in network order.
fn number(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(bytes?.get(..4)?.try_into().ok()?))
}

const fn family_name(family: u8) -> &'static str {
    match family {
        INET => "inet",
        IPV4 => "ip",
        IPV6 => "ip6",
        _ => "netdev",
    }
}

/// The chain in a message, if the kernel calls it for packets of this host's: family, table, name, and whether its policy drops.
fn chain(kind: u16, body: &[u8]) -> Option<([String; 3], bool)> {
    let rest = body.get(NFGENMSG..).filter(|_| kind == NEWCHAIN)?;
    let family = body[0];
    let hook = attribute(rest, CHAIN_HOOK)?;
    let is_forward = family != NETDEV && number(attribute(hook, HOOK_NUMBER)) == Some(FORWARD);
    if !matches!(family, INET | IPV4 | IPV6 | NETDEV) || is_forward {
        return None;
    }
    let names = [
        family_name(family).to_owned(),
        text(attribute(rest, CHAIN_TABLE)),
        text(attribute(rest, CHAIN_NAME)),
    ];
    Some((names, number(attribute(rest, CHAIN_POLICY)) == Some(DROP)))
}

/// The chain that a message's rule is in.
fn rule(kind: u16, body: &[u8]) -> Option<[String; 3]> {
    let rest = body.get(NFGENMSG..).filter(|_| kind == NEWRULE)?;
    let names = [text(attribute(rest, RULE_TABLE)), text(attribute(rest, RULE_CHAIN))];
    let [table, chain] = names;
    Some([family_name(body[0]).to_owned(), table, chain])
}

/// The chains of nf_tables that could decide about this host's packets: those that the kernel calls and that have a rule, or drop
/// what no rule is for. `inet filter input` each. None where the kernel has no nf_tables.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; what the kernel says.
pub fn chains() -> sys::Result<Vec<String>> {
    let read = || -> sys::Result<_> {
        let mut netlink = Netlink::to(libc::NETLINK_NETFILTER, 0)?;
        let called = netlink.table(GETCHAIN, &[0; NFGENMSG], usize::MAX, chain)?;
        let with_rules = netlink.table(GETRULE, &[0; NFGENMSG], usize::MAX, rule)?;
        Ok((called.rows, with_rules.rows))
    };
    let (called, with_rules) = match read() {
        Err(Errno(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(Vec::new()),
        read => read?,
    };
    let mut found: Vec<String> = called
        .into_iter()
        .filter(|(names, drops)| *drops || with_rules.contains(names))
        .map(|(names, _)| names.join(" "))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether traffic control has filters for what an interface receives, or at clsact for what it sends.
///
/// # Errors
/// What the kernel says.
pub fn has_traffic_filters(netlink: &mut Netlink, interface: u32) -> sys::Result<bool> {
    let message = |parent: u32| {
        let mut body = [0; TCMSG];
        body[TC_INTERFACE..TC_INTERFACE + 4].copy_from_slice(&interface.to_ne_bytes());
        body[TC_PARENT..TC_PARENT + 4].copy_from_slice(&parent.to_ne_bytes());
        body
    };
    let is_its = |body: &[u8]| super::word(body, TC_INTERFACE) == Some(interface);
    let qdiscs = netlink.table(RTM_GETQDISC, &message(0), 0, |kind, body| {
        let name = body.get(TCMSG..).map(|rest| text(attribute(rest, TCA_KIND))).unwrap_or_default();
        (kind == RTM_NEWQDISC && is_its(body) && matches!(name.as_str(), "ingress" | "clsact")).then_some(())
    })?;
    for parent in PARENTS.into_iter().filter(|_| qdiscs.count != 0) {
        let filters = netlink.table(RTM_GETTFILTER, &message(parent), 0, |kind, body| {
            (kind == RTM_NEWTFILTER && is_its(body)).then_some(())
        })?;
        if filters.count != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    fn chain_message(family: u8, hook: Option<u32>, policy: Option<u32>) -> Message {
        let mut message = Message::new(NEWCHAIN, 0, &[family, 0, 0, 0]).with(CHAIN_TABLE, b"filter\0");
        message = message.with(CHAIN_NAME, b"input\0");
        if let Some(hook) = hook {
            message = message.with_nested(CHAIN_HOOK, |inner| inner.with(HOOK_NUMBER, &hook.to_be_bytes()));
        }
        match policy {
            Some(policy) => message.with(CHAIN_POLICY, &policy.to_be_bytes()),
            None => message,
        }
    }

    #[test]
    fn chains_that_the_kernel_calls_for_this_host_count() {
        let found = |family, hook, policy| chain(NEWCHAIN, chain_message(family, hook, policy).body());
        let names = ["inet", "filter", "input"].map(str::to_owned);
        assert_eq!(found(INET, Some(1), Some(1)), Some((names.clone(), false)));
        assert_eq!(found(INET, Some(1), Some(DROP)), Some((names, true)));
        assert_eq!(found(INET, None, None), None, "others jump there");
        assert_eq!(found(IPV4, Some(FORWARD), Some(DROP)), None, "what isn't for this host");
        assert_eq!(found(7, Some(1), Some(DROP)), None, "of a bridge");
        assert!(found(NETDEV, Some(0), None).is_some());
    }
}
