//! nginx with one and four workers: a big file with and without sendfile, keep-alive, load, reloads under load.

use std::time::{Duration, Instant};

use super::{Outcome, Run, Server, expect, free_port, noise, same_file, until};

/// The big file's name and size.
const BIG: (&str, usize) = ("big.txt", 10_000_000);

pub(crate) fn test(run: &Run) -> Outcome {
    for (workers, sendfile) in [(1, "on"), (1, "off"), (4, "on"), (4, "off")] {
        one(run, workers, sendfile)
            .map_err(|why| format!("{workers} workers, sendfile {sendfile}: {why}"))?;
    }
    Ok(())
}

pub(crate) fn reload(run: &Run) -> Outcome {
    let nginx = Nginx::start(run, 4, "on")?;
    let url = nginx.url("small.txt");
    // Each request is a connection of its own: a worker that leaves may lose none of them.
    let load = run.client("ab", &["-q", "-t", "4", "-n", "1000000", "-c", "8", &url])?;
    for _ in 0..3 {
        nginx.reload()?;
    }
    let report = load.finish()?;
    let failed = report.lines().find(|line| line.starts_with("Failed requests:")).unwrap_or("no report");
    expect(failed.ends_with(" 0"), || format!("ab during reloads: {failed}"))?;
    expect(!report.contains("Non-2xx"), || format!("ab during reloads: {report}"))?;
    nginx.download()?;
    nginx.stop()
}

fn one(run: &Run, workers: u32, sendfile: &str) -> Outcome {
    let nginx = Nginx::start(run, workers, sendfile)?;
    nginx.download()?;
    nginx.keep_alive()?;
    nginx.load()?;
    nginx.stop()
}

/// A running nginx.
pub(crate) struct Nginx<'a> {
    run: &'a Run,
    port: u16,
    conf: String,
    server: Server,
}

impl<'a> Nginx<'a> {
    pub(crate) fn start(run: &'a Run, workers: u32, sendfile: &str) -> Outcome<Self> {
        let port = free_port();
        let (dir, host) = (run.path(""), run.host());
        let _ = std::fs::create_dir(run.path("html"));
        run.write(&format!("html/{}", BIG.0), noise(BIG.1, 2));
        run.write("html/small.txt", noise(612, 3));
        // Workers keep the master's user: clients and workers share memory only under one user.
        let conf = run.write(
            &format!("nginx-{port}.conf"),
            format!(
                "daemon off; user root; worker_processes {workers}; pid {dir}/nginx-{port}.pid; error_log stderr;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; sendfile {sendfile}; tcp_nopush {sendfile}; keepalive_requests 100000;\n\
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
                 uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
                 server {{ listen {host}:{port}; root {dir}/html; }} }}\n"
            ),
        );
        let server = run.server("nginx", &["-p", &dir, "-c", &conf], port)?;
        Ok(Self { run, port, conf, server })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}:{}/{name}", self.run.host(), self.port)
    }

    pub(crate) fn stop(self) -> Outcome {
        expect(!self.server.log().contains("[alert]"), || self.server.log())?;
        self.server.stop_by(libc::SIGQUIT)
    }

    fn download(&self) -> Outcome {
        download(self.run, self.port)
    }

    /// Twenty requests of one client use one connection.
    fn keep_alive(&self) -> Outcome {
        let url = self.url("small.txt");
        let mut arguments = vec!["-sS", "-f", "-w", "%{num_connects}\n"];
        for _ in 0..20 {
            arguments.extend(["-o", "/dev/null", &url]);
        }
        let found = self.run.run("curl", &arguments)?;
        let connects: Vec<_> = found.lines().collect();
        let expected: Vec<_> = std::iter::once("1").chain(std::iter::repeat_n("0", 19)).collect();
        expect(connects == expected, || format!("connections made by 20 requests: {connects:?}"))
    }

    /// Keep-alive load, and a look at the workers' counters while its connections are open.
    fn load(&self) -> Outcome {
        let wrk = self.run.client("wrk", &["-t", "1", "-c", "10", "-d", "2", &self.url("small.txt")])?;
        let deadline = Instant::now() + Duration::from_millis(1800);
        let mut seen = super::accelerated(self.run, self.server.id());
        while seen.is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            seen = super::accelerated(self.run, self.server.id());
        }
        check_report(&wrk.finish()?)?;
        seen
    }

    fn reload(&self) -> Outcome {
        let before = self.workers()?;
        self.run.run_near("nginx", &["-p", &self.run.path(""), "-c", &self.conf, "-s", "reload"])?;
        until("new workers", || {
            let now = self.workers()?;
            Ok(!now.is_empty() && now.iter().all(|pid| !before.contains(pid)))
        })
    }

    fn workers(&self) -> Outcome<Vec<String>> {
        let path = format!("/proc/{0}/task/{0}/children", self.server.id());
        let children = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(children.split_whitespace().map(str::to_string).collect())
    }
}

/// The big file through whatever listens on `port`.
pub(crate) fn download(run: &Run, port: u16) -> Outcome {
    let out = run.path("downloaded");
    run.run("curl", &["-sS", "-f", "-o", &out, &format!("http://{}:{port}/{}", run.host(), BIG.0)])?;
    same_file(&out, &noise(BIG.1, 2))
}

/// A second of keep-alive load through whatever listens on `port`.
pub(crate) fn load(run: &Run, port: u16) -> Outcome {
    let url = format!("http://{}:{port}/small.txt", run.host());
    let report = run.run("wrk", &["-t", "1", "-c", "10", "-d", "1", &url])?;
    check_report(&report)
}

fn check_report(report: &str) -> Outcome {
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in "));
    let count: u64 = requests.and_then(|(count, _)| count.parse().ok()).unwrap_or(0);
    let clean = !report.contains("Socket errors") && !report.contains("Non-2xx");
    expect(count > 100 && clean, || format!("wrk: {report}"))
}
