//! socat: a fork and a program per connection, and a stream of 3 MB through both.

use super::{Outcome, Run, expect, free_port, noise, python};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    let host = run.host();
    let listen = format!("TCP4-LISTEN:{port},bind={host},fork,reuseaddr,backlog=64");
    let server = run.server("socat", &[&listen, "EXEC:cat"], port)?;
    let big = noise(3_000_000, 6);
    let found = run.run_with("socat", &["-t", "30", "-", &format!("TCP4:{host}:{port}")], &big)?;
    expect(found.stdout == big, || format!("3,000,000 bytes came back as {} others", found.stdout.len()))?;
    python::echo_clients(run, port, 10)?;
    server.stop()
}
