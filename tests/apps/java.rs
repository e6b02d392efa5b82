//! Java: a Selector's echo server, blocking clients, and a close from another thread.

use super::{Outcome, Run, expect, free_port, script};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    let classes = run.path("");
    run.run("javac", &["-d", &classes, &script("Echo.java")])?;
    let text = port.to_string();
    let java = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", &classes, "Echo"];
    let server = run.server("java", &[&java[..], &["server", &text]].concat(), port)?;
    for part in ["clients", "close"] {
        let found = run.run("java", &[&java[..], &[part, &text]].concat())?;
        expect(found.contains("done"), || format!("Echo {part} prints {found:?}"))?;
    }
    server.stop_by(libc::SIGINT)
}
