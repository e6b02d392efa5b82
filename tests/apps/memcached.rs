//! memcached with two threads, and fifty connections of a small client that checks what it gets.

use super::{Outcome, PYTHON, Run, free_port, script};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    let text = port.to_string();
    let server =
        run.server("memcached", &["-u", "root", "-l", run.host(), "-p", &text, "-U", "0", "-t", "2"], port)?;
    let mut client = run.client(PYTHON, &[&script("memcached_client.py"), &text, "50", "40"])?;
    // It keeps its connections until its standard input ends.
    client.wait_for("every value checked", |text| text.contains("checked"))?;
    super::accelerated(run, server.id())?;
    client.finish()?;
    server.stop()
}
