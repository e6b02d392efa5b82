//! Three ways in which Python programs serve: asyncio, a thread per connection, processes that share a listener.

use super::{Outcome, PYTHON, Run, free_port, script};

pub(crate) fn asyncio(run: &Run) -> Outcome {
    serve(run, "asyncio")
}

pub(crate) fn threads(run: &Run) -> Outcome {
    serve(run, "threads")
}

pub(crate) fn prefork(run: &Run) -> Outcome {
    serve(run, "prefork")
}

fn serve(run: &Run, kind: &str) -> Outcome {
    let port = free_port();
    let server = run.server(PYTHON, &[&script("echo_server.py"), kind, &port.to_string()], port)?;
    echo_clients(run, port, 100)?;
    server.stop()
}

/// Clients that talk at once and check every byte that comes back.
pub(crate) fn echo_clients(run: &Run, port: u16, count: u32) -> Outcome {
    run.run(PYTHON, &[&script("echo_client.py"), &port.to_string(), &count.to_string()]).map(drop)
}
