//! TLS over openssl's own server and client, and curl's downloads and uploads.

use super::{Outcome, PYTHON, Run, expect, free_port, noise, same_file, script};

/// `openssl s_server` echoing reversed lines, then serving a file of 5 MB.
pub(crate) fn openssl(run: &Run) -> Outcome {
    let (key, cert) = (run.path("key.pem"), run.path("cert.pem"));
    let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    run.run("openssl", &[&make[..], &["-keyout", &key, "-out", &cert]].concat())?;
    reversed_lines(run, &key, &cert)?;
    big_file(run, &key, &cert)
}

fn reversed_lines(run: &Run, key: &str, cert: &str) -> Outcome {
    let port = free_port();
    let accept = format!("{}:{port}", run.host());
    let server = run.server(
        "openssl",
        &["s_server", "-accept", &accept, "-key", key, "-cert", cert, "-rev", "-quiet"],
        port,
    )?;
    let client = ["s_client", "-quiet", "-no_ign_eof", "-CAfile", cert, "-connect", &accept];
    let mut client = run.client("openssl", &client)?;
    for number in 0..50 {
        client.write(&format!("line {number:03}\n"))?;
        let expected: String = format!("line {number:03}").chars().rev().collect();
        client.wait_for(&expected, |text| text.contains(&expected))?;
    }
    client.finish()?;
    server.stop()
}

fn big_file(run: &Run, key: &str, cert: &str) -> Outcome {
    let port = free_port();
    let big = noise(5_000_000, 4);
    run.write("big", &big);
    let accept = format!("{}:{port}", run.host());
    let server = run.server(
        "openssl",
        &["s_server", "-accept", &accept, "-key", key, "-cert", cert, "-WWW", "-quiet"],
        port,
    )?;
    let client = ["s_client", "-quiet", "-CAfile", cert, "-connect", &accept];
    let found = run.run_with("openssl", &client, b"GET /big HTTP/1.0\r\n\r\n")?.stdout;
    let body = found.windows(4).position(|end| end == b"\r\n\r\n").map_or(&[][..], |at| &found[at + 4..]);
    expect(body == big, || format!("s_client got {} other bytes", body.len()))?;
    let out = run.path("by-curl");
    let (url, to) = (format!("https://localhost:{port}/big"), format!("localhost:{port}:{accept}"));
    run.run("curl", &["-sS", "-f", "--cacert", cert, "--connect-to", &to, "-o", &out, &url])?;
    same_file(&out, &big)?;
    server.stop()
}

/// curl against a small threaded server that keeps what is put into it.
pub(crate) fn curl(run: &Run) -> Outcome {
    let port = free_port();
    let _ = std::fs::create_dir(run.path("store"));
    let store = run.path("store");
    let server = run.server(PYTHON, &[&script("store.py"), &port.to_string(), &store], port)?;
    let url = |name: &str| format!("http://{}:{port}/{name}", run.host());
    for (name, size) in [("small", 10), ("middle", 70_000), ("big", 6_000_000)] {
        let contents = noise(size, size as u64);
        let file = run.write(name, &contents);
        run.run("curl", &["-sS", "-f", "-T", &file, &url(name)])?;
        same_file(&format!("{store}/{name}"), &contents)?;
        let out = run.path("downloaded");
        run.run("curl", &["-sS", "-f", "-o", &out, &url(name)])?;
        same_file(&out, &contents)?;
        // A slow reader: the sender meets a full buffer.
        run.run("curl", &["-sS", "-f", "--limit-rate", "6M", "-o", &out, &url(name)])?;
        same_file(&out, &contents)?;
    }
    server.stop()
}
