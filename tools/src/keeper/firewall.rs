//! What decides about packets in the kernel, and would not be asked about ours.
//!
//! What a rule says is not looked at: that there is one which the kernel could come to is enough to refuse. Not seen: programs on
//! cgroups, IPsec policies.

use std::fs;

use driver::bpf::object::traffic_programs;
use driver::netlink::{Netlink, filters};

/// Tables of the old iptables that are in use, one a line; those of the new one are nf_tables'.
const LEGACY: [(&str, &str); 2] = [
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
];

/// What might match, by name: `nftables inet filter input`.
pub(crate) fn found(interface: u32) -> Result<Vec<String>, String> {
    let mut found: Vec<String> = filters::chains()
        .map_err(|errno| format!("reading the rules of nftables: errno {}", errno.0))?
        .into_iter()
        .map(|chain| format!("nftables {chain}"))
        .collect();
    for (tool, path) in LEGACY {
        // Without the module there is no file.
        let tables = fs::read_to_string(path).unwrap_or_default();
        found.extend(tables.lines().map(|table| format!("{tool} {table}")));
    }
    let of_traffic = |errno: driver::sys::Errno| format!("reading the filters of tc: errno {}", errno.0);
    let filters =
        Netlink::open(0).and_then(|mut netlink| filters::has_traffic_filters(&mut netlink, interface));
    if filters.map_err(of_traffic)? {
        found.push("tc filters".to_owned());
    }
    if traffic_programs(interface).map_err(of_traffic)? != 0 {
        found.push("BPF programs of tc (tcx)".to_owned());
    }
    Ok(found)
}

/// The sentence about them, if there are any.
pub(crate) fn objection(name: &str, interface: u32) -> Result<(), String> {
    let found = found(interface)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} might match packets of {name}, which AF_XDP takes past them; remove the rules, or set \
         bypass_firewall={name} if nothing of the programs' ports depends on them",
        found.join(", ")
    ))
}
