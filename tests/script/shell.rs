//! Commands of the shell in scripts: the few that set the kernel's parameters. Those that the stack has, too ([`stack::host`]), are set;
//! of the others each is known to be harmless, or the script is not run.

use std::path::Path;

use stack::host::Host;

/// A parameter of the kernel, without `net.ipv4.`.
pub type Setting = (String, String);

/// Parameters that say what this stack does anyway, or that change nothing that a script sees: name, and the value that is
/// known to be harmless; `*` is any.
const HARMLESS: &[(&str, &str)] = &[
    ("tcp_dsack", "1"),
    ("tcp_fack", "0"),
    ("tcp_reordering", "3"),
    ("tcp_frto", "2"),
    ("tcp_early_retrans", "4"),
    ("tcp_early_retrans", "3"),
    ("tcp_recovery", "1"),
    ("tcp_tso_rtt_log", "*"),
    ("tcp_limit_output_bytes", "*"),
    ("tcp_pacing_ss_ratio", "*"),
    ("tcp_pacing_ca_ratio", "*"),
    ("tcp_notsent_lowat", "4294967295"),
    ("tcp_fastopen_key", "*"),
    ("tcp_no_metrics_save", "*"),
    ("tcp_autocorking", "*"),
    ("tcp_rmem", "*"),
    ("tcp_wmem", "*"),
    ("tcp_moderate_rcvbuf", "*"),
    ("tcp_invalid_ratelimit", "*"),
    ("tcp_slow_start_after_idle", "*"),
    ("tcp_ecn_fallback", "1"),
    ("tcp_congestion_control", "*"),
];

/// The kernel's lists of sockets of TCP.
const SOCKETS: &str = "/proc/net/tcp";

/// What `defaults.sh`, which every script of the kernel's begins with, sets besides.
const DEFAULTS: &[(&str, &str)] =
    &[("tcp_rmem", "4096 540000 15728640"), ("tcp_slow_start_after_idle", "0"), ("tcp_syn_retries", "5")];

/// The settings of a command.
///
/// # Errors
/// A part of it that has no meaning here.
pub fn settings(command: &str) -> Result<Vec<Setting>, String> {
    let joined = command.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in joined.split(['\n', ';']).flat_map(|line| line.split("&&")) {
        // What is told to nobody, and quotes around what the shell would expand, have no part in it.
        let line = line.split(" > ").next().unwrap_or_default().replace("2>&1", "");
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((program, rest)) = words.split_first() else { continue };
        match Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program) {
            "defaults.sh" => found.extend(DEFAULTS.iter().map(|(name, value)| row(name, value))),
            "sysctl" => {
                let pairs = rest.iter().filter(|word| !word.starts_with('-')).collect::<Vec<_>>();
                if let [pair, values @ ..] = pairs.as_slice() {
                    let all =
                        [&[**pair], values.iter().map(|word| **word).collect::<Vec<_>>().as_slice()].concat();
                    found.extend(assignments(&all)?);
                }
            }
            "set_sysctls.py" => found.extend(assignments(rest)?),
            // A queueing discipline that paces by itself; ours is paced by the connection.
            "tc" if rest.contains(&"fq") => return Err("the queueing discipline fq".to_owned()),
            // Looked at when its time has come: see [`listed`].
            "grep" if rest.iter().any(|word| word.starts_with(SOCKETS)) => {}
            "sleep" | "true" | "ss" | "tc" => {}
            restore if restore.starts_with("sysctl_restore") => {}
            other => return Err(format!("the command {other}")),
        }
    }
    found.iter().try_for_each(known)?;
    Ok(found)
}

/// The state, as Linux numbers it, and the port of the socket that a command looks for in the kernel's list.
#[must_use]
pub fn listed(command: &str) -> Option<(u8, u16)> {
    let mut quoted = command.split('"').skip(1).step_by(2).filter(|_| command.contains(SOCKETS));
    let state = u8::from_str_radix(quoted.next()?.trim(), 16).ok()?;
    Some((state, u16::from_str_radix(quoted.next()?.strip_prefix(':')?, 16).ok()?))
}

/// A value, decimal or with 0x.
#[must_use]
pub fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

fn row(name: &str, value: &str) -> Setting {
    (name.to_owned(), value.to_owned())
}

/// `name=value …`; words without `=` belong to the value before.
fn assignments(words: &[&str]) -> Result<Vec<Setting>, String> {
    let mut found: Vec<Setting> = Vec::new();
    for word in words {
        match (word.split_once('='), found.last_mut()) {
            (Some((name, value)), _) => {
                let name = name.rsplit(['.', '/']).next().unwrap_or(name);
                found.push(row(name, value.trim_matches(['"', '\''])));
            }
            (None, Some(last)) => last.1 = format!("{} {}", last.1, word.trim_matches(['"', '\''])),
            (None, None) => return Err(format!("the setting {word}")),
        }
    }
    Ok(found)
}

fn known((name, value): &Setting) -> Result<(), String> {
    let mut host = Host::DEFAULT;
    if host.get(name).is_some() {
        let is_set = number(value).is_some_and(|value| host.set(name, value));
        return if is_set { Ok(()) } else { Err(format!("the setting {name}={value}")) };
    }
    let is = |row: &&(&str, &str)| row.0 == name && (row.1 == "*" || row.1 == value);
    if HARMLESS.iter().any(|row| is(&row)) { Ok(()) } else { Err(format!("the setting {name}={value}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_commands() {
        let found = settings(
            "./defaults.sh\nsysctl -q net.ipv4.tcp_rmem=\"4096 540000 7\"\nsysctl -e -q net/ipv4/tcp_ecn=0 > /dev/null",
        );
        let wanted = [
            ("tcp_rmem", "4096 540000 15728640"),
            ("tcp_slow_start_after_idle", "0"),
            ("tcp_syn_retries", "5"),
            ("tcp_rmem", "4096 540000 7"),
            ("tcp_ecn", "0"),
        ];
        assert_eq!(found, Ok(wanted.map(|(name, value)| row(name, value)).to_vec()));
        assert_eq!(settings("grep x /proc/cpuinfo"), Err("the command grep".to_owned()));
        assert_eq!(listed("grep \" 0A \" /proc/net/tcp | grep \":1F90\""), Some((10, 8080)));
        assert_eq!((listed("grep \" 0A \" /proc/net/tcp"), listed("grep \"0A\" x \":1\"")), (None, None));
        let set = settings("sysctl -q net.ipv4.tcp_ecn=1 net.ipv4.tcp_fastopen=0x403");
        assert_eq!(set, Ok(vec![row("tcp_ecn", "1"), row("tcp_fastopen", "0x403")]));
        assert_eq!(number("0x403"), Some(0x403));
        assert_eq!(settings("sysctl -q net.ipv4.tcp_ecn=9"), Err("the setting tcp_ecn=9".to_owned()));
        assert_eq!(settings("sysctl -q net.ipv4.tcp_dsack=0"), Err("the setting tcp_dsack=0".to_owned()));
    }
}
