//! node: an http server, and a client whose requests share a few kept-alive connections.

use super::{Outcome, Run, expect, free_port, script};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port().to_string();
    let number = port.parse().expect("a port");
    let server = run.server("node", &[&script("http.js"), "server", &port], number)?;
    let found = run.run("node", &[&script("http.js"), "client", &port, "200"])?;
    expect(found.contains("200 answers"), || format!("the client prints {found:?}"))?;
    server.stop()
}
