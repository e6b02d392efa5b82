//! An rsync daemon: a tree there and back.

use super::{Outcome, Run, free_port, noise, same_file};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    for name in ["from", "there", "back"] {
        std::fs::create_dir(run.path(name)).map_err(|e| e.to_string())?;
    }
    let files: Vec<_> =
        [0, 1, 4_000, 300_000, 4_000_000].map(|size| (format!("file-{size}"), noise(size, 7))).into();
    for (name, contents) in &files {
        run.write(&format!("from/{name}"), contents);
    }
    let config = run.write(
        "rsyncd.conf",
        format!(
            "use chroot = no\nuid = root\ngid = root\n[m]\npath = {}\nread only = no\n",
            run.path("there")
        ),
    );
    let text = port.to_string();
    let daemon = [
        "--daemon",
        "--no-detach",
        &format!("--address={}", run.host()),
        "--log-file=/dev/stderr",
        "--config",
        &config,
        "--port",
    ];
    let server = run.server("rsync", &[&daemon[..], &[&text]].concat(), port)?;
    let url = format!("rsync://{}:{port}/m/", run.host());
    run.run("rsync", &["-a", &run.path("from/"), &url])?;
    run.run("rsync", &["-a", &url, &run.path("back/")])?;
    for (name, contents) in &files {
        same_file(&run.path(&format!("there/{name}")), contents)?;
        same_file(&run.path(&format!("back/{name}")), contents)?;
    }
    server.stop()
}
