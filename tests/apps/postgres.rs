//! PostgreSQL: a process per connection, forked by the postmaster, and pgbench as its clients.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Outcome, Run, Server, Side, expect, find, free_port};

/// Where Debian keeps the server's programs, newest first.
pub(crate) const DIRECTORIES: [&str; 4] = [
    "/usr/lib/postgresql/18/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
];

pub(crate) fn programs() -> Option<&'static str> {
    DIRECTORIES.into_iter().find(|dir| find(&format!("{dir}/initdb")).is_some())
}

pub(crate) fn test(run: &Run) -> Outcome {
    let postgres = Postgres { run, bin: programs().ok_or("looked for before")?, port: free_port() };
    let server = postgres.start()?;
    postgres.values()?;
    postgres.bench(&["-i", "-q", "-s", "1"])?;
    postgres.stays_accelerated()?;
    let found = postgres.bench(&["-n", "-S", "-c", "4", "-T", "3"])?;
    without_failures(&found)?;
    let found = postgres.bench(&["-n", "-c", "4", "-T", "3"])?;
    without_failures(&found)?;
    // Each transaction adds one delta in four places: a lost or doubled query would show here.
    let sums =
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)";
    let found = postgres.sql(sums)?;
    let equal = found.trim().split('|').collect::<std::collections::HashSet<_>>().len() == 1;
    expect(equal, || format!("the four sums differ: {found}"))?;
    server.stop_by(libc::SIGINT)
}

fn without_failures(report: &str) -> Outcome {
    let clean = report.contains("number of failed transactions: 0 ") && !report.contains("aborted");
    expect(clean && !report.contains("actually processed: 0\n"), || format!("pgbench: {report}"))
}

struct Postgres<'a> {
    run: &'a Run,
    bin: &'static str,
    port: u16,
}

impl Postgres<'_> {
    /// The server refuses root, and clients share memory with it only under its own user.
    fn as_user(&self, side: Side, program: &str) -> Command {
        let program = format!("{}/{program}", self.bin);
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return self.run.command(side, &program);
        }
        self.run.command_as(side, "postgres", &program)
    }

    fn start(&self) -> Outcome<Server> {
        std::fs::set_permissions(self.run.dir.path(), PermissionsExt::from_mode(0o777))
            .map_err(|e| e.to_string())?;
        let data = self.run.path("data");
        let mut initdb = self.as_user(Side::Near, "initdb");
        initdb.args(["-D", &data, "-A", "trust", "-U", "tester", "--no-sync", "--no-instructions"]);
        self.run.run_of(initdb)?;
        // Clients may come from another host.
        let rule = format!("host all all {}/24 trust\n", self.run.host());
        let hba = std::path::Path::new(&data).join("pg_hba.conf");
        let mut rules = std::fs::read_to_string(&hba).map_err(|e| e.to_string())?;
        rules.push_str(&rule);
        std::fs::write(&hba, rules).map_err(|e| e.to_string())?;
        let mut server = self.as_user(Side::Near, "postgres");
        let sockets = self.run.path("");
        server.args(["-D", &data, "-h", self.run.host(), "-p", &self.port.to_string(), "-k", &sockets]);
        server.args([
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=32MB",
            "-c",
            "ssl=off",
            "-c",
            "logging_collector=off",
        ]);
        let server = self.run.server_of(server, self.port)?;
        // It listens before it answers.
        super::until("the server to answer", || Ok(self.sql("SELECT 1").is_ok_and(|one| one.trim() == "1")))?;
        Ok(server)
    }

    fn connection(&self) -> [String; 6] {
        let port = self.port.to_string();
        ["-h", self.run.host(), "-p", &port, "-U", "tester"].map(str::to_string)
    }

    fn sql(&self, statement: &str) -> Outcome<String> {
        let mut psql = self.as_user(Side::Far, "psql");
        psql.args(self.connection()).args([
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            "postgres",
        ]);
        self.run.run_of(psql)
    }

    fn bench(&self, words: &[&str]) -> Outcome<String> {
        let mut pgbench = self.as_user(Side::Far, "pgbench");
        pgbench.args(self.connection()).args(words).arg("postgres");
        self.run.run_of(pgbench)
    }

    /// A value of 3 MB there and back, by COPY and by SELECT.
    fn values(&self) -> Outcome {
        let found = self.sql("SELECT md5(repeat('accel', 600000)), length(repeat('accel', 600000))")?;
        let [hash, length] = found.trim().split('|').collect::<Vec<_>>()[..] else {
            return Err(format!("SELECT gives {found:?}"));
        };
        let long = self.sql("SELECT repeat('accel', 600000)")?;
        let right = long.trim_end() == "accel".repeat(600_000);
        expect(right && length == "3000000", || format!("3,000,000 bytes became {} ({hash})", long.len()))?;
        let rows = self.sql("SELECT generate_series(1, 200000)")?;
        expect(rows.lines().count() == 200_000, || format!("200,000 rows became {}", rows.lines().count()))
    }

    /// One psql session is held open while its server process' counters are read.
    fn stays_accelerated(&self) -> Outcome {
        let mut psql = self.as_user(Side::Far, "psql");
        psql.args(self.connection()).args(["-X", "-A", "-t", "postgres"]);
        let mut client = super::Client::start(psql, self.run.dir.path())?;
        client.write("SELECT 'pid ' || pg_backend_pid();\n")?;
        for number in 0..200 {
            client.write(&format!("SELECT 'n {number}';\n"))?;
        }
        client.wait_for("200 answers", |text| text.contains("n 199"))?;
        let printed = client.printed();
        let pid = printed.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
        super::accelerated(self.run, pid.ok_or_else(|| format!("psql prints {printed:?}"))?)?;
        client.finish().map(drop)
    }
}
