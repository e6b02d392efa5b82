//! sshd with a key and a configuration of its own: a command, and files there and back.

use super::{Outcome, Run, expect, free_port, noise, same_file};

pub(crate) fn test(run: &Run) -> Outcome {
    let port = free_port();
    // sshd insists on this directory; on a machine that never ran it nobody has made it.
    let _ = std::fs::create_dir("/run/sshd");
    let (host, key) = (run.path("host"), run.path("key"));
    for file in [&host, &key] {
        run.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", file])?;
    }
    let address = run.host();
    let at = format!("root@{address}");
    let config = run.write(
        "sshd_config",
        format!(
            "Port {port}\nListenAddress {address}\nHostKey {host}\nAuthorizedKeysFile {key}.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
        ),
    );
    let server = run.server("/usr/sbin/sshd", &["-D", "-e", "-f", &config], port)?;
    let ssh = Ssh { run, port: port.to_string(), key };
    let found = ssh.run("ssh", "-p", &[&at, "echo", "hello from there"])?;
    expect(found == "hello from there\n", || format!("echo prints {found:?}"))?;
    let big = noise(5_000_000, 5);
    let (here, there, back) = (run.write("big", &big), run.path("there"), run.path("back"));
    ssh.run("scp", "-P", &[&here, &format!("{at}:{there}")])?;
    same_file(&there, &big)?;
    ssh.run("scp", "-P", &[&format!("{at}:{there}"), &back])?;
    same_file(&back, &big)?;
    let counted = ssh.run("ssh", "-p", &[&at, "head", "-c", "3000000", "/dev/zero"])?;
    expect(counted.len() == 3_000_000, || format!("3,000,000 bytes became {}", counted.len()))?;
    server.stop()
}

struct Ssh<'a> {
    run: &'a Run,
    port: String,
    key: String,
}

impl Ssh<'_> {
    fn run(&self, program: &str, port_flag: &str, words: &[&str]) -> Outcome<String> {
        let known = format!("UserKnownHostsFile={}", self.run.path("known"));
        let mut arguments =
            vec!["-F", "none", "-i", &self.key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"];
        arguments.extend(["-o", "StrictHostKeyChecking=no", "-o", &known, "-o", "LogLevel=ERROR"]);
        arguments.extend([port_flag, &self.port]);
        arguments.extend(words);
        self.run.run(program, &arguments)
    }
}
