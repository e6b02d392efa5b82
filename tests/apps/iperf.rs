//! iperf3 in each direction, with four streams, and both ways at once.

use super::{Outcome, Run, expect, free_port};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    let text = port.to_string();
    let mut server = run.quiet_server("iperf3", &["-s", "-B", run.host(), "-p", &text, "--forceflush"])?;
    let variants = [&["-t", "2"][..], &["-t", "2", "-R"], &["-t", "2", "-P", "4"], &["-t", "2", "--bidir"]];
    for (tests_before, variant) in variants.into_iter().enumerate() {
        // It serves one test at a time, says when it is ready for the next, and refuses until then.
        server.wait_for_log("ready", |log| log.matches("Server listening").count() == tests_before + 1)?;
        let found = run.run("iperf3", &[&["-c", run.host(), "-p", &text, "-f", "m"], variant].concat())?;
        let received: Vec<f64> =
            found.lines().filter(|line| line.contains("receiver")).filter_map(rate).collect();
        let moved = !received.is_empty() && received.iter().all(|mbits| *mbits > 1.0);
        expect(moved, || format!("iperf3 {variant:?} received {received:?} Mbit/s: {found}"))?;
    }
    server.stop()
}

fn rate(line: &str) -> Option<f64> {
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec")?;
    words[unit - 1].parse().ok()
}
