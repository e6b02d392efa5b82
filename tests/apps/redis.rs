//! redis-server with redis-cli and redis-benchmark: round trips, big values, transactions, messages, a fork under load.

use super::{Outcome, Run, Server, expect, free_port, noise, until};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    let redis = Redis { run, port: port.to_string() };
    let server = redis.start()?;
    redis.round_trips()?;
    let big = noise(1 << 20, 1);
    redis.big_value(&big)?;
    redis.transaction()?;
    redis.messages()?;
    redis.mass_insertion()?;
    redis.stays_accelerated(&server)?;
    redis.save_under_load()?;
    server.stop()?;
    // What the forked child wrote is what the clients sent.
    let server = redis.start()?;
    redis.holds(&big)?;
    let keys = redis.cli(&["GET", "key:4999"])?;
    expect(keys == "value-4999", || format!("after a restart key:4999 holds {keys:?}"))?;
    server.stop()
}

struct Redis<'a> {
    run: &'a Run,
    port: String,
}

impl Redis<'_> {
    fn start(&self) -> Outcome<Server> {
        let dir = self.run.path("");
        let port = self.port.parse().expect("a port");
        let arguments = [
            &["--port", &self.port, "--bind", self.run.host(), "--dir", &dir][..],
            &["--save", "", "--daemonize", "no", "--protected-mode", "no"],
        ]
        .concat();
        self.run.server("redis-server", &arguments, port)
    }

    /// Where it is, as its clients are told.
    fn at(&self) -> [&str; 4] {
        ["-h", self.run.host(), "-p", &self.port]
    }

    fn cli(&self, words: &[&str]) -> Outcome<String> {
        let mut arguments = self.at().to_vec();
        arguments.extend(words);
        Ok(self.run.run("redis-cli", &arguments)?.trim_end().to_string())
    }

    fn round_trips(&self) -> Outcome {
        for number in 0..5 {
            let (key, value) = (format!("k{number}"), format!("v{number}"));
            expect(self.cli(&["SET", &key, &value])? == "OK", || format!("SET {key} is not OK"))?;
            let found = self.cli(&["GET", &key])?;
            expect(found == value, || format!("GET {key} gives {found:?}"))?;
        }
        let found = self.cli(&["-r", "200", "INCR", "counter"])?;
        expect(found.lines().last() == Some("200"), || {
            format!("200 INCR end with {:?}", found.lines().last())
        })
    }

    fn big_value(&self, big: &[u8]) -> Outcome {
        let set = self
            .run
            .run_with("redis-cli", &[&self.at()[..], &["-x", "SET", "big"]].concat(), big)?
            .checked()?;
        expect(set.trim() == "OK", || format!("SET of 1 MiB gives {set:?}"))?;
        self.holds(big)
    }

    fn holds(&self, big: &[u8]) -> Outcome {
        let found =
            self.run.run_with("redis-cli", &[&self.at()[..], &["--raw", "GET", "big"]].concat(), b"")?.stdout;
        expect(found.strip_suffix(b"\n") == Some(big), || {
            format!("GET of 1 MiB gives {} other bytes", found.len())
        })
    }

    fn transaction(&self) -> Outcome {
        let script = b"MULTI\nSET t 1\nINCRBY t 41\nGET t\nEXEC\n";
        let found = self.run.run_with("redis-cli", &self.at(), script)?.checked()?;
        expect(found == "OK\nQUEUED\nQUEUED\nQUEUED\nOK\n42\n42\n", || {
            format!("MULTI … EXEC prints {found:?}")
        })
    }

    fn messages(&self) -> Outcome {
        let mut subscriber =
            self.run.client("redis-cli", &[&self.at()[..], &["SUBSCRIBE", "news"]].concat())?;
        until("the subscription", || Ok(self.cli(&["PUBSUB", "NUMSUB", "news"])?.ends_with('1')))?;
        for number in 0..20 {
            self.cli(&["PUBLISH", "news", &format!("message-{number}")])?;
        }
        subscriber.wait_for("the last message", |text| text.contains("message-19"))?;
        let printed = subscriber.printed();
        let heard: Vec<_> = printed.lines().filter(|line| line.contains("message-")).collect();
        expect(heard.len() == 20, || format!("20 messages were published, {heard:?} were heard"))?;
        subscriber.interrupt()
    }

    /// Ten thousand commands without waiting for an answer.
    fn mass_insertion(&self) -> Outcome {
        let commands: String = (0..10_000).map(|n| format!("SET key:{n} value-{n}\r\n")).collect();
        let found = self
            .run
            .run_with("redis-cli", &[&self.at()[..], &["--pipe"]].concat(), commands.as_bytes())?
            .checked()?;
        expect(found.contains("errors: 0, replies: 10000"), || format!("--pipe says {found:?}"))?;
        for number in [0, 1, 4_999, 9_999] {
            let found = self.cli(&["GET", &format!("key:{number}")])?;
            expect(found == format!("value-{number}"), || format!("key:{number} holds {found:?}"))?;
        }
        self.benchmark(&["-n", "20000", "-c", "10", "-P", "16", "-t", "ping,set,get,incr,lpush"]).map(drop)
    }

    fn benchmark(&self, words: &[&str]) -> Outcome<String> {
        let arguments = [&self.at()[..], &["-q"], words].concat();
        let found = self.run.run("redis-benchmark", &arguments)?;
        expect(found.contains("requests per second"), || format!("redis-benchmark prints {found:?}"))?;
        Ok(found)
    }

    /// A connection that is held open while the server's counters are read.
    fn stays_accelerated(&self, server: &Server) -> Outcome {
        let mut client = self.run.client("redis-cli", &self.at())?;
        for _ in 0..50 {
            client.write("PING\n")?;
        }
        client.wait_for("50 answers", |text| text.matches("PONG").count() == 50)?;
        super::accelerated(self.run, server.id())?;
        client.finish().map(drop)
    }

    /// BGSAVE forks a process that inherits every connection of the server.
    fn save_under_load(&self) -> Outcome {
        let words = ["-q", "-n", "60000", "-c", "20", "-r", "1000", "-t", "set,get"];
        let load = [&self.at()[..], &words].concat();
        let load = self.run.client("redis-benchmark", &load)?;
        for _ in 0..2 {
            self.cli(&["BGSAVE"])?;
            until("BGSAVE", || Ok(self.cli(&["INFO", "persistence"])?.contains("rdb_bgsave_in_progress:0")))?;
            let info = self.cli(&["INFO", "persistence"])?;
            expect(info.contains("rdb_last_bgsave_status:ok"), || format!("BGSAVE failed: {info}"))?;
        }
        let found = load.finish()?;
        expect(found.contains("GET:"), || format!("redis-benchmark prints {found:?}"))?;
        // The load is over: what is saved now is what the restarted server must hold.
        let saved = self.cli(&["SAVE"])?;
        expect(saved == "OK", || format!("SAVE gives {saved:?}"))
    }
}
