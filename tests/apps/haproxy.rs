//! haproxy before nginx, taking requests apart (http) and passing bytes on (tcp).

use super::{Outcome, Run, free_port, nginx};

pub(crate) fn test(run: &Run) -> Outcome {
    let behind = nginx::Nginx::start(run, 1, "on")?;
    let host = run.host();
    for mode in ["http", "tcp"] {
        let port = free_port();
        let config = run.write(
            &format!("haproxy-{mode}.cfg"),
            format!(
                "global\n nbthread 2\n\
                 defaults\n mode {mode}\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
                 frontend f\n bind {host}:{port}\n default_backend b\n\
                 backend b\n server s {host}:{}\n",
                behind.port()
            ),
        );
        let server = run.server("haproxy", &["-db", "-f", &config], port)?;
        nginx::download(run, port)
            .and_then(|()| nginx::load(run, port))
            .map_err(|why| format!("{mode}: {why}"))?;
        server.stop().map_err(|why| format!("{mode}: {why}"))?;
    }
    behind.stop()
}
